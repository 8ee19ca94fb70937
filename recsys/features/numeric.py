"""Numeric features: a transform chosen on train rows, then standardised.

``auto`` takes the signed log1p where the values have a heavy tail: where the 99.9 % quantile of their
distance from the median exceeds ten times the interquartile range. A normal distribution reaches 2.4
times, an exponential one 5.7, a lognormal one with sigma 1 about 14. Where more than half of the values
are equal the range is 0; the median distance of the others takes its place, so that 0/1 columns stay
linear and counts that are mostly 0 do not.

Mean and standard deviation are those of the transformed values with both tails of 0.1 % drawn in to the
quantile, or a single absurd number would press all others together. All of it comes from at most
``SAMPLE`` train values, every k-th of them, which is exact up to that size.
"""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.data.dataset import NumericEncoder
from recsys.schema import Transform

SAMPLE = 1 << 20
"""Values kept per column at most."""
_TAIL = 0.001
_HEAVY = 10.0
_SQUARE_OVERFLOWS = 1e150


class NumericSample:
    """Every k-th of the values fed in pieces, k the smallest power of two that keeps few enough."""

    def __init__(self, limit: int = SAMPLE) -> None:
        self.seen = 0
        """Values fed so far, missing ones left out."""
        self._limit = limit
        self._stride = 1
        self._kept: list[NDArray[np.float64]] = []
        self._count = 0

    def add(self, values: NDArray[np.float64]) -> None:
        """Feed some finite values."""
        piece = values[-self.seen % self._stride :: self._stride]
        self._kept.append(piece.copy())
        self._count += len(piece)
        self.seen += len(values)
        while self._count > self._limit:
            self._kept = [np.concatenate(self._kept)[::2]]
            self._count = len(self._kept[0])
            self._stride *= 2

    def values(self) -> NDArray[np.float64]:
        """The sample."""
        return np.concatenate(self._kept) if self._kept else np.empty(0)


def fit(values: NDArray[np.float64], transform: Transform) -> NumericEncoder:
    """Choose transform, mean and standard deviation for finite train values ``[N]``, N at least 1.

    A constant column has standard deviation 1, so that it is encoded as 0.
    """
    chosen = transform if transform != "auto" else ("log" if _has_heavy_tail(values) else "linear")
    moved = np.sort(signed_log1p(values) if chosen == "log" else values)
    low = moved[int(_TAIL * (len(moved) - 1))]
    high = moved[-1 - int(_TAIL * (len(moved) - 1))]
    drawn_in = np.clip(moved, low, high)
    if low == high:
        return NumericEncoder(transform=chosen, mean=float(low), std=1.0)
    largest = float(max(abs(low), abs(high)))
    scale = largest if largest > _SQUARE_OVERFLOWS else 1.0
    mean, std = np.mean(drawn_in / scale) * scale, np.std(drawn_in / scale) * scale
    return NumericEncoder(transform=chosen, mean=float(mean), std=float(std) or 1.0)


def _has_heavy_tail(values: NDArray[np.float64]) -> bool:
    with np.errstate(over="ignore"):
        distances = np.minimum(np.abs(values - np.median(values)), np.finfo(np.float64).max)
        first, third = np.quantile(values, [0.25, 0.75])
        spread = float(third - first)
        if spread == 0.0:
            others = distances[distances > 0]
            spread = float(np.median(others)) if len(others) else 1.0
        return float(np.quantile(distances, 1 - _TAIL)) > _HEAVY * spread


def signed_log1p(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """``sign(x) * log(1 + |x|)``."""
    return np.copysign(np.log1p(np.abs(values)), values)


def standardise(values: pl.Series, encoder: NumericEncoder) -> pl.Series:
    """Float64 numbers ``[N]`` as the model reads them: float32, null where missing."""
    numbers = values.fill_null(np.nan).to_numpy()
    if encoder.transform == "log":
        numbers = signed_log1p(numbers)
    with np.errstate(over="ignore"):
        standard = (numbers - encoder.mean) / encoder.std
    clipped = np.clip(standard, -encoder.clip, encoder.clip).astype(np.float32)
    return pl.Series(values.name, clipped, nan_to_null=True)
