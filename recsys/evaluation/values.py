"""Labels, scores, weights and groups as arrays that the metrics can trust.

Every function takes anything column-like (numpy, polars, pandas, Arrow, a list) and where it comes
from, and raises DataError that counts the bad values and points at the first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.errors import DataError

SLICE_BITS = np.uint32(0xFFFF)
"""Bits of a tag that hold the code of a slice."""
MISSING_TAG = np.uint32(1 << 16)
"""Bit of a tag that marks the group of rows without a group value."""
HASH_SHIFT = np.uint64(49)
"""The bits above hold as many bits of a second hash, of values that are no integers."""
_NOT_FINITE = "missing, NaN or infinite"


@dataclass(frozen=True)
class Origin:
    """Where values come from, for messages."""

    name: str
    row: Callable[[int], str] = "row {}".format
    """How a row number is told to a person."""


class GroupKeys(NamedTuple):
    """What tells groups apart, row by row: equal (key, tag) is the same group.

    Integers, booleans and times are keys as they are. Other values are told apart by 79 bits of two
    hashes: the probability that any two of a million distinct strings count as one group is 1e-12.
    """

    key: NDArray[np.uint64]
    tag: NDArray[np.uint32] | None

    def within(self, code: NDArray[np.uint16]) -> GroupKeys:
        """The groups of each slice apart from those of other slices; ``code`` [N] numbers the slices."""
        slices = code.astype(np.uint32)
        return GroupKeys(self.key, slices if self.tag is None else self.tag | slices)


def as_series(values: Any, name: str) -> pl.Series:
    """Any column-like values as a polars Series."""
    try:
        if isinstance(values, pl.Series):
            return values
        if hasattr(values, "__arrow_c_stream__") or hasattr(values, "__arrow_c_array__"):
            return pl.Series(values)
        if isinstance(values, np.ndarray | list | tuple) or hasattr(values, "to_numpy"):
            return pl.Series(values)
        return pl.Series(np.asarray(values))
    except (TypeError, ValueError, pl.exceptions.PolarsError) as error:
        raise DataError(f"{name}: expected a column of values, found {type(values).__name__}") from error


def as_labels(values: Any, origin: Origin = Origin("label")) -> NDArray[np.bool_]:
    """Labels ``[N]`` as booleans; raises DataError unless each is 0 or 1."""
    array = _numbers(values, origin.name, "0 or 1")
    if array.dtype == np.bool_:
        return array
    positive: NDArray[np.bool_] = array == 1
    odd = ~(positive | (array == 0))
    _refuse(odd, array, values, origin, "not 0 or 1", "make the label 0 and 1, without missing values")
    return positive


def as_scores(values: Any, origin: Origin = Origin("score")) -> NDArray[Any]:
    """Scores ``[N]`` as float32 or float64, whichever they are; raises DataError unless all are finite."""
    array = _numbers(values, origin.name, "a number")
    if array.dtype not in (np.float32, np.float64):
        array = array.astype(np.float32 if array.dtype.itemsize <= 2 else np.float64)
    _refuse(~np.isfinite(array), array, values, origin, _NOT_FINITE, "find out why the model gave no score")
    return array


def as_weights(values: Any, origin: Origin = Origin("weight")) -> NDArray[np.float64]:
    """Sample weights ``[N]``; raises DataError unless all are finite, none negative and some positive."""
    array = _numbers(values, origin.name, "a number").astype(np.float64)
    _refuse(~np.isfinite(array), array, values, origin, _NOT_FINITE, "give every row a weight")
    _refuse(array < 0, array, values, origin, "negative", "give weights of 0 or more")
    if not array.any():
        raise DataError(f"{origin.name}: all {len(array)} weights are 0; at least one must be positive")
    return array


def as_groups(values: Any, origin: Origin = Origin("group")) -> GroupKeys:
    """Groups ``[N]``; missing values are one group of their own. Raises DataError for lists."""
    if isinstance(values, GroupKeys):
        return values
    series = as_series(values, origin.name)
    dtype = series.dtype
    if dtype.is_nested() or dtype == pl.Object:
        raise DataError(f"{origin.name}: expected one value per row to group by, found {dtype}")
    missing = series.is_null().to_numpy() if series.null_count() else None
    if dtype == pl.Null:
        return GroupKeys(np.zeros(len(series), np.uint64), np.full(len(series), MISSING_TAG))
    tag = None if missing is None else np.where(missing, MISSING_TAG, np.uint32(0))
    integer = isinstance(dtype, pl.Categorical | pl.Enum) or dtype.is_temporal() or dtype == pl.Boolean
    if integer or (dtype.is_integer() and dtype not in (pl.Int128, pl.UInt128)):
        physical = series.to_physical()
        whole = physical.cast(pl.UInt64 if physical.dtype == pl.UInt64 else pl.Int64)
        key = whole.fill_null(0).to_numpy().view(np.uint64)
        return GroupKeys(key, tag)
    # Two seeds, two hashes that agree only by chance.
    hashed = np.empty(len(series), np.uint32)
    np.right_shift(series.hash(seed=1).to_numpy(), HASH_SHIFT, out=hashed, casting="unsafe")
    hashed <<= np.uint32(17)
    return GroupKeys(series.hash(seed=2).to_numpy(), hashed if tag is None else hashed | tag)


def require_rows(**columns: Any) -> int:
    """Number of rows; raises DataError when there is none, or when columns differ in length."""
    lengths = {name: len(column) for name, column in columns.items() if column is not None}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{name} {rows}" for name, rows in lengths.items())
        raise DataError(f"columns of different length: {listed} rows; give every column the same rows")
    rows = next(iter(lengths.values()))
    if rows == 0:
        raise DataError(f"{', '.join(lengths)}: no rows to evaluate; give at least one")
    return rows


def ordered_bits(score: NDArray[Any]) -> NDArray[np.uint32]:
    """uint32 ``[N]`` that compare as the scores do, ties included, exactly for float64 too."""
    narrow = score if score.dtype == np.float32 else _narrowed(score)
    if narrow is None:
        return _dense_ranks(score)
    bits = (narrow + np.float32(0)).view(np.uint32)  # -0.0 + 0.0 is 0.0: the two zeros tie
    if (narrow < 0).any():
        sign = np.uint32(1 << 31)
        bits = np.where(bits & sign, ~bits, bits | sign)
    return bits


def _narrowed(score: NDArray[Any]) -> NDArray[np.float32] | None:
    """The scores as float32 where that loses nothing; None where it would."""
    with np.errstate(over="ignore", under="ignore"):
        narrow = score.astype(np.float32)
    return narrow if bool((narrow == score).all()) else None


def _dense_ranks(score: NDArray[Any]) -> NDArray[np.uint32]:
    order = np.argsort(score)
    ascending = score[order]
    ranks = np.empty(len(score), np.uint32)
    ranks[order] = np.concatenate(([0], np.cumsum(ascending[1:] != ascending[:-1])))
    return ranks


def _numbers(values: Any, name: str, expected: str) -> NDArray[Any]:
    """One-dimensional numeric or boolean array; missing values become NaN."""
    if isinstance(values, np.ndarray) and values.dtype.kind in "biuf":
        array = values
    else:
        series = as_series(values, name)
        if not (series.dtype.is_numeric() or series.dtype in (pl.Boolean, pl.Null)):
            raise DataError(f"{name}: expected {expected} per row, found values of type {series.dtype}")
        if series.dtype == pl.Null or series.dtype.is_decimal():
            series = series.cast(pl.Float64)
        if series.dtype == pl.Boolean and series.null_count():
            series = series.cast(pl.Float32)
        array = series.to_numpy()
    if array.ndim != 1:
        raise DataError(f"{name}: expected one value per row, found an array of shape {array.shape}")
    return array


def _refuse(
    bad: NDArray[np.bool_], array: NDArray[Any], values: Any, origin: Origin, fault: str, advice: str
) -> None:
    """Raise DataError that counts the bad rows and shows the first, if there is one."""
    if bad.any():
        row = int(bad.argmax())
        raise DataError(
            f"{origin.name}: {int(bad.sum())} of {len(array)} values are {fault}, the first at "
            f"{origin.row(row)} ({_shown(values, array, row)}); {advice}"
        )


def _shown(values: Any, array: NDArray[Any], row: int) -> str:
    """A value as a person would write it: missing, nan, inf, 2."""
    if isinstance(values, pl.Series) and values[row] is None:
        return "missing"
    return f"{array[row]:g}"
