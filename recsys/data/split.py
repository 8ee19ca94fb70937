"""The split: which rows train, validate and test; applied before anything learns from the data.

By time, by a hashed ratio of keys, or three given sources. A part is a lazy filter over the log (a
choice of files, where the rule compares a Hive partition), so its rows keep the log's order and nothing
is loaded to split it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl
import xxhash
from numpy.typing import NDArray

from recsys.config import FilesSplit, RatioSplit, SplitSettings, TimeSplit, ValidShare
from recsys.data.boundary import parse_boundaries
from recsys.data.check import first_row, reading, require_column
from recsys.data.dataset import PARTS, Part
from recsys.data.source import Data, Source, joined, open_source
from recsys.data.types import is_scalar, spelled
from recsys.embeddings.keys import keys_of, splitmix64
from recsys.errors import ConfigError, DataError, SchemaError
from recsys.stage import Fingerprint


class Parts:
    """A log by part. Making one reads footers; rows are first read when a part is asked for."""

    def __init__(self, whole: Source, deal: Callable[[], dict[Part, Source]]) -> None:
        self.whole = whole
        """The log before the split; of three given sources, one after the other."""
        self._deal = deal

    @cached_property
    def _sources(self) -> dict[Part, Source]:
        return self._deal()

    def source(self, part: Part) -> Source:
        """The rows of one part as a source of its own, which still names file and row of the log.

        Raises DataError where the rule leaves a part empty that it should fill.
        """
        if part not in PARTS:
            raise ConfigError(f"no part {part!r}; known: {', '.join(PARTS)}")
        if part in self._sources:
            return self._sources[part]
        return self.whole.filtered(pl.lit(False), _part_name(self.whole, part), 0)

    def mapped(self, change: Callable[[Source], Source]) -> Parts:
        """The same parts after a change of columns that keeps every row."""
        return Parts(
            change(self.whole), lambda: {part: change(source) for part, source in self._sources.items()}
        )

    def lazy(self, part: Part) -> pl.LazyFrame:
        """The rows of one part, in the order of the log; raises DataError as ``source`` does."""
        return self.source(part).lazy()

    def rows(self, part: Part) -> int:
        """Number of rows of one part; raises DataError as ``source`` does."""
        return self.source(part).rows()

    def all(self) -> pl.LazyFrame:
        """The rows of all parts."""
        return self.whole.lazy()

    @property
    def name(self) -> str:
        """For messages: the log as the user named it."""
        return self.whole.name

    @property
    def columns(self) -> dict[str, pl.DataType]:
        """Types of the columns by name."""
        return self.whole.columns

    @property
    def files(self) -> list[Path]:
        """Files of all parts; empty for an in-memory table."""
        return self.whole.files

    def fingerprints(self) -> dict[str, Fingerprint]:
        """Fingerprints of the files by absolute path."""
        return self.whole.fingerprints()


def split_source(split: SplitSettings | None, source: Data | None, root: Path | None = None) -> Parts:
    """Split a log as the run file says; without a rule every row trains.

    ``source`` is None where the rule names three paths itself. Raises ConfigError for a rule that
    contradicts itself or the column's type, SchemaError for a missing column. That a part is empty or
    a row has no time shows as a DataError when a part is first asked for.
    """
    if isinstance(split, FilesSplit):
        if source is not None:
            raise ConfigError("split.by 'files' names the rows itself; give no other data beside it")
        return _by_files(split, root)
    if source is None:
        raise ConfigError("no data: give a path or a table, or a split by 'files'")
    whole = open_source(source, root)
    if split is None:
        return Parts(whole, lambda: {"train": whole})
    return _by_time(split, whole) if isinstance(split, TimeSplit) else _by_ratio(split, whole)


def _by_files(split: FilesSplit, root: Path | None) -> Parts:
    paths = {part: getattr(split, part) for part in PARTS}
    sources: dict[Part, Source] = {
        part: open_source(path, root) for part, path in paths.items() if isinstance(path, str)
    }
    owner: dict[Path, Part] = {}
    for part, source in sources.items():
        for file in source.files:
            first = owner.setdefault(file.resolve(), part)
            if first != part:
                raise DataError(
                    f"{file}: stands in both split.{first} and split.{part}; parts share no rows"
                )
    whole = joined(list(sources.values()))

    def deal() -> dict[Part, Source]:
        found = {part: source.fitted(whole.columns) for part, source in sources.items()}
        return found | _shared_out(found["train"], split.valid)

    return Parts(whole, deal)


def _shared_out(train: Source, share: str | ValidShare | None) -> dict[Part, Source]:
    """Train and validation rows where the latter are a share of the given train rows; else nothing."""
    if not isinstance(share, ValidShare):
        return {}
    rule = RatioSplit(by="ratio", key=share.key, valid=share.share, test=0.0, salt=share.salt)
    return {part: source for part, source in _by_ratio(rule, train)._sources.items() if part != "test"}


def _by_time(split: TimeSplit, whole: Source) -> Parts:
    dtype = require_column(split.column, whole.columns, f"{whole.name} (split.column)")
    bounds = parse_boundaries(split, dtype, whole)

    def deal() -> dict[Part, Source]:
        time, valid_from, test_from = bounds()
        conditions: dict[str, pl.Expr] = {
            "train": time < valid_from,
            "valid": (time >= valid_from) & (time < test_from),
            "test": time >= test_from,
        }
        untimed = time.is_null() | (time.is_nan() if dtype.is_float() else False)
        counts = _count(whole, {**conditions, "untimed": untimed})
        if counts["untimed"]:
            where, value = first_row(whole, split.column, untimed)
            raise DataError(
                f"{where}: split column {split.column!r} holds {value}; {counts['untimed']} rows have no "
                "time and belong to no part: give them one or leave them out"
            )
        for part in PARTS:
            if not counts[part]:
                raise DataError(_empty_by_time(split, whole, part))
        return {part: _share(whole, part, conditions[part], counts[part], split.column) for part in PARTS}

    return Parts(whole, deal)


def _share(whole: Source, part: Part, condition: pl.Expr, rows: int, column: str) -> Source:
    """A part by a condition on one column: a choice of files where that is a Hive partition."""
    name = _part_name(whole, part)
    values = whole.partition_values(column)
    if values is None:
        return whole.filtered(condition, name, rows)
    taken = values.to_frame().select(condition).to_series()
    return whole.chosen([file for file, take in zip(whole.log_files, taken, strict=True) if take], name)


def _part_name(whole: Source, part: Part) -> str:
    return f"{whole.name} ({part} rows)"


def _empty_by_time(split: TimeSplit, whole: Source, part: Part) -> str:
    with reading(whole):
        span = (
            whole.lazy()
            .select(low=pl.col(split.column).min(), high=pl.col(split.column).max())
            .collect(engine="streaming")
        )
    return (
        f"{whole.name}: the split leaves no {part} rows: column {split.column!r} goes from "
        f"{span['low'][0]} to {span['high'][0]}, valid_from is {split.valid_from}, "
        f"test_from {split.test_from}"
    )


def _by_ratio(split: RatioSplit, whole: Source) -> Parts:
    keys = [split.key] if isinstance(split.key, str) else list(split.key)
    if not keys:
        raise ConfigError("split.key: name at least one column")
    if split.valid + split.test >= 1:
        raise ConfigError(
            f"split: valid {split.valid} and test {split.test} leave nothing to train on; "
            "their sum must be below 1"
        )
    for key in keys:
        dtype = require_column(key, whole.columns, f"{whole.name} (split.key)")
        if not is_scalar(dtype) or dtype == pl.Int128:
            raise SchemaError(f"{whole.name}: split.key {key!r} is a {spelled(dtype)}; it cannot be hashed")

    def deal() -> dict[Part, Source]:
        dealt = _dealt(keys, split)
        conditions: dict[str, pl.Expr] = {part: dealt == index for index, part in enumerate(PARTS)}
        counts = _count(whole, conditions)
        shares = {"train": 1 - split.valid - split.test, "valid": split.valid, "test": split.test}
        for part in PARTS:
            if shares[part] > 0 and not counts[part]:
                raise DataError(
                    f"{whole.name}: the split leaves no {part} rows: too few different values of "
                    f"{', '.join(keys)} for a share of {shares[part]:.4g}; split by another key or by time"
                )
        return {
            part: whole.filtered(conditions[part], _part_name(whole, part), counts[part]) for part in PARTS
        }

    return Parts(whole, deal)


def _count(whole: Source, conditions: dict[str, pl.Expr]) -> dict[str, int]:
    """Number of rows that meet each condition."""
    counted = whole.lazy().select(**{name: condition.sum() for name, condition in conditions.items()})
    with reading(whole):
        found = counted.collect(engine="streaming").row(0, named=True)
    return {name: int(count or 0) for name, count in found.items()}


def _dealt(keys: list[str], split: RatioSplit) -> pl.Expr:
    """Index in ``PARTS`` of each row's part, from the hash of its keys alone."""
    span = 1 << 64
    test_below = int(split.test * span)
    valid_below = min(test_below + int(split.valid * span), span - 1)

    def deal(rows: pl.Series) -> pl.Series:
        hashed = hash_keys([rows.struct.field(key) for key in keys], split.salt)
        part = np.where(hashed < np.uint64(test_below), 2, np.where(hashed < np.uint64(valid_below), 1, 0))
        return pl.Series(part.astype(np.uint8))

    return pl.struct(keys).map_batches(deal, return_dtype=pl.UInt8, is_elementwise=True)


def hash_keys(columns: list[pl.Series], salt: str) -> NDArray[np.uint64]:
    """One hash ``[N]`` per row of key columns ``[N]`` each; a function of values and salt alone.

    ``h = splitmix64(h ^ key)`` over the columns, from ``h = xxh3_64(salt)``. Integers have the same key
    in every column type that can hold them, floats with integer values included.
    """
    hashed = np.full(len(columns[0]), xxhash.xxh3_64_intdigest(salt.encode()), dtype=np.uint64)
    for column in columns:
        hashed = splitmix64(hashed ^ _keys(column))
    return hashed


def _keys(values: pl.Series) -> NDArray[np.uint64]:
    dtype = values.dtype
    if dtype == pl.String:
        return keys_of(values, "string")
    if dtype == pl.UInt64:
        return keys_of(values.reinterpret(signed=True), "int64")
    if dtype.is_float():
        whole = values.round() == values
        integers = values.set(~whole, None).cast(pl.Int64, strict=False)
        return np.where(
            integers.is_not_null().to_numpy(), keys_of(integers, "int64"), keys_of(values, "float64")
        )
    return keys_of(values, "datetime" if dtype == pl.Datetime else "int64")
