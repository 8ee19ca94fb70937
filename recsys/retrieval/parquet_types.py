"""Parquet files read as one table: which they are, and the type that each column has in all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl

from recsys.data.check import reading, require_column
from recsys.data.paths import find_files, format_of
from recsys.data.types import element_type, spelled, widest
from recsys.errors import DataError, SchemaError

Types = Mapping[str, pl.DataType]


def parquet_files(spec: str) -> list[Path]:
    """The files of a path, folder or glob; raises DataError where there are none, or they are CSV."""
    files = find_files(spec)
    if format_of(files[0]) == "csv":
        raise DataError(
            f"{files[0]}: expected Parquet, found CSV, which does not say what its values are; write it as "
            "Parquet: polars.read_csv(...).write_parquet(...)"
        )
    return files


def schema_of(file: Path) -> dict[str, pl.DataType]:
    """Columns of one file; raises DataError where it cannot be read."""
    with reading(str(file)):
        return dict(pl.read_parquet_schema(file))


def common_types(
    files: Sequence[Path], columns: Sequence[str], *, vectors: str | None = None
) -> dict[str, pl.DataType]:
    """The type that holds a column's values in every file, of columns that are not of one type in all.

    Args:
        files: at least one.
        columns: those that must be alike.
        vectors: a column that must hold lists of numbers, of any type, in every file.

    Raises:
        SchemaError: names a file that lacks a column, or holds other values in it than the files before.
    """
    found: dict[str, pl.DataType] = {}
    differ: set[str] = set()
    for file in files:
        schema = schema_of(file)
        for name in columns:
            dtype = require_column(name, schema, str(file))
            wider = _common(found[name], dtype) if name in found else dtype
            if wider is None:
                raise SchemaError(
                    f"{file}: column {name!r} holds {spelled(dtype)}, in the files before it "
                    f"{spelled(found[name])}; write it alike in all files of {files[0].parent}"
                )
            differ |= {name} if name in found and dtype != found[name] else set()
            found[name] = wider
        if vectors is not None:
            dtype = require_column(vectors, schema, str(file))
            numbers = element_type(element_type(dtype))
            if not isinstance(dtype, pl.List | pl.Array) or not numbers.is_numeric():
                raise SchemaError(
                    f"{file}: column {vectors!r}: expected lists of numbers, found {spelled(dtype)}"
                )
    return {name: dtype for name, dtype in found.items() if name in differ}


def _common(left: pl.DataType, right: pl.DataType) -> pl.DataType | None:
    """As in a log; but attributes of 64-bit integers are numbers beside floats, no ids."""
    text = (pl.String, pl.Categorical, pl.Enum)
    if left in text and right in text:
        return pl.String()
    if left.is_numeric() and right.is_numeric() and (left.is_float() or right.is_float()):
        return pl.Float64()
    wider = widest(left, right)
    return None if wider == pl.Int128 else wider  # which Parquet has not
