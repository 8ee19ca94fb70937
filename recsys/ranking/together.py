"""What columns are worth together: redundancy, greedy orders, combinations, and how they drift."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import polars as pl

from recsys.schema import RAGGED

if TYPE_CHECKING:
    from recsys.config import RankSettings
    from recsys.ranking.codes import Codes
    from recsys.ranking.information import Information
    from recsys.ranking.quality import Finding

COMBINATIONS = 50
"""Best combinations whose gain is computed exactly, at least."""
COMBINED_P = 0.01
"""Chance, over all combinations tried, below which a combination's gain must be to become a column."""
_CERTAIN = (pl.col("gain") > 0) & (pl.col("p_adjusted") < COMBINED_P)
SAME = 0.99
"""Share of its entropy that another column of as many values tells from which a column is its copy."""
_EXACT = ("gain", "gain_z", "low", "high", "p_adjusted", "synergy", "synergy_z", "normalised")


@dataclass(frozen=True)
class Together:
    """What looking at several columns at once added to the table of single ones."""

    table: pl.DataFrame
    pairs: pl.DataFrame | None = None
    drift: pl.DataFrame | None = None
    label_by_day: pl.DataFrame | None = None
    combinations: tuple[tuple[str, ...], ...] = ()
    """Those that add more than chance to their best part, best first."""
    findings: Sequence[Finding] = field(default=())


def together(
    table: pl.DataFrame, codes: Codes, settings: RankSettings, singles: Mapping[str, Information]
) -> Together:
    """Look at pairs (and triples, with ``order`` 3) of columns, and at days where there are some."""
    from recsys.ranking import drift, pairs, sets
    from recsys.ranking.combinations import combinations

    counted = pairs.all_pairs(codes)
    best = None
    if len(codes.names) > 1:
        limit = max(COMBINATIONS, 2 * settings.combine)
        best = combinations(codes, settings.order, singles, limit, pairs=counted)
    orders = sets.orders(codes, counted, singles, None if best is None else best.filter(_CERTAIN))
    table = table.join(orders, on="column", how="left", maintain_order="left")
    if settings.given:
        added = sets.given(codes, settings.given)
        scores = pl.DataFrame(
            [(name, found.score, found.z) for name, found in added.items()],
            schema={"column": pl.String, "given_score": pl.Float64, "given_z": pl.Float64},
            orient="row",
        )
        table = table.join(scores, on="column", how="left", maintain_order="left")
    changes = labels = None
    findings: Sequence[Finding] = ()
    if codes.day is not None:
        changes, labels = drift.drift(_single_valued(codes, table)), drift.label_by_day(codes)
        findings = drift.findings(changes, labels)
    return Together(table, _merged(counted, best), changes, labels, _worth_a_column(best, table), findings)


def _single_valued(codes: Codes, table: pl.DataFrame) -> Codes:
    """Without lists: coded by their sets of elements, they change every day, as a history must."""
    kinds = dict(table.select("column", "kind").iter_rows())
    kept = [i for i, name in enumerate(codes.names) if kinds[name] not in RAGGED]
    return replace(
        codes,
        names=tuple(codes.names[i] for i in kept),
        codes=codes.codes[kept],
        sizes=codes.sizes[kept],
        missing=codes.missing[kept],
    )


def _merged(counted: pl.DataFrame, best: pl.DataFrame | None) -> pl.DataFrame:
    """All pairs; the exact gain and its interval where there is one; triples below."""
    if best is None:
        return counted
    exact = [name for name in _EXACT if name in best.columns]
    doubles = best.filter(pl.col("c").is_null()).select("a", "b", *exact)
    joined = counted.join(doubles, on=("a", "b"), how="left", suffix="_exact", maintain_order="left")
    twice = [name for name in exact if f"{name}_exact" in joined.columns]
    joined = joined.with_columns(pl.coalesce(f"{name}_exact", name).alias(name) for name in twice)
    joined = joined.drop(f"{name}_exact" for name in twice)
    triples = best.filter(pl.col("c").is_not_null())
    if triples.is_empty():
        return joined
    known = [name for name in triples.columns if name in joined.columns or name == "c"]
    return pl.concat([joined, triples.select(known)], how="diagonal_relaxed")


def _worth_a_column(best: pl.DataFrame | None, table: pl.DataFrame) -> tuple[tuple[str, ...], ...]:
    """Combinations of categorical columns whose gain is not chance, in the order of ``combinations``.

    What a combination tells is told once: not again with a copy in the place of a part.
    """
    if best is None:
        return ()
    categorical = set(table.filter(pl.col("kind") == "categorical")["column"])
    distinct = dict(table.select("column", "distinct").iter_rows())
    told = table.filter(pl.col("redundancy") > SAME).select("column", "redundant_with").drop_nulls()
    original = {name: name for name in distinct}
    original |= {name: other for name, other in told.iter_rows() if distinct[name] == distinct[other]}
    found = best.filter(_CERTAIN)
    chosen: dict[frozenset[str], tuple[str, ...]] = {}
    for row in found.select("a", "b", "c").iter_rows():
        parts = tuple(name for name in row if name is not None)
        if categorical.issuperset(parts):
            chosen.setdefault(frozenset(original[name] for name in parts), parts)
    return tuple(chosen.values())
