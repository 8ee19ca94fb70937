"""The paired bootstrap: how far a difference moves when other rows, or other groups, had been drawn.

Both scorings are measured on the same drawn units. Units beyond ``MOST_UNITS`` are dealt at random
into that many bundles of about equal size, and bundles are drawn: the variance stays unbiased for
independent units, and a draw costs no more for a hundred million rows than for sixty-five thousand.

Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapters 8 and 13.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.evaluation.delong import Ranked

MOST_UNITS = 65_536
_STREAM = 0x434F_4D50
"""Names the generator of draws: no other part of recsys draws from it."""


def mean_draws(
    amount: NDArray[np.float64], weight: NDArray[np.float64] | None, resamples: int, seed: int
) -> NDArray[np.float64]:
    """``sum(amount) / sum(weight)`` of each resample of units, ``[resamples]``.

    ``amount`` and ``weight`` are ``[U]``, summed over each unit; without weights every unit counts 1.
    """
    generator = _generator(seed)
    bundle = _bundles(len(amount), generator)
    bins = int(bundle.max()) + 1
    above = np.bincount(bundle, weights=amount, minlength=bins)
    below = np.bincount(bundle, weights=weight, minlength=bins).astype(np.float64)
    return np.array([drawn @ above / (drawn @ below) for drawn in _draws(bins, resamples, generator)])


def auc_draws(
    label: NDArray[np.bool_],
    first: NDArray[Any],
    second: NDArray[Any],
    unit: NDArray[np.int64],
    resamples: int,
    seed: int,
    on_draw: Callable[[], object] = lambda: None,
) -> NDArray[np.float64]:
    """AUC of ``second`` minus that of ``first``, of each resample of units; all arguments are ``[N]``.

    ``unit`` numbers each row's unit from 0: the row itself, or its group. A draw without one of the
    classes is left out. ``on_draw`` is called after each.
    """
    generator = _generator(seed)
    bundle = _bundles(int(unit.max()) + 1, generator)[unit]
    ranked = [Ranked.of(score) for score in (first, second)]
    found = []
    for drawn in _draws(int(bundle.max()) + 1, resamples, generator):
        counts = drawn[bundle]
        positive, negative = np.where(label, counts, 0.0), np.where(label, 0.0, counts)
        possible = 2.0 * positive.sum() * negative.sum()
        if possible > 0:
            pairs = [_pairs(rows, positive, negative) for rows in ranked]
            found.append((pairs[1] - pairs[0]) / possible)
        on_draw()
    return np.array(found)


def interval(draws: NDArray[np.float64]) -> tuple[float, float]:
    """The middle 95 % of draws."""
    low, high = np.quantile(draws, (0.025, 0.975))
    return float(low), float(high)


def p_value(draws: NDArray[np.float64]) -> float:
    """Two-sided probability of a lead at least this clear without one; never below 2 / (draws + 1)."""
    fewer = min(int((draws <= 0).sum()), int((draws >= 0).sum()))
    return min(1.0, 2.0 * (fewer + 1) / (len(draws) + 1))


def _pairs(ranked: Ranked, positive: NDArray[np.float64], negative: NDArray[np.float64]) -> float:
    """Twice the weight of (positive, negative) pairs in the right order, ties half."""
    within = np.add.reduceat(positive[ranked.order], ranked.starts)
    return float(within @ ranked.twice_below(negative))


def _generator(seed: int) -> np.random.Generator:
    return np.random.default_rng([_STREAM, seed])


def _bundles(units: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """Bundle of each unit ``[units]``; each unit its own where they are few enough."""
    places = np.arange(units)
    return places if units <= MOST_UNITS else generator.permutation(places) % MOST_UNITS


def _draws(units: int, resamples: int, generator: np.random.Generator) -> Iterator[NDArray[np.float64]]:
    """How often each unit is drawn ``[units]``, resample by resample."""
    for _ in range(resamples):
        chosen = generator.integers(0, units, units)
        yield np.bincount(chosen, minlength=units).astype(np.float64)
