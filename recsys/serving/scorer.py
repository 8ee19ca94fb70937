"""Score rows of a log from a bundle, on the CPU, without torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.data.check import check_columns, check_values, reading, typed_columns
from recsys.data.crosses import with_crosses
from recsys.data.dataset import NumericEncoder
from recsys.data.source import Data, open_source
from recsys.progress import say
from recsys.schema import Schema
from recsys.serving.dense import DensePart, EncodedRows, dense_inputs
from recsys.serving.encode import Vocabulary, encode
from recsys.serving.manifest import BundleFeature
from recsys.serving.quantise import Table

READ_ROWS = 1 << 18
"""Rows of a file held in memory at a time."""
CHUNK_ROWS = 1 << 16
"""Rows encoded at a time: enough to spread the cost of distinct values, little to hold in memory."""
BATCH_ROWS = 4096
"""Rows given to the dense part at a time."""


@dataclass(frozen=True)
class Scorer:
    """Scores raw rows of a log.

    >>> scorer = Bundle.load("bundle").scorer()  # doctest: +SKIP
    >>> scorer.score(pl.DataFrame({"user": ["u1"], "item": ["i9"]}))  # doctest: +SKIP
    array([0.0421], dtype=float32)
    """

    schema: Schema
    """Its features are the columns that are read; other columns of a log are ignored."""
    features: Sequence[BundleFeature]
    numerics: Mapping[str, NumericEncoder]
    vocabularies: Mapping[str, Vocabulary]
    tables: Mapping[str, Table]
    dense: DensePart

    def score(self, data: Data) -> NDArray[np.float32]:
        """Probabilities ``[N]`` float32 of N raw rows, in their order.

        Args:
            data: a polars, pandas or Arrow table, or a Parquet path, folder or glob.

        Raises:
            SchemaError: a feature's column is missing, or a value is not of its type.
            DataError: a file cannot be read.
        """
        return np.concatenate(list(self.scores(data)))

    def scores(self, data: Data) -> Iterator[NDArray[np.float32]]:
        """``score`` in pieces, in the order of the rows, for logs larger than memory."""
        yield from map(self.score_typed, typed_frames(data, self.schema))

    def score_typed(
        self, frame: pl.DataFrame, tables: Mapping[str, Table] | None = None
    ) -> NDArray[np.float32]:
        """Probabilities ``[N]`` of a frame whose columns are of the schema's types already."""
        scores = np.empty(frame.height, np.float32)
        for start in range(0, frame.height, CHUNK_ROWS):
            part = frame[start : start + CHUNK_ROWS]
            rows = encode(part, self.features, self.numerics, self.vocabularies)
            scores[start : start + rows.count] = self.score_encoded(rows, tables)
        return scores

    def score_encoded(
        self, rows: EncodedRows, tables: Mapping[str, Table] | None = None
    ) -> NDArray[np.float32]:
        """Probabilities ``[B]`` of encoded rows; ``tables`` takes the place of the bundle's own."""
        scores = np.empty(rows.count, np.float32)
        for start in range(0, rows.count, BATCH_ROWS):
            part = rows[start : start + BATCH_ROWS]
            inputs = dense_inputs(part, self.features, self.tables if tables is None else tables)
            scores[start : start + part.count] = probability(self.dense.logit(inputs))
        return scores


def typed_frames(data: Data, schema: Schema) -> Iterator[pl.DataFrame]:
    """Raw rows in pieces, their columns checked and cast to the schema's types."""
    source = with_crosses(open_source(data), schema)
    check_columns(source.columns, schema, source.name, label=False)
    for name, treatment in check_values(source, schema, label=False).items():
        say(f"{name}: {treatment}")
    rows = source.lazy().select(typed_columns(source.columns, schema, label=False))
    with reading(source):
        yield from rows.collect_batches(chunk_size=READ_ROWS, maintain_order=True, lazy=True)


def probability(logit: NDArray[np.float32]) -> NDArray[np.float32]:
    """``1 / (1 + exp(-logit))`` ``[B]`` float32, computed in float64 so that no logit overflows."""
    bounded = np.clip(logit.astype(np.float64), -700.0, 700.0)
    return (1.0 / (1.0 + np.exp(-bounded))).astype(np.float32)
