"""What is kept: no pair is cut in two while something useful fits, and gains decide what a loss is."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from recsys.config import RankSettings
from recsys.ranking.selection import choose


def _table(*lines: tuple[str, float, list[str] | None], **scores: list[float]) -> pl.DataFrame:
    """Columns in 3MR order: name, gain, company."""
    schema = {"column": pl.String, "gain": pl.Float64, "works_with": pl.List(pl.String)}
    table = pl.DataFrame(lines, schema=schema, orient="row")
    ranks = pl.int_range(1, pl.len() + 1).alias("rank_3mr")
    same = pl.lit(None, pl.String).alias("redundant_with")
    return table.with_columns(ranks, same, pl.col("gain").alias("alone")).with_columns(**scores)


def _kept(table: pl.DataFrame, **settings: Any) -> set[str]:
    return set(choose(table, RankSettings.parse(**settings), dict.fromkeys(table["column"], 64)))


XOR = _table(("x", 0.09, ["y"]), ("y", 0.09, ["x"]), ("w", 0.01, None), ("noise", -0.001, None))


@pytest.mark.parametrize(
    ("keep", "kept"), [(1, {"w"}), (2, {"x", "y"}), (3, {"x", "y", "w"}), (4, {"x", "y", "w", "noise"})]
)
def test_keep_takes_both_of_a_pair_or_neither(keep: int, kept: set[str]) -> None:
    assert _kept(XOR, keep=keep) == kept


def test_a_pair_takes_the_place_of_less() -> None:
    table = _table(("strong", 0.1, None), ("x", 0.09, ["y"]), ("y", 0.09, ["x"]), ("weak", 0.01, None))
    assert _kept(table, keep=2) == {"x", "y"}
    assert _kept(table, keep=3) == {"strong", "x", "y"}
    stronger = table.with_columns(gain=pl.when(pl.col("column") == "strong").then(0.2).otherwise("gain"))
    assert _kept(stronger, keep=2) == {"strong", "weak"}


def test_three_that_tell_only_together_stay_together() -> None:
    table = _table(
        ("x", 0.09, ["y", "z"]), ("y", 0.09, ["z", "x"]), ("z", 0.09, ["y", "x"]), ("w", 0.01, None)
    )
    assert _kept(table, keep=3) == {"x", "y", "z"}
    assert _kept(table, keep_until_loss=0.5) == {"x", "y", "z"}
    assert "w" in _kept(table, keep=2)
    assert len(_kept(table, keep=2)) == 2


def test_a_pair_whose_one_part_is_given_needs_one_place() -> None:
    table = XOR.with_columns(given_score=pl.Series([None, 0.18, 0.01, 0.0]))
    assert _kept(table, keep=2, given=("x",)) == {"x", "y"}


@pytest.mark.parametrize("score", ["corrected", "mi", "adjusted", "outrank"])
def test_a_share_of_loss_goes_by_gain_whatever_orders_the_table(score: str) -> None:
    table = _table(("wide noise", -0.02, None), ("real", 0.1, None), ("some", 0.004, None))
    assert _kept(table, keep_until_loss=0.1, score=score) == {"real"}
    assert _kept(table, keep_until_loss=0.0, score=score) == {"real", "some"}


def test_a_number_of_columns_goes_by_the_score_that_was_asked_for() -> None:
    table = _table(("wide noise", -0.02, None), ("real", 0.1, None))
    assert _kept(table, keep=1, score="mi") == {"wide noise"}
    assert _kept(table, keep=1) == {"real"}
