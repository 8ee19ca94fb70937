"""A small log of positive rows whose users and items fall into the same few circles of taste."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from recsys.config import FilesSplit, PlanSettings, TableSettings
from recsys.data.dataset import Dataset
from recsys.embeddings.plan import Plan, UpdatePath
from recsys.embeddings.planner import plan
from recsys.features.prepare import prepare
from recsys.schema import Column, Schema

CIRCLES, USERS, ITEMS = 5, 50, 150
COLUMNS = {
    "user_id": Column(kind="categorical", type="int64", roles=("feature", "group"), side="user"),
    "history": Column(
        kind="sequence", type="string", vocabulary="item_id", max_length=5, side="user", roles=("feature",)
    ),
    "hour": Column(kind="numeric", type="int64", side="context"),
    "item_id": Column(kind="categorical", type="string", side="item"),
    "genres": Column(kind="multi", type="string", side="item"),
    "price": Column(kind="numeric", type="float64", side="item"),
}


def made_log(rows: int, seed: int = 0) -> pl.DataFrame:
    """Users take items of their own circle, popular ones more often; a few rows are chance."""
    draw = np.random.default_rng(seed)
    user = draw.integers(0, USERS, rows)
    step = np.minimum(draw.geometric(0.05, rows) - 1, ITEMS // CIRCLES - 1)
    item = np.where(draw.random(rows) < 0.9, step * CIRCLES + user % CIRCLES, draw.integers(0, ITEMS, rows))
    past = [
        [f"i{one * CIRCLES + who % CIRCLES}" for one in draw.integers(0, ITEMS // CIRCLES, length)]
        for who, length in zip(user, draw.integers(0, 6, rows), strict=True)
    ]
    return pl.DataFrame(
        {
            "user_id": user,
            "history": pl.Series(past, dtype=pl.List(pl.String)),
            "hour": draw.integers(0, 24, rows),
            "item_id": [f"i{one}" for one in item],
            "genres": pl.Series([[f"g{one % 7}", f"g{one % 3}"] for one in item], dtype=pl.List(pl.String)),
            "price": [None if one % 11 == 0 else float(one % 13) for one in item],
        },
        schema_overrides={"price": pl.Float64},
    )


def made_retrieval_dataset(folder: Path, rows: int = 1_500) -> Dataset:
    """Train, valid and test rows, prepared."""
    folder.mkdir(parents=True)
    for seed, (part, count) in enumerate((("train", rows), ("valid", rows // 5), ("test", rows // 5))):
        made_log(count, seed).write_parquet(folder / f"{part}.parquet")
    paths = {part: str(folder / f"{part}.parquet") for part in ("train", "valid", "test")}
    split = FilesSplit(by="files", **paths)
    return prepare(None, Schema(columns=COLUMNS), folder / "dataset", split=split, positives_only=True)


def made_retrieval_plan(dataset: Dataset, path: UpdatePath = "dense") -> Plan:
    """All tables on one update path."""
    tables = {name: TableSettings(path=path) for name in dataset.manifest.vocabularies}
    return plan(dataset, settings=PlanSettings(embedding_dim=8, tables=tables))
