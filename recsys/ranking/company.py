"""What columns tell only in each other's company, as they are taken one by one.

An interaction is told once: a column that repeats a part of it, as a copy does, has no company in it
any more as soon as that part is taken.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Ints: TypeAlias = NDArray[np.int64]
Floats: TypeAlias = NDArray[np.float64]
Mask: TypeAlias = NDArray[np.bool_]

_DIGITS = 1e-12
"""Nats below which a difference is one of rounding."""


class Company:
    """Interactions of pairs of columns, each told at most once.

    Args:
        relation: nats that two columns tell only together ``[F, F]``, symmetric.
        share: share of the second column's entropy that the first one tells ``[F, F]``, 0 on the diagonal.
    """

    def __init__(self, relation: Floats, share: Floats) -> None:
        self._relation, self._share = relation, share
        # Each pair twice: what the second column may gain by the company of the first.
        self._one, self._other = np.nonzero(relation > 0)
        self._back = np.lexsort((self._one, self._other))
        self._whole = relation[self._one, self._other]
        self._told = np.zeros(len(self._one))
        self._lent = np.zeros(len(self._one))

    def helped(self, taken: Mask) -> tuple[Floats, Ints]:
        """What each column gains by the company of one taken ``[F]``, and of which (-1: of none)."""
        gained, by = np.zeros(len(taken)), np.full(len(taken), -1)
        edges = np.flatnonzero(taken[self._one] & (self._left > 0))
        # Later entries win, so the largest stays.
        edges = edges[np.argsort(self._left[edges], kind="stable")]
        gained[self._other[edges]], by[self._other[edges]] = self._left[edges], self._one[edges]
        return gained, by

    def entered(self, gains: Floats, helped: Floats, taken: Mask) -> tuple[Floats, Ints]:
        """Gains where two columns that are not taken may be entered together, by half of their sum each.

        Returns:
            The gains ``[F]``, and the column in whose company each is so good (-1: alone).
        """
        worth, partner = gains.copy(), np.full(len(gains), -1)
        one, other = self._one, self._other
        both = np.minimum(self._left, self._left[self._back])
        new = np.maximum(both - np.maximum(helped[one], helped[other]), 0.0)
        together = (np.maximum(gains[one], 0.0) + np.maximum(gains[other], 0.0) + new) / 2
        edges = np.flatnonzero(~taken[one] & ~taken[other] & (new > 0) & (together > gains[one]))
        edges = edges[np.argsort(together[edges], kind="stable")]
        worth[one[edges]], partner[one[edges]] = together[edges], other[edges]
        return worth, partner

    def take(self, column: int) -> None:
        """From now on no other column tells of an interaction what this one tells."""
        repeated = self._share[column, self._other] * self._whole
        self._told = np.maximum(self._told, np.minimum(self._relation[column, self._one], repeated))

    def lend(self, column: int, partner: int, nats: float) -> None:
        """The column counts so much of what its partner, not yet taken, will gain by its company."""
        edges = np.flatnonzero(self._other == partner)
        part = self._share[column, self._one[edges]]
        self._lent[edges] += nats * np.where(self._one[edges] == column, 1.0, part)

    @property
    def _left(self) -> Floats:
        left = self._whole - self._told - self._lent
        return np.where(left > _DIGITS, left, 0.0)
