"""Rows as integer codes: what everything that looks at more than one column works on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.data.check import as_time
from recsys.data.types import DATETIME
from recsys.ranking.binning import Bins
from recsys.ranking.counting import LABEL_COLUMN, extra_name
from recsys.ranking.pairs import PairCounter
from recsys.schema import RAGGED, Schema

MOST_DAYS = 1_000
"""Distinct days at most; a column with more is no column of days."""
_FIRST_EPOCH = 10**8
"""Smallest integer that reads as a time since 1970: 1973, in seconds."""
_NO_DAY = "missing"
_TABLE = 1 << 22
_OFTEN = 7
"""Occurrences from which more are no different."""


@dataclass(frozen=True)
class Codes:
    """All rows of a log, or a deterministic sample of them, as dense codes."""

    names: tuple[str, ...]
    """The F columns."""
    codes: NDArray[np.int32]
    """``[F, S]``, C-contiguous; ``0 <= codes[f] < sizes[f]``; a missing value is a code like any other."""
    sizes: NDArray[np.int64]
    """``[F]`` number of codes."""
    label: NDArray[np.int32]
    """``[S]`` class numbers."""
    classes: int
    """Number of classes C."""
    rows: int
    """Rows of the log that these S rows stand for."""
    day: NDArray[np.int32] | None = None
    """``[S]`` day numbers, where the schema has a timestamp."""
    days: tuple[str, ...] = ()
    """Name of each day number: ISO date or the raw value."""
    occurrences: Mapping[tuple[str, str], NDArray[np.int32]] = field(default_factory=dict)
    """Per categorical column and list of the same vocabulary, such as a candidate and the history: how
    often the value is in the row's list ``[S]``, 0 to 7, which means 7 or more."""

    @cached_property
    def counter(self) -> PairCounter:
        """The columns packed for counting pairs and triples of them."""
        return PairCounter.of(self)

    def only(self, names: Sequence[str]) -> Codes:
        """The same rows with some of the columns, in this order."""
        if tuple(names) == self.names:
            return self
        at = [self.names.index(name) for name in names]
        return replace(
            self,
            names=tuple(names),
            codes=self.codes[at],
            sizes=self.sizes[at],
            occurrences={
                pair: often for pair, often in self.occurrences.items() if {*names}.issuperset(pair)
            },
        )

    def at(self, rows: NDArray[np.int64]) -> Codes:
        """Some of the rows."""
        return replace(
            self,
            codes=np.ascontiguousarray(self.codes[:, rows]),
            label=self.label[rows],
            day=None if self.day is None else self.day[rows],
            occurrences={pair: often[rows] for pair, often in self.occurrences.items()},
        )


def coded(sample: pl.DataFrame, schema: Schema, bins: Mapping[str, Bins], classes: int, rows: int) -> Codes:
    """Code the features of typed rows.

    Args:
        sample: typed features, class numbers as ``__label__``, and the raw timestamp as
            ``__raw__NAME``, where the schema has one; as ``counting.count`` hands them back.
        schema: which columns are features, and of what kind. A list is coded by its set of elements.
        bins: of the numeric columns.
        classes: number of classes C.
        rows: rows of the log that the sample stands for.
    """
    names = tuple(schema.features)
    codes = np.empty((len(names), sample.height), np.int32)
    sizes = np.zeros(len(names), np.int64)
    for index, name in enumerate(names):
        found, none = _codes(sample[name], bins.get(name))
        offset = int(none is not None)
        np.add(found, offset, out=codes[index], casting="unsafe")
        if none is not None:
            codes[index, none] = 0
        sizes[index] = int(codes[index].max(initial=0)) + 1
    day: NDArray[np.int32] | None = None
    days: tuple[str, ...] = ()
    raw = None if schema.timestamp is None else extra_name(schema.timestamp)
    if raw is not None and raw in sample.columns:
        day, days = days_of(sample[raw])
    label = sample[LABEL_COLUMN].to_numpy().astype(np.int32)
    often = _occurrences(sample, schema)
    return Codes(names, codes, sizes, label, classes, rows, day, days, often)


def _occurrences(sample: pl.DataFrame, schema: Schema) -> dict[tuple[str, str], NDArray[np.int32]]:
    kinds = {name: column.kind for name, column in schema.features.items()}
    pairs = [
        (one, several)
        for one, kind in kinds.items()
        for several, ragged in kinds.items()
        if kind == "categorical"
        and ragged in RAGGED
        and schema.vocabulary_of(one) == schema.vocabulary_of(several)
    ]
    return {(one, several): _often(sample[one], sample[several]) for one, several in pairs}


def _often(values: pl.Series, lists: pl.Series) -> NDArray[np.int32]:
    """How often each row's value is in its list ``[S]``; a missing value never."""
    lengths = lists.list.len().fill_null(0).to_numpy()
    rows = np.repeat(np.arange(len(values)), lengths)
    elements = lists.filter(pl.Series(lengths > 0)).explode()
    same = (elements == values.gather(rows)).fill_null(False).to_numpy()
    return np.minimum(np.bincount(rows[same], minlength=len(values)), _OFTEN).astype(np.int32)


def _codes(values: pl.Series, bins: Bins | None) -> tuple[NDArray[np.int64], NDArray[np.bool_] | None]:
    """Dense codes ``[S]`` from 0, and where a value is missing (its code means nothing); None: nowhere."""
    if isinstance(values.dtype, pl.List):
        values = _sets(values)
    none = values.is_null().to_numpy() if values.null_count() else None
    if none is not None:
        there = values.drop_nulls()
        values = values.fill_null(there[0] if len(there) else _zero(values.dtype))
    if bins is not None:
        found = bins.number(values.cast(pl.Float64).to_numpy())
    elif values.dtype == pl.String:
        found = values.cast(pl.Categorical).to_physical().to_numpy().astype(np.int64)
    elif values.dtype == pl.Int64:
        found = values.to_numpy()
    else:
        found = np.unique(values.to_numpy(), return_inverse=True)[1]
    return _dense(found, none), none


def _dense(values: NDArray[np.int64], none: NDArray[np.bool_] | None) -> NDArray[np.int64]:
    """Values ``[S]`` as numbers from 0, in their order, without gaps."""
    counted = values if none is None else values[~none]
    if not len(counted):
        return np.zeros(len(values), np.int64)
    low, high = int(counted.min()), int(counted.max())
    if high - low >= _TABLE:
        return np.unique(values, return_inverse=True)[1]
    seen = np.zeros(high - low + 1, np.bool_)
    seen[counted - low] = True
    return (np.cumsum(seen) - 1)[values - low]


def _zero(dtype: pl.DataType) -> str | int | float:
    return "" if dtype == pl.String else 0


def _sets(lists: pl.Series) -> pl.Series:
    """Each list's set of elements as one text that no other set has; null for an empty one."""
    element = pl.element().cast(pl.String)
    for sign in ("\\", ","):
        element = element.str.replace_all(sign, "\\" + sign, literal=True)
    sets = pl.col(lists.name).list.drop_nulls().list.unique().list.sort()
    text = pl.when(sets.list.len() > 0).then(sets.list.eval(element).list.join(","))
    return lists.to_frame().select(text).to_series()


def days_of(times: pl.Series) -> tuple[NDArray[np.int32] | None, tuple[str, ...]]:
    """Day numbers ``[S]`` and their names, from a raw timestamp column.

    Times, ISO text and integers that read as times since 1970 give dates; other values are days
    as they are, where they are few. None where they are many, or there is but one day.
    """
    if times.dtype == pl.Null or not len(times) or times.null_count() == len(times):
        return None, ()
    found = _dates(times)
    named = found.fill_null(_NO_DAY)
    days = named.unique()
    days = days.gather(_order(days))
    if not 1 < len(days) <= MOST_DAYS:
        return None, ()
    numbers = named.replace_strict(days, pl.Series(range(len(days)), dtype=pl.Int32))
    return numbers.to_numpy().astype(np.int32), tuple(days.to_list())


def _dates(times: pl.Series) -> pl.Series:
    """ISO dates where the values are times, else the values as text."""
    dtype = times.dtype
    if dtype == pl.String or dtype == pl.Datetime or dtype.is_integer():
        low = times.min() if dtype.is_integer() else None
        if not dtype.is_integer() or (isinstance(low, int) and low >= _FIRST_EPOCH):
            micros = times.to_frame().select(as_time(pl.col(times.name), dtype)).to_series()
            if micros.null_count() == times.null_count():
                return micros.cast(DATETIME).dt.date().cast(pl.String)
    if dtype.is_float():
        whole = times.cast(pl.Int64, strict=False)
        if whole.null_count() == times.null_count() and bool((whole == times).all()):
            times = whole
    return times.cast(pl.String)


def _order(days: pl.Series) -> pl.Series:
    """How to sort day names: as numbers where all are."""
    numbers = days.cast(pl.Float64, strict=False)
    return numbers.arg_sort() if not numbers.null_count() else days.arg_sort()
