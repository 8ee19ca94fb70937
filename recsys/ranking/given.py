"""Prior mode: what columns add to the columns that a model already has."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from recsys.errors import ConfigError, did_you_mean
from recsys.ranking.chance import class_moments
from recsys.ranking.codes import Codes
from recsys.ranking.dealing import dealt
from recsys.ranking.information import Information, conditional_information
from recsys.ranking.sharing import shared_information, surely

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

BINS = 64
"""Strata of rows that the given columns predict alike, at most."""
ROWS_PER_BIN = 200
ROWS_PER_CELL = 20
"""Rows per stratum and value, on average, from which a column is counted stratum by stratum."""
SMOOTHING = 20.0
"""Rows of the average that a value's class shares are mixed with."""


def given(codes: Codes, given: Sequence[str]) -> dict[str, Information]:
    """What every other column adds to the columns that a model already has.

    The given columns predict each row's class by adding up the log odds of their values, each half of
    the rows scored by the smoothed counts of the other half. Rows of like prediction form up to 64
    strata. A column with few values (20 rows per stratum and value, on average) is worth
    I(X;Y|stratum) beyond chance. One with more would fall apart into cells that tell nothing, so each of
    its values is held against the class shares that its rows' strata predict: what that divergence
    exceeds chance by is the information that a further additive column brings.

    A column is never worth more than its own score less what one given column demonstrably shares with
    it, which catches copies of columns with more values than the halves can teach.

    Args:
        codes: rows as codes.
        given: names of the columns that the model has; none: plain informations.

    Raises:
        ConfigError: an unknown column.
    """
    for name in given:
        if name not in codes.names:
            raise ConfigError(f"given: unknown column {name!r}; {did_you_mean(name, codes.names)}")
    known = [codes.names.index(name) for name in dict.fromkeys(given)]
    strata = _strata(codes, known)
    label = codes.label.astype(np.int64)
    others = [f for f in range(len(codes.names)) if f not in known]
    found: dict[int, Information] = {}
    for f in others:
        values = codes.codes[f].astype(np.int64)
        distinct, bins = len(np.unique(values)), len(np.unique(strata))
        if bins == 1 or distinct * bins * ROWS_PER_CELL <= len(label):
            found[f] = conditional_information((strata, values, label))
        else:
            found[f] = _beside_prediction(strata, values, label, codes.classes)
    if known and others:
        _cap(codes, known, found)
    return {codes.names[f]: information for f, information in found.items()}


def _cap(codes: Codes, known: Sequence[int], found: dict[int, Information]) -> None:
    counter = codes.counter
    chance = counter.expected_mutual
    widths = np.array(counter.widths)
    for f, information in found.items():
        joint, variance, together, nested, _ = counter.count([(g, f) for g in known]).T
        synergy = joint - counter.scores[known] - counter.scores[f]
        free = variance + (1.0 - 2.0 * nested) * (counter.variances[known] + counter.variances[f])
        mutual = counter.entropies[known] + counter.entropies[f] - together - chance[known, f]
        both = np.array([[widths[g], widths[f]] for g in known])
        shared = shared_information(surely(synergy, free, 3.0), mutual, both, counter.rows).max()
        most = float(counter.scores[f] - shared)
        if shared > 0 and information.score > most:
            found[f] = replace(information, mi=information.expected + most)


def _beside_prediction(strata: Ints, values: Ints, label: Ints, classes: int) -> Information:
    """Divergence of each value's class shares from those that its rows' strata predict.

    By chance the rows of a class in a value are a sum of draws within the strata: taken as one draw
    from their mean share, narrowed by the spread of the shares within the value.
    """
    rows = len(label)
    table = np.bincount(strata * classes + label, minlength=(int(strata.max()) + 1) * classes)
    rates = table.reshape(-1, classes) / np.maximum(
        table.reshape(-1, classes).sum(axis=1, keepdims=True), 1
    )
    width = int(values.max()) + 1
    counts = np.bincount(values * classes + label, minlength=width * classes).reshape(width, classes)
    expected = np.stack([np.bincount(values, rates[strata, c], width) for c in range(classes)], axis=1)
    square = np.stack([np.bincount(values, rates[strata, c] ** 2, width) for c in range(classes)], axis=1)
    seen = counts.sum(axis=1) > 0
    counts, expected, square = counts[seen], expected[seen], square[seen]
    sizes = counts.sum(axis=1)
    shares = expected / sizes[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(counts > 0, np.log(counts / expected), 0.0)
        wide = expected * (1.0 - shares)
    slim = expected - square
    by_class = np.where(wide > 0, slim / np.where(wide > 0, wide, 1.0), 0.0)
    narrow = slim.sum(axis=1) / np.maximum(wide.sum(axis=1), 1e-300)
    weight = sizes / rows
    mi = float((counts * ratio).sum() / rows)
    spread = float((counts * ratio**2).sum() / rows) - mi**2
    whole, hits = np.full(len(sizes), rows), _whole(shares, rows)
    _, rest, slopes = class_moments(whole, hits, sizes)
    means = [dealt(whole, hits[:, c], sizes)[3] * by_class[:, c] * shares[:, c] for c in range(classes)]
    chance = float(weight @ sum(means))
    tied = (len(sizes) - 1) / max(float(((1.0 - weight) ** 2).sum()), 1e-300)
    variance = tied * float((weight * narrow) ** 2 @ rest)
    linear = slopes * weight[:, None]
    top = shares[:, : linear.shape[1]]
    scale = sizes * narrow
    apart = float(scale @ ((top * linear**2).sum(axis=1) - (top * linear).sum(axis=1) ** 2))
    # Strata fix their sums of each class: the common slope has no room.
    free = scale[:, None] * top * (1.0 - top)
    common = float(((free * linear).sum(axis=0) ** 2 / np.maximum(free.sum(axis=0), 1e-300)).sum())
    variance = max(variance + apart - common, 0.0)
    sampling = max(spread - 2.0 * chance, 0.0) / rows
    return Information(mi, chance, math.sqrt(variance), math.sqrt(variance + sampling))


def _whole(shares: Floats, rows: int) -> Ints:
    """Rows per class that come closest to the shares ``[K, C]``, each row summing to ``rows``."""
    classes = np.rint(shares * rows).astype(np.int64)
    largest = classes.argmax(axis=1)
    classes[np.arange(len(classes)), largest] += rows - classes.sum(axis=1)
    return classes


def _strata(codes: Codes, known: Sequence[int]) -> Ints:
    """Number of the stratum of each row ``[S]``."""
    rows, classes = codes.label.shape[0], codes.classes
    if not known or rows == 0:
        return np.zeros(rows, np.int64)
    half = np.random.default_rng(0).integers(0, 2, rows)
    odds = np.zeros((rows, classes))
    for side in (0, 1):
        scored, seen = half == side, half != side
        label = codes.label[seen].astype(np.int64)
        average = (np.bincount(label, minlength=classes) + 1.0) / (len(label) + classes)
        for f in known:
            values = codes.codes[f].astype(np.int64)
            width = int(values.max()) + 1
            counts = np.bincount(values[seen] * classes + label, minlength=width * classes)
            counts = counts.reshape(width, classes)
            shares = (counts + SMOOTHING * average) / (counts.sum(axis=1, keepdims=True) + SMOOTHING)
            odds[scored] += np.log(shares / average)[values[scored]]
        odds[scored] += np.log(average)
    bins = int(np.clip(rows // ROWS_PER_BIN, 2, BINS))
    if classes == 2:
        return _quantiles(odds[:, 1] - odds[:, 0], bins)
    top = odds.max(axis=1)
    certain = -np.log(np.exp(odds - top[:, None]).sum(axis=1))
    return np.asarray(odds.argmax(axis=1) * (BINS + 1) + _quantiles(certain, max(2, bins // classes)))


def _quantiles(values: Floats, bins: int) -> Ints:
    """Each value by itself where they are few, else by quantiles."""
    distinct = np.unique(values)
    if len(distinct) > bins:
        distinct = np.unique(np.quantile(values, np.arange(1, bins) / bins))
    return np.searchsorted(distinct, values, side="right")
