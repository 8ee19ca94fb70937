"""Types: what each becomes, value for value, and what may be mixed in one source."""

from __future__ import annotations

import datetime
from decimal import Decimal

import polars as pl
import pytest

from recsys.data.types import normal_type, normalised, spelled, widest

NOON = datetime.datetime(2026, 1, 1, 12)


@pytest.mark.parametrize(
    ("values", "dtype", "expected"),
    [
        ([1, None], pl.Int8(), [1, None]),
        (["a", None], pl.Categorical(), ["a", None]),
        (["a", None], pl.Enum(["a"]), ["a", None]),
        ([datetime.date(2026, 1, 1), None], pl.Date(), [datetime.datetime(2026, 1, 1), None]),
        ([NOON, None], pl.Datetime("ns"), [NOON, None]),
        ([NOON], pl.Datetime("ms", "Europe/Berlin"), [NOON - datetime.timedelta(hours=1)]),
        ([datetime.timedelta(days=1, seconds=0.5)], pl.Duration("us"), [86400.5]),
        ([datetime.time(1, 0, 30)], pl.Time(), [3630.0]),
        ([Decimal("1.25"), None], pl.Decimal(10, 2), [1.25, None]),
        ([1.5, None], pl.Float16(), [1.5, None]),
        ([["a", None], None, []], pl.List(pl.Categorical()), [["a", None], None, []]),
        ([[1, 2], None], pl.Array(pl.Int32(), 2), [[1, 2], None]),
        ([[datetime.date(2026, 1, 1)] * 2], pl.Array(pl.Date(), 2), [[datetime.datetime(2026, 1, 1)] * 2]),
        ([{"a": 1}], pl.Struct({"a": pl.Int64()}), [{"a": 1}]),
    ],
)
def test_values_survive_normalising(values: list, dtype: pl.DataType, expected: list) -> None:
    series = (
        pl.Series("x", values, strict=False).cast(dtype) if dtype.is_float() else pl.Series("x", values)
    )
    if isinstance(dtype, pl.Datetime) and dtype.time_zone:
        series = series.dt.replace_time_zone(dtype.time_zone)
    series = series.cast(dtype)
    found = series.to_frame().lazy().select(normalised(pl.col("x"), dtype)).collect(engine="streaming")
    assert found["x"].to_list() == expected
    assert found["x"].dtype == normal_type(dtype)


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        (pl.Int32(), pl.Int64(), pl.Int64()),
        (pl.UInt8(), pl.Int8(), pl.Int64()),
        (pl.UInt64(), pl.UInt8(), pl.UInt64()),
        (pl.UInt64(), pl.Int64(), pl.Int128()),
        (pl.Float32(), pl.Float64(), pl.Float64()),
        (pl.Int32(), pl.Float64(), pl.Float64()),
        (pl.Int64(), pl.Float64(), None),
        (pl.Null(), pl.String(), pl.String()),
        (pl.List(pl.Null()), pl.List(pl.Int32()), pl.List(pl.Int32())),
        (pl.List(pl.Int32()), pl.List(pl.Int64()), pl.List(pl.Int64())),
        (pl.List(pl.Int32()), pl.Int32(), None),
        (pl.Int64(), pl.String(), None),
        (pl.Boolean(), pl.Int8(), None),
    ],
)
def test_widest_holds_both_exactly_or_refuses(
    left: pl.DataType, right: pl.DataType, expected: pl.DataType | None
) -> None:
    assert widest(left, right) == expected
    assert widest(right, left) == expected


def test_types_are_spelled_for_people() -> None:
    assert spelled(pl.List(pl.Int32())) == "list of int32"
    assert spelled(pl.String()) == "text"
