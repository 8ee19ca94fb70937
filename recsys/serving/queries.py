"""Vectors of queries from a bundle, on the CPU, without torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.data.dataset import NumericEncoder
from recsys.data.source import Data
from recsys.schema import Schema
from recsys.serving.dense import DensePart, dense_inputs
from recsys.serving.encode import Vocabulary, encode
from recsys.serving.manifest import BundleFeature
from recsys.serving.quantise import Table
from recsys.serving.scorer import BATCH_ROWS, typed_frames

OUTPUT = "vector"
"""Name of what the query tower's graph gives."""


@dataclass(frozen=True)
class QueryEncoder:
    """Vectors of raw rows' queries, to search an index of the same bundle's items with.

    >>> bundle = Bundle.load("bundle")  # doctest: +SKIP
    >>> queries = bundle.query_encoder().encode(pl.DataFrame({"user_id": [7]}))  # doctest: +SKIP
    >>> Index.open("index", tower="bundle").search(queries, k=20)  # doctest: +SKIP
    """

    schema: Schema
    """Its features are the columns that are read, those of the query alone."""
    features: Sequence[BundleFeature]
    numerics: Mapping[str, NumericEncoder]
    vocabularies: Mapping[str, Vocabulary]
    tables: Mapping[str, Table]
    dense: DensePart
    dim: int
    interests: int = 1
    """Vectors of a query."""

    def encode(self, data: Data) -> NDArray[np.float32]:
        """Vectors ``[N, dim]`` float32 of N raw rows, in their order; ``[N, interests, dim]`` where there
        are several.

        Args:
            data: a polars, pandas or Arrow table, or a Parquet path, folder or glob; columns of items
                are not needed.

        Raises:
            SchemaError: a feature's column is missing, or a value is not of its type.
            DataError: a file cannot be read.
        """
        return np.concatenate([self._none(), *self.pieces(data)])

    def pieces(self, data: Data) -> Iterator[NDArray[np.float32]]:
        """``encode`` in pieces, in the order of the rows, for logs larger than memory."""
        yield from map(self.encode_typed, typed_frames(data, self.schema))

    def encode_typed(
        self, frame: pl.DataFrame, tables: Mapping[str, Table] | None = None
    ) -> NDArray[np.float32]:
        """Vectors of a frame whose columns are of the schema's types already; ``tables`` takes the place of
        the bundle's own."""
        vectors = [self._none()]
        for start in range(0, frame.height, BATCH_ROWS):
            part = frame[start : start + BATCH_ROWS]
            rows = encode(part, self.features, self.numerics, self.vocabularies)
            inputs = dense_inputs(rows, self.features, self.tables if tables is None else tables)
            vectors.append(self.dense.run(inputs))
        return np.concatenate(vectors)

    def _none(self) -> NDArray[np.float32]:
        return np.empty((0, self.dim) if self.interests == 1 else (0, self.interests, self.dim), np.float32)
