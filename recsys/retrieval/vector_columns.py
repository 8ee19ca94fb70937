"""Vectors in a column of Parquet: lists of numbers, or of several interests each, lists of such lists."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
from numpy.typing import NDArray

from recsys.data.check import reading, require_column
from recsys.data.types import element_type
from recsys.errors import DataError, SchemaError

_FIRST_ROWS = 1_024
"""Rows read at a time to see how wide vectors are."""
_INTERESTS = 8
"""Interests that a block has room for, for each row that it may hold; with more it holds fewer rows."""


def vector_column_of(
    spec: str, given: str | None, schema: Mapping[str, pl.DataType], *, interests: bool
) -> str:
    """The stated column, or the only one of vectors, of floats where several are of numbers.

    ``interests``: lists of vectors count too. Raises SchemaError where that is none, or several are.
    """
    numbers = {
        name: element_type(element_type(dtype)) if interests else element_type(dtype)
        for name, dtype in schema.items()
        if isinstance(dtype, pl.List | pl.Array)
    }
    lists = [name for name, dtype in numbers.items() if dtype.is_numeric()]
    if given is not None:
        require_column(given, schema, spec)
        if given not in lists:
            raise SchemaError(f"{spec}: column {given!r}: expected lists of numbers, found {schema[given]}")
        return given
    lists = [name for name in lists if numbers[name].is_float()] or lists
    if len(lists) != 1:
        found = ", ".join(map(repr, lists)) or "none"
        raise SchemaError(
            f"{spec}: expected one column of vectors, found {found}; name it by vector_column"
        )
    return lists[0]


def width_of(spec: str, files: Sequence[Path], column: str) -> int:
    """Length of the first vector that is there; 0 where none is."""
    with reading(spec):
        for file in files:
            for batch in pq.ParquetFile(file).iter_batches(_FIRST_ROWS, columns=[column]):
                vectors = _lists(pl.Series(column, batch.column(0)))
                if _has_interests(vectors):
                    vectors = _lists(vectors.explode())
                lengths = vectors.list.len().fill_null(0)
                if (there := lengths.filter(lengths > 0)).len():
                    return int(there[0])
    return 0


def vector_blocks(
    column: pl.Series, dim: int, name: str, first_row: int, size: int
) -> Iterator[NDArray[np.float32]]:
    """The vectors of neighbouring rows, in order.

    Args:
        column: at most ``size`` rows.
        dim: numbers of each vector.
        name: of the source, for messages.
        first_row: number of the column's first row.
        size: rows of a block that has no interests.

    Yields:
        float32 ``[n, dim]``, all rows at once; of interests ``[n, I, dim]``, where rows that have fewer
        repeat their first: an item counts with its best score, so that no answer changes.

    Raises:
        DataError: names the row of a vector of another length, or of a list without vectors.
    """
    column = _lists(column)
    if not _has_interests(column):
        yield _matrix(column, dim, name, np.arange(first_row, first_row + len(column)))
        return
    counts = column.list.len().fill_null(0).to_numpy().astype(np.int64)
    if not counts.all():
        row = first_row + int(np.flatnonzero(counts == 0)[0])
        raise DataError(
            f"{name}, row {row}, column {column.name!r}: a list without vectors, expected at least one; "
            "leave the row out"
        )
    for part in _slices(counts, _INTERESTS * size):
        rows = np.repeat(np.arange(first_row + part.start, first_row + part.stop), counts[part])
        vectors = _matrix(_lists(column[part].explode()), dim, name, rows)
        yield _padded(vectors, counts[part])


def _slices(counts: NDArray[np.int64], most: int) -> Iterator[slice]:
    """Slices of rows with at most ``most`` vectors once all have as many as the longest, or of one row."""

    def split(start: int, stop: int) -> Iterator[slice]:
        if stop - start <= 1 or (stop - start) * counts[start:stop].max() <= most:
            yield slice(start, stop)
            return
        middle = (start + stop) // 2
        yield from split(start, middle)
        yield from split(middle, stop)

    return split(0, len(counts))


def _padded(vectors: NDArray[np.float32], counts: NDArray[np.int64]) -> NDArray[np.float32]:
    """Vectors ``[counts.sum(), D]`` as ``[N, counts.max(), D]``."""
    starts = np.cumsum(counts) - counts
    at = np.arange(counts.max())
    rows: NDArray[np.int64] = starts[:, None] + np.where(at < counts[:, None], at, 0)
    return vectors[rows]


def _matrix(column: pl.Series, dim: int, name: str, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """float32 ``[n, dim]`` of lists that stand in these rows."""
    lengths = column.list.len().fill_null(0).to_numpy()
    wrong = np.flatnonzero(lengths != dim)
    if wrong.size:
        first = int(wrong[0])
        found = (
            "the vector is missing" if column[first] is None else f"a vector of {lengths[first]} numbers"
        )
        raise DataError(
            f"{name}, row {rows[first]}, column {column.name!r}: {found}, expected {dim} numbers"
        )
    flat = column.explode().cast(pl.Float32)
    return flat.fill_null(float("nan")).to_numpy().reshape(-1, dim).copy()


def _lists(column: pl.Series) -> pl.Series:
    """The column with lists in the place of arrays of fixed length."""
    return column.arr.to_list() if isinstance(column.dtype, pl.Array) else column


def _has_interests(column: pl.Series) -> bool:
    return isinstance(element_type(column.dtype), pl.List | pl.Array)
