"""What a log's columns hold, found in a few streaming passes over all rows; the label is never read."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import polars as pl

from recsys.data.check import as_time, reading
from recsys.data.source import Source
from recsys.data.types import element_type, is_list
from recsys.features.names import is_time
from recsys.schema import ColumnFacts

EXACT_ROWS = 2_000_000
"""Logs up to this many rows have every distinct count exact."""
EXACT_DISTINCT = 1_000_000
"""In longer logs, counts up to this are exact; larger ones are a sketch's estimate (±10 %)."""
_UNIQUE_SHARE = 0.7
"""A column whose estimate is above this share of the rows may be unique: it is counted exactly."""
_COLUMNS_AT_ONCE = 8
"""Columns whose distinct values are held in memory together."""
_SAMPLE = 1_000
"""Rows that are looked at to see whether a text column may hold dates."""
_SEP = "\x1f"


@dataclass(frozen=True)
class Survey:
    """One column's facts; of the elements, for lists."""

    dtype: pl.DataType
    rows: int
    missing: int
    """Rows without a value: null, not finite, or an empty list."""
    not_finite: int
    distinct: int
    exact: bool
    whole: bool
    """Numbers: none has a fraction."""
    minimum: float | None = None
    maximum: float | None = None
    length_mean: float | None = None
    length_max: int | None = None
    dates: bool = False
    """Text: every value reads as a date or time."""
    middle: float | None = None
    """Integers: share of the range that the middle half of the distinct values spans."""

    @property
    def element(self) -> pl.DataType:
        """Type of the values, of the elements for lists."""
        return element_type(self.dtype)

    @property
    def is_list(self) -> bool:
        return is_list(self.dtype)

    @property
    def is_integral(self) -> bool:
        """Integers, booleans, and floats that stand for integers with gaps."""
        return (
            self.element.is_integer()
            or self.element == pl.Boolean
            or (self.element.is_float() and self.whole and self.distinct > 0)
        )

    @property
    def is_unique(self) -> bool:
        """Every row has a value that no other row has."""
        return self.exact and self.distinct == self.rows and self.missing == 0 and not self.is_list

    def facts(self, *, numeric: bool) -> ColumnFacts:
        """The facts as the schema records them."""
        return ColumnFacts(
            distinct=self.distinct,
            distinct_is_exact=self.exact,
            missing=round(self.missing / self.rows, 6),
            length_mean=None if self.length_mean is None else round(self.length_mean, 3),
            length_max=self.length_max,
            minimum=self.minimum if numeric else None,
            maximum=self.maximum if numeric else None,
            not_finite=self.not_finite,
        )


def survey(source: Source, names: Sequence[str]) -> dict[str, Survey]:
    """Survey columns of supported types; reads all rows of these columns and no other."""
    columns = {name: source.columns[name] for name in names}
    if not columns:
        return {}
    rows = source.rows()
    count = "n_unique" if rows <= EXACT_ROWS else "approx_n_unique"
    asked = {
        f"{name}{_SEP}{key}": e for name, dtype in columns.items() for key, e in _asked(name, dtype).items()
    }
    asked |= {f"{name}{_SEP}distinct": _distinct(name, dtype, count) for name, dtype in columns.items()}
    found = _collect(source, asked)
    surveys = {
        name: _survey(
            dtype, rows, {key: found.get(f"{name}{_SEP}{key}") for key in _KEYS}, count == "n_unique"
        )
        for name, dtype in columns.items()
    }
    if count != "n_unique":
        surveys |= _counted_exactly(source, surveys)
    return surveys | _with_dates(source, surveys)


_KEYS = ("missing", "not_finite", "distinct", "fraction", "minimum", "maximum", "length_mean", "length_max")


def _survey(dtype: pl.DataType, rows: int, found: Mapping[str, Any], exact: bool) -> Survey:
    return Survey(
        dtype=dtype,
        rows=rows,
        missing=int(found["missing"] or 0),
        not_finite=int(found["not_finite"] or 0),
        distinct=min(int(found["distinct"] or 0), rows)
        if not is_list(dtype)
        else int(found["distinct"] or 0),
        exact=exact,
        whole=not found["fraction"],
        minimum=found["minimum"],
        maximum=found["maximum"],
        length_mean=found["length_mean"],
        length_max=None if not is_list(dtype) else int(found["length_max"] or 0),
    )


def _asked(name: str, dtype: pl.DataType) -> dict[str, pl.Expr]:
    """Aggregations over one column."""
    column, inner = pl.col(name), element_type(dtype)
    value = _values(name, dtype)
    asked: dict[str, pl.Expr] = {}
    if inner.is_numeric():
        asked |= {"minimum": value.min(), "maximum": value.max()}
    if inner.is_float():
        asked["fraction"] = (value != value.round()).any()
    if is_list(dtype):
        length = column.list.len()
        asked["missing"] = (column.is_null() | (length == 0)).sum()
        asked["length_mean"] = length.mean()
        asked["length_max"] = length.max()
        if inner.is_float():
            asked["not_finite"] = column.list.eval(~pl.element().is_finite()).list.any().sum()
    elif inner.is_float():
        asked["missing"] = (~column.is_finite()).fill_null(True).sum()
        asked["not_finite"] = (~column.is_finite()).sum()
    else:
        asked["missing"] = column.null_count()
    return asked


def _values(name: str, dtype: pl.DataType) -> pl.Expr:
    """The values, or elements, that are there and finite."""
    value = pl.col(name).explode() if is_list(dtype) else pl.col(name)
    if element_type(dtype).is_float():
        value = pl.when(value.is_finite()).then(value)
    return value.drop_nulls()


def _distinct(name: str, dtype: pl.DataType, count: str) -> pl.Expr:
    values = _values(name, dtype)
    return values.n_unique() if count == "n_unique" else values.approx_n_unique()


def _counted_exactly(source: Source, surveys: Mapping[str, Survey]) -> dict[str, Survey]:
    """Exact counts in place of estimates, where the distinct values fit into memory."""
    wanted = [
        name
        for name, found in surveys.items()
        if found.distinct <= EXACT_DISTINCT
        or (
            not found.is_list
            and found.is_integral | (found.dtype == pl.String)
            and found.distinct >= _UNIQUE_SHARE * found.rows
        )
    ]
    counted: dict[str, Survey] = {}
    for start in range(0, len(wanted), _COLUMNS_AT_ONCE):
        names = wanted[start : start + _COLUMNS_AT_ONCE]
        found = _collect(
            source, {name: _distinct(name, source.columns[name], "n_unique") for name in names}
        )
        counted |= {name: replace(surveys[name], distinct=int(found[name]), exact=True) for name in names}
    return counted


def _with_dates(source: Source, surveys: Mapping[str, Survey]) -> dict[str, Survey]:
    """Text columns in which every value reads as a date or time."""
    text = [name for name, found in surveys.items() if found.dtype == pl.String and found.distinct]
    if not text:
        return {}

    def unread(name: str) -> pl.Expr:
        value = pl.col(name)
        other = as_time(value, pl.String()).is_null()
        if not is_time(name):  # eight digits are a date only where the name says so
            other |= ~value.str.contains("-", literal=True)
        return (value.is_not_null() & other).any()

    with reading(source):
        head = source.lazy().select(text).head(_SAMPLE).collect(engine="streaming").lazy()
    maybe = [
        name
        for name, other in head.select(unread(name) for name in text).collect().row(0, named=True).items()
        if not other
    ]
    if not maybe:
        return {}
    found = _collect(source, {name: unread(name) for name in maybe})
    return {name: replace(surveys[name], dates=True) for name in maybe if not found[name]}


def with_middles(source: Source, surveys: Mapping[str, Survey], names: Sequence[str]) -> dict[str, Survey]:
    """The surveys of integer columns with ``middle`` filled in."""
    middles: dict[str, Survey] = {}
    for start in range(0, len(names), _COLUMNS_AT_ONCE):
        some = names[start : start + _COLUMNS_AT_ONCE]
        # Found once each and taken out whole: an expression per quantile would find them four times.
        asked = {name: _values(name, source.columns[name]).unique().implode() for name in some}
        for name, distinct in _collect(source, asked, as_lists=True).items():
            middles[name] = replace(surveys[name], middle=_middle(distinct.cast(pl.Float64)))
    return middles


def _middle(distinct: pl.Series) -> float | None:
    """Share of the range that the middle half of distinct values spans; None without any."""
    low, high = distinct.quantile(0.25), distinct.quantile(0.75)
    least, most = distinct.min(), distinct.max()
    if low is None or high is None or not isinstance(least, float) or not isinstance(most, float):
        return None
    return (high - low) / (most - least) if most > least else math.nan


def _collect(source: Source, asked: Mapping[str, pl.Expr], *, as_lists: bool = False) -> dict[str, Any]:
    with reading(source):
        frame = source.lazy().select(**asked).collect(engine="streaming")
    return {name: frame[name][0] for name in asked} if as_lists else frame.row(0, named=True)
