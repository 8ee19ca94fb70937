"""``infer``: from a log to a schema that a person can read and edit.

Reads all rows, but no label: a given label's values are never looked at, and a guessed one is only
checked to hold nothing but 0 and 1. The rules are those of ``recsys.features.kinds`` (what kind),
``recsys.features.roles`` (what for) and ``recsys.features.sharing`` (whose vocabulary); whatever they
left out or took for granted stands in the schema's notes.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from recsys.config import ColumnSettings, SplitSettings, TimeSplit, explain_faults
from recsys.data.check import check_label_type, require_column
from recsys.data.dataset import GROUP, LABEL, WEIGHT
from recsys.data.source import Data, Source, open_source
from recsys.data.split import split_source
from recsys.data.types import is_list, is_supported, spelled
from recsys.errors import ConfigError, SchemaError, did_you_mean
from recsys.features.kinds import kinds_of
from recsys.features.overrides import apply_overrides, require_int64
from recsys.features.roles import Roles, draft_columns, guess_group, guess_label, guess_timestamp
from recsys.features.sharing import aligned_sequences, shared_vocabularies
from recsys.features.survey import Survey, survey
from recsys.schema import Column, Schema
from recsys.stage import StageRecord, outputs_of, settings_of, written_aside

VERSION = 1
SCHEMA_FILE = "schema.yaml"


def infer(
    data: Data | None,
    *,
    label: str | None = None,
    group: str | None = None,
    weight: str | None = None,
    timestamp: str | None = None,
    split: SplitSettings | None = None,
    columns: Mapping[str, ColumnSettings] | None = None,
    ignore: Sequence[str] = (),
    root: Path | None = None,
    output: str | Path | None = None,
) -> Schema:
    """Find out what the columns of a log are.

    Args:
        data: path or in-memory table; None where ``split`` names three files.
        label, group, weight, timestamp: columns of these roles; label, group (a user id) and timestamp
            are guessed by name where they are not given.
        split: how the log will be split; the column of a split by time is no feature.
        columns: what the user states about columns, over everything found.
        ignore: columns to leave out of the schema.
        root: folder that relative paths start from.
        output: folder that gets ``schema.yaml`` and ``stage.json``.

    Raises:
        SchemaError: a named column does not exist or cannot be what is stated about it.
        DataError: the log cannot be read, is empty, or holds integers beyond int64.
    """
    started = time.perf_counter()
    source = _open(data, split, root)
    overrides = {name: _settings(name, stated) for name, stated in (columns or {}).items()}
    roles = Roles(label, group, weight, timestamp, split.column if isinstance(split, TimeSplit) else None)
    _check_names(source, roles, overrides, ignore)
    schema = _infer(source, roles, overrides, set(ignore))
    if output is not None:
        settings = {
            **roles.given(),
            "ignore": list(ignore),
            "columns": {name: stated.model_dump(mode="json") for name, stated in overrides.items()},
        }
        with written_aside(Path(output), SCHEMA_FILE) as folder:
            schema.save(folder / SCHEMA_FILE)
            StageRecord(
                stage="infer",
                version=VERSION,
                inputs=source.fingerprints(),
                settings=settings_of({"data": settings}),
                outputs=outputs_of(folder, (SCHEMA_FILE,)),
                seconds=round(time.perf_counter() - started, 3),
                rows=schema.rows,
            ).save(folder)
    return schema


def _open(data: Data | None, split: SplitSettings | None, root: Path | None) -> Source:
    return split_source(split, None, root).whole if data is None else open_source(data, root)


def _settings(name: str, stated: Any) -> ColumnSettings:
    try:
        return ColumnSettings.model_validate(stated)
    except ValidationError as error:
        faults = "; ".join(f"columns.{name}.{fault}" for fault in explain_faults(error, ColumnSettings))
        raise ConfigError(faults) from error


def _check_names(
    source: Source, roles: Roles, overrides: Mapping[str, ColumnSettings], ignore: Sequence[str]
) -> None:
    """Every name that the user gave is a column, and none is both used and ignored."""
    named = {role: name for role, name in roles.given().items() if name is not None}
    for role, name in named.items():
        dtype = require_column(name, source.columns, f"{source.name} ({role})")
        if not is_supported(dtype) or is_list(dtype):
            raise SchemaError(
                f"{source.name}: {role} {name!r} is a {spelled(dtype)}; one value per row is needed"
            )
    if roles.label is not None:
        check_label_type(roles.label, source.columns[roles.label], source.name)
        twice = [role for role, name in named.items() if name == roles.label and role != "label"]
        if twice:
            raise ConfigError(f"column {roles.label!r} cannot be both label and {twice[0]}")
    for key, names in (("columns", overrides), ("ignore", ignore)):
        for name in names:
            require_column(name, source.columns, f"{source.name} ({key})")
    for name in ignore:
        if name in overrides or name in named.values():
            raise ConfigError(f"column {name!r} is ignored and used at the same time; drop one of the two")


def _infer(
    source: Source, roles: Roles, overrides: Mapping[str, ColumnSettings], ignore: set[str]
) -> Schema:
    notes: list[str] = []
    usable: list[str] = []
    for place, (name, dtype) in enumerate(source.columns.items(), start=1):
        if name in ignore:
            continue
        if not name:
            notes.append(f"column {place} has no name: left out")
            continue
        if name in (LABEL, WEIGHT, GROUP):
            raise SchemaError(
                f"{source.name}: the column name {name!r} is reserved; rename it or ignore it"
            )
        if is_supported(dtype):
            usable.append(name)
        elif name in overrides:
            raise SchemaError(
                f"{source.name}: column {name!r} is a {spelled(dtype)}, which cannot be used; "
                "write it as numbers, text or lists of these, or ignore it"
            )
        else:
            notes.append(f"{name}: left out, a {spelled(dtype)} cannot be used")
    roles = guess_label(source, roles, usable, notes)
    surveys = survey(source, [name for name in usable if name not in (roles.label, roles.weight)])
    kinds = kinds_of(source, surveys)
    roles = guess_timestamp(roles, surveys, notes)
    roles = guess_group(roles, surveys, kinds, notes)
    columns = draft_columns(source, usable, roles, surveys, kinds, notes)
    columns = apply_overrides(source, columns, overrides, surveys)
    require_int64(source, columns, surveys)
    columns = _linked(source, columns, overrides, surveys, notes)
    return _schema(source, columns, notes)


def _linked(
    source: Source,
    columns: dict[str, Column],
    overrides: Mapping[str, ColumnSettings],
    surveys: Mapping[str, Survey],
    notes: list[str],
) -> dict[str, Column]:
    """The columns with shared vocabularies and aligned sequences, where the user stated neither."""
    linked = dict(columns)
    for name, overlap in shared_vocabularies(source, columns, surveys).items():
        if columns[name].vocabulary is None:
            vocabulary = columns[overlap.column].vocabulary or overlap.column
            linked[name] = linked[name].model_copy(update={"vocabulary": vocabulary})
            notes.append(
                f"{name}: shares the vocabulary of {overlap.column}, "
                f"which holds {overlap.contained:.0%} of its values"
            )
    for name, other in aligned_sequences(source, columns).items():
        stated = overrides.get(name)
        if stated is None or stated.aligned_with is None:
            linked[name] = linked[name].model_copy(update={"aligned_with": other})
    return linked


def _schema(source: Source, columns: dict[str, Column], notes: list[str]) -> Schema:
    for name, column in columns.items():
        if column.aligned_with is not None and column.aligned_with not in columns:
            known = did_you_mean(column.aligned_with, columns)
            raise SchemaError(f"columns.{name}.aligned_with: no column {column.aligned_with!r}; {known}")
    types: dict[str, str] = {}
    for name, column in columns.items():
        vocabulary = column.vocabulary or name
        if column.kind == "numeric" or not column.is_feature:
            continue
        if types.setdefault(vocabulary, column.type) != column.type:
            raise SchemaError(
                f"columns.{name}: type {column.type}, but other columns of vocabulary {vocabulary!r} are "
                f"{types[vocabulary]}; give them one type"
            )
    if not any(column.is_feature for column in columns.values()):
        notes.append("no column can be a feature; every model needs at least one")
    try:
        return Schema(columns=columns, rows=source.rows(), notes=tuple(notes))
    except ValidationError as error:
        raise SchemaError(f"{source.name}: {error.errors()[0]['msg']}") from error
