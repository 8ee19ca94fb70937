"""Numbers as bins of equal mass, as many as the data can tell apart.

A numeric column is counted once in up to 1024 fine bins; their counts then merge to coarser ones, and
the resolution is taken at which the corrected score less three of its standard deviations is largest.

The best of several resolutions is luckier than any one of them: of noise columns, every twentieth would
stand more than three deviations above chance. So what the choice itself gains by luck is taken off. In
units of a resolution's own deviation that luck has a mean and a deviation which follow from the numbers
of bins alone (a finer resolution tells what the coarser tells, plus an independent chi-square), and are
drawn once per set of numbers. The mean goes off the score, the deviation into the deviation of chance.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.ranking.chance import Chance
from recsys.ranking.information import Information, information
from recsys.ranking.tally import Tally

FINE = 1024
"""Bins at most in which a column is counted."""
FEW = 64
"""Columns with no more distinct numbers are counted exactly."""
EVEN = 32
"""Bins of what must not depend on the label: drift, copies, and what columns tell of each other."""
_EVEN_ROWS = 20
"""Rows that such a bin has at least, so that small logs leave something in the cells of two columns."""
_CAUTION = 3.0
"""With two deviations, finer bins than the data needs win by luck three times in ten."""
_DRAWS = 1 << 14
"""The luck of the choice is known to within 1 % of a deviation."""


@dataclass(frozen=True)
class Bins:
    """Bin ``i`` holds the numbers above ``edges[i - 1]`` and up to ``edges[i]``."""

    edges: NDArray[np.float64]
    """``[B - 1]``, rising."""

    def number(self, values: NDArray[np.float64]) -> NDArray[np.int64]:
        """Bin numbers ``[N]`` of finite values ``[N]``."""
        return np.searchsorted(self.edges, values, side="left")

    @property
    def size(self) -> int:
        """Number of bins."""
        return len(self.edges) + 1


def fine_bins(values: NDArray[np.float64], most: int = FINE) -> Bins:
    """Bins of equal mass over a sample ``[N]`` of finite values, in any order.

    A value that alone holds a bin's mass gets a bin of its own. No more than ``FEW`` distinct values
    get one each.
    """
    return weighted_bins(*np.unique(values, return_counts=True), most)


def weighted_bins(distinct: NDArray[np.float64], counts: NDArray[np.int64], most: int = FINE) -> Bins:
    """The same from distinct values ``[K]``, rising, and how often each occurs ``[K]``."""
    if len(distinct) <= min(FEW, most):
        return Bins(_between(distinct[:-1], distinct[1:]))
    mass = counts.sum() / most
    heavy = counts >= mass
    light = np.where(heavy, 0, counts)
    free = max(most - int(heavy.sum()), 1)
    steps = np.floor((np.cumsum(light) - light / 2) * (free / max(int(light.sum()), 1))).astype(np.int64)
    starts = (np.diff(steps) > 0) | heavy[1:] | heavy[:-1]
    at = np.flatnonzero(starts)
    return Bins(_between(distinct[at], distinct[at + 1]))


def _between(below: NDArray[np.float64], above: NDArray[np.float64]) -> NDArray[np.float64]:
    """An edge per pair of neighbours, halfway where a float lies there."""
    middle = below + (above - below) / 2
    return np.where((middle >= below) & (middle < above), middle, below)


def coarser(counts: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Coarser bins, for 2, 4, 8... of them: the coarse number ``[K]`` of each fine bin.

    Args:
        counts: rows ``[K, C]`` per fine bin and class, in the order of the values.
    """
    mass = counts.sum(1)
    last = 0
    for level in range(1, FINE.bit_length()):
        groups = _of_equal_mass(mass, 1 << level)
        if int(groups[-1]) > last:
            last = int(groups[-1])
            yield groups


def even(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Bins of equal mass that know nothing of the label: the coarse number ``[K]`` of each fine bin.

    No more than ``FEW`` of them stay as they are; others become about ``EVEN``, fewer in small logs.

    Args:
        counts: rows ``[K, C]`` per fine bin and class, in the order of the values.
    """
    if len(counts) <= FEW:
        return np.arange(len(counts))
    mass = counts.sum(1)
    return _of_equal_mass(mass, max(min(EVEN, int(mass.sum()) // _EVEN_ROWS), 2))


def _of_equal_mass(mass: NDArray[np.int64], wanted: int) -> NDArray[np.int64]:
    """Coarse number ``[K]`` of each of the fine bins of these rows ``[K]``; a heavy one stays alone."""
    total = int(mass.sum())
    heavy = mass * wanted >= total
    steps = np.floor((np.cumsum(mass) - mass / 2) * (wanted / max(total, 1))).astype(np.int64)
    starts = (np.diff(steps) > 0) | heavy[1:] | heavy[:-1]
    return np.concatenate([[0], np.cumsum(starts)])


def resolved(fine: Tally, chance: Chance) -> tuple[Tally, NDArray[np.int64], Information]:
    """The resolution that tells most, three standard deviations taken off; its luck taken off as well.

    Args:
        fine: counts by bin number or by number; null (missing) first, if any.
        chance: what chance tells about the same label.

    Returns:
        The counts by coarse bin; the coarse bin ``[K]`` of every fine one, missing left out; and what
        they tell of the label, where ``expected`` and ``sd`` count what the choice gains by luck.
    """
    missing = fine.values.null_count()
    counts, none = fine.counts[missing:], fine.counts[:missing]
    groupings = [np.arange(len(counts))] if len(counts) <= FEW else list(coarser(counts))
    merged = [grouped(counts, groups) for groups in groupings]
    told = [information(np.concatenate([none, rows]), chance) for rows in merged]
    best = int(np.argmax([found.score - _CAUTION * found.sd for found in told]))
    classes = max(int(np.count_nonzero(chance.classes)), 2)
    mean, deviation = luck(tuple((missing + len(rows) - 1) * (classes - 1) for rows in merged))
    names = pl.Series([None] * missing + list(range(len(merged[best]))), dtype=pl.Int64)
    tally = Tally(names, np.concatenate([none, merged[best]]), fine.classes, fine.share)
    return tally, groupings[best], _less_luck(told[best], mean, deviation)


def luck(free: tuple[int, ...]) -> tuple[float, float]:
    """Mean and deviation of the z of the chosen resolution, where there is nothing to tell.

    Args:
        free: degrees of freedom of each resolution, rising; one alone leaves no choice: (0, 1).
    """
    if len(free) < 2:
        return 0.0, 1.0
    return _luck(tuple(float(f"{more:.2g}") for more in np.diff(free, prepend=0)))


@lru_cache(maxsize=1024)
def _luck(steps: tuple[float, ...]) -> tuple[float, float]:
    beyond, free = np.zeros(_DRAWS), 0.0
    best, chosen = np.full(_DRAWS, -np.inf), np.zeros(_DRAWS)
    for level, step in enumerate(steps):
        beyond, free = beyond + _chi_square(level, step) - step, free + step
        sd = math.sqrt(2.0 * free)
        value = beyond - _CAUTION * sd
        better = value > best
        best, chosen = np.where(better, value, best), np.where(better, beyond / sd, chosen)
    return float(chosen.mean()), float(chosen.std())


@lru_cache(maxsize=256)
def _chi_square(level: int, free: float) -> NDArray[np.float64]:
    return np.random.default_rng(level).chisquare(free, _DRAWS)


def _less_luck(found: Information, mean: float, deviation: float) -> Information:
    error = math.sqrt(found.error**2 + (deviation**2 - 1.0) * found.sd**2)
    return replace(found, expected=found.expected + mean * found.sd, sd=deviation * found.sd, error=error)


def grouped(counts: NDArray[np.int64], groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """Sums ``[G, C]`` of neighbouring rows of ``[K, C]``, by rising group number ``[K]``."""
    if not len(groups):
        return counts
    starts = np.concatenate([[0], np.flatnonzero(np.diff(groups)) + 1])
    return np.add.reduceat(counts, starts, axis=0)


def coarse_bins(fine: Bins, numbers: NDArray[np.int64], groups: NDArray[np.int64]) -> Bins:
    """The bins that groups ``[K]`` of the fine bins with these numbers ``[K]`` make."""
    return Bins(fine.edges[numbers[np.flatnonzero(np.diff(groups))]])
