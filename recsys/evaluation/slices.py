"""Metrics by the values of a column, all slices at once."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.errors import DataError
from recsys.evaluation.grouped import GroupCounts, count_by_group
from recsys.evaluation.metrics import entropy_of, ratio, sums, times
from recsys.evaluation.values import GroupKeys

MOST_VALUES = 40
"""A column with at most this many values is cut by value."""
TOP_VALUES = 20
"""Of longer columns, strings keep this many most frequent values and one slice of all others."""
QUANTILE_BINS = 10
"""Numbers and times with more than ``MOST_VALUES`` values are cut into this many bins."""
_FIRST_ROWS = 10_000
MISSING, OTHER = "(missing)", "(other)"

SCHEMA = {
    "column": pl.String,
    "value": pl.String,
    "rows": pl.Int64,
    "positives": pl.Int64,
    "ctr": pl.Float64,
    "auc": pl.Float64,
    "gauc": pl.Float64,
    "gauc_rows_used": pl.Float64,
    "logloss": pl.Float64,
    "ne": pl.Float64,
    "calibration": pl.Float64,
}


class Scored(NamedTuple):
    """Checked rows, each ``[N]``."""

    label: NDArray[np.bool_]
    bits: NDArray[np.uint32]
    """``ordered_bits`` of the scores."""
    groups: GroupKeys | None
    weight: NDArray[np.float64] | None
    prediction: NDArray[np.float64] | None
    """Probabilities; None where the scores are none."""
    loss: NDArray[np.float64] | None


class Cut(NamedTuple):
    """A column cut into slices."""

    code: NDArray[np.uint16]
    """Slice of each row, ``[N]``."""
    values: list[str]
    """What each slice holds, by code."""


def cut(series: pl.Series, name: str) -> Cut:
    """Cut a column into at most ``MOST_VALUES`` + 1 slices; raises DataError for lists and structs."""
    dtype = series.dtype
    if dtype.is_nested() or dtype == pl.Object:
        raise DataError(f"{name}: slices need one value per row, found {dtype}; choose another column")
    if dtype.is_float():
        series = series.fill_nan(None)
    elif dtype.is_decimal():
        series = series.cast(pl.Float64)
    elif isinstance(dtype, pl.Categorical | pl.Enum | pl.Null | pl.Boolean):
        series = series.cast(pl.String)
    elif isinstance(dtype, pl.Datetime) and (series == series.dt.truncate("1d")).all():
        series = series.cast(pl.Date)
    by_size = series.dtype.is_numeric() or series.dtype.is_temporal()
    # The first rows often settle it, and spare a count of millions of distinct numbers.
    if by_size and series.head(_FIRST_ROWS).drop_nulls().n_unique() > MOST_VALUES:
        code, values = _by_quantile(series)
    else:
        counts = series.drop_nulls().rename("value").value_counts(name="rows")
        many = by_size and len(counts) > MOST_VALUES
        code, values = _by_quantile(series) if many else _by_value(series, counts)
    if series.null_count():
        code[series.is_null().to_numpy()] = len(values)
        values.append(MISSING)
    return Cut(code, values)


def slice_metrics(column: str, pieces: Cut, rows: Scored) -> pl.DataFrame:
    """One row per slice with the columns of ``SCHEMA``; a metric that a slice does not define is null."""
    code, slices = pieces.code, len(pieces.values)
    amount = sums(code, rows.weight, slices)
    base = ratio(sums(code, times(rows.label, rows.weight), slices), amount)
    gauc, used = _gauc_by_slice(rows, code, slices)
    logloss = _mean(rows.loss, rows, code, amount)
    entropy = np.array([entropy_of(share) for share in base])
    columns = {
        "column": [column] * slices,
        "value": pieces.values,
        "rows": np.bincount(code, minlength=slices),
        "positives": np.bincount(code[rows.label], minlength=slices),
        "ctr": base,
        "auc": _auc_by_slice(rows, code, slices),
        "gauc": gauc,
        "gauc_rows_used": used,
        "logloss": logloss,
        "ne": ratio(logloss, entropy),
        "calibration": ratio(_mean(rows.prediction, rows, code, amount), base),
    }
    return pl.DataFrame(columns, schema=SCHEMA).fill_nan(None).filter(pl.col("rows") > 0)


def _by_value(series: pl.Series, counts: pl.DataFrame) -> tuple[NDArray[np.uint16], list[str]]:
    """Each value a slice, in natural order where all fit, else the most frequent ones first."""
    fits = len(counts) <= MOST_VALUES
    if fits:
        number = counts["value"].cast(pl.Float64, strict=False)
        as_numbers = series.dtype == pl.String and number.null_count() == 0
        counts = counts.sort(number if as_numbers else "value")
    else:
        counts = counts.sort(["rows", "value"], descending=[True, False]).head(TOP_VALUES)
    known = counts["value"]
    code = series.replace_strict(
        known, np.arange(len(known)), default=len(known), return_dtype=pl.UInt16
    ).to_numpy(writable=True)
    return code, [str(value) for value in known] + ([] if fits else [OTHER])


def _by_quantile(series: pl.Series) -> tuple[NDArray[np.uint16], list[str]]:
    """Bins of about equally many rows, named by their smallest and largest value."""
    ascending = series.drop_nulls().sort()
    physical = ascending.to_physical().to_numpy()
    rows = len(physical)
    inner = np.unique(physical[np.arange(1, QUANTILE_BINS) * rows // QUANTILE_BINS])
    inner = inner[inner > physical[0]]
    first = np.concatenate(([0], np.searchsorted(physical, inner, side="left")))
    last = np.append(first[1:], rows) - 1
    names = [
        low if low == high else f"{low} … {high}"
        for low, high in zip(_named(ascending.gather(first)), _named(ascending.gather(last)), strict=True)
    ]
    values = series.fill_null(ascending[0]).to_physical().to_numpy()
    return np.searchsorted(inner, values, side="right").astype(np.uint16), names


def _named(values: pl.Series) -> list[str]:
    return [f"{value:.4g}" if isinstance(value, float) else str(value) for value in values]


def _mean(
    values: NDArray[np.float64] | None, rows: Scored, code: NDArray[np.uint16], amount: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Weighted mean per slice; NaN where there are no values."""
    if values is None:
        return np.full(len(amount), np.nan)
    return ratio(sums(code, times(values, rows.weight), len(amount)), amount)


def _auc_by_slice(rows: Scored, code: NDArray[np.uint16], slices: int) -> NDArray[np.float64]:
    counts = count_by_group(rows.label, rows.bits, GroupKeys(code.astype(np.uint64), None), rows.weight)
    auc = np.full(slices, np.nan)
    auc[counts.key] = counts.auc
    return auc


def _gauc_by_slice(
    rows: Scored, code: NDArray[np.uint16], slices: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """GAUC, and the share of impressions it rests on, per slice."""
    if rows.groups is None:
        return np.full(slices, np.nan), np.full(slices, np.nan)
    counts: GroupCounts = count_by_group(rows.label, rows.bits, rows.groups.within(code), rows.weight)
    used = ~np.isnan(counts.auc)
    impressions = counts.positives + counts.negatives
    of_slice: NDArray[Any] = counts.slice.astype(np.int64)
    in_used = sums(of_slice[used], impressions[used], slices)
    gauc = ratio(sums(of_slice[used], impressions[used] * counts.auc[used], slices), in_used)
    return gauc, ratio(in_used, sums(of_slice, impressions, slices))
