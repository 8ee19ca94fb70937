"""Raw rows in chunks, and the values of one column of a chunk: cast, cut to length, odd ones counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.data.check import check_values, first_row, reading, typed
from recsys.data.source import Source
from recsys.embeddings.keys import CANONICAL
from recsys.errors import SchemaError
from recsys.schema import Column, Schema

CHUNK_VALUES = 1 << 23
"""Values of a chunk at most, over all its columns: 64 MB."""
_CHUNK_ROWS = (1 << 12, 1 << 18)
_PROBED_ROWS = 4096


@dataclass(frozen=True)
class Values:
    """Values of one column of some rows; lists are laid end to end."""

    flat: pl.Series
    """Of the canonical type, null where missing."""
    lengths: NDArray[np.int64] | None
    """``[rows]`` for lists, else None."""


def chunks(source: Source, names: list[str]) -> Iterator[pl.DataFrame]:
    """Some columns of a log, a bounded number of values at a time, in order.

    Raises DataError that names the file which cannot be read.
    """
    selected = source.lazy().select(names)
    with reading(source):
        size = _chunk_rows(selected)
        yield from selected.collect_batches(chunk_size=size, maintain_order=True, lazy=True)


def _chunk_rows(rows: pl.LazyFrame) -> int:
    """Rows of a chunk, a power of two, by the list lengths of the first rows."""
    widths = [
        pl.col(name).list.len().mean() if isinstance(dtype, pl.List) else pl.lit(1.0).alias(name)
        for name, dtype in rows.collect_schema().items()
    ]
    if not widths:
        return _CHUNK_ROWS[1]
    probed = rows.head(_PROBED_ROWS).select(widths).collect(engine="streaming").row(0)
    width = sum(value or 1.0 for value in probed)
    fewest, most = _CHUNK_ROWS
    return min(max(1 << int(CHUNK_VALUES / width).bit_length() - 1, fewest), most)


class Reader:
    """Reads the columns of raw rows as a schema declares them; counts what it does to odd values."""

    def __init__(self, schema: Schema, source: Source) -> None:
        self.schema = schema
        self.source = source
        self.treated: Counter[str] = Counter()
        """Number of values by treatment."""

    def values(self, frame: pl.DataFrame, name: str) -> Values:
        """One column's values; raises SchemaError for one that does not fit its declared type."""
        column, series = self.schema.columns[name], frame[name]
        if not column.is_ragged:
            return Values(self._cast(series, column), None)
        if series.dtype == pl.Null:
            series = series.cast(pl.List(CANONICAL[column.type]))
        return self._lists(series, column)

    def numbers(self, frame: pl.DataFrame, name: str) -> pl.Series:
        """A numeric column as Float64, null where missing or not finite."""
        return self.values(frame, name).flat.cast(pl.Float64)

    def _lists(self, series: pl.Series, column: Column) -> Values:
        lengths = series.list.len().fill_null(0).cast(pl.Int64).to_numpy()
        limit = column.max_length
        cut = 0 if limit is None else int(np.count_nonzero(lengths > limit))
        if limit is not None and cut:
            self.treated[f"{series.name}: list longer than {limit} → cut"] += cut
            series = series.list.tail(limit) if column.kind == "sequence" else series.list.head(limit)
            lengths = np.minimum(lengths, limit)
        inner = series.filter(lengths > 0)
        flat = inner.explode() if len(inner) else pl.Series(series.name, [], dtype=series.dtype.inner)  # type: ignore[attr-defined]
        values = self._cast(flat, column)
        if values.null_count():
            self.treated[f"{series.name}: missing element of a list → id 0"] += values.null_count()
        return Values(values, lengths)

    def _cast(self, values: pl.Series, column: Column) -> pl.Series:
        if values.dtype == CANONICAL[column.type] and not values.dtype.is_float():
            return values
        odd = int((~values.is_finite()).sum()) if values.dtype.is_float() else 0
        cast = values.to_frame().select(typed(values.name, values.dtype, column)).to_series()
        if cast.null_count() != values.null_count() + odd:
            self._refuse(values.name)
        if odd:
            self.treated[f"{values.name}: NaN or infinity → missing"] += odd
        return cast

    def _refuse(self, name: str) -> None:
        """Raise SchemaError that names file, row and value of what does not fit its type."""
        check_values(self.source, Schema(columns={name: self.schema.columns[name]}))
        raise SchemaError(
            f"{self.source.name}: column {name!r}: a value is no {self.schema.columns[name].type}"
        )

    def require_aligned(self, frame: pl.DataFrame, names: Collection[str]) -> None:
        """Raise SchemaError, with file and row, where sequences declared aligned differ in length."""
        for name in names:
            other = self.schema.columns[name].aligned_with
            if other is None or other not in names:
                continue
            length, expected = (pl.col(n).list.len().fill_null(0) for n in (name, other))
            if not frame.select((length != expected).any()).item():
                continue
            place, found = first_row(self.source, name, length != expected)
            raise SchemaError(
                f"{place}: column {name!r} is declared aligned_with {other!r}, but its list of "
                f"{len(found) if isinstance(found, list) else 0} values has another length than that; "
                "mend the row, or take aligned_with out of the schema"
            )
