"""The search for gates: what it closes, the rewinding, the resume, and training without closed values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recsys.config import DenseOptimizer, TableOptimizer, TrainSettings
from recsys.data.dataset import Dataset
from recsys.embeddings.accounting import bytes_by_part
from recsys.embeddings.plan import Plan, UpdatePath
from recsys.errors import CheckpointError, ConfigError
from recsys.progress import reporting
from recsys.settings.gates import GateSettings
from recsys.summary import show_bundle
from recsys.training.export import export
from recsys.training.loaded import load_trained
from recsys.training.raw_rows import raw_rows
from recsys.training.raw_scores import score_raw
from recsys.training.run_folder import Run
from recsys.training.train import train
from tests.training.made import compressed_plan, hashed_plan, made_dataset, made_plan, shared_plan
from tests.training.saved import saved_bytes
from tests.training.test_diagnosis import Heard

DNN = {"name": "dnn", "hidden": [16], "batch_norm": True, "dropout": 0.2}
PLANS: dict[str, Callable[[Dataset, UpdatePath], Plan]] = {
    "full": made_plan,
    "hash": hashed_plan,
    "unified": shared_plan,
}
MADE: dict[str, Callable[[Dataset, UpdatePath], Plan]] = {
    **PLANS,
    "quotient": compressed_plan,
    "adaptive": lambda dataset, path: compressed_plan(dataset, path, mode="adaptive"),
    "unlisted": lambda dataset, path: _unlisted(hashed_plan(dataset, path)),
    "unlisted unified": lambda dataset, path: _unlisted(shared_plan(dataset, path)),
}
STEPS = 8
"""Batches of an epoch."""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return made_dataset(tmp_path_factory.mktemp("made") / "dataset", rows=1_000)


def _settings(gates: Mapping[str, object] | None = None, **changes: object) -> TrainSettings:
    values: dict[str, object] = {
        "epochs": 2,
        "batch_size": 128,
        "log_every": 1,
        "seed": 7,
        "tables": TableOptimizer(lr=0.01, fused_lr=0.1, init_std=0.1),
        "dense": DenseOptimizer(lr=0.005),
        "gates": GateSettings.model_validate(gates or {}),
    }
    return TrainSettings.model_validate(values | changes)


def _train(dataset: Dataset, folder: Path, plan: Plan, settings: TrainSettings) -> Run:
    return train(dataset, folder, model=DNN, plan=plan, settings=settings, resume=True)


@pytest.mark.parametrize("path", ["dense", "fused"])
def test_a_search_that_closes_nothing_leaves_the_training_as_it_would_have_been(
    dataset: Dataset, tmp_path: Path, path: UpdatePath
) -> None:
    """Gates that begin at σ(40) = 1 stay there, so weights, moments and batches must be a plain run's."""
    plan = made_plan(dataset, path)
    plain = _train(dataset, tmp_path / "plain", plan, _settings())
    gated = _train(dataset, tmp_path / "gated", plan, _settings({"epochs": 2, "init": 40.0}))
    expected, found = saved_bytes(plain.folder), saved_bytes(gated.folder)
    assert expected == {key: value for key, value in found.items() if "gates" not in key}
    assert gated.result.best_value == plain.result.best_value
    assert gated.result.best_step == plain.result.best_step + 2 * STEPS
    losses = [run.metrics["loss"].drop_nulls().to_list() for run in (plain, gated)]
    assert losses[0] == losses[1][2 * STEPS :]
    assert plain.result.kept_values == {}
    assert gated.result.kept_values == {"colour": (12, 12), "item": (60, 60), "tag": (9, 9)}


@pytest.mark.parametrize(("mode", "path"), [("full", "dense"), ("unified", "fused")])
@pytest.mark.parametrize("rewind_epoch", [1, None])
def test_k_steps_then_resume_equals_one_run_to_the_bit(
    dataset: Dataset, tmp_path: Path, mode: str, path: UpdatePath, rewind_epoch: int | None
) -> None:
    """Stops inside the search, at its end, where weights are rewound, and inside the training after it."""
    plan = PLANS[mode](dataset, path)
    gates = {"epochs": 2, "lr": 0.2, "l1": 1e-2, "rewind_epoch": rewind_epoch}
    stops = (STEPS + 3, 2 * STEPS, 2 * STEPS + 5, 3 * STEPS + 2)
    whole = _train(dataset, tmp_path / "whole", plan, _settings(gates, max_steps=stops[-1]))
    for steps in stops:
        parts = _train(dataset, tmp_path / "parts", plan, _settings(gates, max_steps=steps))
    assert saved_bytes(whole.folder) == saved_bytes(parts.folder)
    losses = [run.metrics["loss"].drop_nulls().to_list() for run in (whole, parts)]
    assert losses[0] == losses[1]
    assert whole.result.kept_values == parts.result.kept_values
    kept, size = np.array(list(whole.result.kept_values.values())).sum(0)
    assert 0 < kept < size


def test_values_that_tell_nothing_close_before_those_that_decide(dataset: Dataset, tmp_path: Path) -> None:
    """The label follows from the colour; tags are noise."""
    gates = {"epochs": 12, "lr": 0.03, "l1": 2e-3, "final_temp": 100}
    run = _train(dataset, tmp_path / "run", made_plan(dataset, "dense"), _settings(gates, batch_size=64))
    shares = {name: kept / size for name, (kept, size) in run.result.kept_values.items()}
    assert shares["colour"] > shares["tag"] + 0.2
    record = run.metrics
    temperatures = record["gates/temperature"].drop_nulls().to_list()
    assert temperatures == pytest.approx([100 ** (epoch / 11) for epoch in range(12)], rel=1e-5)
    assert record["valid/auc"].drop_nulls().len() == 2
    assert record["search/auc"].drop_nulls().len() == 12


@pytest.mark.parametrize(("lr", "closes"), [(0.2, True), (1e-3, False)])
def test_one_epoch_can_close_values_and_a_search_that_closed_none_says_why(
    dataset: Dataset, tmp_path: Path, lr: float, closes: bool
) -> None:
    """Eight steps of 0.2 lead from 0.5 below zero; eight of 0.001 do not."""
    settings = _settings({"epochs": 1, "lr": lr, "l1": 1e-2}, max_steps=STEPS + 1)
    with reporting(heard := Heard()):
        run = _train(dataset, tmp_path / "run", made_plan(dataset, "dense"), settings)
    kept, size = np.array(list(run.result.kept_values.values())).sum(0)
    assert run.metrics["gates/temperature"].drop_nulls().unique().to_list() == [1.0]
    said = [line for line in heard.lines if line.startswith("gates: ")]
    if closes:
        assert kept < size
        assert not said
    else:
        assert kept == size
        assert len(said) == 1
        assert "8 steps, 0.008 in all, which must well exceed train.gates.init (0.5)" in said[0]


def test_a_rewind_behind_the_search_is_refused() -> None:
    with pytest.raises(ConfigError, match="rewind_epoch must be below the 3 epochs"):
        TrainSettings.parse(gates={"epochs": 3, "rewind_epoch": 3})


def _unlisted(plan: Plan) -> Plan:
    """The plan with values that are hashed when they come, so that a bundle without gates lists none."""
    hashing = {
        name: info if info.mode == "full" else info.model_copy(update={"unseen": "hash"})
        for name, info in plan.vocabularies.items()
    }
    return plan.model_copy(update={"vocabularies": hashing})


@pytest.mark.parametrize("mode", MADE)
def test_the_bundle_scores_as_the_checkpoint_does(
    dataset: Dataset, tmp_path: Path, mode: str, capsys: pytest.CaptureFixture[str]
) -> None:
    grows = mode.startswith("unlisted")  # where more values stay open than bytes of rows leave
    gates = {"epochs": 3, "lr": 0.04 if grows else 0.08, "l1": 2e-3}
    plan = MADE[mode](dataset, "fused" if mode == "unified" else "dense")
    run = _train(dataset, tmp_path / "run", plan, _settings(gates))
    bundle = export(run, tmp_path / "bundle", dtype="float32", embeddings=["item"])
    raw = raw_rows(dataset, "test", 250)
    found = bundle.scorer().score(raw)
    np.testing.assert_allclose(found, score_raw(run.folder, raw), atol=1e-5, rtol=0)
    manifest = bundle.manifest.gates
    assert manifest is not None
    kept = {name: (each.values - each.closed, each.values) for name, each in manifest.vocabularies.items()}
    assert kept == run.result.kept_values
    assert 0.1 < manifest.kept_share < 0.9
    # What a bundle without gates would hold of tables, keys and row maps, and what this one holds.
    parts = bytes_by_part(plan)
    held = sum(table.nbytes for table in bundle.tables.values())
    held += sum(8 * each.keys.size + 4 * each.rows.size for each in bundle.vocabularies.values())
    assert manifest.bytes == parts["tables"] + parts["keys"] + parts["row maps"] - held
    assert (manifest.bytes < 0) == grows
    show_bundle(bundle)
    assert ("the bundle grew by" in capsys.readouterr().out) == grows
    trained = load_trained(run.folder)
    assert trained.gates is not None
    exported = pl.read_parquet(tmp_path / "bundle" / "embeddings" / "item.parquet")
    is_open = trained.gates.open["item"]
    assert exported["id"].to_list() == [98 + int(i) for i in np.flatnonzero(is_open[2:]) + 2]
    if mode == "full":
        right = trained.tables["item"][2:][is_open[2:]] * trained.gates.scale
        np.testing.assert_allclose(np.stack(exported["embedding"].to_list()), right, rtol=1e-6)


def test_a_model_whose_gates_are_still_searched_is_scored_but_not_exported(
    dataset: Dataset, tmp_path: Path
) -> None:
    """It stops with the last step of the search, before weights are rewound."""
    plan = made_plan(dataset, "dense")
    run = _train(dataset, tmp_path / "run", plan, _settings({"epochs": 1}, max_steps=STEPS))
    assert len(score_raw(run.folder, raw_rows(dataset, "test", 20))) == 20
    with pytest.raises(CheckpointError, match="before its search for gates did"):
        export(run, tmp_path / "bundle")
