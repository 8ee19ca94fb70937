"""Full ranking: where the items that a query was after stand among all items of the catalogue."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys.compiled import compiled

_AT_ONCE = 1 << 25
"""Scores held in memory at a time."""


@dataclass(frozen=True)
class ItemLists:
    """Items by query: those of query q are ``items[offsets[q]:offsets[q + 1]]``."""

    offsets: NDArray[np.int64]
    """``[Q + 1]``."""
    items: NDArray[np.int64]

    @classmethod
    def of(cls, queries: NDArray[np.int64], items: NDArray[np.int64], count: int) -> ItemLists:
        """Distinct pairs of a query in ``[0, count)`` and an item, given one by one, as lists.

        >>> ItemLists.of(np.array([1, 0, 1, 1]), np.array([7, 2, 5, 7]), 3).offsets.tolist()
        [0, 1, 3, 3]
        """
        order = np.lexsort((items, queries))
        queries, items = queries[order], items[order]
        new = np.ones(len(items), np.bool_)
        new[1:] = (queries[1:] != queries[:-1]) | (items[1:] != items[:-1])
        offsets = np.zeros(count + 1, np.int64)
        np.cumsum(np.bincount(queries[new], minlength=count), out=offsets[1:])
        return cls(offsets, items[new])

    @property
    def lengths(self) -> NDArray[np.int64]:
        """``[Q]``."""
        return np.diff(self.offsets)

    def flat(self, start: int, stop: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Query, counted from ``start``, and item of every pair of some queries."""
        items = self.items[self.offsets[start] : self.offsets[stop]]
        return np.repeat(np.arange(stop - start), self.lengths[start:stop]), items

    def among(self, chosen: NDArray[np.bool_]) -> ItemLists:
        """The lists without items that are not ``chosen`` ``[I]``."""
        return self._where(chosen[self.items])

    def minus(self, other: ItemLists) -> ItemLists:
        """The lists without the items of another's, query by query."""
        span = 1 + max(self.items.max(initial=0), other.items.max(initial=0))
        mine, theirs = (
            queries * span + items
            for queries, items in (lists.flat(0, len(lists.offsets) - 1) for lists in (self, other))
        )
        return self._where(~np.isin(mine, theirs, assume_unique=True))

    def _where(self, kept: NDArray[np.bool_]) -> ItemLists:
        sums = np.concatenate(([0], np.cumsum(kept)))
        return ItemLists(sums[self.offsets], self.items[kept])


def best_items(
    queries: NDArray[np.float32], items: NDArray[np.float32], k: int, without: ItemLists | None = None
) -> NDArray[np.int64]:
    """The k items with the largest products ``[Q, k]``, best first; among equals the first item.

    Args:
        queries: ``[Q, D]``, or several interests of each ``[Q, I, D]``: an item counts with its best one.
        items: ``[I, D]``.
        k: cut to I.
        without: items that are left out, by query; where fewer than k remain, -1 stands at the end.
    """
    found = np.full((len(queries), min(k, len(items))), -1, np.int64)
    interests = 1 if queries.ndim == 2 else queries.shape[1]
    step = max(1, _AT_ONCE // max(1, interests * len(items)))
    for start in range(0, len(queries), step):
        stop = min(start + step, len(queries))
        scores = queries[start:stop] @ items.T
        if queries.ndim == 3:
            scores = scores.max(axis=1)
        if without is not None:
            scores[without.flat(start, stop)] = -np.inf
        _best(scores, found[start:stop])
    return found


@dataclass(frozen=True)
class Ranked:
    """Metrics of every query that was after at least one item."""

    queries: NDArray[np.int64]
    """Which queries those are, ``[N]``."""
    recall: dict[int, NDArray[np.float64]]
    """k → share of the items that stand among the first k, ``[N]``."""
    ndcg: dict[int, NDArray[np.float64]]
    """k → their discounted gains over the largest possible ones, ``[N]``."""

    def means(self) -> dict[str, float]:
        """Means over queries by ``recall@k`` and ``ndcg@k``; NaN without queries."""
        named = (("recall", self.recall), ("ndcg", self.ndcg))
        return {
            f"{name}@{k}": float(values.mean()) if len(values) else float("nan")
            for name, by_k in named
            for k, values in by_k.items()
        }


def rank_metrics(
    best: NDArray[np.int64],
    relevant: ItemLists,
    k: Sequence[int],
    unknown: NDArray[np.int64] | None = None,
) -> Ranked:
    """Recall and NDCG of ranked items.

    ``recall@k = hits / relevant`` and ``ndcg@k = sum of 1 / log2(rank + 1) over hits / the same sum over
    the first min(k, relevant) ranks`` (binary gains), as in NGCF and LightGCN (He et al., SIGIR 2020).

    Args:
        best: items by rank, ``[Q, at least the largest k]`` or as many as there are.
        relevant: items that each query was after.
        k: how many ranks count, for each metric.
        unknown: items after which a query was and that no catalogue holds, ``[Q]``; they cannot be hit.
    """
    wanted = relevant.lengths if unknown is None else relevant.lengths + unknown
    asked = np.flatnonzero(wanted)
    hits = _hits(best, relevant)[asked]
    wanted = wanted[asked]
    discount = 1 / np.log2(np.arange(2, max(best.shape[1], max(k)) + 2))
    ideal = np.concatenate(([0.0], np.cumsum(discount)))
    recall = {each: hits[:, :each].sum(1) / wanted for each in k}
    gains = {each: hits[:, :each] @ discount[: min(each, hits.shape[1])] for each in k}
    ndcg = {each: gains[each] / ideal[np.minimum(wanted, each)] for each in k}
    return Ranked(asked, recall, ndcg)


def _hits(best: NDArray[np.int64], relevant: ItemLists) -> NDArray[np.bool_]:
    """Which ranks hold a relevant item, ``[Q, K]``."""
    if not len(relevant.items):
        return np.zeros(best.shape, np.bool_)
    span = int(max(relevant.items.max(), best.max(initial=0))) + 2
    queries, items = relevant.flat(0, len(best))
    pairs = queries * span + items  # rising, as queries and the items of each are
    asked = np.arange(len(best))[:, None] * span + np.where(best < 0, span - 1, best)
    at = np.minimum(np.searchsorted(pairs, asked), len(pairs) - 1)
    return np.asarray(pairs[at] == asked)


@compiled
def _best(scores: NDArray[np.float32], found: NDArray[np.int64]) -> None:
    """Write the columns of the largest scores of each row, best first; ``-inf`` never counts."""
    most = found.shape[1]
    values = np.empty(most, np.float32)
    for row in range(scores.shape[0]):
        held = 0
        for column in range(scores.shape[1]):
            score = scores[row, column]
            if held == most and not score > values[most - 1]:
                continue
            if score == -np.inf:
                continue
            place = held if held < most else most - 1
            while place > 0 and score > values[place - 1]:
                values[place] = values[place - 1]
                found[row, place] = found[row, place - 1]
                place -= 1
            values[place] = score
            found[row, place] = column
            held = min(held + 1, most)
