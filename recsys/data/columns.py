"""Encoded rows in memory, laid out so that any set of rows is gathered in a few numpy calls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recsys.data.dataset import GROUP, LABEL, WEIGHT, Feature
from recsys.schema import RAGGED


@dataclass(frozen=True)
class Ragged:
    """Lists of ids: row i holds ``values[offsets[i]:offsets[i + 1]]``."""

    values: NDArray[np.int64]
    offsets: NDArray[np.int64]

    def take(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Values of these rows one after the other, and their lengths ``[len(rows)]``."""
        starts = self.offsets[rows]
        lengths = self.offsets[rows + 1] - starts
        ends = np.cumsum(lengths)
        total = int(ends[-1]) if len(ends) else 0
        shift = np.repeat(starts - (ends - lengths), lengths)
        return self.values[shift + np.arange(total, dtype=np.int64)], lengths


@dataclass(frozen=True)
class Columns:
    """All columns of some encoded rows.

    Single ids stand in one matrix ``[rows, features]``, so that a row's ids share cache lines.
    """

    single: tuple[str, ...]
    ids: NDArray[np.int64]
    """``[rows, len(single)]``."""
    ragged: dict[str, Ragged]
    numeric: tuple[str, ...]
    numbers: NDArray[np.float32]
    """``[rows, len(numeric)]``, NaN where missing."""
    label: NDArray[np.float32]
    weight: NDArray[np.float32] | None
    group: NDArray[np.int64] | None

    @property
    def rows(self) -> int:
        return int(self.label.shape[0])

    @classmethod
    def of(cls, table: pa.Table, features: Sequence[Feature]) -> Columns:
        """Lay out an Arrow table of the dataset's row format."""
        single = tuple(feature.name for feature in features if feature.kind == "categorical")
        numeric = tuple(feature.name for feature in features if feature.kind == "numeric")
        names = set(table.column_names)
        return cls(
            single=single,
            ids=_matrix([_flat(table, name, np.int64) for name in single], table.num_rows, np.int64),
            ragged={f.name: _ragged(table.column(f.name)) for f in features if f.kind in RAGGED},
            numeric=numeric,
            numbers=_matrix(
                [_flat(table, name, np.float32) for name in numeric], table.num_rows, np.float32
            ),
            label=_flat(table, LABEL, np.float32),
            weight=_flat(table, WEIGHT, np.float32) if WEIGHT in names else None,
            group=_flat(table, GROUP, np.int64) if GROUP in names else None,
        )


def column_names(features: Sequence[Feature], available: Sequence[str]) -> list[str]:
    """Columns of a row file that training reads."""
    extra = [name for name in (LABEL, WEIGHT, GROUP) if name in available]
    return [feature.name for feature in features] + extra


def _flat(table: pa.Table, name: str, dtype: type) -> NDArray[Any]:
    """A column as a numpy array; a missing number becomes NaN."""
    return np.asarray(table.column(name).to_numpy(), dtype=dtype)


def _matrix(columns: list[NDArray[Any]], rows: int, dtype: type) -> NDArray[Any]:
    matrix: NDArray[Any] = np.empty((rows, len(columns)), dtype=dtype)
    for index, column in enumerate(columns):
        matrix[:, index] = column
    return matrix


def _ragged(column: pa.ChunkedArray) -> Ragged:
    values, lengths = [np.empty(0, np.int64)], [np.zeros(1, np.int64)]
    for chunk in column.chunks:
        offsets = np.asarray(chunk.offsets, dtype=np.int64)
        values.append(np.asarray(chunk.values, dtype=np.int64)[offsets[0] : offsets[-1]])
        lengths.append(np.diff(offsets))
    return Ragged(np.concatenate(values), np.cumsum(np.concatenate(lengths)))
