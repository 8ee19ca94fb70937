"""Ids and attributes of the vectors: Parquet for people and filters, flat mapped files for look-ups.

An id is found by its key (xxh3_64, as everywhere): ``keys.bin`` holds the sorted keys, uint64, and
``rows.bin`` the row of each, uint32. The way back is ``ids.bin``: int64 per row, or UTF-8 with the
ends of the texts in ``ends.bin``. Nothing of this lives in memory, whatever the number of items.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from recsys.data.check import reading
from recsys.data.types import element_type
from recsys.embeddings.keys import keys_of
from recsys.errors import ConfigError, DataError, RetrievalError, did_you_mean
from recsys.retrieval.given_ids import IdType, of_index
from recsys.stage import writing

ITEMS_FILE = "items.parquet"
_CACHED_FILTERS = 16

Filter: TypeAlias = pl.Expr | str | Mapping[str, Any]
"""Items to search among: a polars expression, an SQL predicate (``"price < 20 AND brand IN ('a','b')"``),
or column → value, list of values, or ``{operator: value}`` with ``< <= > >= = !=``; of a column
of lists: a value, or several, of which a list must hold one. An item is judged by its own values alone."""


class ItemWriter:
    """Writes the items of a segment as they come."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder, self._name = folder, name
        self._table: pq.ParquetWriter | None = None
        self._ids = (folder / "ids.bin").open("wb")
        self._ends: list[NDArray[np.int64]] = [np.zeros(1, np.int64)]
        self._keys: list[NDArray[np.uint64]] = []
        self.id_type: IdType = "int64"

    def append(self, items: pl.DataFrame) -> None:
        """Add rows: ids in the first column, attributes in the others."""
        ids = items.to_series(0)
        self.id_type = "string" if ids.dtype == pl.String else "int64"
        table = items.to_arrow()
        with writing(self._folder):
            if self._table is None:
                self._table = pq.ParquetWriter(self._folder / ITEMS_FILE, table.schema)
            self._table.write_table(table)
        self._keys.append(keys_of(ids, self.id_type))
        if self.id_type == "int64":
            self._ids.write(ids.to_numpy().astype("<i8").data)
            return
        self._ids.write("".join(ids.to_list()).encode())
        self._ends.append(self._ends[-1][-1] + ids.str.len_bytes().cast(pl.Int64).cum_sum().to_numpy())

    def close(self) -> None:
        """Let go of the files."""
        self._ids.close()
        if self._table is not None and self._table.is_open:
            self._table.close()

    def finish(self) -> None:
        """Write the look-ups; raises DataError that names an id which stands there twice."""
        self.close()
        if self.id_type == "string":
            np.concatenate(self._ends).tofile(self._folder / "ends.bin")
        keys = np.concatenate(self._keys) if self._keys else np.empty(0, np.uint64)
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        same = np.flatnonzero(keys[1:] == keys[:-1])
        if same.size:
            self._refuse_twice(int(order[same[0]]), int(order[same[0] + 1]))
        keys.tofile(self._folder / "keys.bin")
        order.astype(np.uint32).tofile(self._folder / "rows.bin")

    def _refuse_twice(self, first: int, second: int) -> None:
        ids = pl.read_parquet(self._folder / ITEMS_FILE).to_series(0)
        one, other = ids[first], ids[second]
        if one != other:
            raise DataError(f"{self._name}: ids {one!r} and {other!r} have one key; rename one of them")
        raise DataError(
            f"{self._name}: id {one!r} stands in rows {first} and {second}; expected every id once, leave "
            "out all but one of its vectors"
        )


class Items:
    """The items of a segment, on disk."""

    def __init__(self, folder: Path, rows: int, id_type: IdType) -> None:
        self.folder, self.rows, self.id_type = folder, rows, id_type
        self._keys = self._flat("keys.bin", np.uint64, rows)
        self._rows = self._flat("rows.bin", np.uint32, rows)
        if id_type == "int64":
            self._ids = pa.array(self._flat("ids.bin", np.int64, rows))
        else:
            ends = self._flat("ends.bin", np.int64, rows + 1)
            text = self._flat("ids.bin", np.uint8, int(ends[-1]))
            self._ids = pa.LargeStringArray.from_buffers(rows, pa.py_buffer(ends), pa.py_buffer(text))
        self._where = lru_cache(_CACHED_FILTERS)(self._evaluate)
        with reading(str(folder / ITEMS_FILE)):
            self.schema = pl.read_parquet_schema(folder / ITEMS_FILE)

    def _flat(self, name: str, dtype: Any, count: int) -> NDArray[Any]:
        path = self.folder / name
        wanted = count * np.dtype(dtype).itemsize
        if path.stat().st_size != wanted:
            raise RetrievalError(
                f"{path}: damaged: expected {wanted} bytes, found {path.stat().st_size}; "
                "build the index again"
            )
        return np.memmap(path, dtype, "r") if count else np.empty(0, dtype)

    @property
    def id_column(self) -> str:
        return next(iter(self.schema))

    def ids(self, rows: NDArray[np.int64]) -> pl.Series:
        """Ids of rows ``[n]``; null for row -1."""
        wanted = pa.array(rows, mask=rows < 0)
        return pl.Series(self.id_column, self._ids.take(wanted))

    def find(self, ids: pl.Series) -> NDArray[np.int64]:
        """Rows ``[n]`` of ids; -1 for those that are not here. Raises RetrievalError for another type."""
        if not self.rows or not len(ids):
            return np.full(len(ids), -1, np.int64)
        ids = of_index(ids, self.id_type)
        keys = keys_of(ids, self.id_type)
        at = np.minimum(np.searchsorted(self._keys, keys), self.rows - 1)
        rows = np.where(self._keys[at] == keys, self._rows[at].astype(np.int64), -1)
        same = (self.ids(rows) == ids).fill_null(False).to_numpy()
        return np.where(same, rows, -1)

    def where(self, condition: pl.Expr) -> NDArray[np.bool_]:
        """Which rows ``[N]`` meet a condition; the last few answers are remembered."""
        return self._where(condition.meta.serialize())

    def _evaluate(self, serialized: bytes) -> NDArray[np.bool_]:
        import io

        condition = pl.Expr.deserialize(io.BytesIO(serialized))
        path = self.folder / ITEMS_FILE
        if not _row_by_row(condition, self.schema):
            raise ConfigError(
                "filter: expected a condition on each item alone, found an aggregate, a rank, a shift or "
                "the like; compute that first and compare with its value"
            )
        try:
            kept = pl.scan_parquet(path).select(condition.fill_null(False).alias("kept")).collect()["kept"]
        except pl.exceptions.PolarsError as error:
            fault = _misfit(condition, self.schema) or _first_line(error)
            raise ConfigError(f"filter: {fault}; columns are {_columns(self.schema)}") from error
        if kept.dtype != pl.Boolean or len(kept) != self.rows:
            raise ConfigError(
                f"filter: expected true or false for each item, found {len(kept)} {kept.dtype}"
            )
        return kept.to_numpy()

    def frame(self) -> pl.LazyFrame:
        """Ids and attributes in row order."""
        return pl.scan_parquet(self.folder / ITEMS_FILE)


def expression(given: Filter, schema: Mapping[str, pl.DataType]) -> pl.Expr:
    """A filter as a polars expression; raises ConfigError for what it cannot be."""
    if isinstance(given, str):
        try:
            condition = pl.sql_expr(given)
        except pl.exceptions.PolarsError as error:
            raise ConfigError(
                f"filter: {given!r} is not an SQL predicate ({_first_line(error)}); write it as in "
                "\"price < 20 AND brand = 'acme'\""
            ) from error
        assert isinstance(condition, pl.Expr)
    elif isinstance(given, Mapping):
        if not given:
            raise ConfigError("filter: an empty mapping; leave the filter out")
        condition = pl.all_horizontal([_part(column, value, schema) for column, value in given.items()])
    elif isinstance(given, pl.Expr):
        condition = given
    else:
        raise ConfigError(
            f"filter: expected an SQL predicate, a polars expression or a mapping, found {given!r}"
        )
    for name in condition.meta.root_names():
        _type_of(name, schema)
    return condition


def _type_of(column: str, schema: Mapping[str, pl.DataType]) -> pl.DataType:
    if column not in schema:
        raise ConfigError(f"filter: the index keeps no column {column!r}; {did_you_mean(column, schema)}")
    return schema[column]


def _row_by_row(condition: pl.Expr, schema: Mapping[str, pl.DataType]) -> bool:
    """Whether each row's answer hangs on that row alone: polars then moves a slice below the expression.

    What is evaluated over base and delta apart must be so. True where polars cannot evaluate it at all.
    """
    rows = pl.LazyFrame(schema=schema).select(condition.alias("kept")).slice(1, 1)
    try:
        return not rows.explain().lstrip().startswith("SLICE")
    except pl.exceptions.PolarsError:
        return True


def _misfit(condition: pl.Expr, schema: Mapping[str, pl.DataType]) -> str | None:
    """Which columns have other types than the condition asks for; None where types are not the fault."""
    if not condition.meta.root_names() or _evaluates(condition, schema):
        return None
    for part in condition.meta.pop():
        if (found := _misfit(part, schema)) is not None:
            return found
    columns = " and ".join(f"{name!r} is {schema[name]}" for name in condition.meta.root_names())
    return f"column {columns}, and cannot be asked for {condition}"


def _evaluates(condition: pl.Expr, schema: Mapping[str, pl.DataType]) -> bool:
    try:
        pl.LazyFrame(schema=schema).select(condition).collect()
    except pl.exceptions.PolarsError:
        return False
    return True


def _part(column: str, value: Any, schema: Mapping[str, pl.DataType]) -> pl.Expr:
    """A column's part of a mapping; raises ConfigError where its values cannot be what is asked for."""
    found, dtype = pl.col(column), _type_of(column, schema)
    try:
        if isinstance(value, Mapping):
            return pl.all_horizontal(
                [_compared(found, operator, other) for operator, other in value.items()]
            )
        if isinstance(dtype, pl.List | pl.Array) and value is not None:
            return _holds(found, dtype, value)
        if isinstance(value, Sequence) and not isinstance(value, str):
            return found.is_in(_alike(value, dtype))
        return found.is_null() if value is None else found == value
    except (TypeError, ValueError, OverflowError) as error:
        raise ConfigError(
            f"filter: column {column!r} is {dtype}, and cannot be compared with {value!r}"
        ) from error


def _holds(column: pl.Expr, dtype: pl.List | pl.Array, value: Any) -> pl.Expr:
    """Whether a list holds a value, or any of several."""
    lists = column.arr.to_list() if isinstance(dtype, pl.Array) else column
    values = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    return lists.list.eval(pl.element().is_in(_alike(values, element_type(dtype)))).list.any()


def _alike(values: Sequence[Any], dtype: pl.DataType) -> list[Any]:
    """Integers as floats where those are compared with."""
    return [float(value) if dtype.is_float() and type(value) is int else value for value in values]


def _compared(column: pl.Expr, operator: str, value: Any) -> pl.Expr:
    known = {
        "<": column.lt,
        "<=": column.le,
        ">": column.gt,
        ">=": column.ge,
        "=": column.eq,
        "!=": column.ne,
    }
    if operator not in known:
        raise ConfigError(f"filter: no operator {operator!r}; known: {' '.join(known)}")
    return known[operator](value)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]


def _columns(schema: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} ({dtype})" for name, dtype in schema.items())
