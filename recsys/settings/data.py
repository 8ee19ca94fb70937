"""The blocks ``data`` and ``split`` of a run file: where rows are, what they hold, which learn."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import Field, field_validator

from recsys.errors import ConfigError, did_you_mean
from recsys.schema import Kind, Role, Side, Transform, ValueType
from recsys.settings.section import Section
from recsys.strict_yaml import parse_yaml


class ColumnSettings(Section):
    """What the user states about one column; anything left out is inferred."""

    kind: Kind | None = None
    """``categorical``, ``numeric``, ``multi`` (unordered list) or ``sequence`` (oldest first)."""
    type: ValueType | None = None
    """``int64``, ``string``, ``float64`` or ``datetime``; of the elements, for lists."""
    roles: tuple[Role, ...] | None = None
    """Any of ``feature, label, weight, group, timestamp, row_id``; empty: ignored."""
    side: Side | None = None
    """``user``, ``item`` or ``context``."""
    vocabulary: str | None = None
    """Columns that name the same vocabulary share ids and table."""
    aligned_with: str | None = None
    """Another sequence of the same length, element for element."""
    max_length: int | None = Field(default=None, ge=1)
    """Lists are cut to this length; a sequence keeps its newest values."""
    transform: Transform | None = None
    """Of numeric columns: ``auto``, ``linear`` or ``log``."""


class DataSettings(Section):
    """Where the log is and what its columns are."""

    root: Path = Path()
    """Folder that relative paths of ``path`` and ``split`` start from; ``--data`` replaces it."""
    path: str | None = None
    """Parquet file, folder, glob, or a CSV file; leave out when ``split.by`` is ``files``."""
    label: str | None = None
    """Column that holds 0 or 1. May be left out for retrieval models, which learn from positive rows
    alone: every row of the log is one then."""
    group: str | None = None
    """Column whose values are GAUC's groups, usually the user; it may be a feature too."""
    weight: str | None = None
    """Column of sample weights."""
    timestamp: str | None = None
    """Column of event times."""
    ignore: tuple[str, ...] = ()
    """Columns to leave out."""
    columns: dict[str, ColumnSettings] = Field(default_factory=dict)
    """Overrides of what ``infer`` finds, by column name."""


class TimeSplit(Section):
    """Rows before ``valid_from`` train, rows from ``test_from`` on test, the rest validate."""

    by: Literal["time"]
    column: str
    """Column to compare: a date, a time, a number, or a Hive partition such as ``dt``."""
    valid_from: str | int | float
    """First value of the validation rows."""
    test_from: str | int | float
    """First value of the test rows."""

    @field_validator("valid_from", "test_from", mode="before")
    @classmethod
    def _written_date(cls, value: object) -> object:
        """YAML reads an unquoted 2026-01-31 as a date; text is what the column is compared with."""
        return value.isoformat() if isinstance(value, datetime.date) else value


class RatioSplit(Section):
    """Rows are dealt by a hash of their key, so that a row's part never changes as data grows."""

    by: Literal["ratio"]
    key: str | tuple[str, ...]
    """Column or columns whose values are hashed; rows of one key stay together."""
    valid: float = Field(default=0.1, ge=0, lt=1)
    """Share of keys for validation."""
    test: float = Field(default=0.1, ge=0, lt=1)
    """Share of keys for test."""
    salt: str = ""
    """Change it for another deal of the same keys."""


class ValidShare(Section):
    """Validation rows taken from the train path, by a hash of their key."""

    key: str | tuple[str, ...]
    """Column or columns whose values are hashed; rows of one key stay together."""
    share: float = Field(gt=0, lt=1)
    """Share of keys for validation."""
    salt: str = ""
    """Change it for another deal of the same keys."""


class FilesSplit(Section):
    """Given paths."""

    by: Literal["files"]
    train: str
    """Path, folder or glob of the train rows."""
    valid: str | ValidShare | None = None
    """Path, folder or glob of the validation rows; or which share of the train rows they are. Left out:
    there are none, and training ends after its last epoch."""
    test: str
    """Path, folder or glob of the test rows."""


_SPLITS: dict[str, type[TimeSplit] | type[RatioSplit] | type[FilesSplit]] = {
    "time": TimeSplit,
    "ratio": RatioSplit,
    "files": FilesSplit,
}
SplitSettings = Annotated[TimeSplit | RatioSplit | FilesSplit, Field(discriminator="by")]


def parse_split(text: str) -> TimeSplit | RatioSplit | FilesSplit:
    """A split rule written as YAML, as on the command line; raises ConfigError for anything else."""
    try:
        values = parse_yaml(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"split {text!r}: not valid YAML: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"split {text!r}: expected a mapping such as '{{by: ratio, key: user_id}}'")
    by = str(values.get("by"))
    if by not in _SPLITS:
        raise ConfigError(f"split {text!r}: by {by!r} is no rule; {did_you_mean(by, _SPLITS)}")
    return _SPLITS[by].parse(**values)
