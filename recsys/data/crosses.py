"""Crossed columns: one text column whose values are the combinations of other columns' values.

They are made where raw rows are read, so that every later stage sees a column like any other. The value
is readable, ``berlin|7``, and no two combinations share one: ``|`` and ``\\`` inside a value are escaped,
a missing value is ``\\N``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import polars as pl

from recsys.data.check import require_column, typed
from recsys.data.source import Source
from recsys.data.split import Parts
from recsys.data.types import is_scalar, spelled
from recsys.errors import ConfigError, SchemaError, did_you_mean
from recsys.schema import Column, Schema

_MISSING = r"\N"


def add_crosses(schema: Schema, combinations: Sequence[Sequence[str]]) -> Schema:
    """A schema with a crossed feature per combination of columns, named ``a_x_b``.

    Raises ConfigError for a combination of unknown or uncountable columns, or a name that is taken.
    """
    columns = dict(schema.columns)
    for parts in combinations:
        for part in parts:
            if part not in schema.columns:
                raise ConfigError(f"combinations: no column {part!r}; {did_you_mean(part, schema.columns)}")
            if schema.columns[part].kind != "categorical":
                raise ConfigError(
                    f"combinations: column {part!r} is {schema.columns[part].kind}; only categorical "
                    "columns can be crossed"
                )
        # A combination with a crossed column is one of that column's own parts.
        flat = [whole for part in parts for whole in schema.columns[part].crosses or (part,)]
        parts = tuple(dict.fromkeys(flat))
        name = cross_name(parts)
        if name in columns:
            if columns[name].crosses == parts:
                continue
            raise ConfigError(f"combinations: the name {name!r} is taken by a column of the log; rename it")
        sides = {schema.columns[part].side for part in parts}
        side = sides.pop() if len(sides) == 1 else "context"
        columns[name] = Column(kind="categorical", type="string", crosses=parts, side=side)
    return Schema(columns=columns, rows=schema.rows, notes=schema.notes)


def cross_name(parts: Sequence[str]) -> str:
    """Name of the column that crosses these.

    >>> cross_name(["city", "hour"])
    'city_x_hour'
    """
    return "_x_".join(parts)


def with_crosses(source: Source, schema: Schema) -> Source:
    """The same rows with the schema's crossed columns, where the log does not hold them itself.

    Raises SchemaError for a part that the log lacks, or that is a list there.
    """
    made = _made(source.columns, schema, source.name)
    return source.with_columns(made, pl.String()) if made else source


def parts_with_crosses(parts: Parts, schema: Schema) -> Parts:
    """A split log with the schema's crossed columns in every part."""
    made = _made(parts.columns, schema, parts.name)
    return parts.mapped(lambda source: source.with_columns(made, pl.String())) if made else parts


def _made(columns: Mapping[str, pl.DataType], schema: Schema, origin: str) -> dict[str, pl.Expr]:
    """Crossed features that a log lacks, as expressions over its columns."""
    made = {}
    for name, column in schema.features.items():
        if column.crosses is None or name in columns:
            continue
        for part in column.crosses:
            dtype = require_column(part, columns, f"{origin} (part of {name!r})")
            if not is_scalar(dtype):
                raise SchemaError(
                    f"{origin}: column {part!r}, part of {name!r}: expected one value per row, "
                    f"found {spelled(dtype)}"
                )
        texts = [_text(part, columns[part], schema.columns[part]) for part in column.crosses]
        made[name] = pl.concat_str(texts, separator="|")
    return made


def _text(name: str, dtype: pl.DataType, column: Column) -> pl.Expr:
    """A value as escaped text, never null; one that does not fit its declared type as it stands."""
    value = typed(name, dtype, column).cast(pl.String)
    if dtype != pl.Null:
        value = pl.coalesce(value, pl.col(name).cast(pl.String))
    escaped = value.str.replace_all("\\", "\\\\", literal=True).str.replace_all("|", "\\|", literal=True)
    return escaped.fill_null(_MISSING)
