"""Transforms of numeric columns, ranked beside the raw numbers.

Bins see the same in a number and in any rising function of it, so a transform can only gain score by
folding the axis: distance from the middle, time of day, digits. What a rising one changes is how
much a straight line can use: that is told beside.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.ranking.binning import fine_bins, resolved
from recsys.ranking.chance import Chance
from recsys.ranking.counting import Counter

Floats = NDArray[np.float64]


def _signed_log(values: Floats) -> Floats:
    return np.sign(values) * np.log1p(np.abs(values))


def _signed_root(values: Floats) -> Floats:
    return np.sign(values) * np.sqrt(np.abs(values))


def _from_middle(values: Floats) -> Floats:
    return np.abs(values - np.median(values))


def _reciprocal(values: Floats) -> Floats:
    return np.divide(1.0, values, out=np.zeros_like(values), where=values != 0)


def _magnitude(values: Floats) -> Floats:
    return np.floor(np.log2(np.abs(values), out=np.full_like(values, -1100.0), where=values != 0))


TRANSFORMS: dict[str, Callable[[Floats], Floats]] = {
    "raw": lambda values: values,
    "log": _signed_log,
    "root": _signed_root,
    "square": np.square,
    "reciprocal": _reciprocal,
    "is zero": lambda values: (values == 0).astype(np.float64),
    "sign": np.sign,
    "absolute": np.abs,
    "from middle": _from_middle,
    "magnitude": _magnitude,
    "fraction": lambda values: values - np.floor(values),
    "modulo 7": lambda values: np.mod(values, 7),
    "modulo 10": lambda values: np.mod(values, 10),
    "modulo 24": lambda values: np.mod(values, 24),
    "modulo 100": lambda values: np.mod(values, 100),
}
"""By name; each takes and gives finite values ``[N]``."""


def transforms(columns: Mapping[str, pl.Series], label: NDArray[np.int64], classes: int) -> pl.DataFrame:
    """Score transforms of numeric columns on a sample of rows.

    Args:
        columns: numbers ``[S]`` by name, null where missing.
        label: class numbers ``[S]``.
        classes: number of classes C.

    Returns:
        ``column``, ``transform``, ``score`` (nats), ``z`` and ``linear``, ``-ln(1 - r²) / 2`` with r²
        the share of the variance of the transformed number that lies between classes: what a
        straight line can use, in nats. Best score first within a column. Transforms that leave
        nothing to tell apart are left out.
    """
    rows = np.bincount(label, minlength=classes)
    chance = Chance(rows)
    lines = []
    for name, values in columns.items():
        numbers = values.cast(pl.Float64)
        there = numbers.is_finite().fill_null(False)
        finite, of = numbers.filter(there).to_numpy(), label[there.to_numpy()]
        if not len(finite):
            continue
        for transform, function in TRANSFORMS.items():
            with np.errstate(over="ignore"):
                moved = np.clip(function(finite), -1e300, 1e300)
            if transform != "raw" and moved.min() == moved.max():
                continue
            full = pl.Series(np.full(len(label), np.nan))
            full = full.scatter(there.arg_true(), moved)
            counter = Counter(classes, fine_bins(moved))
            counter.add(full.fill_nan(None), label)
            _, _, found = resolved(counter.tally(rows), chance)
            lines.append((name, transform, found.score, found.z, _linear(moved, of, classes)))
    types = {
        "column": pl.String,
        "transform": pl.String,
        "score": pl.Float64,
        "z": pl.Float64,
        "linear": pl.Float64,
    }
    table = pl.DataFrame(lines, schema=types, orient="row")
    order = table.select(pl.col("score").max().over("column").alias("best"), "column", "score", "transform")
    places = order.select(
        pl.arg_sort_by("best", "column", "score", "transform", descending=[True, False, True, False])
    )
    return table[places.to_series()]


def _linear(values: Floats, label: NDArray[np.int64], classes: int) -> float:
    """``-ln(1 - r²) / 2`` with r² the share of variance between classes."""
    scale = float(np.abs(values).max())
    centred = values / scale if scale else values
    centred = centred - centred.mean()
    whole = float(centred @ centred)
    if whole <= 0:
        return 0.0
    rows = np.bincount(label, minlength=classes)
    sums = np.bincount(label, weights=centred, minlength=classes)
    between = float((sums[rows > 0] ** 2 / rows[rows > 0]).sum())
    return -0.5 * math.log1p(-min(between / whole, 1 - 1e-12))
