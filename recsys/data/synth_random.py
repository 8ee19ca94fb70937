"""Randomness without state: every number is a hash of a named stream and a counter.

Row 17 of a log, or the effect of value 4711, is the same however many rows or values are drawn
before it, so a log can be made in chunks, in any order, and no effect need be stored.
"""

from __future__ import annotations

from statistics import NormalDist
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

UInt = NDArray[np.uint64]
Int = NDArray[np.int64]
Float = NDArray[np.floating[Any]]

_STEP = np.uint64(0x9E3779B97F4A7C15)
_CELL_BITS = 12
_FRACTION_BITS = np.uint64(64 - _CELL_BITS)
_FRACTION = float(2.0 ** -(64 - _CELL_BITS))


def _normal_quantiles() -> Float:
    """Quantiles of the standard normal at the edges of equally likely cells, ends made finite."""
    cells = 1 << _CELL_BITS
    inner = [NormalDist().inv_cdf(edge / cells) for edge in range(1, cells)]
    end = NormalDist().inv_cdf(0.2 / cells)
    return np.array([end, *inner, -end])


_QUANTILES = _normal_quantiles()
_WIDTHS = np.diff(_QUANTILES)


def stream(seed: int, *names: str | int) -> int:
    """Start of the counter stream that belongs to a seed and a name."""
    return xxhash.xxh3_64_intdigest("\0".join(str(part) for part in (seed, *names)).encode())


def bits(start: int | UInt, counter: Int | UInt) -> UInt:
    """64 random bits per counter, splitmix64 of ``start + counter``; ``start`` may be one per counter."""
    hashed = counter.view(np.uint64) * _STEP
    hashed += np.uint64(start) if isinstance(start, int) else start
    scratch = hashed >> np.uint64(30)
    hashed ^= scratch
    hashed *= np.uint64(0xBF58476D1CE4E5B9)
    np.right_shift(hashed, np.uint64(27), out=scratch)
    hashed ^= scratch
    hashed *= np.uint64(0x94D049BB133111EB)
    np.right_shift(hashed, np.uint64(31), out=scratch)
    hashed ^= scratch
    return hashed


def to_uniform(random: UInt) -> Float:
    """Numbers in ``[0, 1)`` from random bits."""
    scaled: Float = np.multiply(random >> np.uint64(11), 2.0**-53, dtype=np.float64)
    return scaled


def uniform(start: int | UInt, counter: Int | UInt) -> Float:
    """Numbers in ``[0, 1)``, one per counter."""
    return to_uniform(bits(start, counter))


def normal(start: int | UInt, counter: Int | UInt) -> Float:
    """Standard normal numbers, one per counter, by the interpolated quantile function.

    Only additions and multiplications, so that processors agree on them to the last bit.
    """
    random = bits(start, counter)
    cell = (random >> _FRACTION_BITS).view(np.int64)
    random &= np.uint64((1 << (64 - _CELL_BITS)) - 1)
    result = np.multiply(random, _FRACTION, dtype=np.float64)
    result *= _WIDTHS[cell]
    result += _QUANTILES[cell]
    return result


def zipf(chance: Float, values: int, exponent: float, offset: float = 0.0) -> Int:
    """Ranks ``0 … values-1`` with probability falling as ``(rank + 1 + offset) ** -exponent``.

    By inversion of the continuous distribution, so that no table of ``values`` entries is needed.
    """
    first, last = 1.0 + offset, values + 1.0 + offset
    if exponent == 0:
        drawn = chance * (last - first)
    elif exponent == 1:
        drawn = np.exp(chance * np.log(last / first)) * first - first
    else:
        power = 1.0 - exponent
        drawn = (first**power + chance * (last**power - first**power)) ** (1.0 / power) - first
    rank: Int = np.minimum(drawn, values - 1.0).astype(np.int64)
    return rank


class Scramble:
    """A bijection of ``0 … values-1``, so that a value's number says nothing about its rank."""

    def __init__(self, values: int, start: int) -> None:
        self.values = values
        factor = max(1, int(values * 0.6180339887)) if values > 2 else 1
        while np.gcd(factor, values) != 1:
            factor += 1
        self._factor = factor
        self._shift = start % values
        self._inverse = pow(factor, -1, values) if values > 1 else 0

    def apply(self, rank: Int) -> Int:
        """Visible number of each rank."""
        return (rank * self._factor + self._shift) % self.values

    def invert(self, number: Int) -> Int:
        """Rank of each visible number."""
        return (number - self._shift) % self.values * self._inverse % self.values
