"""What kind a column is, from its survey and its name. The rules of thumb, in this order:

* text and booleans are categorical, floats with fractions are numeric;
* integers (floats without fractions too) are categorical where the name says id or code, or there are
  two values; numeric where the name says count, price, age... and there are more than 32 values; else
  categorical up to 64 values; else numeric where they look measured: negative ones among them, or the
  middle half of the distinct values spans less than 0.3 of the range (ids spread evenly: 0.5);
* integers with few values among numbered siblings (``I1`` … ``I13``) that are mostly numeric are too;
* times are timestamps, text that reads as dates, and integers named like times that lie between 1980
  and 2100 as seconds, milliseconds, microseconds or nanoseconds since 1970, or as YYYYMMDD;
* lists are ``multi``; ``sequence`` where the name says history, recent, clicked..., or where they hold
  more than 16 values on average.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import polars as pl

from recsys.data.source import Source
from recsys.features import names
from recsys.features.survey import Survey, with_middles
from recsys.schema import Kind, ValueType

MEASURED_MIDDLE = 0.3
LONG_LIST = 16
_FEW_MEASURED = 32
_FEW = 64
_LARGE_RANGE = 1 << 31
_SIBLINGS = 4
_EPOCHS = tuple((315_532_800 * unit, 4_102_444_800 * unit) for unit in (1, 10**3, 10**6, 10**9))
_CALENDAR = (19_800_101, 21_001_231)


def kinds_of(source: Source, surveys: Mapping[str, Survey]) -> dict[str, Kind]:
    """The kind of every surveyed column."""
    first = {name: kind_of(name, found) for name, found in surveys.items()}
    open_ = [name for name, kind in first.items() if kind is None]
    spread = with_middles(source, surveys, open_)
    kinds = {name: kind or _kind_by_spread(spread[name]) for name, kind in first.items()}
    for members in _families(surveys).values():
        if 2 * sum(kinds[name] == "numeric" for name in members) > len(members) >= _SIBLINGS:
            kinds |= {name: "numeric" for name in members if surveys[name].distinct > 2}
    return kinds


def kind_of(name: str, found: Survey) -> Kind | None:
    """The kind of a column; None where integers can only be told by how they spread."""
    if found.is_list:
        is_long = found.length_mean is not None and found.length_mean > LONG_LIST
        return "sequence" if names.is_sequence(name) or is_long else "multi"
    if not found.is_integral:
        return "numeric" if found.element.is_numeric() else "categorical"
    if found.distinct <= 2 or found.minimum is None or names.is_identity(name):
        return "categorical"
    if names.is_number(name) and found.distinct > _FEW_MEASURED:
        return "numeric"
    return "categorical" if found.distinct <= _FEW else None


def _kind_by_spread(found: Survey) -> Kind:
    if found.minimum is None or found.maximum is None or found.middle is None:
        return "categorical"
    negative = found.minimum < 0 and found.maximum - found.minimum < _LARGE_RANGE
    return "numeric" if negative or found.middle < MEASURED_MIDDLE else "categorical"


def _families(surveys: Mapping[str, Survey]) -> dict[str, list[str]]:
    """Columns of whole numbers by the stem of their numbered names."""
    families: dict[str, list[str]] = defaultdict(list)
    for name, found in surveys.items():
        stem = names.family(name)
        if stem is not None and found.is_integral and not found.is_list and not names.is_identity(name):
            families[stem].append(name)
    return families


def type_of(kind: Kind, found: Survey) -> ValueType:
    """Type that a column's values are cast to."""
    if kind == "numeric":
        return "float64"
    if found.element == pl.Datetime:
        return "datetime"
    return "int64" if found.is_integral else "string"


def time_type(name: str, found: Survey) -> ValueType | None:
    """Type of a column of times, of the elements for lists; None where it holds none."""
    if found.element == pl.Datetime or found.dates:
        return "datetime"
    low, high = found.minimum, found.maximum
    if not names.is_time(name) or not found.is_integral or low is None or high is None:
        return None
    if any(start <= low and high <= end for start, end in (*_EPOCHS, _CALENDAR)):
        return "int64"
    return None
