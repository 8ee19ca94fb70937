"""The chain of a retrieval model: from a log without labels to metrics."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml
from typer.testing import CliRunner

from recsys.chain import Finished, run
from recsys.cli import app
from recsys.config import parse_config
from recsys.data.split import split_source
from recsys.errors import BundleError, ConfigError, DataError
from recsys.evaluation.retrieval import ItemLists, best_items, rank_metrics
from recsys.evaluation.retrieval_metrics import RetrievalEvaluation
from recsys.place import Place
from recsys.retrieval.index import Index
from recsys.serving.bundle import Bundle
from recsys.serving.files import load_tensors, record_of, save_tensors
from recsys.training.raw_scores import score_raw
from tests.training.retrieval_log import made_log

SETTINGS: dict[str, Any] = {
    "name": "towers",
    "data": {
        "group": "user_id",
        "columns": {
            "user_id": {"kind": "categorical", "roles": ["feature", "group"], "side": "user"},
            "history": {"kind": "sequence", "vocabulary": "item_id", "side": "user"},
            "hour": {"kind": "numeric", "side": "context"},
            "item_id": {"kind": "categorical", "side": "item"},
            "genres": {"kind": "multi", "side": "item"},
            "price": {"kind": "numeric", "side": "item"},
        },
    },
    "split": {
        "by": "files",
        "train": "train.parquet",
        "valid": {"share": 0.1, "key": ["user_id", "item_id"]},
        "test": "test.parquet",
    },
    "plan": {"embedding_dim": 8},
    "model": {"name": "two_tower", "temperature": 0.2, "negatives": 16, "item_bias": True},
    "train": {"epochs": 3, "batch_size": 128, "monitor": "ndcg", "monitor_k": 5, "device": "cpu"},
    "evaluate": {"k": [10, 20]},
    "export": {"dtype": "float32"},
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    folder = tmp_path_factory.mktemp("towers")
    made_log(1_500).write_parquet(folder / "train.parquet")
    made_log(300, seed=1).write_parquet(folder / "test.parquet")
    (folder / "run.yaml").write_text(yaml.safe_dump(SETTINGS))
    return run(folder / "run.yaml", data=folder, output=folder / "out")


def test_every_stage_but_ranking_is_made(finished: Finished) -> None:
    assert [outcome.stage for outcome in finished.outcomes] == [
        *("infer", "prepare", "plan", "train", "evaluate", "export", "index")
    ]
    again = run(finished.config)
    assert {outcome.state for outcome in again.outcomes} == {"up to date"}


def test_evaluation_has_head_and_tail_apart(finished: Finished) -> None:
    found = RetrievalEvaluation.load(finished.folder / "evaluation")
    assert found.slices["items"].to_list() == ["all"] * 3 + ["head"] * 3 + ["tail"] * 3
    assert found.slices["k"].to_list() == [5, 10, 20] * 3
    assert found.facts["head_items"] == -(-found.facts["items"] // 5)
    assert 0 < found.overall["recall@5"] < found.overall["recall@20"] < 1
    page = (finished.folder / "run" / "report.html").read_text()
    assert "Full ranking of the catalogue" in page
    assert f"{found.overall['recall@10']:.4f}" in page


def test_the_bundle_alone_finds_what_the_model_finds(finished: Finished) -> None:
    bundle = Bundle.load(finished.folder / "bundle")
    towers = bundle.manifest.towers
    assert towers is not None
    assert towers.features == ("user_id", "history", "hour")
    assert towers.model_difference < 1e-5
    assert towers.cosine == pytest.approx(1)
    found = pl.read_parquet(bundle.folder / towers.items)
    vectors = found["vector"].to_numpy()
    assert vectors.shape == (towers.count, towers.dim) == (found.height, 8)

    rows = made_log(300, seed=1).unique("user_id", keep="first", maintain_order=True)
    queries = bundle.query_encoder().encode(rows.drop("item_id", "genres", "price"))
    place = {item: at for at, item in enumerate(found["id"])}
    seen, wanted = (
        _lists(made_log(count, seed), rows["user_id"].to_list(), place)
        for count, seed in ((1_500, 0), (300, 1))
    )
    best = best_items(queries, vectors, 20, seen)
    again = rank_metrics(best, wanted.minus(seen), (5, 10, 20), _unknown(rows, place)).means()
    assert again == pytest.approx(RetrievalEvaluation.load(finished.folder / "evaluation").overall)


def test_the_index_answers_the_bundles_queries(finished: Finished) -> None:
    bundle = Bundle.load(finished.folder / "bundle")
    index = Index.open(finished.folder / "index", tower=bundle.folder)
    found = pl.read_parquet(bundle.folder / "items/items.parquet")
    queries = bundle.query_encoder().encode(made_log(20, seed=5))
    best = best_items(queries, found["vector"].to_numpy(), 7)
    expected = [found["id"].gather(each).to_list() for each in best]
    assert index.search(queries, 7).ids.to_list() == expected
    cheap = index.search(queries, 5, filter="price < 4 AND train_rows > 5").ids.explode()
    assert set(cheap) <= set(found.filter(pl.col("price") < 4, pl.col("train_rows") > 5)["id"])


def test_a_bundle_is_indexed_from_the_command_line(finished: Finished, tmp_path: Path) -> None:
    bundle = finished.folder / "bundle"

    def told(*arguments: object) -> str:
        return CliRunner().invoke(app, ["index", str(bundle), "--output", *map(str, arguments)]).stderr

    told(tmp_path / "index", "--dtype", "float16")
    made = Index.open(tmp_path / "index", tower=bundle)
    assert made.manifest.dense.dtype == "float16"
    before = Index.open(finished.folder / "index")
    assert made.manifest.attributes == before.manifest.attributes
    queries = Bundle.load(bundle).query_encoder().encode(made_log(20, seed=5))
    right, found = (each.search(queries, 1).ids.to_list() for each in (before, made))
    assert found == right
    assert "--ids: a bundle has its own" in told(tmp_path / "other", "--ids", "ids.parquet")
    assert "--upsert takes files, found a bundle" in told(tmp_path / "index", "--upsert")


@pytest.mark.parametrize("name", ["query.onnx", "manifest.json"])
def test_a_damaged_bundle_is_no_query_tower(finished: Finished, tmp_path: Path, name: str) -> None:
    bundle = shutil.copytree(finished.folder / "bundle", tmp_path / "bundle")
    content = bytearray((bundle / name).read_bytes())
    content[len(content) // 2] ^= 1
    (bundle / name).write_bytes(content)
    with pytest.raises(BundleError, match=f"{name}: "):
        Index.open(finished.folder / "index", tower=bundle)


def _lists(log: pl.DataFrame, users: list[int], place: dict[str, int]) -> ItemLists:
    known = log.filter(pl.col("item_id").is_in(list(place)), pl.col("user_id").is_in(users))
    at = {user: number for number, user in enumerate(users)}
    pairs = [(at[user], place[item]) for user, item in known.select("user_id", "item_id").iter_rows()]
    return ItemLists.of(*np.array(pairs).T, len(users))


def _unknown(rows: pl.DataFrame, place: dict[str, int]) -> np.ndarray:
    log = made_log(300, seed=1).filter(~pl.col("item_id").is_in(list(place)))
    return np.array([(log["user_id"] == user).sum() for user in rows["user_id"]])


def test_items_are_exported_as_the_checkpoint_has_them(finished: Finished) -> None:
    """Vectors by the model itself from raw rows that no part of the dataset holds."""
    bundle = Bundle.load(finished.folder / "bundle")
    towers = bundle.manifest.towers
    assert towers is not None
    found = pl.read_parquet(bundle.folder / towers.items)
    rows = made_log(40, seed=9)
    known = rows.join(found.select("id", "vector"), left_on="item_id", right_on="id", maintain_order="left")
    queries, items = bundle.query_encoder().encode(known), known["vector"].to_numpy()
    logits = (queries * items).sum(1) / SETTINGS["model"]["temperature"]
    scores = score_raw(finished.folder / "run", known.drop("vector"))
    np.testing.assert_allclose(1 / (1 + np.exp(-logits)), scores, atol=1e-5)
    np.testing.assert_allclose(bundle.scorer().score(known), scores, atol=1e-5)
    first = made_log(1_500).filter(pl.col("item_id") == found["id"][3])
    assert found["genres"][3].to_list() == first["genres"][0].to_list()
    assert found["price"][3] == pytest.approx(first["price"][0], abs=1e-5) or first["price"][0] is None


def test_a_damaged_query_tower_is_noticed(finished: Finished, tmp_path: Path) -> None:
    bundle = Bundle.load(finished.folder / "bundle")
    assert bundle.manifest.towers is not None
    copied = shutil.copytree(bundle.folder, tmp_path / "bundle")
    arrays = load_tensors(copied / "selftest.safetensors")
    arrays["query"][5, 2] += 0.001
    save_tensors(copied / "selftest.safetensors", arrays)
    files = bundle.manifest.files | {"selftest.safetensors": record_of(copied / "selftest.safetensors")}
    bundle.manifest.model_copy(update={"files": files}).save(copied)
    with pytest.raises(BundleError, match="row 5: the self-test expects the query vector"):
        Bundle.load(copied)


def test_a_ranking_model_has_no_query_tower(finished: Finished) -> None:
    bundle = Bundle.load(finished.folder / "bundle")
    plain = replace(bundle, manifest=bundle.manifest.model_copy(update={"towers": None}))
    with pytest.raises(BundleError, match="its model scores rows, and has no query tower"):
        plain.query_encoder()


def test_validation_rows_are_a_share_of_the_train_file(finished: Finished) -> None:
    place = Place(finished.config)
    parts = {part: place.parts.lazy(part).collect() for part in ("train", "valid", "test")}
    assert parts["train"].height + parts["valid"].height == 1_500
    assert 90 < parts["valid"].height < 220
    key = ["user_id", "item_id"]
    assert parts["train"].join(parts["valid"], on=key, how="semi").is_empty()
    assert place.dataset.manifest.rows == {part: frame.height for part, frame in parts.items()}


def test_validation_rows_may_be_left_out(tmp_path: Path) -> None:
    for part in ("train", "test"):
        made_log(50).write_parquet(tmp_path / f"{part}.parquet")
    split = parse_config(SETTINGS | {"split": {k: v for k, v in SETTINGS["split"].items() if k != "valid"}})
    parts = split_source(split.split, None, tmp_path)
    assert [parts.rows(part) for part in ("train", "valid", "test")] == [50, 0, 50]


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no label": (
        {"model": {"name": "lr"}, "train": {}},
        "data.label is missing; model 'lr' learns from rows",
    ),
    "wrong metric": ({"train": {"monitor": "auc"}}, "'auc' is not measured of 'two_tower'"),
    "ranked columns": ({"rank": {"keep": 3}}, "rank: columns are chosen by what they tell about a label"),
    "no such share": ({"split": SETTINGS["split"] | {"valid": {"share": 1.5, "key": "user_id"}}}, "share"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_run_files_that_make_no_sense(name: str) -> None:
    changes, message = REFUSED[name]
    with pytest.raises(ConfigError, match=message):
        parse_config(SETTINGS | changes)


def test_what_a_log_of_positives_cannot_be_asked(tmp_path: Path) -> None:
    log = made_log(50).with_columns(bought=pl.when(pl.int_range(50) == 9).then(0).otherwise(1))
    for part in ("train", "test"):
        log.write_parquet(tmp_path / f"{part}.parquet")
    labelled = SETTINGS | {"data": SETTINGS["data"] | {"label": "bought"}}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(labelled))
    with pytest.raises(ConfigError, match="rank: 'two_tower' learns from positive rows alone"):
        run(tmp_path / "run.yaml", data=tmp_path, output=tmp_path / "out", until="rank")
    with pytest.raises(DataError, match=r"row 9: label 'bought' is 0, expected 1 in every row"):
        run(tmp_path / "run.yaml", data=tmp_path, output=tmp_path / "out", until="prepare")
