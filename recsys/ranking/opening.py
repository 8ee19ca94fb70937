"""What is ranked: the train rows of a log, its schema and its label."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from recsys.data.check import check_columns, check_values, reading, require_column
from recsys.data.crosses import parts_with_crosses
from recsys.data.source import Data, Source, open_source
from recsys.data.split import split_source
from recsys.data.types import is_scalar
from recsys.errors import ConfigError, DataError, did_you_mean
from recsys.progress import say
from recsys.ranking.label import Label, open_label
from recsys.ranking.spread import Spread
from recsys.schema import Column, Schema

if TYPE_CHECKING:
    from recsys.config import SplitSettings
    from recsys.stage import Fingerprint

MINIMUM_ROWS = 100
HELD_VALUES = 1 << 24
HELD_BYTES = 1 << 28
"""Logs of no more values, in files of no more bytes, are read once and held in memory."""


@dataclass(frozen=True)
class Log:
    """Rows to rank by."""

    source: Source
    """Train rows."""
    schema: Schema
    label: Label
    spread: Spread
    fingerprints: dict[str, Fingerprint]
    """Of the files of the whole log."""


def open_log(
    data: Data | None,
    schema: Schema | str | Path | None,
    split: SplitSettings | None,
    label: str | None,
    root: Path | None,
    sample: int,
) -> Log:
    """Open a log, infer its schema where none is given, and see that its label can be ranked by.

    Raises ConfigError without a label or for one that is not there, SchemaError for columns that are
    not what the schema says, DataError for too few rows or a label that cannot be used.
    """
    if data is not None:
        data = _held(open_source(data, root))
    split_log = split_source(split, data, root=root)
    if label is not None and label not in split_log.columns:
        near = did_you_mean(label, split_log.columns)
        raise ConfigError(f"{split_log.name}: no column {label!r} to be the label; {near}")
    if schema is None:
        schema = _inferred(data, label, split, root)
    elif not isinstance(schema, Schema):
        schema = Schema.load(Path(schema))
    if label is not None and schema.label != label:
        schema = _relabelled(schema, label)
    if schema.label is None:
        raise ConfigError("rank needs a label: give label=, or a column with the role 'label'")
    parts = parts_with_crosses(split_log, schema)
    source = parts.source("train")
    check_columns(source.columns, schema, source.name)
    rows = source.rows()
    if rows < MINIMUM_ROWS:
        raise DataError(
            f"{source.name}: {rows} train rows are too few to rank by; at least {MINIMUM_ROWS} are needed"
        )
    if not schema.features:
        left = "; ".join(schema.notes)
        raise DataError(f"{source.name}: no column to rank{': ' + left if left else ''}")
    for name, treatment in check_values(source, schema).items():
        say(f"{name}: {treatment}")
    spread = Spread(rows, sample)
    found = open_label(source, schema.label, spread)
    return Log(source, schema, found, spread, parts.fingerprints())


def _held(source: Source) -> Source:
    """A small log read once, so that inferring, checking and counting do not each read it again."""
    if not source.files or source.rows() * len(source.columns) > HELD_VALUES:
        return source
    if sum(path.stat().st_size for path in source.files) > HELD_BYTES:
        return source
    with reading(source):
        frame = source.lazy().collect()
    return Source(source.name, source.columns, frame.lazy(), source.log_files, rows=frame.height)


def _inferred(
    data: Data | None, label: str | None, split: SplitSettings | None, root: Path | None
) -> Schema:
    """The schema of a log whose label may be of any type that has classes."""
    from recsys.features.infer import infer

    if not isinstance(data, Source) or label is None:
        return infer(data, label=label, split=split, root=root)
    dtype = require_column(label, data.columns, f"{data.name} (label)")
    if dtype.is_numeric() or dtype == pl.Boolean or not is_scalar(dtype):
        return infer(data, label=label, split=split, root=root)
    # The label's values are never looked at there, but text is refused: training wants 0 and 1.
    stand_in = data.lazy().with_columns(pl.lit(0, pl.Int8).alias(label))
    columns = {**data.columns, label: pl.Int8()}
    schema = infer(Source(data.name, columns, stand_in, data.log_files, rows=data.rows()), label=label)
    return _relabelled(schema, label)


def _relabelled(schema: Schema, label: str) -> Schema:
    """The schema with this column as its label, of whatever type; an earlier label is no feature."""
    columns = dict(schema.columns)
    for name, column in columns.items():
        if "label" in column.roles:
            roles = tuple(role for role in column.roles if role != "label")
            columns[name] = column.model_copy(update={"roles": roles})
    columns[label] = Column(kind="categorical", type="string", roles=("label",))
    return Schema(columns=columns, rows=schema.rows, notes=schema.notes)
