"""Elements of lists that come together: how far chance moves what they tell, all at once.

Labels are dealt to rows, not to elements: tags that always stand together are lucky together. Their
counts of a class have the correlation of their being in a row, and of what is not linear in the counts
the square of it (as squares of normal variables do).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import polars as pl
from numpy.typing import NDArray

Ints: TypeAlias = NDArray[np.int64]
Floats: TypeAlias = NDArray[np.float64]

MOST_PAIRS = 1 << 22
"""Pairs of elements of one row that are looked at; of longer lists, those of fewer rows."""


@dataclass(frozen=True)
class Elements:
    """Which values stand together in the rows of a log, or of a sample of it."""

    row: Ints
    """``[M]`` row of each element, rising."""
    value: Ints
    """``[M]`` number of its value among the K counted ones."""
    rows: int
    """Number of rows S."""

    @classmethod
    def of(cls, row: Ints, elements: pl.Series, values: pl.Series, rows: int) -> Elements:
        """From the elements ``[M]`` of S rows and the counted values ``[K]``; others are left out."""
        numbers = pl.Series(range(len(values)), dtype=pl.Int64)
        value = elements.replace_strict(values, numbers, default=-1, return_dtype=pl.Int64).to_numpy()
        kept = value >= 0
        return cls(row[kept], value[kept], rows)

    def variance(self, own: Floats, linear: Floats, shares: Floats, rows: int) -> float:
        """Variance of a sum over values of something that depends on their class counts alone.

        Args:
            own: per value the deviation of the part that is not linear in its counts ``[K]``.
            linear: per value the slopes on them ``[K, C]``.
            shares: of these classes ``[C]``.
            rows: of the whole log.
        """
        return self._linear(linear, shares, rows) + self._rest(own, rows)

    def _linear(self, slopes: Floats, shares: Floats, rows: int) -> float:
        """The slopes of a row's elements add up, and rows are dealt their labels without replacement."""
        each = [np.bincount(self.row, slope[self.value], minlength=self.rows) for slope in slopes.T]
        apart = np.stack(each, axis=1)
        apart -= apart.mean(axis=0)
        spread = (apart**2) @ shares - (apart @ shares) ** 2
        return float(spread.mean()) * rows * rows / max(rows - 1, 1)

    def _rest(self, own: Floats, rows: int) -> float:
        part = self._few_pairs()
        seen = np.bincount(part.value, minlength=len(own))
        room = 1.0 - seen / part.rows
        apart = np.divide(own, room, out=np.zeros(len(own)), where=(room > 0) & (seen > 0))
        left, right, times = part.pairs(len(own))
        weight = apart[left] * apart[right] * times
        total = float((weight * times / (seen[left] * seen[right])).sum() - 2.0 * weight.sum() / part.rows)
        total += float(apart @ seen) ** 2 / part.rows**2
        # Of a sample, the counts of pairs scatter by themselves.
        total -= float(apart.sum() ** 2 - (apart**2).sum()) * (1.0 / part.rows - 1.0 / rows)
        alone = float((own[seen > 0] ** 2).sum())
        return max(total, alone) + float((own[seen == 0] ** 2).sum())

    def _few_pairs(self) -> Elements:
        """The elements of every so many-th row, such that there are not too many pairs."""
        lengths = np.bincount(self.row, minlength=self.rows)
        step = -(-int((lengths**2).sum()) // MOST_PAIRS)
        if step <= 1:
            return self
        kept = self.row % step == 0
        return Elements(self.row[kept] // step, self.value[kept], -(-self.rows // step))

    def pairs(self, values: int) -> tuple[Ints, Ints, Ints]:
        """Values that share rows, each with itself too: left ``[P]``, right ``[P]``, and how many rows."""
        lengths = np.bincount(self.row, minlength=self.rows)[self.row]
        starts = np.searchsorted(self.row, self.row)
        left = np.repeat(self.value, lengths)
        first = np.repeat(starts - (np.cumsum(lengths) - lengths), lengths)
        key, times = np.unique(left * values + self.value[first + np.arange(len(left))], return_counts=True)
        return key // values, key % values, times
