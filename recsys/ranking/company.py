"""What columns tell only in each other's company, as they are taken one by one.

An interaction is told once: a column that repeats a part of it, as a copy does, has no company in it
any more as soon as that part is taken.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Ints: TypeAlias = NDArray[np.int64]
Floats: TypeAlias = NDArray[np.float64]
Mask: TypeAlias = NDArray[np.bool_]

_DIGITS = 1e-12
"""Nats below which a difference is one of rounding."""


ALONE = -1
"""The source of a gain that needs no company."""


class Company:
    """Interactions of pairs and triples of columns, each told at most once.

    Where one column of a triple is taken, what is left of it is an interaction of the other two.

    A *source* is the interaction by which a column gains: ``ALONE`` for none.

    Args:
        relation: nats that two columns tell only together ``[F, F]``, symmetric.
        share: share of the second column's entropy that the first one tells ``[F, F]``, 0 on the diagonal.
        triples: nats that three columns tell only all together.
    """

    def __init__(
        self, relation: Floats, share: Floats, triples: Mapping[tuple[int, ...], float] | None = None
    ) -> None:
        self._relation, self._share = relation.copy(), share
        self._triples = {tuple(sorted(three)): nats for three, nats in sorted((triples or {}).items())}
        self._rest = dict(self._triples)
        # Each pair twice: what the second column may gain by the company of the first.
        self._one, self._other = np.nonzero(relation > 0)
        self._whole = relation[self._one, self._other]
        self._told, self._lent = np.zeros((2, len(self._one)))
        self._third = np.full(len(self._one), ALONE)
        """The column taken before that a pair is only of use with."""
        self._back = _reversed(self._one, self._other)

    def helped(self, taken: Mask) -> tuple[Floats, Ints]:
        """What each column gains by the company of one taken ``[F]``, and its source."""
        gained, source = np.zeros(len(taken)), np.full(len(taken), ALONE)
        left = self._left
        edges = np.flatnonzero(taken[self._one] & (left > 0))
        edges = edges[_rising(left[edges])]
        gained[self._other[edges]], source[self._other[edges]] = left[edges], edges
        return gained, source

    def entered(self, gains: Floats, helped: Floats, taken: Mask) -> tuple[Floats, Ints]:
        """Gains where columns that are not taken may be entered together, by equal parts of their sum.

        Returns:
            The gains ``[F]``, and the source of each that is so good in company only.
        """
        worth, source = gains.copy(), np.full(len(gains), ALONE)
        one, other, left, own = self._one, self._other, self._left, np.maximum(gains, 0.0)
        both = np.minimum(left, left[self._back])
        new = np.maximum(both - np.maximum(helped[one], helped[other]), 0.0)
        together = (own[one] + own[other] + new) / 2
        edges = np.flatnonzero(~taken[one] & ~taken[other] & (new > 0) & (together > gains[one]))
        edges = edges[_rising(together[edges])]
        worth[one[edges]], source[one[edges]] = together[edges], edges
        for number, (three, nats) in enumerate(self._rest.items()):
            members = list(three)
            share = (own[members].sum() + nats) / 3
            if nats > _DIGITS and share > worth[members].max():
                worth[members], source[members] = share, -2 - number
        return worth, source

    def friends(self, column: int, source: int) -> tuple[int, ...]:
        """The columns in whose company the column is so good."""
        if source == ALONE:
            return ()
        if source < ALONE:
            return tuple(each for each in list(self._rest)[-2 - source] if each != column)
        one, other = int(self._one[source]), int(self._other[source])
        found = (one if other == column else other, int(self._third[source]))
        return tuple(each for each in found if each >= 0)

    def take(self, column: int) -> None:
        """From now on no other column tells of an interaction what this one tells."""
        repeated = self._share[column, self._other] * self._whole
        self._told = np.maximum(self._told, np.minimum(self._relation[column, self._one], repeated))
        for three, nats in list(self._rest.items()):
            if column in three:
                one, other = (each for each in three if each != column)
                self._rest[three] = 0.0
                self._add(one, other, nats, column)
                continue
            for member in three:
                instead = tuple(sorted({*three, column} - {member}))
                repeated_by = min(
                    self._triples.get(instead, 0.0), self._share[column, member] * self._triples[three]
                )
                self._rest[three] = min(self._rest[three], self._triples[three] - repeated_by)

    def lend(self, column: int, source: int, nats: float) -> None:
        """The column, not yet taken, counts so much of what its friends will gain by its company."""
        if source >= 0:
            like = self._alike(column, self._one) * self._alike(int(self._other[source]), self._other)
            self._lent += nats * like
            return
        friends = self.friends(column, source)
        for three in self._rest:
            if column in three:
                one, other = (each for each in three if each != column)
                like = max(
                    self._alike(first, one) * self._alike(second, other)
                    for first, second in (friends, friends[::-1])
                )
                self._rest[three] -= nats * like

    def _alike(self, column: int, others: Any) -> Any:
        """Share of the other columns that the column tells; all of itself."""
        return np.where(others == column, 1.0, self._share[column, others])

    def _add(self, one: int, other: int, nats: float, third: int) -> None:
        if nats <= _DIGITS:
            return
        self._one = np.append(self._one, [one, other])
        self._other = np.append(self._other, [other, one])
        self._whole = np.append(self._whole, [nats, nats])
        self._told, self._lent = np.append(self._told, [0.0, 0.0]), np.append(self._lent, [0.0, 0.0])
        self._third = np.append(self._third, [third, third])
        self._back = _reversed(self._one, self._other)
        self._relation[one, other] = self._relation[other, one] = max(nats, self._relation[one, other])

    @property
    def _left(self) -> Floats:
        left = self._whole - self._told - self._lent
        return np.where(left > _DIGITS, left, 0.0)


def _rising(numbers: Floats) -> Ints:
    """Places by number, of equal ones the first last: where all are assigned in turn, it stays."""
    return np.lexsort((-np.arange(len(numbers)), numbers.round(12)))


def _reversed(one: Ints, other: Ints) -> Ints:
    """For each pair the place of the same pair the other way round."""
    back = np.empty(len(one), np.int64)
    back[np.lexsort((other, one))] = np.lexsort((one, other))
    return back
