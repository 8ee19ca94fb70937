"""What chance alone lets a value tell: its exact mean and deviation.

What a column would tell on average if the labels were dealt at random over the rows is known exactly: the
rows of class c among the n rows of a value are then hypergeometric. Everything here is in nats.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recsys.ranking.dealing import dealt

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


class Chance:
    """What a value of n rows tells about the label by chance alone, if labels are dealt at random.

    The divergence of a value is KL(k / n ‖ p), with k [C] the rows per class among its n rows and p
    the class shares of all rows. ``mean`` is exact for any number of classes (it sums to
    scikit-learn's ``expected_mutual_information``). ``variance`` is exact for two classes; for more,
    each class's own part is exact, and what is not linear in the counts is correlated between
    classes as in the normal limit.

    Each distinct size is computed once per object, so one object serves all columns of a log.

    Args:
        classes: rows per class ``[C]``, at most 3e9 in all.

    Example:
        >>> float(Chance(np.array([50, 50])).mean(np.array([1]))[0])  # one row tells its label: ln 2
        0.6931471805599453
    """

    def __init__(self, classes: Ints) -> None:
        self.classes = np.asarray(classes, dtype=np.int64)
        self.rows = int(self.classes.sum())
        self._alive = self.classes[self.classes > 0]
        self._known: tuple[Ints, Floats] = (np.zeros(0, np.int64), np.zeros((0, 0)))

    def mean(self, sizes: Ints) -> Floats:
        """Mean divergence in nats of values of these many rows, shape of ``sizes``."""
        return self.moments(sizes)[0]

    def variance(self, sizes: Ints) -> Floats:
        """Variance of the divergence (nats squared) of values of these many rows, shape of ``sizes``."""
        _, rest, slopes = self.moments(sizes)
        size = np.clip(np.asarray(sizes), 0, self.rows)
        spread = size * (self.rows - size) / max(self.rows - 1, 1)
        return rest + spread * quadratic(self.shares, slopes)

    @property
    def shares(self) -> Floats:
        """Shares of the classes that the slopes of ``moments`` belong to."""
        return (self._alive / max(self.rows, 1))[: _slopes(len(self._alive))]

    def moments(self, sizes: Ints) -> tuple[Floats, Floats, Floats]:
        """Mean, variance of what is not linear in the counts, and slopes on them ``[..., classes]``."""
        # Elements of lists may repeat within a row and so outnumber the rows.
        sizes = np.clip(np.asarray(sizes, dtype=np.int64), 0, self.rows)
        known = self._known
        at, found = _find(known[0], sizes)
        if not found.all():
            known = self._learn(np.unique(sizes[~found]))
            at, _ = _find(known[0], sizes)
        facts = known[1][at]
        return facts[..., 0], facts[..., 1], facts[..., 2:]

    def _learn(self, sizes: Ints) -> tuple[Ints, Floats]:
        if len(self._alive) < 2:
            facts = np.zeros((len(sizes), 2 + _slopes(len(self._alive))))
        else:
            whole = np.full(len(sizes), self.rows)
            means, rest, slopes = class_moments(whole, np.tile(self._alive, (len(sizes), 1)), sizes)
            facts = np.column_stack([means, rest, slopes])
        known = self._known
        if len(known[0]):
            sizes, facts = np.concatenate([known[0], sizes]), np.concatenate([known[1], facts])
        order = np.argsort(sizes)
        self._known = (sizes[order], facts[order])
        return self._known


def class_moments(totals: Ints, classes: Ints, sizes: Ints) -> tuple[Floats, Floats, Floats]:
    """Mean divergence, variance of its part not linear in the class counts, slopes on these.

    Two classes: exact, one slope (on the first class). More: each class's part is exact; the parts not
    linear are correlated as squares of normal variables are, by the square of the counts' correlation.

    Args:
        totals, sizes: ``[T]``; classes: ``[T, C]``.
    """
    if classes.shape[1] == 2:
        mean, variance, slope, _, _, _ = dealt(totals, classes[:, 0], sizes)
        rest = variance - slope**2 * _spread(totals, classes[:, 0], sizes)
        return mean, np.maximum(rest, 0.0), slope[:, None]
    means, rest, tied = np.zeros(len(sizes)), np.zeros(len(sizes)), np.zeros(len(sizes))
    slopes = np.zeros(classes.shape)
    for number, rows in enumerate(classes.T):
        share = rows / np.maximum(totals, 1)
        _, _, _, mean, variance, slope = dealt(totals, rows, sizes)
        means += share * mean
        slopes[:, number] = share * slope
        own = share**2 * np.maximum(variance - slope**2 * _spread(totals, rows, sizes), 0.0)
        odds = np.sqrt(own) * np.where(rows < totals, share / np.maximum(1.0 - share, 1e-300), 0.0)
        rest += own - odds**2
        tied += odds
    return means, rest + tied**2, slopes


def _spread(totals: Ints, hits: Ints, sizes: Ints) -> Floats:
    """Variance of the hypergeometric law."""
    share = hits / np.maximum(totals, 1)
    return np.asarray(sizes * share * (1.0 - share) * (totals - sizes) / np.maximum(totals - 1, 1))


def quadratic(shares: Floats, slopes: Floats) -> Floats:
    """Variance of ``slopes [..., C]`` over classes drawn by ``shares``: Σ p·a² - (Σ p·a)²."""
    return np.asarray((shares * slopes**2).sum(axis=-1) - (shares * slopes).sum(axis=-1) ** 2)


def _slopes(classes: int) -> int:
    return 1 if classes <= 2 else classes


def _find(known: Ints, sizes: Ints) -> tuple[Ints, NDArray[np.bool_]]:
    at = np.searchsorted(known, sizes)
    if len(known) == 0:
        return at, np.zeros(sizes.shape, dtype=bool)
    at = np.minimum(at, len(known) - 1)
    return at, known[at] == sizes
