"""Labels as class numbers: two classes, several, or a number cut into classes of equal mass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.data.check import first_row, reading, require_column
from recsys.data.source import Source
from recsys.data.types import is_scalar, spelled
from recsys.errors import DataError, SchemaError
from recsys.ranking.binning import Bins, fine_bins, weighted_bins
from recsys.ranking.spread import Spread

MOST_CLASSES = 100
"""Distinct values of a text label at most."""
FEW_NUMBERS = 20
"""Whole numbers with no more distinct values are classes; others are cut into ``NUMBER_CLASSES``."""
NUMBER_CLASSES = 10
_SURELY_MANY = 4 * MOST_CLASSES


@dataclass(frozen=True)
class Label:
    """How a label column becomes class numbers."""

    column: str
    kind: Literal["binary", "classes", "numeric"]
    names: tuple[str, ...]
    """``[C]`` for people."""
    values: pl.Series | None
    """``[C]`` value of each class, sorted; None where numbers are binned."""
    bins: Bins | None = None

    def number(self, rows: pl.Series) -> NDArray[np.int64]:
        """Class numbers ``[N]`` of label values ``[N]``."""
        if self.bins is not None:
            return self.bins.number(rows.cast(pl.Float64).to_numpy())
        assert self.values is not None
        if self.names == ("0", "1"):
            return rows.cast(pl.Int64).to_numpy()
        classes = pl.Series(range(len(self.values)), dtype=pl.Int64)
        return rows.replace_strict(self.values, classes, return_dtype=pl.Int64).to_numpy()


def open_label(source: Source, column: str, spread: Spread) -> Label:
    """See what the label of some rows is; reads that column, twice where it is a number.

    Raises SchemaError for a column that is missing or of a type that is no label, DataError where a
    row has none, all rows have the same, numbers make one class, or a text label has more than 100
    values.
    """
    dtype = require_column(column, source.columns, f"{source.name} (label)")
    if not is_scalar(dtype) or dtype in (pl.Datetime, pl.Null):
        raise SchemaError(
            f"{source.name}: label {column!r} is a {spelled(dtype)}; "
            "expected numbers, booleans or text, one value per row"
        )
    value = pl.col(column)
    bad = value.is_null() if not dtype.is_float() else ~value.is_finite().fill_null(False)
    with reading(source):
        wrong, distinct = (
            source.lazy()
            .select(bad.sum().alias("bad"), value.approx_n_unique().alias("distinct"))
            .collect(engine="streaming")
            .row(0)
        )
    if wrong:
        where, found = first_row(source, column, bad)
        raise DataError(
            f"{where}: label {column!r} is {found!r}, and so it is missing in {wrong} of {source.rows()} "
            "rows; leave these rows out or give them a label"
        )
    values = _distinct(source, column) if distinct <= _SURELY_MANY else None
    if values is not None and len(values) == 1:
        raise DataError(
            f"{source.name}: label {column!r} holds only {values[0]!r} in all {source.rows()} rows; "
            "nothing can be ranked by a constant: look at the label and at the split"
        )
    if dtype.is_numeric() and (values is None or len(values) > _most(values)):
        return _binned(source, column, spread)
    if values is None or len(values) > MOST_CLASSES:
        raise DataError(
            f"{source.name}: label {column!r} has {distinct if values is None else len(values)} "
            f"distinct values; a label of text has at most {MOST_CLASSES}"
        )
    names = tuple(_name(value) for value in values.to_list())
    return Label(column, "binary" if len(values) == 2 else "classes", names, values)


def _most(values: pl.Series) -> int:
    """Numbers up to which each is a class of its own."""
    if values.dtype.is_float() and not bool((values == values.round()).all()):
        return NUMBER_CLASSES
    return FEW_NUMBERS


def _name(value: object) -> str:
    """A class as people write it: 1 for 1.0 and for true."""
    if isinstance(value, bool | float) and float(value).is_integer():
        return str(int(value))
    return str(value)


def _distinct(source: Source, column: str) -> pl.Series:
    with reading(source):
        return source.lazy().select(column).unique().collect(engine="streaming")[column].sort()


def _binned(source: Source, column: str, spread: Spread) -> Label:
    """Classes of equal mass of a number; a value that is heavy has its own."""
    parts, start = [], 0
    with reading(source):
        for frame in source.lazy().select(pl.col(column).cast(pl.Float64)).collect_batches(lazy=True):
            parts.append(spread.of(frame, start).to_series().to_numpy())
            start += frame.height
    values = np.concatenate(parts)
    if spread.is_whole or len(np.unique(values)) > NUMBER_CLASSES:
        bins = fine_bins(values, NUMBER_CLASSES)
    else:
        bins = _bins_of_all_rows(source, column)
    if bins.size < 2:
        raise DataError(
            f"{source.name}: the numbers of label {column!r} differ by less than a float64 can hold "
            f"(all are {values[0]:.17g}), so they make one class; subtract an offset, or use text"
        )
    edges = [f"{edge:.6g}" for edge in bins.edges.tolist()]
    lows, highs = ["", *edges], [*edges, ""]
    names = tuple(
        f"≤ {high}" if not low else f"> {low}" if not high else f"{low} – {high}"
        for low, high in zip(lows, highs, strict=True)
    )
    return Label(column, "numeric", names, None, bins)


def _bins_of_all_rows(source: Source, column: str) -> Bins:
    """For numbers of which nearly all are the same few, so that a sample holds hardly any other."""
    with reading(source):
        counts = (
            source.lazy()
            .group_by(pl.col(column).cast(pl.Float64))
            .len("rows")
            .sort(column)
            .collect(engine="streaming")
        )
    return weighted_bins(
        counts[column].to_numpy(), counts["rows"].to_numpy().astype(np.int64), NUMBER_CLASSES
    )
