"""Vocabularies: values counted on train rows, numbered by falling count, and looked up.

Ids depend on values and counts alone: ties go by key, so neither the order of rows nor the kind of
input changes them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from threading import Lock

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.data.dataset import FIRST_ID, MISSING_ID, UNSEEN_ID
from recsys.embeddings.keys import CANONICAL, keys_of
from recsys.errors import DataError
from recsys.schema import ValueType

_MERGE_ROWS = 1 << 20
"""Counts that wait to be merged at most, unless the merged ones outnumber them."""
_SPARSE = 4
"""A table over the whole range of integers is used where it has at most this many slots per value."""
_SMALL = 1 << 16
_BLOCK = 1 << 18
"""Values looked up at a time: beyond it, sorting them leaves the cache."""


class ValueCounts:
    """Counts of distinct values, fed in pieces by any thread; missing values are not counted."""

    def __init__(self, type: ValueType) -> None:
        self.type = type
        self._merged = pl.DataFrame(schema={"value": CANONICAL[type], "count": pl.Int64})
        self._pending: list[pl.DataFrame] = []
        self._waiting = 0
        self._lock = Lock()

    def add(self, values: pl.Series) -> None:
        """Count some values of the canonical type."""
        found = _counted(values.alias("value").drop_nulls())
        with self._lock:
            self._pending.append(found)
            self._waiting += found.height
            if self._waiting > max(_MERGE_ROWS, self._merged.height):
                self._merge()

    def frame(self) -> pl.DataFrame:
        """Columns value and count, one row per distinct value, in no order."""
        self._merge()
        return self._merged

    def _merge(self) -> None:
        if self._pending:
            self._merged = _summed(pl.concat([self._merged, *self._pending]))
            self._pending, self._waiting = [], 0


def _counted(values: pl.Series) -> pl.DataFrame:
    """Distinct values and their counts.

    Sorting the 8-byte words of numbers takes numpy a quarter of the time of polars' hashing.
    """
    if values.dtype == pl.String:
        return values.value_counts(name="count").with_columns(pl.col("count").cast(pl.Int64))
    words = np.sort(_words(values))
    starts = _starts(words)
    return _frame(words[starts], np.diff(starts, append=len(words)), values.dtype)


def _summed(counted: pl.DataFrame) -> pl.DataFrame:
    """Counts (value, count) added up, one row per distinct value."""
    values = counted["value"]
    if values.dtype == pl.String:
        return counted.group_by("value").agg(pl.col("count").sum())
    words, counts = _words(values), counted["count"].to_numpy()
    order = np.argsort(words)
    words = words[order]
    starts = _starts(words)
    totals = np.add.reduceat(counts[order], starts) if len(starts) else counts
    return _frame(words[starts], totals, values.dtype)


def _frame(words: NDArray[np.int64], counts: NDArray[np.int64], dtype: pl.DataType) -> pl.DataFrame:
    return pl.DataFrame({"value": words.view(np.float64) if dtype.is_float() else words, "count": counts})


def _starts(ordered: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where each run of equal values begins."""
    first = np.zeros(min(len(ordered), 1), dtype=np.int64)
    return np.concatenate([first, np.flatnonzero(ordered[1:] != ordered[:-1]) + 1])


@dataclass(frozen=True)
class Vocabulary:
    """The seen values of one vocabulary by id, from id 2 on."""

    name: str
    type: ValueType
    values: pl.Series
    """``[size - 2]``, of the canonical type."""
    keys: NDArray[np.uint64]
    """``[size - 2]``."""
    counts: NDArray[np.int64]
    """``[size - 2]``: how often train rows hold the value."""

    @property
    def size(self) -> int:
        """Number of ids, the missing and the unseen value included."""
        return len(self.values) + FIRST_ID

    @classmethod
    def build(cls, name: str, type: ValueType, counted: pl.DataFrame, min_count: int = 1) -> Vocabulary:
        """Number the values of ``counted`` (value, count) that were seen at least ``min_count`` times.

        Raises DataError that names both values where two of them have one key.
        """
        kept = counted.filter(pl.col("count") >= min_count)
        keys = keys_of(kept["value"].alias(name), type)
        counts = kept["count"].to_numpy()
        order = np.argsort(keys)
        order = order[np.argsort(-counts[order], kind="stable")]
        vocabulary = cls(name, type, kept["value"][order], keys[order], counts[order])
        vocabulary._refuse_shared_keys()
        return vocabulary

    def _refuse_shared_keys(self) -> None:
        by_key = np.argsort(self.keys)
        twice = np.flatnonzero(np.diff(self.keys[by_key]) == 0)
        if len(twice):
            first, second = (self.values[int(by_key[twice[0] + i])] for i in (0, 1))
            raise DataError(
                f"vocabulary {self.name!r}: the values {first!r} and {second!r} have the same 64-bit key; "
                "replace one of them by another value"
            )

    def ids(self, values: pl.Series) -> NDArray[np.int64]:
        """Ids ``[N]`` of values ``[N]`` of the canonical type: 0 where null, 1 where never seen."""
        if len(self.values) == 0:
            ids = np.full(len(values), UNSEEN_ID, dtype=np.int64)
        elif self._table is None:
            ids = self._ids_of_keys(keys_of(values, self.type))
        else:
            lowest, table = self._table
            offsets = (_words(values) - lowest).view(np.uint64)
            ids = table[np.minimum(offsets, np.uint64(len(table) - 1))]
        if values.null_count():
            ids[values.is_null().to_numpy()] = MISSING_ID
        return ids

    def raw_values(self) -> pl.Series:
        """The value of every id ``[size]``, null for the missing and the unseen one.

        Values of type ``datetime`` come as timestamps.
        """
        special = pl.Series([None] * FIRST_ID, dtype=self.values.dtype)
        return readable(pl.concat([special, self.values]), self.type).alias(self.name)

    def _ids_of_keys(self, keys: NDArray[np.uint64]) -> NDArray[np.int64]:
        ordered, ids = self._by_key
        out = np.empty(len(keys), dtype=np.int64)
        for start in range(0, len(keys), _BLOCK):
            # Searched in rising order the vocabulary stays in cache: ten times faster than as it comes.
            distinct, inverse = np.unique(keys[start : start + _BLOCK], return_inverse=True)
            at = np.minimum(np.searchsorted(ordered, distinct), len(ordered) - 1)
            found = np.where(ordered[at] == distinct, ids[at], UNSEEN_ID)
            out[start : start + _BLOCK] = found[inverse]
        return out

    @cached_property
    def _by_key(self) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        order = np.argsort(self.keys)
        return self.keys[order], order + FIRST_ID

    @cached_property
    def _table(self) -> tuple[np.int64, NDArray[np.int64]] | None:
        """The lowest value, and ids by ``value - lowest`` with the unseen one at the end.

        None where the values are no integers that lie close together.
        """
        if self.type in ("string", "float64"):
            return None
        words = _words(self.values)
        lowest = words.min()
        span = int(words.max()) - int(lowest)
        if span > _SPARSE * len(words) + _SMALL:
            return None
        table = np.full(span + 2, UNSEEN_ID, dtype=np.int64)
        table[words - lowest] = np.arange(FIRST_ID, self.size)
        return lowest, table


def readable(values: pl.Series, type: ValueType) -> pl.Series:
    """Canonical values as people read them: timestamps are no bare numbers."""
    return values.cast(pl.Datetime("us", "UTC")) if type == "datetime" else values


def canonical(values: pl.Series, type: ValueType) -> pl.Series:
    """What ``readable`` made, in the canonical type again."""
    return values.to_physical() if type == "datetime" else values


def _words(values: pl.Series) -> NDArray[np.int64]:
    """The 8 bytes of each number; null gives any."""
    filled = _no_negative_zero(values).fill_null(0)
    return filled.to_numpy().view(np.int64)


def _no_negative_zero(values: pl.Series) -> pl.Series:
    """-0.0 and 0.0 are one value, as their keys are."""
    return values.set(values == 0.0, 0.0) if values.dtype.is_float() else values
