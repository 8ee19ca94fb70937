"""Which lists hold values of another column, and which lists run side by side.

A list shares the vocabulary of a categorical column of the same type when at least 0.8 of its distinct
values stand in it, and one of these holds, so that small integers which overlap by accident do not:

* the names agree (``hist_item_ids`` and ``item_id``);
* a list whose name says nothing but history, and a column named like an item, of more than 100 values;
* both have more than 100 values and agree in 0.8 of the union of their values, 0.1 more than any other
  column, or the column is too sparse in the list's range for that to be chance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from recsys.data.check import reading
from recsys.data.source import Source
from recsys.data.types import is_list
from recsys.features import names
from recsys.features.survey import Survey
from recsys.schema import Column

CONTAINED = 0.8
_LARGE = 100
_MARGIN = 0.1
_CHANCE = 0.3
_SAMPLE = 200_000
"""Distinct values compared per column: where there are more, those whose hash falls in a share."""


@dataclass(frozen=True)
class Overlap:
    """How the distinct values of a list lie in those of a categorical column."""

    column: str
    contained: float
    """Share of the list's values that the column has."""
    union: float
    """Values in both, as a share of the values in either."""
    chance: float
    """Share of the integers in the list's range that the column has; 0 for text."""
    large: bool
    """Both have more than 100 values."""


def shared_vocabularies(
    source: Source, columns: Mapping[str, Column], surveys: Mapping[str, Survey]
) -> dict[str, Overlap]:
    """By list column, the categorical column whose vocabulary it shares."""
    shared = {}
    for name, column in columns.items():
        if not column.is_ragged or not column.is_feature:
            continue
        others = [
            other
            for other, theirs in columns.items()
            if theirs.kind == "categorical" and theirs.is_feature and theirs.type == column.type
            if _is_worth_comparing(name, other, surveys)
        ]
        best = _best(name, _overlaps(source, name, others, column, surveys)) if others else None
        if best is not None:
            shared[name] = best
    return shared


def _is_worth_comparing(name: str, other: str, surveys: Mapping[str, Survey]) -> bool:
    large = min(surveys[name].distinct, surveys[other].distinct) > _LARGE
    return large or names.subject(name) == names.entity(other)


def _best(name: str, overlaps: Sequence[Overlap]) -> Overlap | None:
    """The one column that a list's values are those of, if that is clear."""
    contained = [overlap for overlap in overlaps if overlap.contained >= CONTAINED]
    contained.sort(key=lambda overlap: (-overlap.union, overlap.column))
    for overlap in contained:
        if names.subject(name) == names.entity(overlap.column):
            return overlap
    large = [overlap for overlap in contained if overlap.large]
    if not large:
        return None
    if not names.subject(name) and names.is_sequence(name):
        for overlap in large:
            if names.side_of(overlap.column) == "item":
                return overlap
    first = large[0]
    clear = len(large) == 1 or first.union >= large[1].union + _MARGIN
    return first if clear and (first.union >= CONTAINED or first.chance < _CHANCE) else None


def _overlaps(
    source: Source,
    name: str,
    others: Sequence[str],
    column: Column,
    surveys: Mapping[str, Survey],
) -> list[Overlap]:
    most = max(surveys[other].distinct for other in (name, *others))
    one_in = -(-most // _SAMPLE)
    mine = _distinct(source, name, column, one_in)
    overlaps = []
    for other in others:
        theirs = _distinct(source, other, column, one_in)
        both = mine.join(theirs, on="value", how="semi").height
        chance = 0.0
        if column.type == "int64" and mine.height:
            low, high = int(mine["value"].min()), int(mine["value"].max())  # type: ignore[arg-type]
            within = theirs.filter(pl.col("value").is_between(low, high)).height * one_in
            chance = within / (high - low + 1)
        overlaps.append(
            Overlap(
                column=other,
                contained=both / max(mine.height, 1),
                union=both / max(mine.height + theirs.height - both, 1),
                chance=chance,
                large=min(surveys[name].distinct, surveys[other].distinct) > _LARGE,
            )
        )
    return overlaps


def _distinct(source: Source, name: str, column: Column, one_in: int) -> pl.DataFrame:
    """Distinct values of a column or of its elements; where ``one_in > 1``, a share by hash."""
    value = pl.col(name).explode() if is_list(source.columns[name]) else pl.col(name)
    if column.type == "int64":
        value = value.cast(pl.Int64, strict=False)
    frame = source.lazy().select(value.alias("value")).drop_nulls()
    if one_in > 1:
        frame = frame.filter(pl.col("value").hash(seed=0) % one_in == 0)
    with reading(source):
        return frame.unique().collect(engine="streaming")


def aligned_sequences(source: Source, columns: Mapping[str, Column]) -> dict[str, str]:
    """By sequence, an earlier one that has the same length in every row."""
    sequences = [
        name for name, column in columns.items() if column.kind == "sequence" and column.is_feature
    ]
    pairs = [(first, name) for at, name in enumerate(sequences) for first in sequences[:at]]
    if not pairs:
        return {}
    lengths = {name: pl.col(name).list.len().fill_null(0) for name in sequences}
    same = [
        (lengths[first] == lengths[name]).all().alias(f"{at}") for at, (first, name) in enumerate(pairs)
    ]
    with reading(source):
        found = source.lazy().select(same).collect(engine="streaming").row(0)
    aligned: dict[str, str] = {}
    for (first, name), is_same in zip(pairs, found, strict=True):
        if is_same and first not in aligned:
            aligned.setdefault(name, first)
    return aligned
