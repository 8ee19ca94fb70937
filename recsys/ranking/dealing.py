"""Moments of the divergence of a value when labels are dealt at random: sums over hypergeometric laws.

With d = k·N / (n·K) - 1 the excess of a cell and f(d) = (1 + d)·ln(1 + d) - d, the divergence is a sum
of shares times f, and by Stirling so is the logarithm of the probability. f is never negative, so that
nothing cancels however many rows there are. Source of that form of the probabilities: C. Loader,
"Fast and accurate computation of binomial probabilities" (2000).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

BLOCK = 1 << 15
"""Points summed at a time: keeps the temporaries in cache."""

_EXACT = 64
_STIRLING: Floats = np.array(
    [0.0] + [math.lgamma(x + 1) - x * math.log(x) + x for x in range(1, _EXACT)], dtype=np.float64
)


def dealt(total: Ints, hits: Ints, size: Ints) -> tuple[Floats, ...]:
    """Moments over k ~ Hypergeometric(total, hits, size), elementwise ``[T]``.

    Sums over k within 8.5 standard deviations (plus 10) of the mean. Where the deviation is 6 or more,
    only each (deviation / 3)-th k is summed: for a law that smooth the sum over such a grid is off by
    less than exp(-100) relative. So the work per element is bounded whatever its size.

    Returns:
        Mean, variance and slope on k (covariance / variance of k) of KL(k/size ‖ hits/total); then the
        same three of f(d) of the hits alone, in nats.
    """
    results = tuple(np.zeros(len(size)) for _ in range(6))
    alive = np.flatnonzero((hits > 0) & (hits < total) & (size > 0) & (size < total))
    if len(alive) == 0:
        return results
    total, hits, size = total[alive], hits[alive], size[alive]
    low, stride, points = _windows(total, hits, size)
    ends = np.cumsum(points)
    begin = 0
    while begin < len(alive):
        reach = ends[begin] - points[begin] + BLOCK
        end = max(begin + 1, int(np.searchsorted(ends, reach, side="right")))
        part = slice(begin, end)
        moments = _moments(total[part], hits[part], size[part], low[part], stride[part], points[part])
        for result, moment in zip(results, moments, strict=True):
            result[alive[part]] = moment
        begin = end
    return results


def _windows(total: Ints, hits: Ints, size: Ints) -> tuple[Ints, Ints, Ints]:
    """First k, step, and number of points per element."""
    share = hits / total
    mean = size * share
    deviation = np.sqrt(mean * (1.0 - share) * (total - size) / np.maximum(total - 1, 1))
    half = 8.5 * deviation + 10.0
    low = np.maximum(np.maximum(0, size - (total - hits)), np.floor(mean - half).astype(np.int64))
    high = np.minimum(np.minimum(size, hits), np.ceil(mean + half).astype(np.int64))
    stride = np.maximum(1, (deviation / 3.0).astype(np.int64))
    return low, stride, (high - low) // stride + 1


def _moments(total: Ints, hits: Ints, size: Ints, low: Ints, stride: Ints, points: Ints) -> list[Floats]:
    starts = np.cumsum(points) - points
    index = np.repeat(np.arange(len(points)), points)
    k = np.arange(len(index)) - starts[index]
    k = low[index] + stride[index] * k
    # In integers: the excess is a small difference of large products.
    excess = (k * total[index] - (size * hits)[index]).astype(np.float64)
    rest, others, share = total - size, total - hits, hits / total

    def spread(a: Ints, b: Ints) -> Floats:
        return _f(excess * (1.0 / (a.astype(np.float64) * b))[index])

    one = spread(size, hits)
    divergence = share[index] * one + (1.0 - share)[index] * spread(size, -others)
    outside = share[index] * spread(rest, -hits) + (1.0 - share)[index] * spread(rest, others)
    log_mass = -size[index] * divergence - rest[index] * outside
    n, h = size[index], hits[index]
    for cell in (k, h - k, n - k, others[index] - n + k):
        log_mass -= _stirling(cell)
    mass = np.exp(log_mass)
    whole = np.add.reduceat(mass, starts)
    shift = excess / total[index]
    scale = size * share * (1.0 - share) * rest / np.maximum(total - 1, 1)
    moments = []
    for part in (divergence, one):
        weighted = mass * part
        mean = np.add.reduceat(weighted, starts) / whole
        square = np.add.reduceat(weighted * part, starts) / whole
        slope = np.add.reduceat(weighted * shift, starts) / (whole * scale)
        moments += [mean, np.maximum(square - mean**2, 0.0), slope]
    return moments


def _f(d: Floats) -> Floats:
    """(1 + d)·ln(1 + d) - d, which is 1 at d = -1."""
    return np.asarray((1.0 + d) * np.log1p(np.maximum(d, -1.0 + 1e-15)) - d)


def _stirling(x: Ints) -> Floats:
    """ln x! - (x·ln x - x), to 1e-15."""
    number = np.maximum(x, 1).astype(np.float64)
    inverse = 1.0 / number
    square = inverse * inverse
    series = inverse * (1 / 12 - square * (1 / 360 - square * (1 / 1260 - square / 1680)))
    result = 0.5 * np.log(2.0 * math.pi * number) + series
    small = x < _EXACT
    if small.any():
        result[small] = _STIRLING[x[small]]
    return np.asarray(result)
