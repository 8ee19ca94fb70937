"""What the user states about columns, applied over what was inferred."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl
from pydantic import ValidationError

from recsys.config import ColumnSettings
from recsys.data.check import first_row
from recsys.data.source import Source
from recsys.data.types import is_list, spelled
from recsys.errors import SchemaError
from recsys.features.kinds import type_of
from recsys.features.roles import MAX_LENGTH
from recsys.features.survey import Survey
from recsys.schema import RAGGED, Column

_INT64_MAX, _INT64_MIN = (1 << 63) - 1, -(1 << 63)


def apply_overrides(
    source: Source,
    columns: Mapping[str, Column],
    overrides: Mapping[str, ColumnSettings],
    surveys: Mapping[str, Survey],
) -> dict[str, Column]:
    """The columns with every stated field in place of the inferred one, and the rest fitted to it.

    Raises SchemaError for what a column cannot be, such as a sequence without lists.
    """
    return {
        name: _applied(source, name, column, overrides[name], surveys.get(name))
        if name in overrides
        else column
        for name, column in columns.items()
    }


def _applied(
    source: Source, name: str, column: Column, stated: ColumnSettings, found: Survey | None
) -> Column:
    fields: dict[str, Any] = column.model_dump()
    fields["facts"] = column.facts
    if stated.kind is not None and stated.kind != column.kind:
        dtype = source.columns[name]
        if (stated.kind in RAGGED) != is_list(dtype) and dtype != pl.Null:
            shape = "one value per row" if stated.kind in RAGGED else "lists"
            raise SchemaError(
                f"{source.name}: columns.{name}.kind: {stated.kind} is stated, but the column holds "
                f"{shape} ({spelled(dtype)})"
            )
        fields |= {"kind": stated.kind, "vocabulary": None, "aligned_with": None, "transform": "auto"}
        fields["max_length"] = (column.max_length or MAX_LENGTH) if stated.kind in RAGGED else None
        if found is not None:
            fields["type"] = type_of(stated.kind, found)
            fields["facts"] = found.facts(numeric=stated.kind == "numeric")
    fields |= stated.model_dump(exclude_none=True)
    try:
        return Column.model_validate(fields)
    except ValidationError as error:
        fault = error.errors()[0]
        key = ".".join(("columns", name, *(str(part) for part in fault["loc"])))
        raise SchemaError(f"{source.name}: {key}: {fault['msg']}") from error


def require_int64(source: Source, columns: Mapping[str, Column], surveys: Mapping[str, Survey]) -> None:
    """Raise SchemaError for a column of ids that int64 cannot hold."""
    for name, column in columns.items():
        found = surveys.get(name)
        if (
            column.type != "int64"
            or found is None
            or found.element not in (pl.UInt64, pl.Int128, pl.UInt128)
        ):
            continue
        low, high = found.minimum, found.maximum
        if low is None or high is None or (low >= _INT64_MIN and high <= _INT64_MAX):
            continue
        outside = ~pl.element().is_between(_INT64_MIN, _INT64_MAX)
        if found.is_list:
            where, value = first_row(source, name, pl.col(name).list.eval(outside).list.any())
        else:
            where, value = first_row(source, name, ~pl.col(name).is_between(_INT64_MIN, _INT64_MAX))
        raise SchemaError(
            f"{where}: column {name!r} holds {value}, beyond int64; set columns.{name}.type to string, or "
            "ignore the column"
        )
