"""Embedding tables as they stand in a bundle: float32, float16, int8 or int4 rows.

A quantised row holds unsigned codes, a ``scale`` and an ``offset``, both float16, and means

    value = scale * code + offset,        offset = -scale * zero_code exactly.

Exactly: each scale is chosen with few enough significant bits that its product with the row's
zero code is a float16. Three things follow. A weight of 0 comes back as 0, which closed gates and
masks rely on; every weight comes back within half a scale; and all products fit float32's 24 bits,
so that every reader, fused multiply-add or not, gets the same bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.embeddings.plan import ServeDtype
from recsys.errors import BundleError

BITS: dict[str, int] = {"int8": 8, "int4": 4}
_CHUNK = 32_768
_SIGNIFICAND = 11  # bits of a float16, the hidden one included
_SMALLEST = 2.0**-24  # the spacing of float16's subnormals
_LARGEST = 65504.0
_WINDOW = 15  # zero codes tried on either side of the ideal one: all of int4's, and a 16th of int8's


@dataclass(frozen=True)
class Table:
    """One embedding table in memory, as stored.

    >>> Table.from_weights("t", np.array([[0.5, 0.0]], np.float32), "int8").lookup(np.array([0]))
    array([[0.5, 0. ]], dtype=float32)
    """

    name: str
    dtype: ServeDtype
    rows: int
    dim: int
    arrays: dict[str, NDArray[Any]]
    """``weight`` ``[N, D]``; or ``codes`` uint8 ``[N, ceil(D*bits/8)]``, ``scale``, ``offset`` ``[N]``."""

    @classmethod
    def from_weights(cls, name: str, weights: NDArray[np.float32], dtype: ServeDtype) -> Table:
        """Store float32 ``[N, D]`` weights; raises BundleError for one that the type cannot hold."""
        weights = np.ascontiguousarray(weights, np.float32)
        rows, dim = weights.shape
        _require_finite(name, weights)
        if dtype == "float32":
            arrays: dict[str, NDArray[Any]] = {"weight": weights}
        elif dtype == "float16":
            _require_range(name, weights, dtype)
            arrays = {"weight": weights.astype(np.float16)}
        else:
            _require_range(name, weights, dtype)
            arrays = quantise(weights, BITS[dtype])
        return cls(name, dtype, rows, dim, arrays)

    @classmethod
    def from_arrays(
        cls, name: str, dtype: ServeDtype, rows: int, dim: int, arrays: Mapping[str, NDArray[Any]]
    ) -> Table:
        """A table from stored arrays; raises BundleError unless names, types and shapes are as declared."""
        expected = expected_arrays(dtype, rows, dim)
        found = {key: (array.dtype.name, array.shape) for key, array in arrays.items()}
        if found != expected:
            raise BundleError(
                f"table {name!r} ({dtype}, {rows} × {dim}): expected {expected}, found {found}"
            )
        return cls(name, dtype, rows, dim, dict(arrays))

    def lookup(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """float32 vectors ``[..., D]`` of int64 row numbers ``[...]``."""
        if "weight" in self.arrays:
            return self.arrays["weight"][rows].astype(np.float32, copy=False)
        codes = self.arrays["codes"][rows]
        if BITS[self.dtype] == 4:
            codes = unpack_nibbles(codes, self.dim)
        scale = self.arrays["scale"][rows].astype(np.float32)[..., None]
        offset = self.arrays["offset"][rows].astype(np.float32)[..., None]
        return codes.astype(np.float32) * scale + offset

    def max_error(self, weights: NDArray[np.float32]) -> float:
        """Largest absolute difference from the weights ``[N, D]`` that it was made from."""
        parts = (np.arange(at, min(at + _CHUNK, self.rows)) for at in range(0, self.rows, _CHUNK))
        return max(float(np.abs(self.lookup(part) - weights[part]).max(initial=0.0)) for part in parts)

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        return sum(array.nbytes for array in self.arrays.values())


def expected_arrays(dtype: ServeDtype, rows: int, dim: int) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Name, type and shape of every array of a stored table."""
    if dtype not in BITS:
        return {"weight": (dtype, (rows, dim))}
    width = -(-dim * BITS[dtype] // 8)
    return {
        "codes": ("uint8", (rows, width)),
        "scale": ("float16", (rows,)),
        "offset": ("float16", (rows,)),
    }


def row_bytes(dtype: ServeDtype, dim: int) -> int:
    """Bytes that one row of a stored table takes."""
    return sum(
        int(np.dtype(kind).itemsize * np.prod(shape))
        for kind, shape in expected_arrays(dtype, 1, dim).values()
    )


def worthwhile(dtype: ServeDtype, dim: int) -> ServeDtype:
    """The asked type, or float16 where quantised rows would be no smaller (very narrow tables)."""
    if dtype in BITS and row_bytes(dtype, dim) >= row_bytes("float16", dim):
        return "float16"
    return dtype


def quantise(weights: NDArray[np.float32], bits: int) -> dict[str, NDArray[Any]]:
    """Codes, scale and offset of float32 ``[N, D]`` weights; 8 or 4 bits, low nibble first.

    Each weight comes back within half its row's scale, and 0 as 0.
    """
    rows, dim = weights.shape
    codes = np.empty((rows, -(-dim * bits // 8)), np.uint8)
    scale, offset = np.empty(rows, np.float16), np.empty(rows, np.float16)
    for start in range(0, rows, _CHUNK):
        part = slice(start, start + _CHUNK)
        step, zero = _grid(weights[part], bits)
        levels = np.rint(weights[part] / step[:, None]) + zero[:, None]
        coded = np.clip(levels, 0, 2**bits - 1).astype(np.uint8)
        codes[part] = coded if bits == 8 else pack_nibbles(coded)
        scale[part], offset[part] = step, 0.0 - step * zero  # 0.0 - x: no negative zeros
    return {"codes": codes, "scale": scale, "offset": offset}


def _grid(weights: NDArray[np.float32], bits: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Scale and zero code per row: the smallest scale that reaches both ends of the row.

    A zero code of q significant bits (trailing zeros cut) leaves the scale 11 - q, so that their
    product has 11 at most. Codes near the ideal one are tried, each with its scale rounded up.
    """
    last = 2**bits - 1
    low = np.minimum(weights.min(axis=1, initial=0.0), 0.0).astype(np.float64)
    high = np.maximum(weights.max(axis=1, initial=0.0), 0.0).astype(np.float64)
    span = high - low
    ideal = np.rint(np.divide(-low, span, out=np.zeros_like(span), where=span > 0) * last)
    near = sorted(range(-_WINDOW, _WINDOW + 1), key=abs)
    zero = np.clip(ideal[:, None] + np.array(near), 0, last).astype(np.int64)
    with np.errstate(divide="ignore", invalid="ignore"):
        upward = np.where(high[:, None] > 0, high[:, None] / (last - zero), 0.0)
        downward = np.where(low[:, None] < 0, -low[:, None] / zero, 0.0)
    scale = _round_up(np.maximum(upward, downward), _SIGNIFICAND - _significant_bits(last)[zero])
    best = scale.argmin(axis=1)[:, None]
    step = np.take_along_axis(scale, best, 1)[:, 0]
    code = np.take_along_axis(zero, best, 1)[:, 0]
    empty = span == 0
    return np.where(empty, 1.0, step), np.where(empty, 0, code)


def _round_up(values: NDArray[np.float64], digits: NDArray[np.int64]) -> NDArray[np.float64]:
    """The next float16 that needs no more than so many significant bits; infinity stays."""
    _, exponent = np.frexp(np.where(np.isfinite(values), values, 1.0))
    spacing = np.maximum(np.ldexp(1.0, exponent - digits), _SMALLEST)
    return np.where(np.isfinite(values), np.ceil(values / spacing) * spacing, np.inf)


def _significant_bits(last: int) -> NDArray[np.int64]:
    """For each code 0..last, its length in bits once trailing zeros are cut."""
    return np.array([0] + [(code // (code & -code)).bit_length() for code in range(1, last + 1)])


def pack_nibbles(codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Two codes below 16 per byte, the first in the low nibble; ``[N, D]`` to ``[N, ceil(D/2)]``."""
    if codes.shape[1] % 2:
        codes = np.pad(codes, ((0, 0), (0, 1)))
    return np.asarray(codes[:, 0::2] | (codes[:, 1::2] << 4), np.uint8)


def unpack_nibbles(packed: NDArray[np.uint8], dim: int) -> NDArray[np.uint8]:
    """The codes of ``pack_nibbles``, ``[..., ceil(D/2)]`` to ``[..., D]``."""
    codes = np.empty((*packed.shape[:-1], packed.shape[-1] * 2), np.uint8)
    codes[..., 0::2], codes[..., 1::2] = packed & 15, packed >> 4
    return codes[..., :dim]


def _require_finite(name: str, weights: NDArray[np.float32]) -> None:
    faulty = ~np.isfinite(weights)
    if faulty.any():
        row, column = (int(at) for at in np.argwhere(faulty)[0])
        raise BundleError(
            f"table {name!r}, row {row}, column {column}: the weight is {weights[row, column]}, "
            f"expected a finite number; training diverged, lower its learning rate"
        )


def _require_range(name: str, weights: NDArray[np.float32], dtype: str) -> None:
    # float16 rounds everything below 65520 down to 65504, its largest number.
    largest = 65520.0 if dtype == "float16" else _LARGEST / 2
    faulty = np.abs(weights) >= largest
    if faulty.any():
        row, column = (int(at) for at in np.argwhere(faulty)[0])
        raise BundleError(
            f"table {name!r}, row {row}, column {column}: the weight {weights[row, column]:g} is too "
            f"large for {dtype} (less than {largest:g}); export with dtype float32"
        )
