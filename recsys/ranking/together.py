"""What columns are worth together: redundancy, greedy orders, combinations, and how they drift."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
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
    """Those that ``prepare`` is to make columns of, best first."""
    findings: Sequence[Finding] = field(default=())


def together(
    table: pl.DataFrame, codes: Codes, settings: RankSettings, singles: Mapping[str, Information]
) -> Together:
    """Look at pairs (and triples, with ``order`` 3) of columns, and at days where there are some."""
    from recsys.ranking import drift, pairs, sets
    from recsys.ranking.combinations import combinations

    counted = pairs.all_pairs(codes)

    def among(columns: Mapping[str, Information]) -> pl.DataFrame:
        limit = max(COMBINATIONS, 2 * settings.combine)
        return combinations(codes, settings.order, columns, limit, pairs=counted)

    best = among(singles)
    orders = sets.orders(codes, counted, singles, best.filter(_CERTAIN))
    table = table.join(orders, on="column", how="left", maintain_order="left")
    if settings.given:
        added = sets.given(codes, settings.given)
        scores = pl.DataFrame(
            [(name, found.score, found.z) for name, found in added.items()],
            schema={"column": pl.String, "given_score": pl.Float64, "given_z": pl.Float64},
            orient="row",
        )
        table = table.join(scores, on="column", how="left", maintain_order="left")
    chosen, findings = _worth_a_column(best, table, settings.combine, among, singles)
    changes = labels = None
    if codes.day is not None:
        changes, labels = drift.drift(_single_valued(codes, table)), drift.label_by_day(codes)
        findings += drift.findings(changes, labels)
    return Together(table, _merged(counted, best), changes, labels, chosen, findings)


def _single_valued(codes: Codes, table: pl.DataFrame) -> Codes:
    """Without lists: coded by their sets of elements, they change every day, as a history must."""
    kinds = dict(table.select("column", "kind").iter_rows())
    return codes.only([name for name in codes.names if kinds[name] not in RAGGED])


def _merged(counted: pl.DataFrame, best: pl.DataFrame) -> pl.DataFrame:
    """All pairs; the exact gain and its interval where there is one; triples below."""
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


def originals(table: pl.DataFrame) -> dict[str, str]:
    """Per column the one that it is a copy of, else itself."""
    distinct = dict(table.select("column", "distinct").iter_rows())
    told = table.filter(pl.col("redundancy") > SAME).select("column", "redundant_with").drop_nulls()
    same = {name: other for name, other in told.iter_rows() if distinct[name] == distinct[other]}
    found = {}
    for name in distinct:
        found[name] = name
        while found[name] in same:
            found[name] = same[found[name]]
    return found


def told_once(best: pl.DataFrame, table: pl.DataFrame) -> pl.DataFrame:
    """Combinations without those that only put a copy in the place of a part of one before."""
    original = originals(table)
    parts = [name for name in ("a", "b", "c") if name in best.columns]
    seen: set[frozenset[str]] = set()
    first = []
    for row in best.select(parts).iter_rows():
        names = [name for name in row if name is not None]
        told = frozenset(original.get(name, name) for name in names)
        first.append(told not in seen and len(told) == len(names))
        seen.add(told)
    return best.filter(pl.Series(first, dtype=pl.Boolean))


def _worth_a_column(
    best: pl.DataFrame,
    table: pl.DataFrame,
    wanted: int,
    among: Callable[[dict[str, Information]], pl.DataFrame],
    singles: Mapping[str, Information],
) -> tuple[tuple[tuple[str, ...], ...], list[Finding]]:
    """The combinations to make columns of, best first, and what could not be had.

    Only categorical columns can be crossed, so that their combinations are looked for by themselves:
    others, and those of copies, would crowd them out.
    """
    from recsys.ranking.quality import Finding

    if wanted == 0:
        return (), []
    kinds = dict(table.select("column", "kind").iter_rows())
    categorical = {name for name, kind in kinds.items() if kind == "categorical"}
    copied = {name for name, other in originals(table).items() if name != other and other in categorical}
    crossed = {name: one for name, one in singles.items() if name in categorical - copied}
    every = _parts(told_once(best.filter(_CERTAIN), table))
    mixed = [row for row in every if not categorical.issuperset(row)]
    if len(crossed) < len(singles):
        best = among(crossed)
    chosen = _parts(told_once(best.filter(_CERTAIN), table))[:wanted]
    findings = []
    if mixed:
        listed = ", ".join(f"'{' × '.join(row)}'" for row in mixed[:3]) + ", …" * (len(mixed) > 3)
        sentence = (
            "Numeric columns and lists cannot be crossed, so combinations with them become no columns, "
            f"though they tell more than their parts ({len(mixed)}): {listed}."
        )
        findings.append(Finding(None, "combine", "note", float(len(mixed)), sentence))
    if len(chosen) < wanted:
        sentence = (
            f"Combinations asked for: {wanted}; of categorical columns, those that tell more than their "
            f"parts beyond chance: {len(chosen)}."
        )
        findings.append(Finding(None, "combine", "note", float(len(chosen)), sentence))
    return tuple(chosen), findings


def _parts(best: pl.DataFrame) -> list[tuple[str, ...]]:
    rows = best.select("a", "b", "c").iter_rows()
    return [tuple(name for name in row if name is not None) for row in rows]
