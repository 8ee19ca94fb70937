"""Checks: right values pass and are cast, wrong ones are named with file and row."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from recsys.data.check import check_columns, check_label, check_values, typed_columns
from recsys.data.source import open_source
from recsys.errors import DataError, SchemaError
from recsys.schema import Column, Kind, Schema, ValueType

NEW_YEAR = 1_767_225_600_000_000


def schema_of(kind: Kind, type: ValueType) -> Schema:
    return Schema(columns={"x": Column(kind=kind, type=type)})


def cast(values: pl.Series, kind: Kind, type: ValueType) -> list:
    source = open_source(values.alias("x").to_frame())
    schema = schema_of(kind, type)
    check_columns(source.columns, schema, source.name)
    check_values(source, schema)
    return source.lazy().select(typed_columns(source.columns, schema)).collect()["x"].to_list()


@pytest.mark.parametrize(
    ("values", "kind", "type", "expected"),
    [
        ([1, None, 2**40], "categorical", "int64", [1, None, 2**40]),
        ([True, False, None], "categorical", "int64", [1, 0, None]),
        ([1.0, None, float("nan"), float("inf")], "categorical", "int64", [1, None, None, None]),
        (["1", " 2 ", None], "categorical", "int64", [1, 2, None]),
        ([1, -5], "categorical", "string", ["1", "-5"]),
        ([1.0, 1.5, float("nan")], "categorical", "string", ["1", "1.5", None]),
        ([True, None], "categorical", "string", ["true", None]),
        (["1.5", "-1e3", None], "numeric", "float64", [1.5, -1000.0, None]),
        ([1, None], "numeric", "float64", [1.0, None]),
        ([float("-inf"), 2.0], "numeric", "float64", [None, 2.0]),
        ([[1.0, None], None, []], "multi", "int64", [[1, None], None, []]),
        ([["1"], ["2", "3"]], "sequence", "int64", [[1], [2, 3]]),
        (["2026-01-01", "20260101", "2026-01-01T01:00:00+01:00"], "numeric", "datetime", [NEW_YEAR] * 3),
        (
            ["2026-01-01 00:00", "2026-01-01 00:00:00.000001"],
            "numeric",
            "datetime",
            [NEW_YEAR, NEW_YEAR + 1],
        ),
        (
            [NEW_YEAR // 10**6, NEW_YEAR // 10**3, NEW_YEAR, NEW_YEAR * 10**3],
            "numeric",
            "datetime",
            [NEW_YEAR] * 4,
        ),
        ([None, None], "categorical", "string", [None, None]),
        ([None, None], "multi", "string", [None, None]),
    ],
)
def test_values_are_cast_to_the_schemas_type(
    values: list, kind: Kind, type: ValueType, expected: list
) -> None:
    assert cast(pl.Series(values), kind, type) == expected


@pytest.mark.parametrize(
    ("values", "dtype", "kind", "type", "message"),
    [
        (
            [1.0, 1.5, 2.5],
            None,
            "categorical",
            "int64",
            r"row 1: column 'x': expected int64, found 1.5; so in 2 rows",
        ),
        (["1", "two"], None, "categorical", "int64", "row 1: .* found 'two'"),
        (["1", ""], None, "numeric", "float64", "row 1: .* found ''"),
        (["nan"], None, "numeric", "float64", "row 0: .* found 'nan'"),
        (
            [1, 2**63],
            pl.UInt64,
            "categorical",
            "int64",
            "row 1: .* found 9223372036854775808.*as type string",
        ),
        ([[1.0], [2.0, 2.5]], None, "multi", "int64", r"row 1: .* found \[2.0, 2.5\]"),
        (["2026-13-01"], None, "numeric", "datetime", "row 0: .*expected datetime, found '2026-13-01'"),
    ],
)
def test_values_that_would_be_lost_are_named(
    tmp_path: Path, values: list, dtype: pl.DataType | None, kind: Kind, type: ValueType, message: str
) -> None:
    pl.DataFrame({"x": pl.Series(values, dtype=dtype)}).write_parquet(tmp_path / "log.parquet")
    source = open_source(tmp_path / "log.parquet")
    with pytest.raises(SchemaError, match=message) as raised:
        check_values(source, schema_of(kind, type))
    assert str(raised.value).startswith(str(tmp_path / "log.parquet"))


def test_the_row_is_that_of_its_file(tmp_path: Path) -> None:
    for index, values in enumerate([["1", "2"], ["3", "x"]]):
        pl.DataFrame({"x": values}).write_parquet(tmp_path / f"{index}.parquet")
    with pytest.raises(SchemaError, match=r"1\.parquet, row 1: "):
        check_values(open_source(tmp_path), schema_of("categorical", "int64"))


def test_not_finite_numbers_are_counted() -> None:
    frame = pl.DataFrame({"x": [1.0, float("nan"), float("inf"), None]})
    found = check_values(open_source(frame), schema_of("numeric", "float64"))
    assert found == {"x": "2 rows with NaN or infinity: missing"}


@pytest.mark.parametrize(
    ("values", "kind", "type", "message"),
    [
        ([[1]], "categorical", "int64", "declares categorical .one value per row., found list of int64"),
        ([1], "multi", "int64", "declares multi .a list., found int64"),
        ([{"a": 1}], "categorical", "int64", "is a struct, which cannot be used"),
        ([[[1]]], "multi", "int64", "is a list of list of int64, which cannot be used"),
        ([b"x"], "categorical", "string", "is a binary, which cannot be used"),
        ([1.5], "numeric", "datetime", "declares datetime, found float64"),
    ],
)
def test_columns_that_are_not_what_the_schema_says(
    values: list, kind: Kind, type: ValueType, message: str
) -> None:
    with pytest.raises(SchemaError, match=message):
        check_columns(open_source(pl.DataFrame({"x": values})).columns, schema_of(kind, type), "log")


def test_a_missing_column_is_named_with_the_nearest() -> None:
    with pytest.raises(SchemaError, match="log: no column 'x'; did you mean 'xx'"):
        check_columns({"xx": pl.Int64()}, schema_of("categorical", "int64"), "log")


def test_columns_without_a_role_and_labels_of_new_data_may_be_absent() -> None:
    columns = {
        "x": Column(kind="categorical", type="int64"),
        "y": Column(kind="numeric", type="int64", roles=("label",)),
        "z": Column(kind="categorical", type="int64", roles=()),
    }
    check_columns({"x": pl.Int64()}, Schema(columns=columns), "log", label=False)
    with pytest.raises(SchemaError, match="no column 'y'"):
        check_columns({"x": pl.Int64()}, Schema(columns=columns), "log")


@pytest.mark.parametrize("values", [[0, 1, 1], [False, True, True], [0.0, 1.0, 1.0]])
def test_a_label_of_any_number_type(values: list) -> None:
    assert check_label(pl.LazyFrame({"y": values}), "y", "log") == (3, 2)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([0, 1, 2], "row 2: label 'y' must be 0 or 1 in every row; 1 of 3 rows are not, first 2"),
        ([0.0, 0.5, None], "row 1: .*; 2 of 3 rows are not, first 0.5"),
        ([0, None, 1], "row 1: .* first None"),
        ([float("nan"), 1.0], "row 0: .* first nan"),
        ([0, 0], "label 'y' holds only 0 in all 2 rows"),
        ([True, True], "label 'y' holds only 1"),
    ],
)
def test_bad_labels_are_named(tmp_path: Path, values: list, message: str) -> None:
    pl.DataFrame({"y": values}, strict=False).write_parquet(tmp_path / "log.parquet")
    source = open_source(tmp_path / "log.parquet")
    with pytest.raises(DataError, match=message) as raised:
        check_label(source.lazy(), "y", source.name, source)
    assert str(raised.value).startswith(str(tmp_path / "log.parquet"))


def test_label_columns_of_another_type() -> None:
    with pytest.raises(
        SchemaError, match=r"label 'y' must be an integer, boolean or float column .* found text"
    ):
        check_label(pl.LazyFrame({"y": ["0", "1"]}), "y", "log")
    with pytest.raises(SchemaError, match="found list of int64"):
        check_label(pl.LazyFrame({"y": [[0], [1]]}), "y", "log")
    with pytest.raises(SchemaError, match="no column 'lable'; did you mean 'label'"):
        check_label(pl.LazyFrame({"label": [0, 1]}), "lable", "log")
