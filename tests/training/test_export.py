"""A trained run exported: its bundle gives the checkpoint's scores, without torch."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from recsys.config import ModelSettings, PlanSettings, RatioSplit, TrainSettings
from recsys.embeddings.planner import plan
from recsys.embeddings.rows import table_rows
from recsys.errors import CheckpointError
from recsys.features.prepare import prepare
from recsys.models import table_dim
from recsys.prediction import predict
from recsys.serving.bundle import Bundle
from recsys.stage import load_record
from recsys.training.export import VERSION, export
from recsys.training.loaded import load_trained, score_dataset
from recsys.training.run_folder import Run
from recsys.training.train import train
from tests.serving import made

SETTINGS = TrainSettings(epochs=1, batch_size=100, device="cpu", max_steps=12)
MODELS: dict[str, dict[str, Any]] = {
    "lr": {},
    "autoint_plus": {"layers": 1, "head_dim": 8, "hidden": [16]},
    "din": {"attention_hidden": [8], "hidden": [16]},
}
"""A table of width 1, batch norm, and a sequence; the other models' graphs are tested with them."""
HASHED: dict[str, Any] = {"tables": {"item": {"rows": made.HASHED_ROWS, "mode": "hash", "path": "fused"}}}
PLANS: dict[str, dict[str, Any]] = {
    "hash-2": {"lookups": 2, "tables": {"item": {"rows": 7, "mode": "hash"}, "tag": {"path": "fused"}}},
    "unified-1": {"mode": "unified", "exact": 2, "tables": {"unified": {"rows": 9, "path": "fused"}}},
    "unified-2": {"mode": "unified", "exact": 3, "lookups": 2, "tables": {"unified": {"rows": 9}}},
}


def trained(folder: Path, raw: pl.DataFrame, name: str = "din", settings: dict[str, Any] = HASHED) -> Run:
    """Train a model for some steps on the log; by default the items' table is hashed."""
    options = MODELS[name]
    split = RatioSplit(by="ratio", key="row", valid=0.2, test=0.3)
    dataset = prepare(raw.with_row_index("row"), made.schema(), folder / "dataset", split=split)
    dim = table_dim(name, options, 8)
    made_plan = plan(
        dataset,
        settings=PlanSettings.parse(embedding_dim=dim, **settings),
    )
    model = ModelSettings.model_validate({"name": name, **options})
    return train(dataset, folder / "run", model=model, plan=made_plan, settings=SETTINGS)


@pytest.fixture(scope="module")
def raw() -> pl.DataFrame:
    return made.log(900, seed=6)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, raw: pl.DataFrame) -> Run:
    return trained(tmp_path_factory.mktemp("run"), raw)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, run: Run) -> Bundle:
    """The run's bundle with the types that the plan asks for."""
    return export(run, tmp_path_factory.mktemp("bundle") / "bundle", embeddings=["item", "user"])


@pytest.fixture
def same_graph(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run's graph is copied, not traced again, which takes seconds."""
    graph = bundle.folder / bundle.manifest.dense
    monkeypatch.setattr(
        "recsys.models.onnx_graph.export_onnx", lambda model, layout, path: shutil.copy(graph, path)
    )


@pytest.mark.parametrize("name", MODELS)
def test_checkpoint_and_float_bundle_give_the_same_scores(
    tmp_path: Path, raw: pl.DataFrame, name: str
) -> None:
    run = trained(tmp_path, raw, name)
    bundle = export(run, tmp_path / "bundle", dtype="float32")
    new = made.log(300, seed=7)
    by_checkpoint, by_bundle = predict(run.folder, new), predict(bundle.folder, new)
    assert by_checkpoint.columns == by_bundle.columns == ["label", "score"]
    difference = np.abs(by_checkpoint["score"].to_numpy() - by_bundle["score"].to_numpy())
    assert difference.max() < 1e-5
    assert by_bundle["score"].n_unique() > 50


@pytest.mark.parametrize("case", PLANS)
def test_a_float_bundle_of_any_plan_agrees_with_its_checkpoint(
    tmp_path: Path, raw: pl.DataFrame, case: str
) -> None:
    run = trained(tmp_path, raw, "din", PLANS[case])
    bundle = export(run, tmp_path / "bundle", dtype="float32", embeddings=["item", "history"])
    assert bundle.manifest.version == 7
    new = made.log(300, seed=7)
    by_checkpoint, by_bundle = predict(run.folder, new), predict(bundle.folder, new)
    assert np.abs(by_checkpoint["score"].to_numpy() - by_bundle["score"].to_numpy()).max() < 1e-5
    assert by_bundle["score"].n_unique() > 50
    dataset, tables = run.dataset(), load_trained(run.folder).tables
    rows = table_rows(run.plan, dataset, "item")
    assert rows is not None
    weights = tables[run.plan.table_of("item")]
    lookups = rows.reshape(len(rows), -1).T
    vectors = np.concatenate([weights[of_lookup[2:]] for of_lookup in lookups], axis=1)
    for name in ("item", "history"):
        items = pl.read_parquet(bundle.folder / "embeddings" / f"{name}.parquet")
        assert items["id"].to_list() == dataset.values("item")["value"].to_list()
        assert (items["embedding"].to_numpy() == vectors).all()
    assert vectors.shape[1] == 8


def test_predict_of_the_test_rows_gives_the_scores_of_the_dataset(run: Run, raw: pl.DataFrame) -> None:
    dataset = run.dataset()
    keyed = raw.with_row_index("row")
    scored = predict(run.folder, keyed, keep=["row"])
    rows = pl.read_parquet(dataset.part("test"))
    assert 0 < rows.height < raw.height
    # The rows of the test part, found again by scoring all rows: same order, same scores.
    expected = score_dataset(run.folder, "test").tolist()
    found = iter(scored["score"].to_list())
    assert all(any(abs(score - other) < 1e-6 for other in found) for score in expected)


def test_tables_have_the_types_of_the_plan(bundle: Bundle) -> None:
    assert {table.dtype for table in bundle.manifest.tables.values()} == {"int8"}


@pytest.mark.usefixtures("same_graph")
def test_tables_have_the_type_that_is_asked_for(tmp_path: Path, run: Run, bundle: Bundle) -> None:
    asked = export(run, tmp_path / "asked", dtype="int4").manifest
    assert {table.dtype for table in asked.tables.values()} == {"int4"}
    assert asked.bytes["tables"] < bundle.manifest.bytes["tables"]


def test_the_manifest_names_model_metrics_and_cost(run: Run, bundle: Bundle) -> None:
    manifest = bundle.manifest
    assert manifest.model["name"] == "din"
    best = run.metrics.filter(pl.col("step") == run.result.best_step)
    assert manifest.metrics["valid/auc"] == best["valid/auc"].drop_nulls().item()
    assert manifest.plan_fingerprint == run.plan.fingerprint()
    cost = manifest.quantisation
    assert cost is not None
    assert (cost.part, cost.rows) == ("test", run.dataset().manifest.rows["test"])
    assert abs(cost.cost) < 0.02


def test_the_folder_records_what_it_was_made_from(run: Run, bundle: Bundle) -> None:
    record = load_record(bundle.folder)
    assert record is not None
    assert (record.stage, record.version) == ("export", VERSION)
    assert str(run.folder / "checkpoints" / "best") in record.inputs
    assert record.settings == {"dtype": None, "embeddings": ["item", "user"], "prune": 0.0}
    assert "stage.json" not in bundle.manifest.files


@pytest.mark.usefixtures("same_graph")
def test_metrics_may_be_given(tmp_path: Path, run: Run) -> None:
    assert export(run, tmp_path / "bundle", metrics={"auc": 0.7}).manifest.metrics == {"auc": 0.7}


def test_the_same_run_gives_the_same_bundle(tmp_path: Path, run: Run, bundle: Bundle) -> None:
    again = export(run, tmp_path / "again", embeddings=["item", "user"])
    manifests = [json.loads((found.folder / "manifest.json").read_text()) for found in (bundle, again)]
    assert manifests[0] == manifests[1]


def test_embeddings_are_those_of_the_checkpoint(run: Run, bundle: Bundle) -> None:
    tables, dataset = load_trained(run.folder).tables, run.dataset()
    users = pl.read_parquet(bundle.folder / "embeddings" / "user.parquet")
    assert users["id"].to_list() == dataset.values("user")["value"].to_list()
    assert (users["embedding"].to_numpy() == tables["user"][2:]).all()
    items = pl.read_parquet(bundle.folder / "embeddings" / "item.parquet")
    rows = [made.item_row(item, made.HASHED_ROWS) for item in items["id"].to_list()]
    assert (items["embedding"].to_numpy() == tables["item"][rows]).all()


WITHOUT_TORCH = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "torchrec", "fbgemm_gpu", "onnx", "onnxscript"):
            raise ModuleNotFoundError(f"{name} must not be needed to score a bundle")

sys.meta_path.insert(0, Blocker())
from recsys.prediction import predict
predict(*sys.argv[1:])
"""


def test_bundles_are_scored_without_torch(tmp_path: Path, bundle: Bundle, raw: pl.DataFrame) -> None:
    raw.write_parquet(tmp_path / "log.parquet")
    arguments = [str(bundle.folder), *(str(tmp_path / name) for name in ("log.parquet", "scores.parquet"))]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", WITHOUT_TORCH, *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    scores = pl.read_parquet(tmp_path / "scores.parquet")["score"].to_numpy()
    assert (scores == bundle.scorer().score(raw)).all()


def test_a_run_that_is_not_finished_is_refused(tmp_path: Path, run: Run) -> None:
    shutil.copytree(run.folder.parent, tmp_path / "copy")
    (tmp_path / "copy" / "run" / "result.json").unlink()
    with pytest.raises(CheckpointError, match="not finished"):
        export(tmp_path / "copy" / "run", tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()
