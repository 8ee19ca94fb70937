"""A deterministic spread of rows over a log: one at a seeded random place in every n."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import polars as pl
from numpy.typing import NDArray


class Spread:
    """Which rows of a log stand for all of them; all, where they are no more than wanted.

    Args:
        rows: of the log.
        wanted: rows to take at most.
    """

    def __init__(self, rows: int, wanted: int) -> None:
        self.rows = rows
        self.step = max(-(-rows // wanted), 1)

    @property
    def is_whole(self) -> bool:
        """Whether every row is taken."""
        return self.step == 1

    @cached_property
    def places(self) -> NDArray[np.int64]:
        """Row numbers ``[S]``, rising."""
        if self.is_whole:
            return np.arange(self.rows)
        starts = np.arange(0, self.rows, self.step)
        jitter = np.random.default_rng(0).integers(0, self.step, len(starts))
        places = starts + jitter
        return places[places < self.rows]

    def of(self, frame: pl.DataFrame, start: int) -> pl.DataFrame:
        """The taken ones of the rows that begin with number ``start``."""
        if self.is_whole:
            return frame
        first, last = np.searchsorted(self.places, [start, start + frame.height])
        return frame[self.places[first:last] - start]
