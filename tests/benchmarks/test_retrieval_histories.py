"""Implicit feedback with histories: nothing that is asked for stands in what a model sees."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from tests.benchmarks.scripts import script

histories = script("retrieval_histories")
PARTS = ("train", "valid", "test")


def _written(folder: Path) -> dict[str, pl.DataFrame]:
    rng = np.random.default_rng(1)
    users = np.repeat(np.arange(40), rng.integers(1, 90, 40))
    ratings = pl.DataFrame(
        {
            "user_id": users,
            "movie_id": rng.permutation(len(users)),
            "rating": rng.integers(1, 6, len(users)),
        }
    )
    ratings.write_parquet(folder / "ratings.parquet")
    histories.write_parts(folder / "ratings.parquet", folder / "parts")
    parts = {part: pl.read_parquet(folder / "parts" / f"{part}.parquet") for part in PARTS}
    liked = ratings.filter(pl.col("rating") >= 4)
    assert sum(rows.height for rows in parts.values()) == liked.height
    return parts


def test_a_history_holds_neither_its_own_item_nor_one_that_is_asked_for(tmp_path: Path) -> None:
    parts = _written(tmp_path)
    train = set(parts["train"].select("user_id", "item_id").iter_rows())
    for rows in parts.values():
        for user, item, history in rows.iter_rows():
            assert item not in history
            assert {(user, other) for other in history} <= train


def test_a_train_row_has_as_many_other_items_as_there_are(tmp_path: Path) -> None:
    train = _written(tmp_path)["train"]
    sizes = train.with_columns(others=pl.len().over("user_id") - 1)
    expected = sizes["others"].clip(upper_bound=histories.LONGEST)
    assert sizes["history"].list.n_unique().to_list() == expected.to_list()
    assert expected.min() < histories.LONGEST == expected.max()
