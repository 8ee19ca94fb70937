"""What is drawn for the rows of a synthetic log: who sees which item when, and every column's values.

Values are kept here as ranks (0: the most frequent, -1: missing); ``Scramble`` makes them visible.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from recsys.data.synth_random import (
    Float,
    Int,
    Scramble,
    UInt,
    bits,
    normal,
    stream,
    to_uniform,
    uniform,
    zipf,
)
from recsys.data.synth_settings import (
    CATEGORY,
    HISTORY,
    ITEM,
    USER,
    Categorical,
    Numeric,
    Owner,
    Popularity,
    SynthSettings,
    Tags,
)

MISSING = -1
_REDRAWS = 4


@dataclass
class Lists:
    """Lists of ranks, one per row, end to end."""

    ranks: Int
    """``[sum(lengths)]``."""
    lengths: Int
    """``[B]``."""
    missing: np.ndarray[tuple[int], np.dtype[np.bool_]] | None = None
    """``[B]``: rows that have no list, which is not the same as an empty one."""

    @property
    def rows(self) -> Int:
        """Row of each element."""
        return np.repeat(np.arange(len(self.lengths)), self.lengths)


@dataclass
class Numbers:
    """One numeric column."""

    score: Float
    """Normal score, whatever is visible of it."""
    visible: Float
    """What the log shows; NaN where missing."""
    outlier: np.ndarray[tuple[int], np.dtype[np.bool_]]


@dataclass
class Rows:
    """Everything that is drawn for B consecutive rows, clicks aside."""

    index: Int
    """Number of each row in the log."""
    time: Float
    """Days since the start of the log."""
    history: Lists
    ranks: dict[str, Int] = field(default_factory=dict)
    """Categorical columns, ``user_id`` and ``item_id`` among them."""
    numbers: dict[str, Numbers] = field(default_factory=dict)
    tags: dict[str, Lists] = field(default_factory=dict)

    @property
    def day(self) -> Int:
        """Whole days since the start of the log."""
        return self.time.astype(np.int64)


class Draws:
    """Draws the rows of one log; any range of rows, in any order."""

    def __init__(self, settings: SynthSettings) -> None:
        self.settings = settings
        self.scrambles = {
            name: Scramble(popularity.values, self._stream(name, "scramble"))
            for name, popularity in popularities(settings).items()
        }
        # A copy shows the values of its original.
        self.scrambles |= {name: self.scrambles[copy.of] for name, copy in settings.copies.items()}
        # Clusters are met by their popularity, so their shares need no more than one small table.
        ranks = np.arange(1, settings.items.clusters + 1, dtype=np.float64)
        shares = ranks**-settings.items.cluster_zipf
        self._cluster_edges = np.cumsum(shares / shares.sum())[:-1]

    def rows(self, start: int, stop: int) -> Rows:
        """Draw rows ``start … stop-1``."""
        settings = self.settings
        index = np.arange(start, stop)
        time: Float = index * (settings.days / settings.rows)
        user = _popular(settings.users, uniform(self._stream(USER), index))
        item = self._candidates(index, user, time)
        rows = Rows(index, time, self._history(user, time), {USER: user, ITEM: item})
        rows.ranks[CATEGORY] = self.category(item)
        for name, column in settings.columns.items():
            rows.ranks[name] = self._categorical(name, column, rows)
        for name, copy in settings.copies.items():
            rows.ranks[name] = self._copy(name, copy.of, copy.noise, rows)
        for pair in settings.pairs:
            for name in pair.columns:
                rows.ranks[name] = zipf(uniform(self._stream(name), index), pair.values, 0.0)
        for name, numeric in settings.numerics.items():
            rows.numbers[name] = self._numbers(name, numeric, rows)
        for name, tags in settings.tags.items():
            rows.tags[name] = self._tags(name, tags, rows)
        return rows

    def cluster(self, item: Int) -> Int:
        """Cluster of each item, by the item's rank."""
        return item % self.settings.items.clusters

    def category(self, item: Int) -> Int:
        """Category of each item; its remainder by the number of clusters is the item's cluster."""
        items = self.settings.items
        chance = uniform(self._stream(CATEGORY), item)
        return zipf(chance, items.categories // items.clusters, 0.0) * items.clusters + self.cluster(item)

    def born(self, item: Int) -> Float:
        """Day on which each item first appears; 0 or less: there from the start."""
        items = self.settings.items
        chance = uniform(self._stream(ITEM, "born"), item)
        day = (chance / items.late if items.late else chance + 1.0) * self.settings.days
        day[(chance >= items.late) | (item < items.clusters)] = 0.0
        return day

    def interests(self, user: Int) -> Int:
        """Clusters that each user is interested in, ``[B, most]``; -1 beyond the user's number."""
        fewest, most = self.settings.users.interests
        number = fewest + zipf(uniform(self._stream(USER, "interests"), user), most - fewest + 1, 0.0)
        columns = [
            np.where(rank < number, self._clusters(uniform(self._stream(USER, "interest", rank), user)), -1)
            for rank in range(most)
        ]
        return np.stack(columns, axis=1)

    def _stream(self, *names: str | int) -> int:
        return stream(self.settings.seed, *names)

    def _owner(self, of: Owner, rows: Rows) -> Int:
        """What a value is a function of: the row itself, its user or its item."""
        return rows.index if of == "row" else rows.ranks[USER if of == "user" else ITEM]

    def _categorical(self, name: str, column: Categorical, rows: Rows) -> Int:
        owner = self._owner(column.of, rows)
        rank = _popular(column, uniform(self._stream(name), owner))
        if column.shift:
            late = uniform(self._stream(name, "shift"), rows.index)
            other = late < column.shift * rows.time / self.settings.days
            rank[other] = Scramble(column.values, self._stream(name, "other")).apply(rank[other])
        return self._blank(name, column.missing, rank, rows)

    def _blank(self, name: str, share: float, rank: Int, rows: Rows) -> Int:
        if share:
            rank[uniform(self._stream(name, "missing"), rows.index) < share] = MISSING
        return rank

    def _copy(self, name: str, of: str, noise: float, rows: Rows) -> Int:
        rank = rows.ranks[of].copy()
        if noise:
            anew = uniform(self._stream(name, "anew"), rows.index) < noise
            chance = uniform(self._stream(name), rows.index[anew])
            rank[anew] = _popular(self.settings.columns[of], chance)
        return rank

    def _numbers(self, name: str, numeric: Numeric, rows: Rows) -> Numbers:
        score = normal(self._stream(name), self._owner(numeric.of, rows))
        visible = score.copy() if numeric.distribution == "normal" else np.exp(score + 2.0)
        outlier = uniform(self._stream(name, "outlier"), rows.index) < numeric.outliers
        visible[outlier] *= numeric.outlier_factor
        visible = np.round(visible, 4)
        if numeric.missing:
            visible[uniform(self._stream(name, "missing"), rows.index) < numeric.missing] = np.nan
        return Numbers(score, visible, outlier)

    def _tags(self, name: str, tags: Tags, rows: Rows) -> Lists:
        owner = self._owner(tags.of, rows)
        lengths = 1 + zipf(uniform(self._stream(name, "length"), owner), tags.max_length, 0.0)
        missing = uniform(self._stream(name, "missing"), rows.index) < tags.missing
        lengths[missing] = 0
        lists = Lists(np.empty(0, np.int64), lengths, missing)
        place = _places(lengths)
        starts = bits(self._stream(name), owner)
        lists.ranks = _popular(tags, uniform(starts[lists.rows], place))
        return lists

    def _clusters(self, chance: Float) -> Int:
        """Clusters by popularity."""
        return np.searchsorted(self._cluster_edges, chance, side="right")

    def _item(self, cluster: Int, starts: UInt, time: Float) -> Int:
        """An item of each cluster that exists at each time, by popularity within the cluster."""
        items = self.settings.items
        per_cluster = items.values // items.clusters

        def draw(attempt: int, where: Int | slice) -> Int:
            counter = np.full(len(starts[where]), attempt)
            chance = to_uniform(bits(starts[where], counter))
            rank = _popular(items, chance, per_cluster)
            return rank * items.clusters + cluster[where]

        item = draw(0, slice(None))
        if items.late:
            unborn = np.flatnonzero(self.born(item) > time)
            for attempt in range(1, _REDRAWS):
                item[unborn] = draw(attempt, unborn)
                unborn = unborn[self.born(item[unborn]) > time[unborn]]
            item[unborn] = cluster[unborn]  # the most popular item of a cluster is never late
        return item

    def _candidates(self, index: Int, user: Int, time: Float) -> Int:
        """The item of each row: of one of the user's interests, or of any cluster."""
        relevant = uniform(self._stream(ITEM, "relevant"), index) < self.settings.history.relevance
        cluster = self._clusters(uniform(self._stream(ITEM, "cluster"), index))
        chance = uniform(self._stream(ITEM, "interest"), index)
        chosen = self._interest(self.interests(user), np.arange(len(index)), chance)
        cluster = np.where(relevant, chosen, cluster)
        return self._item(cluster, bits(self._stream(ITEM), index), time)

    @staticmethod
    def _interest(interests: Int, rows: Int, chance: Float) -> Int:
        """One of the interests of each of ``rows``, with a linearly falling preference for the first."""
        number = (interests >= 0).sum(axis=1)[rows]
        # Inverts the distribution function x·(3 - x)/2 of a density that falls from 1.5 to 0.5.
        pick = (number * (1.5 - np.sqrt(2.25 - 2.0 * chance))).astype(np.int64)
        chosen: Int = interests[rows, np.minimum(pick, number - 1)]
        return chosen

    def _history(self, user: Int, time: Float) -> Lists:
        """The newest items before each time of an endless sequence that each user has.

        Two rows of a user show overlapping windows of one sequence, as in a real log.
        """
        history = self.settings.history
        pace = 2.0 * uniform(self._stream(HISTORY, "pace"), user) * history.growth
        known = uniform(self._stream(HISTORY, "known"), user) * 1.5 * history.max_length
        end = (known + pace * time).astype(np.int64)
        lengths = np.minimum(end, history.max_length)
        lists = Lists(np.empty(0, np.int64), lengths)
        rows = lists.rows
        place = _places(lengths) + (end - lengths)[rows]
        when = (place - known[rows]) / np.maximum(pace, 1e-9)[rows]
        starts = bits(bits(self._stream(HISTORY), user)[rows], place)
        chosen = self._interest(self.interests(user), rows, to_uniform(starts))
        draws = bits(self._stream(HISTORY, "stray"), starts)
        stray = np.flatnonzero(to_uniform(draws) < history.stray)
        chosen[stray] = self._clusters(uniform(self._stream(HISTORY, "cluster"), draws[stray]))
        lists.ranks = self._item(chosen, draws, when)
        return lists


def _popular(popularity: Popularity, chance: Float, values: int | None = None) -> Int:
    """Ranks by popularity, of all values or of the first ``values`` ranks."""
    values, tail = values or popularity.values, popularity.tail
    if not tail:
        return zipf(chance, values, popularity.zipf, popularity.offset)
    head = zipf(np.maximum(chance - tail, 0.0) / (1.0 - tail), values, popularity.zipf, popularity.offset)
    return np.where(chance < tail, zipf(chance / tail, values, 0.0), head)


def _places(lengths: Int) -> Int:
    """Place of each element in its list, from 0."""
    ends = np.cumsum(lengths)
    return np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - lengths, lengths)


def popularities(settings: SynthSettings) -> dict[str, Popularity]:
    """Number of values and popularity of every column of ranks, copies aside."""
    found: dict[str, Popularity] = {USER: settings.users, ITEM: settings.items}
    found[CATEGORY] = Popularity(values=settings.items.categories, zipf=0.0)
    found |= settings.columns
    found |= settings.tags
    for pair in settings.pairs:
        found |= {name: Popularity(values=pair.values, zipf=0.0) for name in pair.columns}
    return found
