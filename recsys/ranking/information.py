"""Mutual information of counts, beside what chance alone would give.

A column with many values tells something about any label by luck, see ``chance``. Everything here is in
nats.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from recsys.ranking.chance import Chance, Floats, Ints, class_moments, quadratic
from recsys.ranking.elements import Elements


def learnable(told: Floats | float, chance: Floats | float) -> Floats:
    """Part of an information beyond chance that is left once it has been learned from these rows.

    A value of n rows whose log odds scatter by τ² adds nτ²/2 to the information, and about 1/2 by
    chance. Estimated from its rows with the best shrinkage, a share nτ² / (nτ² + 1) of its scatter
    is known: of the information, told / (told + chance). What is not beyond chance stays as it is.

    Args:
        told: nats beyond chance; chance: nats that chance gives on the rows that teach, same shape.
    """
    share = told / np.maximum(told + np.maximum(chance, 0.0), 1e-300)
    return np.where(told > 0, told * share, told)


@dataclass(frozen=True)
class Information:
    """What a column tells about the label, in nats, beside what chance would tell."""

    mi: float
    """Plug-in mutual information."""
    expected: float
    """Its exact mean over random dealings of the labels."""
    sd: float
    """Its standard deviation over random dealings."""
    error: float
    """Standard deviation of the score if the rows were drawn anew."""
    normaliser: float = math.nan
    """Mean of the entropies of column and label: what ``adjusted`` is relative to."""
    known: float = 0.0
    """Share of ``ranked`` that is left once it has been learned from these rows, see ``_known``."""

    @property
    def score(self) -> float:
        """Mutual information beyond chance; below 0 when a column tells less than noise would."""
        return self.mi - self.expected

    @property
    def z(self) -> float:
        """Score in standard deviations of chance; 0 where chance leaves no room (a constant)."""
        return self.score / self.sd if self.sd > 0 else 0.0

    @property
    def low(self) -> float:
        """Lower end of the 95 % interval of the score."""
        return self.score - 1.96 * self.error

    @property
    def high(self) -> float:
        """Upper end of the 95 % interval of the score."""
        return self.score + 1.96 * self.error

    @property
    def ranked(self) -> float:
        """What columns are ordered by: the score less three deviations of chance.

        The scores of noise columns of many values scatter by as much as a real column of few values
        tells; what chance reaches once in hundreds of columns is not held against the latter. Above 0:
        more than such luck.
        """
        return self.score - 3.0 * self.sd

    @property
    def learnable(self) -> float:
        """What a model that learns a number per value can be expected to know."""
        return self.ranked * self.known if self.ranked > 0 else self.ranked

    @property
    def p(self) -> float:
        """Chance of at least this much information from dealt labels, one-sided.

        By a gamma law of the same mean and deviation (chi-square where cells are large), with Wilson and
        Hilferty's cube root (1931).
        """
        if self.sd <= 0 or self.expected <= 0:
            return 1.0
        shape = (self.expected / self.sd) ** 2
        root = math.cbrt(max(self.mi, 0.0) / self.expected)
        return 0.5 * math.erfc((root - 1 + 1 / (9 * shape)) * 3 * math.sqrt(shape) / math.sqrt(2))

    @property
    def adjusted(self) -> float:
        """Adjusted mutual information: 1 for a copy of the label, about 0 by chance.

        Source: Vinh, Epps and Bailey (JMLR 2010), with the arithmetic mean of the entropies, as in
        scikit-learn's ``adjusted_mutual_info_score``.
        """
        room = self.normaliser - self.expected
        smallest = float(np.finfo(np.float64).eps)
        return self.score / (min(room, -smallest) if room < 0 else max(room, smallest))


def information(
    counts: Ints,
    chance: Chance | None = None,
    classes: Ints | None = None,
    together: Elements | None = None,
) -> Information:
    """What the values of one column tell about the label.

    The deviation over dealings: each value's divergence is split into its part that is linear in the
    class counts, whose sum over the values has a variance known exactly (the counts of a class have a
    fixed sum), and the rest. The variances of the rest are exact per value and are scaled by
    (K - 1) / Σ(1 - w)², w the values' shares: in the normal limit K values are worth K - 1 free ones.
    The interval adds the multinomial variance
    of the plug-in estimate (delta method, less its own share of chance, 2 · expected / rows).

    For a list, pass ``classes``: rows of the log per class. Where the counts do not sum to them, the
    result is the information of an element picked at random, its divergence taken from the class
    shares of the rows. Elements that come together are lucky together: pass ``together``, else values
    are taken as independent of each other.

    Args:
        counts: rows per value and class ``[K, C]``; values without rows are left out.
        chance: of the same classes, shared between the columns of a log; default: made anew.
        classes: rows per class ``[C]``; default: ``chance.classes``, else ``counts.sum(0)``.
        together: which of a list's K values, all with rows, stand in the same rows.
    """
    counts = np.asarray(counts, dtype=np.int64)
    if classes is None:
        classes = counts.sum(axis=0) if chance is None else chance.classes
    classes = np.asarray(classes, dtype=np.int64)
    chance = Chance(classes) if chance is None else chance
    sizes = counts.sum(axis=1)
    if not sizes.all():
        counts, sizes = counts[sizes > 0], sizes[sizes > 0]
    rows, elements = int(classes.sum()), int(sizes.sum())
    if elements == 0 or rows == 0:
        return Information(0.0, 0.0, 0.0, 0.0, 0.0)
    mi, square = _plug_in(counts, sizes, classes[None, :], rows)
    distinct, times = np.unique(sizes, return_counts=True)
    share = distinct / elements
    means, rest, slopes = chance.moments(distinct)
    expected = float(times @ (share * means))
    linear, weight = slopes * share[:, None], times * np.minimum(distinct, rows)
    variance = float(times @ (share**2 * rest))
    is_whole = elements == rows and bool((counts.sum(axis=0) == classes).all())
    if is_whole:
        variance *= _tied(len(sizes), float(times @ (1.0 - share) ** 2))
        common = quadratic(chance.shares, weight @ linear) / rows
    else:
        common = (weight * np.minimum(distinct, rows) / rows) @ quadratic(chance.shares, linear)
    variance += float(weight @ quadratic(chance.shares, linear) - common) * rows / max(rows - 1, 1)
    if together is not None and not is_whole:
        at = np.searchsorted(distinct, sizes)
        variance = together.variance((share * np.sqrt(rest))[at], linear[at], chance.shares, rows)
    entropy = -float(times @ (share * np.log(share)))
    found = _combined(
        mi, square, expected, variance, min(rows, elements), (entropy + _entropy(classes)) / 2
    )
    return replace(found, known=_known(found.ranked, times * share, means))


def conditional_information(counts: Ints | tuple[Ints, Ints, Ints]) -> Information:
    """What X tells about the label Y once Z is known: I(X;Y|Z), chance dealing Y within each Z.

    Exact mean; the deviation is that of ``information`` within each stratum, summed over the strata.

    Args:
        counts: rows ``[Z, K, C]``, or the codes ``(z, x, y)``, each ``[S]`` and not negative.
    """
    stratum, table = cells(*counts) if isinstance(counts, tuple) else _cells_of(np.asarray(counts))
    if len(table) == 0:
        return Information(0.0, 0.0, 0.0, 0.0, 0.0)
    sizes = table.sum(axis=1)
    starts = np.flatnonzero(np.diff(stratum, prepend=-1))
    values = np.diff(starts, append=len(stratum))
    index = np.repeat(np.arange(len(starts)), values)
    classes = np.add.reduceat(table, starts, axis=0)
    totals = classes.sum(axis=1)
    rows = int(totals.sum())
    mi, square = _plug_in(table, sizes, classes[index], totals[index])
    means, rest, slopes = _by_triples(classes, index, sizes)
    share = sizes / rows
    own = np.add.reduceat(share**2 * rest, starts)
    free = np.add.reduceat((1.0 - sizes / totals[index]) ** 2, starts)
    variance = own * np.where(values > 1, (values - 1) / np.maximum(free, 1e-300), 0.0)
    linear = slopes * share[:, None]
    heights = (classes / totals[:, None])[:, : slopes.shape[1]]
    apart = np.add.reduceat(sizes * quadratic(heights[index], linear), starts)
    common = quadratic(heights, np.add.reduceat(sizes[:, None] * linear, starts, axis=0)) / totals
    variance += (apart - common) * totals / np.maximum(totals - 1, 1)
    expected = float(share @ means)
    heard = -float(share @ np.log(sizes / totals[index]))
    with np.errstate(divide="ignore", invalid="ignore"):
        told = -float(np.nansum(classes / rows * np.log(classes / totals[:, None])))
    found = _combined(mi, square, expected, float(variance.sum()), rows, (heard + told) / 2)
    return replace(found, known=_known(found.ranked, share, means))


def cells(z: Ints, x: Ints, y: Ints) -> tuple[Ints, Ints]:
    """Rows per class of every (z, x) that occurs: strata ``[M]`` sorted, counts ``[M, C]``.

    Args:
        z, x, y: codes ``[S]``, not negative.
    """
    if len(y) == 0:
        return np.zeros(0, np.int64), np.zeros((0, 0), np.int64)
    width, classes = int(x.max()) + 1, int(y.max()) + 1
    key = (np.asarray(z, np.int64) * width + x) * classes + y
    room = (int(z.max()) + 1) * width * classes
    if room <= 4 * len(key) + 4096:
        table = np.bincount(key, minlength=room).reshape(-1, classes)
        place = np.flatnonzero(table.any(axis=1))
        return place // width, table[place]
    key.sort()
    first = np.flatnonzero(np.diff(key, prepend=-1))
    rows = np.diff(first, append=len(key))
    key = key[first]
    place = key // classes
    begins = np.diff(place, prepend=-1) != 0
    table = np.zeros((int(begins.sum()), classes), np.int64)
    table[np.cumsum(begins) - 1, key - place * classes] = rows
    return place[begins] // width, table


def _cells_of(counts: Ints) -> tuple[Ints, Ints]:
    table = counts.reshape(-1, counts.shape[2])
    place = np.flatnonzero(table.any(axis=1))
    return place // counts.shape[1], table[place]


def _plug_in(counts: Ints, sizes: Ints, classes: Ints, total: int | Ints) -> tuple[float, float]:
    """Sum of share · log ratio, and of share · log ratio²; classes ``[1 or M, C]``, total scalar or [M]."""
    rows = np.asarray(total, dtype=np.float64).reshape(-1, 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.log((counts * rows) / (sizes[:, None] * classes.astype(np.float64)))
    ratio[counts == 0] = 0.0
    share = counts / sizes.sum()
    weighted = share * ratio
    return float(weighted.sum()), float((weighted * ratio).sum())


def _combined(
    mi: float, square: float, expected: float, variance: float, rows: int, normaliser: float
) -> Information:
    sampling = max(square - mi * mi - 2.0 * expected, 0.0) / rows
    variance = max(variance, 0.0)
    return Information(mi, expected, math.sqrt(variance), math.sqrt(variance + sampling), normaliser)


def _known(told: float, share: Floats, chance: Floats) -> float:
    """Share of an information that is left once it has been learned value by value, see ``learnable``.

    All values are taken to scatter alike, so that each row tells as much; what chance adds to a row's
    information is the less, the more rows its value has. A column of many values of which a few have most
    of the rows is known well.

    Args:
        told: nats per row beyond chance.
        share: of the rows, that the values of a size have; chance: nats that it adds per row; ``[K]``.
    """
    return float(share @ (told / (told + np.maximum(chance, 0.0)))) if told > 0 else 0.0


def _tied(values: int, free: float) -> float:
    """Factor from the sum of the values' own variances to the variance of their fixed sum."""
    return (values - 1) / free if values > 1 and free > 0 else 0.0


def _by_triples(classes: Ints, index: Ints, sizes: Ints) -> tuple[Floats, Floats, Floats]:
    """``class_moments`` per cell ``[M]``, computed once per distinct (classes of the stratum, size)."""
    kinds, kind = np.unique(classes, axis=0, return_inverse=True)
    wide = int(sizes.max()) + 1
    distinct, back = np.unique(kind.reshape(-1)[index] * wide + sizes, return_inverse=True)
    which, size = np.divmod(distinct, wide)
    means, rest, slopes = class_moments(kinds.sum(axis=1)[which], kinds[which], size)
    return means[back], rest[back], slopes[back]


def _entropy(rows: Ints) -> float:
    share = rows[rows > 0] / rows.sum()
    return -float(share @ np.log(share))
