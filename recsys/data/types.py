"""Which column types are understood, what each becomes when a log is opened, and what may be mixed.

| in the file                       | becomes                                             |
|-----------------------------------|-----------------------------------------------------|
| integers, booleans, floats, text  | as they are (16-bit floats become 32-bit ones)      |
| categorical, enum, dictionary     | text                                                |
| date, timestamp of any unit, zone | timestamp in microseconds, UTC                      |
| duration; time of day             | seconds, as float; since midnight                   |
| decimal                           | float                                               |
| list or fixed-size list of these  | list of what the element becomes                    |
| binary, struct, map, nested list  | stays as it is: no stage can use it as a feature    |
"""

from __future__ import annotations

import polars as pl

DATETIME = pl.Datetime("us")
_SECONDS_PER_MICROSECOND = 1e-6
_SECONDS_PER_NANOSECOND = 1e-9


def normal_type(dtype: pl.DataType) -> pl.DataType:
    """What a column of this type becomes when a log is opened (the table above)."""
    if isinstance(dtype, pl.List | pl.Array):
        inner = element_type(dtype)
        flat = isinstance(dtype, pl.List) or len(dtype.shape) == 1
        return pl.List(normal_type(inner)) if flat and is_scalar(inner) else dtype
    if isinstance(dtype, pl.Categorical | pl.Enum):
        return pl.String()
    if isinstance(dtype, pl.Date | pl.Datetime):
        return DATETIME
    if isinstance(dtype, pl.Duration | pl.Time | pl.Decimal):
        return pl.Float64()
    if isinstance(dtype, pl.Float16):
        return pl.Float32()
    return dtype


def normalised(column: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    """An expression that turns values of a raw type into its normal type."""
    target = normal_type(dtype)
    if target == dtype:
        return column
    if isinstance(dtype, pl.Array):
        column, dtype = column.arr.to_list(), pl.List(element_type(dtype))
        if target == dtype:
            return column
    if isinstance(dtype, pl.List):
        return column.list.eval(normalised(pl.element(), element_type(dtype)))
    if isinstance(dtype, pl.Datetime) and dtype.time_zone is not None:
        column = column.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
    elif isinstance(dtype, pl.Duration):
        return column.dt.total_microseconds() * _SECONDS_PER_MICROSECOND
    elif isinstance(dtype, pl.Time):
        return column.cast(pl.Int64) * _SECONDS_PER_NANOSECOND
    return column.cast(target)


def is_scalar(dtype: pl.DataType) -> bool:
    """Whether values of this type can be read one by one: not a list, struct, map or bytes."""
    return not dtype.is_nested() and not isinstance(dtype, pl.Binary | pl.Object | pl.Unknown)


def is_list(dtype: pl.DataType) -> bool:
    """Whether this is a list whose elements can be read one by one."""
    return isinstance(dtype, pl.List) and is_scalar(element_type(dtype))


def is_supported(dtype: pl.DataType) -> bool:
    """Whether a normal type can be used by any stage."""
    return is_scalar(dtype) or is_list(dtype)


def element_type(dtype: pl.DataType) -> pl.DataType:
    """Type of a list's elements; a scalar's own type."""
    inner = dtype.inner if isinstance(dtype, pl.List | pl.Array) else dtype
    return inner() if isinstance(inner, type) else inner


def widest(left: pl.DataType, right: pl.DataType) -> pl.DataType | None:
    """The normal type that holds every value of both exactly; None where there is none.

    A column that one writer left empty (type null) takes the other's type. A 64-bit integer is
    never widened to a float: large ids would change.
    """
    if left == right or right == pl.Null:
        return left
    if left == pl.Null:
        return right
    if isinstance(left, pl.List) and isinstance(right, pl.List):
        inner = widest(element_type(left), element_type(right))
        return None if inner is None else pl.List(inner)
    if left.is_integer() and right.is_integer():
        return _widest_integer(left, right)
    if left.is_numeric() and right.is_numeric():
        large = [dtype for dtype in (left, right) if dtype in (pl.Int64, pl.UInt64, pl.Int128)]
        return None if large else pl.Float64()
    return None


def _widest_integer(left: pl.DataType, right: pl.DataType) -> pl.DataType:
    if pl.Int128 in (left, right):
        return pl.Int128()
    if pl.UInt64 in (left, right):
        return pl.UInt64() if left.is_unsigned_integer() and right.is_unsigned_integer() else pl.Int128()
    return pl.Int64()


def spelled(dtype: pl.DataType) -> str:
    """A type as a person reads it in a message, e.g. ``list of int32``."""
    if isinstance(dtype, pl.List | pl.Array):
        return f"list of {spelled(element_type(dtype))}"
    names = {
        pl.String: "text",
        pl.Boolean: "boolean",
        pl.Null: "null",
        pl.Datetime: "timestamp",
        pl.Struct: "struct",
        pl.Binary: "binary",
    }
    return next((name for kind, name in names.items() if dtype == kind), str(dtype).lower())
