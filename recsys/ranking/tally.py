"""Joint counts of one column with the label: everything that a single score knows is arithmetic on them.

Counts of two sets of rows merge to the counts of both, so that the same code counts chunks of a file,
files of a log and shares of many machines.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray


@dataclass(frozen=True)
class Tally:
    """Rows per value and class of one column."""

    values: pl.Series
    """``[K]`` raw values (of binned columns: int64 bin numbers), sorted; null (missing) first, if any."""
    counts: NDArray[np.int64]
    """``[K, C]``."""
    classes: NDArray[np.int64]
    """``[C]`` rows per class; the same as ``counts.sum(0)`` unless the column is a list."""
    share: float = 1.0
    """Share of the values that is counted: below 1 for columns of millions of them, where only values
    whose hash is small are kept. Those counts stand for all; null is scaled to the same share."""

    def merge(self, other: Tally) -> Tally:
        """Counts of both sets of rows together; both have the same classes."""
        share = min(self.share, other.share)
        mine, theirs = self.thinned(share), other.thinned(share)
        if mine.values.dtype != theirs.values.dtype:
            mine = mine._typed_as(theirs)
            theirs = theirs._typed_as(mine)
        both = pl.concat([mine.values, theirs.values])
        places = _places(both)
        values = both.gather(np.unique(places, return_index=True)[1])
        counts = np.zeros((len(values), len(self.classes)), np.int64)
        counts[places[: len(mine.values)]] += mine.counts
        counts[places[len(mine.values) :]] += theirs.counts
        return Tally(values, counts, self.classes + other.classes, share)

    def _typed_as(self, other: Tally) -> Tally:
        """Where no value was ever counted, the type is a guess (int64): then the other one's."""
        if self._is_known or (other.values.dtype == pl.Int64 and not other._is_known):
            return self
        return replace(self, values=self.values.cast(other.values.dtype))

    @property
    def _is_known(self) -> bool:
        return self.values.null_count() < len(self.values)

    def thinned(self, share: float) -> Tally:
        """Only the values that a smaller share keeps."""
        if share == self.share:
            return self
        kept = hashed_below(self.values, share)
        counts = self.counts[kept]
        if self.values.null_count():
            counts[0] = np.rint(counts[0] * (share / self.share)).astype(np.int64)
        return Tally(self.values.filter(pl.Series(kept)), counts, self.classes, share)

    @property
    def rows(self) -> int:
        """Rows counted."""
        return int(self.classes.sum())

    @property
    def missing(self) -> int:
        """Rows without a value."""
        if not self.values.null_count():
            return 0
        return round(int(self.counts[0].sum()) / self.share)

    @property
    def distinct(self) -> int:
        """Number of values, missing not counted; an estimate where ``share`` is below 1."""
        return round((len(self.values) - self.values.null_count()) / self.share)

    @property
    def unseen_entropy(self) -> float:
        """Nats by which the values' entropy exceeds that of the counted ones.

        Every counted value stands for ``1 / share`` of its like, each of a ``share`` of its size; null
        stands for itself.
        """
        if self.share == 1 or not self.counts.any():
            return 0.0
        null = float(self.counts[0].sum() / self.counts.sum()) if self.values.null_count() else 0.0
        return -math.log(self.share) * (1.0 - null)

    @property
    def coverage(self) -> float:
        """Share of rows that have a value."""
        return 1.0 - self.missing / self.rows if self.rows else 0.0


def hashed_below(values: pl.Series, share: float) -> NDArray[np.bool_]:
    """Which values a share keeps, by their hash alone; null always."""
    bound = np.uint64(min(int(share * 2.0**64), 2**64 - 1))
    below = values.hash(0).to_numpy() <= bound
    return np.asarray(below | values.is_null().to_numpy(), dtype=np.bool_)


def _places(values: pl.Series) -> NDArray[np.int64]:
    """Place of each value among the sorted distinct ones, null first."""
    ranks = values.rank("dense").cast(pl.Int64)
    offset = 0 if values.null_count() else 1
    return (ranks.fill_null(0) - offset).to_numpy()
