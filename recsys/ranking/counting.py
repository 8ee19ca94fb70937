"""Counting a log's columns against its label in one streaming pass, in bounded memory.

Whole numbers in a bounded range are counted at ``(value - low) * classes + class`` of an array that
grows with the range; everything else by hash per chunk, merged when enough chunks are waiting.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import repeat

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.data.check import reading, typed_columns
from recsys.data.source import Source
from recsys.embeddings.keys import CANONICAL
from recsys.progress import progress
from recsys.ranking.binning import Bins
from recsys.ranking.label import Label
from recsys.ranking.spread import Spread
from recsys.ranking.tally import Tally, hashed_below
from recsys.schema import Schema

DENSE_CELLS = 1 << 22
"""Cells of the array of one column at most: 32 MiB."""
MOST_VALUES = 1 << 20
"""Hashed values of one column at most; of columns with more, a share is counted (``Tally.share``)."""
CHUNK_ROWS = 1 << 18
"""Rows that are hashed together."""
NARROW = (pl.Int64, pl.Int32, pl.Int16, pl.Int8, pl.UInt32, pl.UInt16, pl.UInt8)
"""Types of integers that can be counted without a cast to the schema's int64."""
COMPILED_FROM = 50_000_000
"""Values of a log from which the compiled loop pays."""
_MERGED_AT = 1 << 18
_VALUE, _CLASS = "value", "class"

Ints = NDArray[np.int64]
AddCounts = Callable[[Ints, Ints, int, Ints, int], int]


@dataclass(frozen=True)
class Counted:
    """What one pass over a log gives."""

    tallies: dict[str, Tally]
    sample: pl.DataFrame
    """Rows of the spread: typed features, the label's class number as ``label_column`` and others."""


def count(
    source: Source,
    schema: Schema,
    label: Label,
    spread: Spread | None = None,
    bins: Mapping[str, Bins] | None = None,
    extra: tuple[str, ...] = (),
) -> Counted:
    """Count every feature of a log against its label.

    Args:
        source: rows to count.
        schema: which columns are features, and of what kind.
        label: how the label becomes class numbers.
        spread: rows to hand back as they are.
        bins: fine bins of numeric columns; others are counted by their values.
        extra: further columns of the handed-back rows, raw.
    """
    add_counts = _compiled_loop(source.rows() * len(schema.features))
    counters = {
        name: Counter(len(label.names), None if bins is None else bins.get(name), add_counts)
        for name in schema.features
    }
    classes = np.zeros(len(label.names), np.int64)
    taken: list[pl.DataFrame] = []
    start = 0
    with ThreadPoolExecutor(max_workers=pl.thread_pool_size()) as pool:
        run: Callable[..., Iterable[None]] = map if add_counts is None else pool.map
        for frame in typed_batches(source, schema, label.column, extra):
            numbers = label.number(frame[LABEL_COLUMN])
            classes += np.bincount(numbers, minlength=len(classes))
            if add_counts is not None:
                # Read once per column, so it had better stay in the cache.
                numbers = numbers.astype(np.int16)
            columns = [frame[name] for name in counters]
            list(run(Counter.add, counters.values(), columns, repeat(numbers)))
            if spread is not None:
                numbered = frame.with_columns(pl.Series(LABEL_COLUMN, numbers))
                taken.append(spread.of(numbered, start).cast(dict.fromkeys(NARROW, pl.Int64)))
            start += frame.height
        tallies = pool.map(lambda counter: counter.tally(classes), counters.values())
        found = dict(zip(counters, tallies, strict=True))
    return Counted(found, pl.concat(taken) if taken else pl.DataFrame())


def _compiled_loop(values: int) -> AddCounts | None:
    """The compiled loop where it pays; it leaves the interpreter, so columns are counted side by side."""
    if values < COMPILED_FROM:
        return None
    from recsys.ranking.dense_counts import add_counts

    return add_counts


LABEL_COLUMN = "__label__"


def typed_batches(
    source: Source, schema: Schema, label: str, extra: tuple[str, ...] = ()
) -> Iterator[pl.DataFrame]:
    """Features as the schema types them, the raw label as ``__label__``, and raw columns, in order."""
    features = [name for name in schema.features if name in source.columns]
    names = list(dict.fromkeys([*features, label, *extra]))
    # Casts stand outside the scan, which would hold three times as many rows for them.
    casts = typed_columns(source.columns, schema, label=False)
    columns = [
        pl.col(name) if _is_typed(source, schema, name) else cast
        for name, cast in zip(features, casts, strict=True)
    ]
    columns += [
        pl.col(label).alias(LABEL_COLUMN),
        *(pl.col(name).alias(extra_name(name)) for name in extra),
    ]
    rows = source.lazy().select(names)
    with reading(source), progress("rank", total=source.rows()) as bar:
        for frame in rows.collect_batches(maintain_order=True, lazy=True):
            if frame.height:
                yield frame.select(columns)
            bar.advance(frame.height)


def _is_typed(source: Source, schema: Schema, name: str) -> bool:
    """Whether a column's values are already what its schema type is counted as, or narrower integers."""
    dtype, type = source.columns[name], schema.columns[name].type
    if type == "int64" and schema.columns[name].kind == "categorical":
        return dtype in NARROW
    return dtype == CANONICAL[type] and type in ("int64", "string")


def extra_name(name: str) -> str:
    """Name of a raw column among the typed ones."""
    return f"__raw__{name}"


class Counter:
    """Counts one column, batch by batch.

    Args:
        classes: number of classes C.
        bins: of a numeric column, to be counted by bin number.
        add_counts: the compiled loop, see ``dense_counts``; None: numpy's.
    """

    def __init__(self, classes: int, bins: Bins | None = None, add_counts: AddCounts | None = None) -> None:
        self._classes = classes
        self._add_counts = add_counts
        self._bins = bins
        self._missing = np.zeros(classes, np.int64)
        self._low = 0
        self._cells = np.zeros((0, classes), np.int64)
        self._hashed: Hashed | None = None
        self._dtype: pl.DataType = pl.Int64()

    def add(self, values: pl.Series, label: Ints) -> None:
        """Count typed values ``[N]`` (scalars or lists) of rows of these classes ``[N]``."""
        if isinstance(values.dtype, pl.List):
            values, label = elements_of(values, label)
        if self._bins is None:
            self._dtype = pl.Int64() if values.dtype.is_integer() else values.dtype
        if values.null_count():
            there = values.is_not_null().to_numpy()
            self._missing += np.bincount(label[~there], minlength=self._classes)
            values, label = values.drop_nulls(), label[there]
        if not len(values):
            return
        if self._bins is not None:
            values = pl.Series(self._bins.number(values.cast(pl.Float64).to_numpy()))
        if self._hashed is None and values.dtype.is_integer():
            numbers = values.to_numpy()
            counted = self._counted(numbers, label)
            if counted == len(numbers):
                return
            values, label = values[counted:], label[counted:]
        if self._hashed is None:
            self._hashed = Hashed(self._classes)
        self._hashed.add(values.cast(self._dtype) if values.dtype.is_integer() else values, label)

    def _fits(self, low: int, high: int) -> bool:
        """Whether the array can hold these values, growing where it must."""
        first, last = self._low, self._low + len(self._cells)
        if len(self._cells):
            low, high = min(low, first), max(high, last - 1)
        if (high - low + 1) * self._classes > DENSE_CELLS:
            return False
        if not len(self._cells) or low < first or high >= last:
            span = high - low + 1
            grown = np.zeros((span, self._classes), np.int64)
            if len(self._cells):
                grown[first - low : last - low] = self._cells
            self._low, self._cells = low, grown
        return True

    def _counted(self, values: Ints, label: Ints) -> int:
        """Count in the array as far as it can hold the values; how many rows that is."""
        done = 0
        while done < len(values):
            if self._add_counts is not None and len(self._cells):
                done = self._add_counts(values, label, self._low, self._cells, done)
            rest = values[done:]
            if len(rest) == 0 or not self._fits(int(rest.min()), int(rest.max())):
                break
            if self._add_counts is None:
                self._add_dense(rest, label)
                done = len(values)
        return done

    def _add_dense(self, values: Ints, label: Ints) -> None:
        places = (values.astype(np.int64, copy=False) - self._low) * self._classes
        places += label
        np.add.at(self._cells.reshape(-1), places, 1)  # faster than bincount, and leaves the rest alone

    def tally(self, classes: Ints) -> Tally:
        """Everything counted, of rows of these classes ``[C]``."""
        seen = np.flatnonzero(self._cells.any(1))
        values = pl.Series(seen + self._low, dtype=pl.Int64)
        tally = Tally(values if len(seen) else values.cast(self._dtype), self._cells[seen], classes)
        if self._hashed is not None:
            none = np.zeros_like(classes)
            hashed = self._hashed.tally(none)
            tally = hashed if not len(seen) else Tally(values, tally.counts, none).merge(hashed)
            # Which values came before the first that fits no array must not matter: thinned as one.
            while len(tally.values) > MOST_VALUES:
                tally = tally.thinned(tally.share / 2)
            tally = Tally(tally.values, tally.counts, classes, tally.share)
        if not self._missing.any():
            return tally
        missing = self._missing
        if tally.share < 1:
            missing = np.rint(missing * tally.share).astype(np.int64)
        named = pl.concat([pl.Series([None], dtype=tally.values.dtype), tally.values])
        return Tally(named, np.concatenate([missing[None], tally.counts]), classes, tally.share)


class Hashed:
    """Counts of values that no array can be indexed by; a share of them where they are too many."""

    def __init__(self, classes: int) -> None:
        self._share = 1.0
        self._waiting: list[pl.DataFrame] = []
        self._waiting_rows = 0
        self._counted: list[pl.DataFrame] = []
        self._merged = 0
        self._columns = [str(number) for number in range(classes)]
        label = pl.col(_CLASS)
        counts = [(label == number).sum() for number in range(classes)]
        if classes == 2:  # the usual case, in half the time
            counts = [pl.len() - label.sum(), label.sum()]
        self._counts = [
            count.cast(pl.Int64).alias(name) for name, count in zip(self._columns, counts, strict=True)
        ]

    def add(self, values: pl.Series, label: Ints) -> None:
        """Count values ``[N]``, none missing."""
        self._waiting.append(pl.DataFrame({_VALUE: values, _CLASS: label}))
        self._waiting_rows += len(values)
        if self._waiting_rows >= CHUNK_ROWS:
            self._count()

    def _count(self) -> None:
        if self._waiting:
            rows = pl.concat(self._waiting)
            self._waiting, self._waiting_rows = [], 0
            if self._share < 1:
                rows = rows.filter(pl.Series(hashed_below(rows[_VALUE], self._share)))
            self._counted.append(rows.group_by(_VALUE).agg(self._counts))
        if sum(frame.height for frame in self._counted) > self._merged + _MERGED_AT:
            self._merge()

    def _merge(self) -> None:
        frame = pl.concat(self._counted)
        if len(self._counted) > 1:
            frame = frame.group_by(_VALUE).agg(pl.col(self._columns).sum())
        while frame.height > MOST_VALUES:
            self._share /= 2
            frame = frame.filter(pl.Series(hashed_below(frame[_VALUE], self._share)))
        self._counted, self._merged = [frame], frame.height

    def tally(self, classes: Ints) -> Tally:
        """Everything counted, of rows of these classes ``[C]``."""
        self._count()
        self._merge()
        frame = self._counted[0].sort(_VALUE)
        counts = np.stack([frame[name].to_numpy() for name in self._columns], axis=1)
        return Tally(frame[_VALUE], counts, classes, self._share)


def elements_of(lists: pl.Series, label: Ints) -> tuple[pl.Series, Ints]:
    """Each row's distinct elements, with its label; a row without any holds null."""
    distinct = lists.list.drop_nulls().list.unique()
    lengths = distinct.list.len().fill_null(0).cast(pl.Int64).to_numpy()
    return distinct.explode(empty_as_null=True, keep_nulls=True), np.repeat(label, np.maximum(lengths, 1))
