"""Which columns to keep, from what was found about each and about all together."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from recsys.config import RankSettings, parse_bytes
from recsys.errors import ConfigError, DataError
from recsys.ranking.tally import Tally
from recsys.schema import Schema

VECTOR_BYTES = 16 * 4
"""Bytes of one row of a table: 16 float32."""
_SPARE_ROWS = 2
"""Rows of a table for missing and unseen values."""


def table_bytes(tallies: Mapping[str, Tally], schema: Schema) -> dict[str, int]:
    """Bytes of each feature's table: 64 per distinct value and for missing and unseen; 64 for a number.

    Features that share a vocabulary count it each, so that the sum never understates.
    """
    return {
        name: VECTOR_BYTES * (1 if schema.columns[name].kind == "numeric" else tally.distinct + _SPARE_ROWS)
        for name, tally in tallies.items()
    }


def choose(table: pl.DataFrame, settings: RankSettings, bytes_of: Mapping[str, int]) -> list[str]:
    """Names of the columns to keep, best first; those given are kept in any case.

    Args:
        table: ranked columns, best first; with pairs also the facts of ``sets.orders``.
        settings: how many to keep, or until what.
        bytes_of: bytes of each column's table.
    """
    table = _in_order(table, settings)
    names = table["column"].to_list()
    free = table.filter(~pl.col("column").is_in(settings.given))
    chosen = free["column"].to_list()
    if settings.keep is not None:
        most = max(settings.keep - len(settings.given), 0)
        chosen = _first(free, most) if _by_gain(table, settings) else chosen[:most]
    elif settings.keep_until_loss is not None:
        from recsys.ranking.sets import keep_until_loss

        chosen = keep_until_loss(free, settings.keep_until_loss)
    elif settings.bytes is not None:
        chosen = _within(free, bytes_of, settings)
    kept = {*settings.given, *chosen}
    if not kept:
        raise DataError(
            "rank: no column tells anything about the label beyond chance, so none is kept; "
            "look at the findings, or give keep a number"
        )
    return [name for name in names if name in kept]


def _first(free: pl.DataFrame, most: int) -> list[str]:
    """The columns that add most; those that tell something only together all of them, or none.

    Columns that are worth little apart fill up what no others can.
    """
    from recsys.ranking.sets import unit

    names = free["column"].to_list()
    friends = dict(free.select("column", "works_with").iter_rows())
    gains = {name: max(gain or 0.0, 0.0) for name, gain in free.select("column", "gain").iter_rows()}
    kept: list[str] = []
    for name in names:
        parts = unit(name, friends, kept)
        if name not in kept and len(kept) + len(parts) <= most:
            kept += parts
    for name in names:
        parts = unit(name, friends, kept)
        if name in kept or len(parts) > most:
            continue
        needed = {friend for one in kept for friend in friends[one] or ()}
        loners = sorted((one for one in kept if one not in needed), key=lambda one: gains[one])
        dropped = loners[: len(kept) + len(parts) - most]
        fits = len(kept) + len(parts) - len(dropped) <= most
        if fits and sum(gains[one] for one in parts) > sum(gains[one] for one in dropped):
            kept = [one for one in kept if one not in dropped] + parts
    return kept + [name for name in names if name not in kept][: most - len(kept)]


def _within(free: pl.DataFrame, bytes_of: Mapping[str, int], settings: RankSettings) -> list[str]:
    """Columns that tell most for the bytes; one by one in order where none was compared with another."""
    stated = settings.bytes or 0
    budget = parse_bytes(stated) - sum(bytes_of[name] for name in settings.given)
    names = free["column"].to_list()
    least = min(names, key=lambda name: bytes_of[name], default=None)
    if least is not None and bytes_of[least] > budget:
        raise ConfigError(
            f"rank.bytes {stated}: no column's table fits beside those given; "
            f"the smallest is {least!r} with {bytes_of[least]} bytes"
        )
    if "rank_3mr" in free.columns:
        from recsys.ranking.sets import within_bytes

        return within_bytes(free, bytes_of, budget)
    chosen = []
    for name in names:
        if bytes_of[name] <= budget:
            budget -= bytes_of[name]
            chosen.append(name)
    return chosen


def _by_gain(table: pl.DataFrame, settings: RankSettings) -> bool:
    """Whether columns go by what they add to each other: a share of loss does by any score."""
    asked = settings.score == "corrected" or bool(settings.given) or settings.keep_until_loss is not None
    return "gain" in table.columns and asked


def _in_order(table: pl.DataFrame, settings: RankSettings) -> pl.DataFrame:
    """Best first: by what each adds to those before it, where that was counted and is asked for."""
    if "rank_3mr" not in table.columns:
        return table
    worth = pl.col("gain")
    if settings.given:
        worth = pl.min_horizontal(worth, "given_score")
    table = table.with_columns(gain=worth)
    if _by_gain(table, settings):
        table = table.sort(["gain", "rank_3mr"], descending=[True, False], nulls_last=True)
    return table.with_columns(rank_3mr=pl.int_range(1, pl.len() + 1))
