"""A small encoded dataset with every kind of feature, whose label follows from its ids."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from recsys.config import PlanSettings, TableSettings
from recsys.data.dataset import (
    Dataset,
    DatasetManifest,
    Feature,
    NumericEncoder,
    Part,
    VocabularyInfo,
)
from recsys.embeddings.keys import keys_of
from recsys.embeddings.plan import Plan, UpdatePath, VocabularyMode
from recsys.embeddings.planner import plan
from recsys.schema import Column, Schema

SIZES = {"colour": 12, "item": 60, "tag": 9}


def made_dataset(folder: Path, rows: int = 1_000, seed: int = 0) -> Dataset:
    """Write train, valid and test parts; ``colour`` and the item's place in the history decide."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng(seed)
    effects = generator.normal(size=SIZES["colour"])
    counts: dict[Part, tuple[int, int]] = {}
    parts: tuple[tuple[Part, int], ...] = (("train", rows), ("valid", rows // 4), ("test", rows // 4))
    for part, size in parts:
        frame = _rows(generator, size, effects)
        frame.write_parquet(folder / f"{part}.parquet", row_group_size=200)
        counts[part] = size, int(frame["__label__"].sum())
    columns = {
        "colour": Column(kind="categorical", type="int64"),
        "item": Column(kind="categorical", type="int64"),
        "history": Column(kind="sequence", type="int64", vocabulary="item", max_length=6),
        "tags": Column(kind="multi", type="int64", vocabulary="tag", max_length=3),
        "price": Column(kind="numeric", type="float64"),
        "user": Column(kind="categorical", type="int64", roles=("group",)),
        "clicked": Column(kind="numeric", type="int64", roles=("label",)),
    }
    manifest = DatasetManifest(
        schema_=Schema(columns=columns),
        features=(
            Feature(name="colour", kind="categorical", vocabulary="colour"),
            Feature(name="item", kind="categorical", vocabulary="item"),
            Feature(name="history", kind="sequence", vocabulary="item", max_length=6),
            Feature(name="tags", kind="multi", vocabulary="tag", max_length=3),
            Feature(name="price", kind="numeric"),
        ),
        vocabularies={
            "colour": VocabularyInfo(size=SIZES["colour"], type="int64", columns=("colour",)),
            "item": VocabularyInfo(size=SIZES["item"], type="int64", columns=("item", "history")),
            "tag": VocabularyInfo(size=SIZES["tag"], type="int64", columns=("tags",)),
        },
        numerics={"price": NumericEncoder(transform="linear", mean=0.0, std=1.0)},
        rows={part: size for part, (size, _) in counts.items()},
        positives={part: positives for part, (_, positives) in counts.items()},
    )
    (folder / "dataset.json").write_text(manifest.model_dump_json())
    dataset = Dataset.load(folder)
    _write_vocabularies(dataset)
    return dataset


def _write_vocabularies(dataset: Dataset) -> None:
    """Any values: only the rows that their keys hash to matter."""
    (dataset.folder / "vocab").mkdir()
    for name, size in SIZES.items():
        values = pl.Series(range(100, 98 + size), dtype=pl.Int64)
        columns = {"id": range(2, size), "value": values, "key": keys_of(values, "int64")}
        frame = pl.DataFrame(columns).with_columns(count=pl.lit(1, pl.Int64))
        frame.write_parquet(dataset.vocabulary(name))


def _rows(generator: np.random.Generator, rows: int, effects: np.ndarray) -> pl.DataFrame:
    colour = generator.integers(0, SIZES["colour"], rows)
    item = generator.integers(0, SIZES["item"], rows)
    lengths = generator.integers(0, 7, rows)
    history = [generator.integers(0, SIZES["item"], length).tolist() for length in lengths]
    near = np.array([any(h % 6 == i % 6 for h in hs) for hs, i in zip(history, item, strict=True)])
    tags = [
        generator.integers(0, SIZES["tag"], length).tolist() for length in generator.integers(0, 4, rows)
    ]
    price = generator.normal(size=rows)
    logit = effects[colour] * 1.5 + np.where(near, 1.0, -1.0)
    label = generator.random(rows) < 1 / (1 + np.exp(-logit))
    missing = generator.random(rows) < 0.1
    return pl.DataFrame(
        {
            "colour": colour,
            "item": item,
            "history": history,
            "tags": tags,
            "price": pl.Series(
                [None if gone else x for gone, x in zip(missing.tolist(), price.tolist(), strict=True)],
                dtype=pl.Float32,
            ),
            "__label__": pl.Series(label, dtype=pl.Float32),
            "__group__": generator.integers(0, 30, rows),
        },
        schema_overrides={"history": pl.List(pl.Int64), "tags": pl.List(pl.Int64)},
    )


def made_plan(dataset: Dataset, path: UpdatePath, dim: int = 8) -> Plan:
    """All tables on one update path, a row per value."""
    overrides = {name: TableSettings(path=path) for name in SIZES}
    return plan(dataset, settings=PlanSettings(embedding_dim=dim, tables=overrides))


def shared_plan(
    dataset: Dataset, path: UpdatePath, dim: int = 8, lookups: int = 2, sub_tables: int = 1
) -> Plan:
    """Colours and items in one table of few rows; tags keep a row per value."""
    shared = TableSettings(path=path, rows=40, sub_tables=sub_tables)
    tables = {"unified": shared, "tag": TableSettings(path=path)}
    return plan(
        dataset,
        settings=PlanSettings(mode="unified", embedding_dim=dim, lookups=lookups, exact=7, tables=tables),
    )


def hashed_plan(dataset: Dataset, path: UpdatePath, dim: int = 8, lookups: int = 2) -> Plan:
    """Each vocabulary in a hashed table of its own, the tags aside."""
    tables = {
        "colour": TableSettings(mode="hash", path=path, rows=9),
        "item": TableSettings(mode="hash", path=path, rows=30),
        "tag": TableSettings(path=path),
    }
    return plan(dataset, settings=PlanSettings(embedding_dim=dim, lookups=lookups, tables=tables))


def compressed_plan(
    dataset: Dataset, path: UpdatePath, dim: int = 8, mode: VocabularyMode = "quotient"
) -> Plan:
    """Colours and items by one method, in tables of their own; tags keep a row per value."""
    tables = {
        name: TableSettings(path=path, mode=mode, rows=SIZES[name] // 2 + 4) for name in ("colour", "item")
    }
    tables["tag"] = TableSettings(path=path)
    return plan(dataset, settings=PlanSettings(embedding_dim=dim, tables=tables))
