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
    if "works_with" in free.columns:
        partner = pl.col("works_with")
        free = free.with_columns(works_with=pl.when(~partner.is_in(settings.given)).then(partner))
    chosen = free["column"].to_list()
    if settings.keep is not None:
        chosen = chosen[: max(settings.keep - len(settings.given), 0)]
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
    if "mrmr_rank" in free.columns:
        from recsys.ranking.sets import within_bytes

        return within_bytes(free, bytes_of, budget)
    chosen = []
    for name in names:
        if bytes_of[name] <= budget:
            budget -= bytes_of[name]
            chosen.append(name)
    return chosen


def _in_order(table: pl.DataFrame, settings: RankSettings) -> pl.DataFrame:
    """Best first: by what each adds to those before it, where that was counted and is asked for."""
    if "mrmr_rank" not in table.columns:
        return table
    worth = pl.col("gain")
    if settings.given:
        worth = pl.min_horizontal(worth, "given_score")
    table = table.with_columns(gain=worth)
    if settings.score == "corrected" or settings.given:
        table = table.sort(["gain", "mrmr_rank"], descending=[True, False], nulls_last=True)
    return table.with_columns(mrmr_rank=pl.int_range(1, pl.len() + 1))
