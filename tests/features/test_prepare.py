"""A dataset holds what the raw rows say, learned from train rows alone, whatever the input's kind."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
from polars.testing import assert_frame_equal

from recsys.config import FilesSplit, RatioSplit, TimeSplit
from recsys.data.dataset import GROUP, LABEL, PARTS, WEIGHT, Dataset, Feature
from recsys.embeddings.keys import keys_of
from recsys.features import rows as rows_module
from recsys.features.encoder import Encoder
from recsys.features.prepare import prepare
from recsys.schema import Column, Schema
from recsys.stage import load_record

SPLIT = TimeSplit(by="time", column="time", valid_from=300, test_from=400)
SCHEMA = Schema(
    columns={
        "time": Column(kind="numeric", type="int64", roles=("timestamp",)),
        "clicked": Column(kind="numeric", type="int64", roles=("label",)),
        "worth": Column(kind="numeric", type="float64", roles=("weight",)),
        "user": Column(kind="categorical", type="int64", roles=("feature", "group"), side="user"),
        "item": Column(kind="categorical", type="string", side="item"),
        "history": Column(kind="sequence", type="string", vocabulary="item", max_length=4),
        "ages": Column(kind="sequence", type="float64", aligned_with="history"),
        "tags": Column(kind="multi", type="int64"),
        "price": Column(kind="numeric", type="float64"),
        "at": Column(kind="categorical", type="datetime"),
    }
)


def made_log(rows: int = 500, seed: int = 0) -> pl.DataFrame:
    """A log with every kind of column, holes in all of them."""
    rng = np.random.default_rng(seed)

    def holed(values: list[Any]) -> list[Any]:
        return [None if hole else value for value, hole in zip(values, rng.random(rows) < 0.1, strict=True)]

    items = [f"item-{i}" for i in range(40)]
    lengths = rng.integers(0, 8, rows)
    return pl.DataFrame(
        {
            "time": np.arange(rows),
            "clicked": rng.integers(0, 2, rows),
            "worth": rng.random(rows),
            "user": holed(rng.zipf(1.4, rows).clip(max=2**40).tolist()),
            "item": holed(rng.choice(items, rows).tolist()),
            "history": [holed(rng.choice(items, rows).tolist())[:n] for n in lengths],
            "ages": [(rng.integers(0, 6, n) / 2).tolist() for n in lengths],
            "tags": holed([rng.integers(0, 9, n).tolist() for n in rng.integers(0, 4, rows)]),
            "price": holed(rng.lognormal(0, 2, rows).tolist()),
            "at": holed([datetime(2026, 1, 1 + int(day)) for day in rng.integers(0, 5, rows)]),
        },
        schema_overrides={"tags": pl.List(pl.Int64), "history": pl.List(pl.String)},
    )


@pytest.fixture(scope="module")
def log() -> pl.DataFrame:
    return made_log()


@pytest.fixture(scope="module")
def dataset(log: pl.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return prepare(log, SCHEMA, tmp_path_factory.mktemp("made") / "dataset", split=SPLIT)


def part_of(log: pl.DataFrame, part: str) -> pl.DataFrame:
    bounds = {"train": (0, 300), "valid": (300, 400), "test": (400, 500)}[part]
    return log.filter(pl.col("time").is_between(*bounds, closed="left"))


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "stage.json"
    }


def test_the_folder_is_as_the_contract_says(dataset: Dataset) -> None:
    assert Dataset.load(dataset.folder) == dataset
    manifest = dataset.manifest
    assert manifest.rows == {"train": 300, "valid": 100, "test": 100}
    assert manifest.features == (
        Feature(name="user", kind="categorical", side="user", vocabulary="user"),
        Feature(name="item", kind="categorical", side="item", vocabulary="item"),
        Feature(name="history", kind="sequence", vocabulary="item", max_length=4),
        Feature(name="ages", kind="sequence", vocabulary="ages", max_length=4, aligned_with="history"),
        Feature(name="tags", kind="multi", vocabulary="tags", max_length=3),
        Feature(name="price", kind="numeric"),
        Feature(name="at", kind="categorical", vocabulary="at"),
    )
    assert manifest.vocabularies["item"].columns == ("item", "history")
    assert manifest.schema_.columns["tags"].max_length == 3
    assert manifest.schema_.columns["history"].vocabulary == "item"
    ids = "list<element: int64>"
    types = {"history": ids, "ages": ids, "tags": ids, "price": "float", WEIGHT: "float", LABEL: "float"}
    for part in PARTS:
        found = pq.read_schema(dataset.part(part))
        assert found.names == [feature.name for feature in manifest.features] + [LABEL, WEIGHT, GROUP]
        assert {name: str(found.field(name).type) for name in found.names} == {
            name: types.get(name, "int64") for name in found.names
        }
    for name, info in manifest.vocabularies.items():
        values = dataset.values(name)
        assert values["id"].to_list() == list(range(2, info.size))
        assert values["key"].to_list() == keys_of(values["value"], info.type).tolist()
        assert values["count"].is_sorted(descending=True)


def test_vocabularies_count_train_rows_of_all_columns_that_share_them(
    log: pl.DataFrame, dataset: Dataset
) -> None:
    train = part_of(log, "train")
    counted = Counter(train["item"].drop_nulls().to_list())
    for history in train["history"]:
        counted.update(item for item in history.to_list()[-4:] if item is not None)
    values = dataset.values("item")
    assert dict(zip(values["value"], values["count"], strict=True)) == counted
    users = Counter(train["user"].drop_nulls().to_list())
    values = dataset.values("user")
    assert dict(zip(values["value"], values["count"], strict=True)) == users


@pytest.mark.parametrize("part", PARTS)
def test_rows_decode_to_what_was_there(log: pl.DataFrame, dataset: Dataset, part: str) -> None:
    raw, encoded = part_of(log, part), pl.read_parquet(dataset.part(part))  # type: ignore[arg-type]
    assert encoded[LABEL].to_list() == raw["clicked"].to_list()
    assert encoded[WEIGHT].to_list() == raw["worth"].cast(pl.Float32).to_list()
    assert encoded[GROUP].to_list() == keys_of(raw["user"], "int64").view(np.int64).tolist()
    values = {name: dataset.values(name)["value"].to_list() for name in dataset.manifest.vocabularies}
    stamps = [None if at is None else at.isoformat() for at in raw["at"]]
    decoded = {name: [None, "unseen", *known] for name, known in values.items()}
    decoded["at"] = [None, "unseen", *(at.replace(tzinfo=None).isoformat() for at in values["at"])]
    for name, expected in (("user", raw["user"]), ("item", raw["item"]), ("at", stamps)):
        known = set(decoded[name])
        assert [decoded[name][i] for i in encoded[name]] == [
            v if v in known else "unseen" for v in expected
        ]
    cuts: dict[str, Callable[[list[Any]], list[Any]]] = {
        "history": lambda values: values[-4:],
        "ages": lambda values: values[-4:],
        "tags": lambda values: values[:3],
    }
    for name, cut in cuts.items():
        vocabulary = decoded["item" if name == "history" else name]
        expected = [cut(values or []) for values in raw[name].to_list()]
        known = set(vocabulary)
        assert [[vocabulary[i] for i in ids] for ids in encoded[name]] == [
            [v if v in known else "unseen" for v in row] for row in expected
        ]
    encoder = dataset.manifest.numerics["price"]
    assert encoder.transform == "log"
    expected_price = ((raw["price"] + 1).log() - encoder.mean) / encoder.std
    np.testing.assert_allclose(encoded["price"], expected_price, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["parquet", "folder", "lazy", "arrow", "pandas"])
def test_the_kind_of_input_changes_nothing(
    log: pl.DataFrame, dataset: Dataset, kind: str, tmp_path: Path
) -> None:
    files = tmp_path / "log"
    files.mkdir()
    if kind == "parquet":
        log.write_parquet(files / "log.parquet", row_group_size=70)
    elif kind == "folder":
        log[:123].write_parquet(files / "a.parquet")
        log[123:].write_parquet(files / "b.parquet")
    data: Any = {
        "parquet": lambda: files / "log.parquet",
        "folder": lambda: str(files),
        "lazy": log.lazy,
        "arrow": log.to_arrow,
        "pandas": lambda: log.to_pandas(),
    }[kind]()
    other = prepare(data, SCHEMA, tmp_path / "dataset", split=SPLIT)
    for part in PARTS:
        assert_frame_equal(pl.read_parquet(other.part(part)), pl.read_parquet(dataset.part(part)))
    assert other.manifest.numerics == dataset.manifest.numerics
    assert other.manifest.vocabularies == dataset.manifest.vocabularies
    for name in dataset.manifest.vocabularies:
        assert_frame_equal(other.values(name), dataset.values(name))


def test_given_files_equal_a_split_log(log: pl.DataFrame, dataset: Dataset, tmp_path: Path) -> None:
    for part in PARTS:
        part_of(log, part).write_parquet(tmp_path / f"{part}.parquet")
    split = FilesSplit(by="files", train="train.parquet", valid="valid.parquet", test="test.parquet")
    other = prepare(None, SCHEMA, tmp_path / "dataset", split=split, root=tmp_path)
    assert contents(other.folder) == contents(dataset.folder)
    record = load_record(other.folder)
    assert record is not None
    assert (record.stage, record.rows, len(record.inputs)) == ("prepare", 500, 3)


def test_small_chunks_change_nothing_but_row_groups(
    log: pl.DataFrame, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows_module, "_CHUNK_ROWS", (16, 64))
    other = prepare(log, SCHEMA, tmp_path / "dataset", split=SPLIT)
    assert pq.ParquetFile(other.part("train")).num_row_groups == 5
    assert other.manifest == dataset.manifest
    for part in PARTS:
        assert_frame_equal(pl.read_parquet(other.part(part)), pl.read_parquet(dataset.part(part)))


def test_labels_outside_train_change_nothing_but_themselves(log: pl.DataFrame, tmp_path: Path) -> None:
    flipped = log.with_columns(
        pl.when(pl.col("time") >= 300)
        .then(1 - pl.col("clicked"))
        .otherwise(pl.col("clicked"))
        .alias("clicked")
    )
    one = prepare(log, SCHEMA, tmp_path / "one", split=SPLIT, min_count=2)
    two = prepare(flipped, SCHEMA, tmp_path / "two", split=SPLIT, min_count=2)
    assert one.manifest.positives["train"] == two.manifest.positives["train"]
    same = {"positives": {}}
    assert one.manifest.model_copy(update=same) == two.manifest.model_copy(update=same)
    first, second = contents(one.folder), contents(two.folder)
    assert first.keys() == second.keys()
    changed = {name for name in first if first[name] != second[name]}
    assert changed == {"dataset.json", "valid.parquet", "test.parquet"}
    for part in ("valid", "test"):
        mine, theirs = (pl.read_parquet(tmp_path / name / f"{part}.parquet") for name in ("one", "two"))
        assert_frame_equal(mine.drop(LABEL), theirs.drop(LABEL))
        assert (mine[LABEL] + theirs[LABEL]).to_list() == [1.0] * 100


def test_features_outside_train_teach_nothing(log: pl.DataFrame, tmp_path: Path) -> None:
    strange = log.with_columns(
        pl.when(pl.col("time") >= 300).then(pl.lit("new")).otherwise(pl.col("item")).alias("item"),
        pl.when(pl.col("time") >= 300).then(pl.lit(1e6)).otherwise(pl.col("price")).alias("price"),
    )
    one = prepare(log, SCHEMA, tmp_path / "one", split=SPLIT)
    two = prepare(strange, SCHEMA, tmp_path / "two", split=SPLIT)
    assert one.manifest.numerics == two.manifest.numerics
    for name in one.manifest.vocabularies:
        assert one.vocabulary(name).read_bytes() == two.vocabulary(name).read_bytes()
    assert one.part("train").read_bytes() == two.part("train").read_bytes()
    assert set(pl.read_parquet(two.part("test"))["item"]) == {1}
    assert two.manifest.treatments["item: not in train rows → unseen value (test)"] == 100


def test_without_a_split_every_row_trains(log: pl.DataFrame, tmp_path: Path) -> None:
    made = prepare(log, SCHEMA, tmp_path / "dataset")
    assert made.manifest.rows == {"train": 500, "valid": 0, "test": 0}
    assert pl.read_parquet(made.part("valid")).schema == pl.read_parquet(made.part("train")).schema


def test_a_ratio_split_deals_every_row_once(log: pl.DataFrame, tmp_path: Path) -> None:
    made = prepare(log, SCHEMA, tmp_path / "dataset", split=RatioSplit(by="ratio", key=("time", "user")))
    assert sum(made.manifest.rows.values()) == 500
    assert min(made.manifest.rows.values()) > 20
    assert made.manifest.positives["train"] == pl.read_parquet(made.part("train"))[LABEL].sum()


def test_rare_values_become_the_unseen_value(log: pl.DataFrame, tmp_path: Path) -> None:
    made = prepare(log, SCHEMA, tmp_path / "dataset", split=SPLIT, min_count=3)
    counts = part_of(log, "train")["user"].drop_nulls().value_counts()
    kept = counts.filter(pl.col("count") >= 3)
    assert set(made.values("user")["value"]) == set(kept["user"])
    rare = counts.height - kept.height
    assert rare > 0
    assert made.manifest.treatments["user: value seen fewer than 3 times in train → unseen value"] == rare
    train = pl.read_parquet(made.part("train"))
    assert (train["user"] == 1).sum() == counts.filter(pl.col("count") < 3)["count"].sum()


def test_kept_features_alone_are_encoded(log: pl.DataFrame, tmp_path: Path) -> None:
    made = prepare(log, SCHEMA, tmp_path / "dataset", split=SPLIT, keep=["price", "ages"])
    assert [feature.name for feature in made.features] == ["ages", "price"]
    assert made.features[0].aligned_with is None
    assert list(made.manifest.vocabularies) == ["ages"]
    assert pl.read_parquet(made.part("train")).columns == ["ages", "price", LABEL, WEIGHT, GROUP]


def test_odd_values_are_treated_and_counted(tmp_path: Path) -> None:
    inf, nan = float("inf"), float("nan")
    frame = pl.DataFrame(
        {
            "y": [0.0, 1.0, 0.0, 1.0],
            "n": [1.0, nan, -inf, 3.0],
            "c": [2.0, nan, None, 2.0],
            "s": [[1, None, 3], None, [], [4, 5, 6]],
            "empty": [None, None, None, None],
            "blank": pl.Series([None] * 4, dtype=pl.List(pl.Int64)),
            "void": [nan, None, inf, None],
            "g": [None, "a", "a", None],
        }
    )
    schema = Schema(
        columns={
            "y": Column(kind="numeric", type="float64", roles=("label",)),
            "n": Column(kind="numeric", type="float64"),
            "c": Column(kind="categorical", type="int64"),
            "s": Column(kind="sequence", type="int64", max_length=2),
            "empty": Column(kind="categorical", type="string"),
            "blank": Column(kind="multi", type="int64"),
            "void": Column(kind="numeric", type="float64"),
            "g": Column(kind="categorical", type="string", roles=("group",)),
        }
    )
    made = prepare(frame, schema, tmp_path / "dataset")
    assert made.manifest.treatments == {
        "n: NaN or infinity → missing": 2,
        "c: NaN or infinity → missing": 1,
        "s: list longer than 2 → cut": 2,
        "s: missing element of a list → id 0": 1,
        "empty: no value in any train row → feature dropped": 4,
        "blank: no value in any train row → feature dropped": 4,
        "void: no value in any train row → feature dropped": 4,
        "g: missing group → a group of their own": 2,
    }
    train = pl.read_parquet(made.part("train"))
    assert train.columns == ["n", "c", "s", LABEL, GROUP]
    assert train["n"].to_list() == [-1.0, None, None, 1.0]
    assert train["c"].to_list() == [2, 0, 0, 2]
    ids = dict(zip(made.values("s")["value"], made.values("s")["id"], strict=True))
    assert train["s"].to_list() == [[0, ids[3]], [], [], [ids[5], ids[6]]]
    assert train[GROUP][0] == 0
    assert "empty" not in made.manifest.schema_.features
    assert json.loads((made.folder / "dataset.json").read_text())["rows"]["train"] == 4


def test_a_vocabulary_may_have_any_name(tmp_path: Path) -> None:
    frame = pl.DataFrame({"y": [0, 1], "a/b %": ["x", "z"]})
    schema = Schema(
        columns={
            "y": Column(kind="numeric", type="int64", roles=("label",)),
            "a/b %": Column(kind="categorical", type="string"),
        }
    )
    made = prepare(frame, schema, tmp_path / "dataset")
    assert sorted(made.values("a/b %")["value"]) == ["x", "z"]
    assert Encoder.load(made.folder).encode(frame)["a/b %"].sort().to_list() == [2, 3]


def test_new_rows_are_encoded_as_the_dataset_is(log: pl.DataFrame, dataset: Dataset) -> None:
    encoder = Encoder.load(dataset.folder)
    for part in PARTS:
        raw = part_of(log, part).drop("clicked", "worth", "time")
        expected = pl.read_parquet(dataset.part(part)).drop(LABEL, WEIGHT, GROUP)
        assert_frame_equal(encoder.encode(raw), expected)
        assert_frame_equal(encoder.encode(raw.to_arrow()), expected)
        assert_frame_equal(encoder.encode(raw[:1]), expected[:1])
    ids = pl.read_parquet(dataset.part("train"))["item"]
    seen = encoder.raw_values("item")[ids.to_list()]
    assert seen.to_list() == part_of(log, "train")["item"].to_list()
    assert encoder.raw_values("at").dtype == pl.Datetime("us", "UTC")
    assert len(encoder.raw_values("user")) == dataset.manifest.vocabularies["user"].size
