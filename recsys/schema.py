"""What a column is: its kind, the type of its values, its roles.

``recsys infer`` writes a schema as YAML, a person may edit it, and every later stage reads it.
Vocabulary sizes and bin edges are never part of it: ``prepare`` finds them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from recsys.errors import SchemaError, did_you_mean
from recsys.strict_yaml import read_yaml

Kind = Literal["categorical", "numeric", "multi", "sequence"]
Role = Literal["feature", "label", "weight", "group", "timestamp", "row_id"]
Side = Literal["user", "item", "context"]
ValueType = Literal["int64", "string", "float64", "datetime"]
Transform = Literal["auto", "linear", "log"]

RAGGED: tuple[Kind, ...] = ("multi", "sequence")


class ColumnFacts(BaseModel):
    """What ``infer`` saw in a column; for people to read, never used by a later stage."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    distinct: int
    """Number of distinct values (of the elements, for lists), missing not counted."""
    distinct_is_exact: bool = True
    """False where the number is a sketch's estimate."""
    missing: float
    """Share of rows without a value (null, NaN, or an empty list)."""
    length_mean: float | None = None
    """Mean list length over rows that have a list."""
    length_max: int | None = None
    """Longest list."""
    minimum: float | None = None
    """Smallest finite number, of numeric columns."""
    maximum: float | None = None
    """Largest finite number, of numeric columns."""
    not_finite: int = 0
    """Number of rows that hold NaN or an infinity; they count as missing."""


class Column(BaseModel):
    """One column of the log."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Kind
    """``categorical``, ``numeric``, ``multi`` (unordered list) or ``sequence`` (ordered, oldest first)."""
    type: ValueType
    """Type of the values, of the elements for lists. Values are cast to it before they are keyed.
    Booleans are ``int64``; ``datetime`` means int64 microseconds since the epoch, UTC."""
    roles: tuple[Role, ...] = ("feature",)
    """Any of ``feature, label, weight, group, timestamp, row_id``; empty: the column is ignored."""
    side: Side | None = None
    """Whom the column describes: ``user``, ``item`` or ``context``."""
    vocabulary: str | None = None
    """Columns that name the same vocabulary share ids and table. Default: the column's own name."""
    aligned_with: str | None = None
    """Another sequence of the same length, element for element."""
    max_length: int | None = Field(default=None, ge=1)
    """Lists are cut to this length; a sequence keeps its newest values."""
    transform: Transform = "auto"
    """Of numeric columns: ``linear``, ``log`` (signed log1p), or ``auto`` (chosen on train rows)."""
    crosses: tuple[str, ...] | None = Field(default=None, min_length=2)
    """Made of these categorical columns: a value for every combination of theirs. Ranking finds such
    columns, and they can be written by hand; the log need not hold them."""
    facts: ColumnFacts | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Column:
        if self.crosses is not None and (self.kind != "categorical" or self.type != "string"):
            raise ValueError("a column that crosses others is categorical and of type string")
        if self.kind == "numeric" and self.vocabulary is not None:
            raise ValueError("a numeric column has no vocabulary")
        if self.kind == "numeric" and self.type == "string":
            raise ValueError("a numeric column cannot be of type string")
        if self.kind not in RAGGED and self.max_length is not None:
            raise ValueError("max_length is for multi and sequence columns")
        if self.kind != "sequence" and self.aligned_with is not None:
            raise ValueError("aligned_with is for sequence columns")
        return self

    @property
    def is_feature(self) -> bool:
        return "feature" in self.roles

    @property
    def is_ragged(self) -> bool:
        return self.kind in RAGGED


class Schema(BaseModel):
    """Columns of a log by name, in the order of the file.

    >>> schema = Schema(columns={"clicked": Column(kind="numeric", type="int64", roles=("label",))})
    >>> schema.label
    'clicked'
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    columns: dict[str, Column]
    rows: int | None = None
    """Number of rows that ``infer`` read."""
    notes: tuple[str, ...] = ()
    """Why ``infer`` left columns out, and what it took for granted; for people to read."""

    @model_validator(mode="after")
    def _one_of_each(self) -> Schema:
        for role in ("label", "weight", "group", "timestamp"):
            named = [name for name, column in self.columns.items() if role in column.roles]
            if len(named) > 1:
                raise ValueError(f"one column at most has the role {role!r}, found {named}")
        for name, column in self.columns.items():
            other = column.aligned_with
            if other is not None and (other not in self.columns or self.columns[other].kind != "sequence"):
                raise ValueError(f"column {name!r}: aligned_with {other!r} is not a sequence here")
            for part in column.crosses or ():
                found = self.columns.get(part)
                if found is None or found.kind != "categorical" or found.crosses is not None:
                    raise ValueError(f"column {name!r}: crosses {part!r}, no categorical column of the log")
        return self

    def _with_role(self, role: Role) -> str | None:
        return next((name for name, column in self.columns.items() if role in column.roles), None)

    @property
    def label(self) -> str | None:
        """Name of the label column, if one is declared."""
        return self._with_role("label")

    @property
    def group(self) -> str | None:
        """Name of the GAUC group column, if one is declared."""
        return self._with_role("group")

    @property
    def weight(self) -> str | None:
        """Name of the sample weight column, if one is declared."""
        return self._with_role("weight")

    @property
    def timestamp(self) -> str | None:
        """Name of the event time column, if one is declared."""
        return self._with_role("timestamp")

    @property
    def features(self) -> dict[str, Column]:
        """The columns that a model may read, in order."""
        return {name: column for name, column in self.columns.items() if column.is_feature}

    def vocabulary_of(self, name: str) -> str:
        """Name of the vocabulary that a categorical, multi or sequence column uses."""
        return self.column(name).vocabulary or name

    def column(self, name: str) -> Column:
        """The column of that name; raises SchemaError with the nearest name otherwise."""
        if name not in self.columns:
            raise SchemaError(f"no column {name!r} in the schema: {did_you_mean(name, self.columns)}")
        return self.columns[name]

    def keep(self, features: list[str]) -> Schema:
        """A schema in which only these columns are features; other roles stay."""
        for name in features:
            self.column(name)
        kept = {
            name: column
            if name in features or not column.is_feature
            else column.model_copy(
                update={"roles": tuple(role for role in column.roles if role != "feature")}
            )
            for name, column in self.columns.items()
        }
        return Schema(columns=kept, rows=self.rows, notes=self.notes)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, defaults left out, ready for YAML or JSON."""
        return self.model_dump(mode="json", exclude_defaults=True)

    def save(self, path: Path) -> None:
        """Write the schema as YAML."""
        text = yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True, width=100)
        path.write_text(text, encoding="utf-8")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], origin: str = "schema") -> Schema:
        """Build a schema from plain values; raises SchemaError that names column and field."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            lines = "\n".join(f"  {_explain(fault)}" for fault in error.errors())
            raise SchemaError(f"{origin}: not a valid schema:\n{lines}") from error

    @classmethod
    def load(cls, path: Path) -> Schema:
        """Read a schema from YAML; raises SchemaError that names the file."""
        try:
            values = read_yaml(path)
        except (FileNotFoundError, IsADirectoryError) as error:
            raise SchemaError(f"{path}: no such schema file; write one with 'recsys infer'") from error
        except yaml.YAMLError as error:
            raise SchemaError(f"{path}: not valid YAML: {error}") from error
        if not isinstance(values, dict):
            raise SchemaError(f"{path}: expected a mapping with the key 'columns'")
        return cls.from_dict(values, str(path))


def _explain(fault: Any) -> str:
    """One line of what is wrong with a schema, with the nearest key for an unknown one."""
    location = fault["loc"]
    key = ".".join(str(part) for part in location) or "schema"
    if fault["type"] == "extra_forbidden":
        sections: dict[int, type[BaseModel]] = {1: Schema, 3: Column}
        section = sections.get(len(location), ColumnFacts)
        return f"{key}: unknown key; {did_you_mean(str(location[-1]), section.model_fields)}"
    shown = fault["type"] != "missing" and not isinstance(fault["input"], Mapping)
    found = f" (found {fault['input']!r})" if shown else ""
    return f"{key}: {fault['msg'].removeprefix('Value error, ')}{found}"
