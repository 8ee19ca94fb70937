"""Variance of the difference of two AUCs on the same rows, from one sort per scoring.

Each row's placement is the share of the other class that it stands on the right side of, ties half;
the AUC is the mean placement of either class, and its variance follows from the spread of the
placements within each class. Source: DeLong, DeLong and Clarke-Pearson, Comparing the Areas under Two
or More Correlated Receiver Operating Characteristic Curves (Biometrics 1988); the form in O(N log N):
Sun and Xu, Fast Implementation of DeLong's Algorithm (IEEE Signal Processing Letters 2014), eq. 8-11.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class AucPair(NamedTuple):
    """Two AUCs of the same rows."""

    first: float
    second: float
    difference: float
    """second - first, of exact counts: 0 where the two rank alike."""
    standard_error: float | None
    """Of the difference; None where a class has fewer than two rows."""


class Ranked(NamedTuple):
    """Rows in ascending order of their scores, and where equal scores begin and end."""

    order: NDArray[np.int64]
    """Row numbers ``[N]``."""
    starts: NDArray[np.int64]
    """First place of each run of equal scores ``[R]``; a run ends where the next begins."""

    @classmethod
    def of(cls, score: NDArray[Any]) -> Ranked:
        """Rank finite scores ``[N]``, N at least 1."""
        order = np.argsort(score, kind="stable")
        ascending = score[order]
        starts = np.flatnonzero(np.concatenate(([True], ascending[1:] != ascending[:-1])))
        return cls(order, starts)

    def twice_below(self, amount: NDArray[Any]) -> NDArray[Any]:
        """Twice the amount ``[N]`` at lower scores than each run's, plus that at its own: ``[R]``."""
        within = np.add.reduceat(amount[self.order], self.starts)
        upto = np.cumsum(within)
        twice: NDArray[Any] = upto + (upto - within)
        return twice

    def spread(self, by_run: NDArray[Any]) -> NDArray[Any]:
        """Values of runs ``[R]`` given to their rows ``[N]``."""
        lengths = np.diff(np.append(self.starts, len(self.order)))
        by_row = np.empty(len(self.order), by_run.dtype)
        by_row[self.order] = np.repeat(by_run, lengths)
        return by_row


def placements(label: NDArray[np.bool_], score: NDArray[Any]) -> NDArray[np.int64]:
    """Twice the rows of the other class that each row stands on the right side of, ties half: ``[N]``."""
    ranked = Ranked.of(score)
    positives = int(np.count_nonzero(label))
    below = ranked.spread(ranked.twice_below((~label).astype(np.int64)))
    above = 2 * positives - ranked.spread(ranked.twice_below(label.astype(np.int64)))
    return np.where(label, below, above)


def delong(label: NDArray[np.bool_], first: NDArray[Any], second: NDArray[Any]) -> AucPair:
    """AUC of two scorings ``[N]`` of the same rows, and the standard error of their difference.

    Both classes must be there.
    """
    positives = int(np.count_nonzero(label))
    negatives = len(label) - positives
    pairs = 2 * positives * negatives
    of_first, of_second = placements(label, first), placements(label, second)
    counted = [int(found[label].sum()) for found in (of_first, of_second)]
    lead = of_second - of_first
    error = None
    if positives > 1 and negatives > 1:
        up = lead[label] / (2 * negatives)
        down = lead[~label] / (2 * positives)
        error = float(np.sqrt(up.var(ddof=1) / positives + down.var(ddof=1) / negatives))
    return AucPair(counted[0] / pairs, counted[1] / pairs, (counted[1] - counted[0]) / pairs, error)
