"""Learning rates that fall to the end: what they are, that both update paths follow, and resumed runs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from recsys.config import DenseOptimizer, Plateau, TableOptimizer, TrainSettings
from recsys.data.dataset import Dataset
from recsys.embeddings.plan import UpdatePath
from recsys.errors import CheckpointError
from recsys.training.rates import Rates, cut_after
from recsys.training.train import train
from tests.training.made import made_dataset, made_plan
from tests.training.saved import checkpoint_tensors, saved_bytes, stopped_at

DNN = {"name": "dnn", "hidden": [16], "batch_norm": False, "dropout": 0.1}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return made_dataset(tmp_path_factory.mktemp("made") / "dataset", rows=2_000)


def _settings(**changes: object) -> TrainSettings:
    values: dict[str, object] = {
        "epochs": 1,
        "batch_size": 128,
        "log_every": 1,
        "checkpoint_every": 1,
        "keep_checkpoints": 20,
        "seed": 7,
        "decay": "linear",
        "tables": TableOptimizer(dense="sgd", lr=0.5, fused_lr=0.1),
        "dense": DenseOptimizer(name="sgd", lr=0.1),
    }
    return TrainSettings.model_validate(values | changes)


def test_rates_reach_zero_after_the_last_step_that_may_come() -> None:
    settings = _settings(epochs=3, max_steps=10)
    rates = [Rates(settings, steps).scale(5, 0.1) for steps in (2, 4)]
    assert rates == [pytest.approx(0.1 / 6), pytest.approx(0.1 / 2)]
    assert Rates(settings, 2).scale(6, 1.0) == 0.0
    assert Rates(_settings(decay="none"), 2).scale(5, 0.1) == 0.1


@pytest.mark.parametrize("path", ["dense", "fused"])
def test_a_step_moves_weights_by_its_share(dataset: Dataset, tmp_path: Path, path: UpdatePath) -> None:
    """Of two steps the second has half the rate, and so half the update, of one that does not decay."""
    second: dict[str, dict[str, torch.Tensor]] = {}
    for decay in ("none", "linear"):
        run = train(
            dataset,
            tmp_path / decay,
            model=DNN,
            plan=made_plan(dataset, path),
            settings=_settings(max_steps=2, decay=decay),
        )
        first, last = (
            checkpoint_tensors(run.folder / "checkpoints" / f"step-{step:08d}") for step in (1, 2)
        )
        moved = [key for key in first if key.startswith(("model.", "tables.")) and "accumul" not in key]
        second[decay] = {key: last[key] - first[key] for key in moved}
        assert run.metrics["lr_scale"].drop_nulls().to_list() == ([1, 1] if decay == "none" else [0.5, 0])
    for key, whole in second["none"].items():
        assert whole.abs().max() > 0, key
        torch.testing.assert_close(second["linear"][key], whole / 2, rtol=1e-3, atol=1e-7)


def test_a_run_that_was_stopped_goes_on_to_the_bit(dataset: Dataset, tmp_path: Path) -> None:
    plan = made_plan(dataset, "fused")
    whole = train(dataset, tmp_path / "whole", model=DNN, plan=plan, settings=_settings(max_steps=8))
    parts = stopped_at(whole.folder, tmp_path / "parts", 5)
    train(dataset, parts, model=DNN, plan=plan, settings=_settings(max_steps=8), resume=True)
    assert saved_bytes(parts) == saved_bytes(whole.folder)


def test_a_training_cannot_be_made_longer(dataset: Dataset, tmp_path: Path) -> None:
    plan = made_plan(dataset, "dense")
    train(dataset, tmp_path / "run", model=DNN, plan=plan, settings=_settings(max_steps=3))
    with pytest.raises(CheckpointError, match=r"train\.max_steps"):
        train(dataset, tmp_path / "run", model=DNN, plan=plan, settings=_settings(max_steps=4), resume=True)


@pytest.mark.parametrize(
    ("plateau", "after"),
    [
        (Plateau(factor=0.1, stop_after=4), [0.1, 0.01, 0.001, 0.001]),  # the floor
        (Plateau(factor=0.5, stop_after=9, patience=1), [1.0, 0.5, 0.5, 0.25, 0.25]),
        (Plateau(factor=0.5, stop_after=9, patience=2), [1.0, 1.0, 0.5, 0.5, 0.5, 0.25]),
        (Plateau(factor=1), [1.0, 1.0]),
    ],
)
def test_the_plateau_rule_cuts_once_its_patience_is_over(plateau: Plateau, after: list[float]) -> None:
    cut, found = 1.0, []
    for stale in range(1, len(after) + 1):
        cut = cut_after(plateau, stale, cut)
        found.append(cut)
    assert found == pytest.approx(after)
