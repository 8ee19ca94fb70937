"""The boundaries of a split by time, in the type of the column that they are compared with."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence

import polars as pl

from recsys.config import TimeSplit
from recsys.data.check import reading
from recsys.data.source import Source
from recsys.data.types import DATETIME, spelled
from recsys.errors import ConfigError, SchemaError

Bounds = tuple[pl.Expr, pl.Expr, pl.Expr]
"""What is compared, the first value of the validation rows, and of the test rows."""
_Value = str | int | float


def parse_boundaries(split: TimeSplit, dtype: pl.DataType, source: Source) -> Callable[[], Bounds]:
    """The column and both boundaries in one comparable type; calling the result may read the column.

    Text is compared as text, unless every value of the column and both boundaries are whole numbers:
    then as numbers, so that the partitions ``day=9`` and ``day=10`` are in order. Raises ConfigError
    for a boundary that is not of the column's type and for boundaries in the wrong order.
    """
    parsed = [
        _parse(field, getattr(split, field), dtype, split, source.name)
        for field in ("valid_from", "test_from")
    ]
    column = pl.col(split.column)
    if dtype != pl.String:
        _check_order(parsed, split)
        valid, test = (pl.lit(value, dtype=DATETIME if dtype == pl.Datetime else None) for value in parsed)
        return lambda: (column, valid, test)
    numbers = [_whole(value) for value in parsed]
    if None in numbers:
        _check_order(parsed, split)
        return lambda: (column, pl.lit(parsed[0]), pl.lit(parsed[1]))

    def bounds() -> Bounds:
        number = column.cast(pl.Int64, strict=False)
        if _all_numbers(source, column, number):
            _check_order(numbers, split)
            return number, pl.lit(numbers[0]), pl.lit(numbers[1])
        _check_order(parsed, split)
        return column, pl.lit(parsed[0]), pl.lit(parsed[1])

    return bounds


def _parse(field: str, value: _Value, dtype: pl.DataType, split: TimeSplit, origin: str) -> object:
    key, wanted = f"split.{field}", f"as split.column {split.column!r} is {spelled(dtype)}"
    if dtype == pl.String:
        return str(value)
    if dtype == pl.Datetime:
        if isinstance(value, str):
            return _parse_time(key, value, wanted)
        raise ConfigError(f"{key}: expected a date or time such as '2026-01-31', {wanted}; found {value!r}")
    if not dtype.is_numeric():
        raise SchemaError(
            f"{origin}: split.column {split.column!r} is {spelled(dtype)}; "
            "expected a date, a time, a number or text"
        )
    try:
        number = float(value)
    except ValueError:
        raise ConfigError(f"{key}: expected a number, {wanted}; found {value!r}") from None
    if dtype.is_float():
        return number
    whole = _whole(value)
    if whole is None:
        raise ConfigError(f"{key}: expected an integer, {wanted}; found {value!r}")
    return whole


def _parse_time(key: str, value: str, wanted: str) -> datetime.datetime:
    try:
        time = datetime.datetime.fromisoformat(value.strip())
    except ValueError:
        raise ConfigError(
            f"{key}: expected a date or time such as '2026-01-31 18:00', {wanted}; found {value!r}"
        ) from None
    return time if time.tzinfo is None else time.astimezone(datetime.UTC).replace(tzinfo=None)


def _whole(value: object) -> int | None:
    """A whole number that a value stands for, or None."""
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    try:
        return int(str(value).strip())
    except ValueError:
        return None


def _check_order(values: Sequence[object], split: TimeSplit) -> None:
    valid_from, test_from = values
    if valid_from > test_from:  # type: ignore[operator]
        raise ConfigError(
            f"split: valid_from {split.valid_from!r} is after test_from {split.test_from!r}; "
            "rows before valid_from train, rows from test_from on test"
        )


def _all_numbers(source: Source, column: pl.Expr, number: pl.Expr) -> bool:
    values = source.partition_values(column.meta.output_name())
    frame = source.lazy() if values is None else values.to_frame().lazy()
    with reading(source):
        others = frame.select((column.is_not_null() & number.is_null()).sum()).collect(engine="streaming")
    return not others.item()
