"""Magnitude pruning: the smallest vectors leave the bundle, and count as zeros."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import roc_auc_score

from recsys.config import PlanSettings, TableSettings, TrainSettings
from recsys.data.dataset import UNSEEN_ID, Dataset
from recsys.embeddings.keys import MISSING_KEY
from recsys.embeddings.open_values import OpenValues
from recsys.embeddings.plan import Plan, TablePlan, VocabularyPlan
from recsys.embeddings.planner import plan
from recsys.serving.dense import CLOSED
from recsys.summary import show_bundle
from recsys.training.export import export, validation_metrics
from recsys.training.loaded import load_trained, score_dataset
from recsys.training.pruning import closed_rows, pruned
from recsys.training.raw_scores import score_raw
from recsys.training.run_folder import Run
from recsys.training.train import train
from tests.training.made import SIZES, made_dataset
from tests.training.retrieval_log import made_log, made_retrieval_dataset, made_retrieval_plan


def test_the_smallest_vectors_of_all_vocabularies_are_cut() -> None:
    made = Plan(
        tables={name: TablePlan(rows=5, dim=2, path="dense") for name in ("a", "b", "c")},
        vocabularies={
            "a": VocabularyPlan(mode="full", table="a", size=5),
            "b": VocabularyPlan(mode="full", table="b", size=5),
            "c": VocabularyPlan(mode="hash", table="c", size=5),
        },
        features={},
    )
    sizes = {"a": [9, 0, 3, 1, 8], "b": [0, 5, 2, 7, 4], "c": [0, 0, 0, 0, 0]}
    tables = {name: np.array([[size, 0] for size in each], np.float32) for name, each in sizes.items()}
    found = pruned(made, tables, 0.5)
    assert found.open["a"].tolist() == [True, False, False, False, True], "the unseen value says nothing"
    assert found.open["b"].tolist() == [True, True, False, True, True]
    assert found.open["c"].all(), "shared rows are nobody's to cut"
    assert {name: rows.tolist() for name, rows in closed_rows(made, found).items()} == {
        "a": [1, 2, 3],
        "b": [2],
    }
    gates = OpenValues({name: np.arange(5) != 4 for name in sizes}, 1.5)
    both = pruned(made, tables, 0.5, gates)
    assert both.scale == 1.5
    assert both.open["a"].tolist() == [True, False, True, False, False], "what gates closed counts as cut"
    assert both.open["b"].tolist() == [True, True, True, True, False]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return made_dataset(tmp_path_factory.mktemp("pruned") / "dataset", rows=300)


def test_a_pruned_bundle_scores_as_the_model_without_vectors(
    tmp_path: Path, dataset: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    tables = {"colour": TableSettings(mode="hash", rows=9)}
    made = plan(dataset, settings=PlanSettings(embedding_dim=8, tables=tables, unseen="hash"))
    settings = TrainSettings(max_steps=4, batch_size=100, device="cpu")
    run = train(dataset, tmp_path / "run", model="lr", plan=made, settings=settings)
    bundle = export(run, tmp_path / "bundle", dtype="float32", prune=0.5)
    assert bundle.manifest.selftest.model_difference <= 1e-5
    assert bundle.manifest.selftest.rows > 0
    weights = load_trained(run.folder).tables["item"]
    is_open = _open(run, made).open["item"]
    kept = dataset.values("item").filter(is_open[2:])
    assert 0 < kept.height < SIZES["item"] - 2
    vocabulary = bundle.vocabularies["item"]
    assert is_open[UNSEEN_ID], "train rows taught it something, so that cut values are told from it by key"
    assert len(vocabulary.keys) == SIZES["item"] - 2
    rows = vocabulary.lookup(kept["key"].to_numpy())
    np.testing.assert_array_equal(bundle.tables["item"].lookup(rows), weights[kept["id"].to_numpy()])
    cut = dataset.values("item").filter(~is_open[2:])["key"].to_numpy()
    assert set(vocabulary.lookup(cut).tolist()) == {CLOSED}
    assert bundle.manifest.tables["item"].rows == int(is_open.sum())
    colours = bundle.vocabularies["colour"]
    assert len(colours.keys) == 0, "what is hashed needs no keys, whatever is cut elsewhere"
    assert colours.hashed == (range(2, 9),)
    assert colours.lookup(np.array([MISSING_KEY], np.uint64)).tolist() == [0]
    assert bundle.manifest.tables["colour"].rows == 9
    unpruned = export(run, tmp_path / "unpruned", dtype="float32").manifest
    assert unpruned.pruning is None
    assert bundle.manifest.metrics.keys() == {"pruning", "unpruned"}
    assert bundle.manifest.metrics["unpruned"] == unpruned.metrics == validation_metrics(run)
    cost = bundle.manifest.pruning
    assert cost is not None
    assert (cost.part, cost.rows) == ("test", dataset.manifest.rows["test"])
    label = pl.read_parquet(dataset.part("test"))["__label__"]
    assert cost.auc_unpruned == pytest.approx(roc_auc_score(label, score_dataset(run.folder, "test")))
    without = score_dataset(run.folder, "test", cleared=closed_rows(made, _open(run, made)))
    assert cost.auc_pruned == pytest.approx(roc_auc_score(label, without))
    assert cost.cost == cost.auc_unpruned - cost.auc_pruned != 0
    assert bundle.manifest.quantisation is None
    show_bundle(bundle)
    shown = f"unpruned → pruned: {cost.auc_unpruned:.6f} → {cost.auc_pruned:.6f} ({-cost.cost:+.6f})"
    assert shown in capsys.readouterr().out


def test_a_pruned_retrieval_model_has_queries_and_items_without_the_vectors(tmp_path: Path) -> None:
    towers = made_retrieval_dataset(tmp_path / "log", rows=400)
    settings = TrainSettings(max_steps=4, batch_size=100, monitor="recall", monitor_k=10, device="cpu")
    model = {"name": "two_tower", "query_hidden": [8], "item_hidden": [8], "temperature": 0.2}
    made = made_retrieval_plan(towers)
    run = train(towers, tmp_path / "run", model=model, plan=made, settings=settings)
    bundle = export(run, tmp_path / "bundle", dtype="float32", prune=0.5)
    assert bundle.manifest.towers is not None
    assert bundle.manifest.metrics.keys() == {"unpruned"}, "positive rows alone have no AUC"
    assert bundle.manifest.towers.model_difference < 1e-5
    items = pl.read_parquet(bundle.folder / bundle.manifest.towers.items)
    known = made_log(60, seed=3).join(items.select("id", "vector"), left_on="item_id", right_on="id")
    products = (bundle.query_encoder().encode(known) * known["vector"].to_numpy()).sum(1)
    right = score_raw(run.folder, known.drop("vector"), closed_rows(made, _open(run, made)))
    np.testing.assert_allclose(1 / (1 + np.exp(-products / 0.2)), right, atol=1e-5)
    assert np.abs(right - score_raw(run.folder, known.drop("vector"))).max() > 1e-3


def _open(run: Run, made: Plan) -> OpenValues:
    return pruned(made, load_trained(run.folder).tables, 0.5)
