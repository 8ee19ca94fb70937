"""Checks of a log before anything is learned from it, and the cast of its values to the schema.

Documented treatments: NaN and infinities count as missing; integral floats (integers with gaps, as
pandas stores them) are integers; text is parsed where the schema asks for numbers or times. What would
lose something is an error that names column, row, value and file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import polars as pl

from recsys.data.types import DATETIME, element_type, is_list, is_supported, spelled
from recsys.embeddings.keys import CANONICAL
from recsys.errors import DataError, SchemaError, did_you_mean
from recsys.schema import Column, Schema, ValueType

if TYPE_CHECKING:
    from recsys.data.source import Source

_ROW = "__row__"
_TIME_FORMATS = ("%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M")
_ZONED_FORMAT = "%Y-%m-%dT%H:%M:%S%.f%#z"
_DATE_FORMATS = ("%Y-%m-%d", "%Y%m%d")
_SECONDS_BELOW, _MILLISECONDS_BELOW, _MICROSECONDS_BELOW = 10**11, 10**14, 10**17
"""Sizes that tell the unit of integer times: each range spans the years 1973 to 5138."""


@contextmanager
def reading(origin: str | Source) -> Iterator[None]:
    """Turn what polars raises while rows are read into a DataError that names the file."""
    try:
        yield
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        where = origin if isinstance(origin, str) else origin.unreadable_file()
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DataError(f"{where}: cannot be read, it may be truncated or damaged: {first}") from error


def require_column(name: str, columns: Mapping[str, pl.DataType], origin: str) -> pl.DataType:
    """Type of a column; raises SchemaError with the nearest name where there is none."""
    if name not in columns:
        raise SchemaError(f"{origin}: no column {name!r}; {did_you_mean(name, columns)}")
    return columns[name]


def needed(schema: Schema, *, label: bool = True) -> dict[str, Column]:
    """Columns that training reads: features, label, weight and group; ``label=False``: features only."""
    roles = {"feature", "label", "weight", "group"} if label else {"feature"}
    return {name: column for name, column in schema.columns.items() if roles & set(column.roles)}


def check_columns(
    columns: Mapping[str, pl.DataType], schema: Schema, origin: str, *, label: bool = True
) -> None:
    """Compare a log's columns with a schema, without reading rows.

    Raises SchemaError for a column that is missing, of a type that cannot be used, a list where the
    schema declares a scalar or the other way round, or a type that cannot become the declared one.
    """
    for name, column in needed(schema, label=label).items():
        dtype = require_column(name, columns, origin)
        found = spelled(dtype)
        if not is_supported(dtype):
            raise SchemaError(f"{origin}: column {name!r} is a {found}, which cannot be used; ignore it")
        if dtype == pl.Null:
            continue
        if is_list(dtype) != column.is_ragged:
            shape = "a list" if column.is_ragged else "one value per row"
            raise SchemaError(
                f"{origin}: column {name!r}: the schema declares {column.kind} ({shape}), "
                f"found {found}; write the column so, or change its kind in the schema"
            )
        inner = element_type(dtype)
        if column.type == "datetime" and (inner == pl.Boolean or inner.is_float()):
            raise SchemaError(
                f"{origin}: column {name!r}: the schema declares datetime, found {found}; "
                "expected timestamps, ISO text or integers since 1970"
            )


def typed(name: str, dtype: pl.DataType, column: Column) -> pl.Expr:
    """A column cast to its schema type: Int64, String, Float64, and Int64 microseconds for times.

    Lists are cast element by element.
    Values that do not fit become null, NaN and infinities too: ``check_values`` tells the one from
    the other.
    """
    if is_list(dtype):
        cast = _cast(pl.element(), element_type(dtype), column.type)
        return pl.col(name).list.eval(cast).alias(name)
    if dtype == pl.Null and column.is_ragged:
        return pl.col(name).cast(pl.List(CANONICAL[column.type]))
    return _cast(pl.col(name), dtype, column.type).alias(name)


def typed_columns(
    columns: Mapping[str, pl.DataType], schema: Schema, *, label: bool = True
) -> list[pl.Expr]:
    """``typed`` for every needed column that the log has, in the schema's order."""
    return [
        typed(name, columns[name], column)
        for name, column in needed(schema, label=label).items()
        if name in columns
    ]


def check_values(source: Source, schema: Schema, *, label: bool = True) -> dict[str, str]:
    """Read every value once and see that each fits its schema type.

    Returns treatments to report, e.g. ``{"price": "12 rows with NaN or infinity: missing"}``.
    Raises SchemaError that names column, file, row and value of the first one that does not fit, and
    how many there are; for an integer feature, 1.5 or 2**63 for example.
    """
    columns = {
        name: (source.columns[name], column.type)
        for name, column in needed(schema, label=label).items()
        if name in source.columns and "label" not in column.roles
    }
    lost = {
        name: _any(name, dtype, _lost(dtype, type))
        for name, (dtype, type) in columns.items()
        if _can_lose(dtype, type)
    }
    odd = {
        name: _any(name, dtype, _not_finite)
        for name, (dtype, _) in columns.items()
        if element_type(dtype).is_float()
    }
    counts = [check.sum().alias(f"lost {name}") for name, check in lost.items()]
    counts += [check.sum().alias(f"odd {name}") for name, check in odd.items()]
    if not counts:
        return {}
    with reading(source):
        found = source.lazy().select(counts).collect(engine="streaming").row(0, named=True)
    for name, check in lost.items():
        if found[f"lost {name}"]:
            where, value = first_row(source, name, check)
            hint = "mend them or change the type in the schema"
            if element_type(source.columns[name]).is_integer():
                hint = "integers beyond int64 can be read as type string"
            raise SchemaError(
                f"{where}: column {name!r}: expected {schema.columns[name].type}, found {value!r}; "
                f"so in {found[f'lost {name}']} rows: {hint}"
            )
    return {
        name: f"{found[f'odd {name}']} rows with NaN or infinity: missing"
        for name in odd
        if found[f"odd {name}"]
    }


def first_row(source: Source, name: str, where: pl.Expr) -> tuple[str, object]:
    """File and row, and the value there, of the first row for which an expression over it holds."""
    with reading(source):
        found = (
            source.numbered(_ROW)
            .filter(where)
            .select(_ROW, pl.col(name).alias("value"))
            .head(1)
            .collect(engine="streaming")
        )
    if found.height == 0:
        return source.name, None
    value = found["value"][0]
    return source.locate(int(found[_ROW][0])), value.to_list() if isinstance(value, pl.Series) else value


def check_label(
    rows: pl.LazyFrame, label: str, origin: str, source: Source | None = None
) -> tuple[int, int]:
    """Number of rows and of positives; the label must be 0 or 1 (integer, boolean or float).

    ``source``, where the rows come from one, lets messages name file and row. Raises SchemaError for
    a missing column or another type, DataError for a null or another value, no rows, or one class.
    """
    dtype = require_column(label, rows.collect_schema(), origin)
    check_label_type(label, dtype, origin)
    good = pl.col(label).cast(pl.Float64).is_in([0.0, 1.0])
    bad = ~good.fill_null(False)
    with reading(source or origin):
        found = rows.select(
            rows=pl.len(), positives=(pl.col(label).cast(pl.Float64) == 1).sum(), bad=bad.sum()
        ).collect(engine="streaming")
    total, positives, wrong = (int(found[name][0] or 0) for name in ("rows", "positives", "bad"))
    if wrong:
        where, value = origin, None
        if source is not None:
            where, value = first_row(source, label, bad)
        shown = f", first {value!r}" if source is not None else ""
        raise DataError(
            f"{where}: label {label!r} must be 0 or 1 in every row; {wrong} of {total} rows are not{shown}"
        )
    if total == 0:
        raise DataError(f"{origin}: no rows to learn from")
    if positives in (0, total):
        raise DataError(
            f"{origin}: label {label!r} holds only {int(positives > 0)} in all {total} rows; "
            "learning needs both classes: look at the label and at the split"
        )
    return total, positives


def check_positives(rows: pl.LazyFrame, label: str, origin: str, source: Source) -> None:
    """Raise DataError unless every label is 1, as in a log of positive rows alone."""
    bad = ~(pl.col(label).cast(pl.Float64) == 1).fill_null(False)
    with reading(source):
        wrong = int(rows.select(bad.sum()).collect(engine="streaming").item() or 0)
    if wrong:
        where, value = first_row(source, label, bad)
        raise DataError(
            f"{where}: label {label!r} is {value!r}, expected 1 in every row (not so in {wrong} rows): a "
            "retrieval model learns from positive rows alone. Leave the others out of the log, or train a "
            "ranking model on them"
        )


def check_label_type(label: str, dtype: pl.DataType, origin: str) -> None:
    """Raise SchemaError unless a column can hold a label: integer, boolean or float."""
    if not (dtype.is_numeric() or dtype in (pl.Boolean, pl.Null)):
        raise SchemaError(
            f"{origin}: label {label!r} must be an integer, boolean or float column of 0 and 1, "
            f"found {spelled(dtype)}"
        )


_Check = Callable[[pl.Expr], pl.Expr]


def _any(name: str, dtype: pl.DataType, check: _Check) -> pl.Expr:
    """Whether a row's value, or any element of its list, meets a condition."""
    if is_list(dtype):
        return pl.col(name).list.eval(check(pl.element()).fill_null(False)).list.any().fill_null(False)
    return check(pl.col(name)).fill_null(False)


def _not_finite(value: pl.Expr) -> pl.Expr:
    return ~value.is_finite()


def _lost(dtype: pl.DataType, type: ValueType) -> _Check:
    """The condition that a value is there and has no counterpart in the schema's type."""
    inner = element_type(dtype)

    def check(value: pl.Expr) -> pl.Expr:
        there = value.is_finite() if inner.is_float() else value.is_not_null()
        return there & _cast(value, inner, type).is_null()

    return check


def _can_lose(dtype: pl.DataType, type: ValueType) -> bool:
    inner = element_type(dtype)
    if type == "int64":
        return inner.is_float() or inner in (pl.String, pl.UInt64, pl.Int128, pl.UInt128)
    return type != "string" and inner == pl.String


def _cast(value: pl.Expr, dtype: pl.DataType, type: ValueType) -> pl.Expr:
    """Values of a normal type as the schema's type; null where there is no counterpart."""
    if dtype.is_float():
        value = pl.when(value.is_finite()).then(value)
        whole = pl.when(value == value.round()).then(value).cast(pl.Int64, strict=False)
        if type == "int64":
            return whole
        if type == "string":
            return pl.coalesce(whole.cast(pl.String), value.cast(pl.String))
    if type == "datetime":
        return as_time(value, dtype)
    if type == "float64" and dtype == pl.String:
        number = value.str.strip_chars().cast(pl.Float64, strict=False)
        return pl.when(number.is_finite()).then(number)
    if type == "int64" and dtype == pl.String:
        value = value.str.strip_chars()
    if type == "float64" and dtype == pl.Datetime:
        value = value.cast(pl.Int64)
    return value.cast(CANONICAL[type], strict=False)


def as_time(value: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    """Microseconds since 1970, UTC, from timestamps, ISO text or integers of any usual unit."""
    if dtype == pl.String:
        value = value.str.strip_chars()
        zoned = value.str.to_datetime(_ZONED_FORMAT, time_unit="us", time_zone="UTC", strict=False)
        times = [zoned.dt.replace_time_zone(None)]
        times += [value.str.to_datetime(form, time_unit="us", strict=False) for form in _TIME_FORMATS]
        times += [value.str.to_date(form, strict=False).cast(DATETIME) for form in _DATE_FORMATS]
        return pl.coalesce(times).cast(pl.Int64)
    if not dtype.is_integer():
        return value.cast(pl.Int64)
    value = value.cast(pl.Int64, strict=False)
    size = value.abs()
    scaled = pl.when(size < _SECONDS_BELOW).then(value * 1_000_000).when(size < _MILLISECONDS_BELOW)
    return scaled.then(value * 1_000).when(size < _MICROSECONDS_BELOW).then(value).otherwise(value // 1_000)
