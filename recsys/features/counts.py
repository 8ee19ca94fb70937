"""Joint counts of (value, label): everything that ranking knows of a column is arithmetic on them.

Counts of two sets of rows merge to the counts of both, so that the same code can later run on many
files or machines.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.schema import Column, Schema

NUMERIC_BINS = 32


@dataclass(frozen=True)
class JointCounts:
    """Rows and positive rows per value of one column; a missing value is a value of its own."""

    frame: pl.DataFrame
    """``value``, ``rows`` int64, ``positives`` int64; one line per value."""

    def merge(self, other: JointCounts) -> JointCounts:
        """Counts of both sets of rows together."""
        both = pl.concat([self.frame, other.frame])
        return JointCounts(both.group_by("value").agg(pl.col("rows").sum(), pl.col("positives").sum()))

    @property
    def rows(self) -> NDArray[np.int64]:
        """Rows per value ``[values]``."""
        return self.frame["rows"].to_numpy()

    @property
    def positives(self) -> NDArray[np.int64]:
        """Rows with label 1 per value ``[values]``."""
        return self.frame["positives"].to_numpy()

    @property
    def missing(self) -> int:
        """Rows without a value."""
        return int(self.frame.filter(pl.col("value").is_null())["rows"].sum())


def joint_counts(rows: pl.LazyFrame, schema: Schema, label: str) -> dict[str, JointCounts]:
    """Count every feature against the label in one streaming pass.

    A numeric column is cut into at most 32 bins of equal row counts. A list counts once for each of
    its elements, an empty one as missing.

    Args:
        rows: train rows with raw values.
        schema: which columns are features, and of what kind.
        label: name of the 0/1 column.
    """
    edges = _bin_edges(rows, schema)
    label_column = pl.col(label).cast(pl.Int64)
    queries = []
    for name, column in schema.features.items():
        values = _values(name, column, edges.get(name))
        picked = rows.select(values.alias("value"), label_column.alias("label"))
        if column.is_ragged:
            picked = picked.explode("value", empty_as_null=True, keep_nulls=True)
        counted = picked.group_by("value").agg(
            pl.len().cast(pl.Int64).alias("rows"), pl.col("label").sum().alias("positives")
        )
        queries.append(counted)
    frames = pl.collect_all(queries, engine="streaming")
    return {
        name: JointCounts(frame.sort("value")) for name, frame in zip(schema.features, frames, strict=True)
    }


def _values(name: str, column: Column, edges: list[float] | None) -> pl.Expr:
    """The values that a column is counted by."""
    if edges is None:
        return pl.col(name)
    number = _finite(name)
    return (
        pl.when(number.is_null())
        .then(None)
        .otherwise(pl.sum_horizontal([(number > edge).cast(pl.Int64) for edge in edges] or [pl.lit(0)]))
    )


def _bin_edges(rows: pl.LazyFrame, schema: Schema) -> dict[str, list[float]]:
    """Inner bin edges of the numeric features: distinct quantiles of their finite values."""
    names = [name for name, column in schema.features.items() if column.kind == "numeric"]
    if not names:
        return {}
    shares = [share / NUMERIC_BINS for share in range(1, NUMERIC_BINS)]
    quantiles = rows.select(
        pl.concat_list([_finite(name).quantile(share) for share in shares]).alias(name) for name in names
    ).collect(engine="streaming")
    return {
        name: sorted({float(edge) for edge in quantiles[name][0].to_list() if edge is not None})
        for name in names
    }


def _finite(name: str) -> pl.Expr:
    number = pl.col(name).cast(pl.Float64)
    return pl.when(number.is_finite()).then(number)
