"""MovieLens-1M as implicit feedback: who liked what, and beside every case what else the user liked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

LIKED = 4
"""Ratings of so many stars and more are cases; others are left out."""
LONGEST = 30
"""Other items of the user beside a train row, drawn without replacement."""
LONGEST_ASKED = 200
"""Train items of the user beside a row of validation and test."""
SEED = 2024


def write_parts(ratings: Path, folder: Path) -> None:
    """Write train.parquet, valid.parquet and test.parquet: user_id, item_id and history.

    A tenth of the cases each, drawn at random, are those of validation and test. No history holds a case of
    these, nor the item of its own row.

    Args:
        ratings: Parquet file with user_id, movie_id and rating.
        folder: for the three files; made where it is not there.
    """
    rng = np.random.default_rng(SEED)
    liked = pl.read_parquet(ratings).filter(pl.col("rating") >= LIKED)
    liked = liked.select("user_id", pl.col("movie_id").alias("item_id")).sort("user_id", "item_id")
    liked = liked[rng.permutation(liked.height)].sort("user_id", maintain_order=True)
    drawn = rng.random(liked.height)
    train = liked.filter(pl.Series(drawn >= 0.2))
    asked = {"valid": pl.Series(drawn < 0.1), "test": pl.Series((drawn >= 0.1) & (drawn < 0.2))}
    items = train.group_by("user_id").agg(pl.col("item_id").head(LONGEST_ASKED).alias("history"))
    folder.mkdir(parents=True, exist_ok=True)
    cases = train.with_columns(_others(train))[rng.permutation(train.height)]
    cases.write_parquet(folder / "train.parquet", row_group_size=50_000)
    for part, chosen in asked.items():
        rows = liked.filter(chosen).join(items, on="user_id", how="left", maintain_order="left")
        rows.with_columns(pl.col("history").fill_null([])).write_parquet(folder / f"{part}.parquet")


def _others(train: pl.DataFrame) -> pl.Series:
    """Other items of each row's user, ``LONGEST`` at most, as ``history``.

    Args:
        train: rows in order of users, each one's items in random order: on a ring, of which a row has the
            items that follow its own.
    """
    users, items = train["user_id"].to_numpy(), train["item_id"].to_numpy()
    first = np.searchsorted(users, users)
    size = np.searchsorted(users, users, side="right") - first
    steps = np.arange(1, LONGEST + 1)
    at = np.arange(len(users))[:, None] - first[:, None] + steps
    others = items[first[:, None] + at % size[:, None]][steps < size[:, None]]
    ends = np.cumsum(np.minimum(size - 1, LONGEST))
    lists = pa.LargeListArray.from_arrays(np.concatenate([[0], ends]), others)
    return pl.Series("history", pl.from_arrow(lists))
