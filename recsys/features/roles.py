"""What a column is for: label, group, timestamp, row id, feature, or nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import polars as pl

from recsys.data.check import reading
from recsys.data.source import Source
from recsys.features import names
from recsys.features.kinds import time_type, type_of
from recsys.features.survey import Survey
from recsys.schema import Column, Kind, Role, Side

MAX_LENGTH = 100
_EXACT_FLOAT = 2**53
_FINE = 1_000
"""Columns of times with more distinct values than this are equally fine."""
_MANY_ROWS = 1_000
"""From this many rows on a column of unique values numbers the rows, whatever its name."""


@dataclass(frozen=True)
class Roles:
    """Columns that have a role, by role; None where there is none."""

    label: str | None = None
    group: str | None = None
    weight: str | None = None
    timestamp: str | None = None
    split: str | None = None
    """Column of a split by time."""

    def given(self) -> dict[str, str | None]:
        """The four roles of the run file."""
        return {role: getattr(self, role) for role in ("label", "group", "weight", "timestamp")}


def guess_label(source: Source, roles: Roles, usable: Sequence[str], notes: list[str]) -> Roles:
    """The label by name, among columns that hold both 0 and 1 and nothing else."""
    if roles.label is not None:
        return roles
    taken = set(roles.given().values())
    likely = [
        name
        for name in names.likely_label(usable)
        if (source.columns[name].is_numeric() or source.columns[name] == pl.Boolean) and name not in taken
    ]
    if likely:
        binary = [pl.col(name).cast(pl.Float64).is_in([0.0, 1.0]).all().alias(name) for name in likely]
        with reading(source):
            found = source.lazy().select(binary).collect(engine="streaming").row(0, named=True)
        for name in likely:
            if found[name]:
                notes.append(f"{name}: taken for the label by its name")
                return replace(roles, label=name)
    notes.append(
        "no label was given or found; name one with roles: [label] (retrieval models need none: they take "
        "every row for a positive)"
    )
    return roles


def guess_timestamp(roles: Roles, surveys: Mapping[str, Survey], notes: list[str]) -> Roles:
    """The column of event times: the finest one, the first among equals."""
    if roles.timestamp is not None:
        return roles
    times = [
        name
        for name, found in surveys.items()
        if not found.is_list and found.distinct > 1 and time_type(name, found) is not None
    ]
    if not times:
        return roles
    best = max(times, key=lambda name: min(surveys[name].distinct, _FINE))
    notes.append(f"{best}: taken for the time of the event")
    return replace(roles, timestamp=best)


def guess_group(
    roles: Roles, surveys: Mapping[str, Survey], kinds: Mapping[str, Kind], notes: list[str]
) -> Roles:
    """The user column by name, for GAUC."""
    if roles.group is not None:
        return roles
    for name in names.likely_group(surveys):
        found = surveys[name]
        if kinds[name] == "categorical" and 1 < found.distinct < found.rows:
            notes.append(f"{name}: taken for the group of GAUC by its name")
            return replace(roles, group=name)
    return roles


def draft_columns(
    source: Source,
    usable: Sequence[str],
    roles: Roles,
    surveys: Mapping[str, Survey],
    kinds: Mapping[str, Kind],
    notes: list[str],
) -> dict[str, Column]:
    """Every usable column, in the order of the file, before the user's word and shared vocabularies."""
    drafted = {}
    for name in usable:
        if name == roles.label:
            whole = not source.columns[name].is_float()
            drafted[name] = Column(kind="numeric", type="int64" if whole else "float64", roles=("label",))
        elif name == roles.weight:
            drafted[name] = Column(kind="numeric", type="float64", roles=("weight",))
        else:
            drafted[name] = _draft(name, roles, surveys[name], kinds[name], notes)
    return drafted


def _draft(name: str, roles: Roles, found: Survey, kind: Kind, notes: list[str]) -> Column:
    time = time_type(name, found)
    reason = _why_no_feature(name, roles, found, kind, time is not None)
    pairs: tuple[tuple[Role, str | None], ...] = (("group", roles.group), ("timestamp", roles.timestamp))
    given = [role for role, column in pairs if column == name]
    if name == roles.group and not found.is_list:
        kind = "categorical"
    if time is not None and not found.is_list:
        kind = "numeric"
    if reason is None:
        given.insert(0, "feature")
    elif _numbers_rows(name, found, kind) and not given:
        given.append("row_id")
    if reason is not None and not (time is not None and name == roles.timestamp):
        notes.append(f"{name}: not a feature, {reason}")
    large = found.maximum is not None and abs(found.maximum) >= _EXACT_FLOAT
    if found.element.is_float() and kind != "numeric" and found.whole and large:
        notes.append(f"{name}: ids above 2**53 in a float column; whoever wrote them has rounded them")
    return Column(
        kind=kind,
        type=time or type_of(kind, found),
        roles=tuple(given),
        side=_side(name) if reason is None else None,
        max_length=max(1, min(found.length_max or 1, MAX_LENGTH)) if found.is_list else None,
        facts=found.facts(numeric=kind == "numeric"),
    )


def _why_no_feature(name: str, roles: Roles, found: Survey, kind: Kind, is_time: bool) -> str | None:
    if found.distinct == 0:
        return "it holds no value at all"
    if found.distinct == 1 and not found.missing and not found.is_list:
        return "it has the same value in every row"
    if name in (roles.split, roles.timestamp):
        return "it is the time that later rows have never seen"
    if is_time:
        return "it is a time, whose values do not come again"
    if _numbers_rows(name, found, kind):
        return "it has a different value in every row"
    if found.is_list and found.element.is_numeric() and not found.is_integral:
        return "lists of numbers with fractions are not ids"
    return None


def _numbers_rows(name: str, found: Survey, kind: Kind) -> bool:
    """Whether a column of integers or text has one value per row, as a row's id has."""
    is_id = found.is_integral or found.dtype == pl.String
    if kind == "numeric" or not is_id or not found.is_unique or found.rows < 2:
        return False
    return found.rows >= _MANY_ROWS or names.is_row_id(name)


def _side(name: str) -> Side | None:
    side = names.side_of(name)
    return "user" if side == "user" else "item" if side == "item" else None
