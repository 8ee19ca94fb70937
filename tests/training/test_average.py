"""Averages of weights: what they are, that they are evaluated and saved, and that resumed runs go on."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from recsys.config import TrainSettings
from recsys.data.dataset import Dataset
from recsys.errors import ConfigError
from recsys.evaluation.metrics import auc
from recsys.training.loaded import score_dataset
from recsys.training.scoring import labels_of
from recsys.training.train import train
from tests.training.made import made_dataset, made_plan
from tests.training.saved import saved_tensors

DNN = {"name": "dnn", "hidden": [16], "batch_norm": True, "dropout": 0.1}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return made_dataset(tmp_path_factory.mktemp("made") / "dataset", rows=2_000)


def _settings(**changes: object) -> TrainSettings:
    values: dict[str, object] = {"epochs": 2, "batch_size": 128, "log_every": 1, "seed": 7}
    return TrainSettings.model_validate(values | changes)


def test_a_checkpoint_holds_the_average_and_the_weights_that_go_on_learning(
    dataset: Dataset, tmp_path: Path
) -> None:
    """The n-th update keeps min(decay, n / (n + 9)) of the average, n from 0."""
    plan = made_plan(dataset, "dense")

    def after(steps: int, average: float | None = None) -> dict[str, torch.Tensor]:
        settings = _settings(max_steps=steps, average=average)
        folder = tmp_path / f"{steps}-{average}"
        return saved_tensors(train(dataset, folder, model=DNN, plan=plan, settings=settings).folder)

    each = [after(steps) for steps in (1, 2, 3)]
    averaged = after(3, average=0.15)
    weights = [key for key in averaged if key.startswith("learning.") and "num_batches" not in key]
    assert {key.split(".")[1] for key in weights} == {"model", "tables"}
    for key in weights:
        name = key.removeprefix("learning.")
        first, second, third = (tensors[name] for tensors in each)
        assert torch.equal(averaged[key], third)
        expected = 0.15 * (0.1 * first + 0.9 * second) + 0.85 * third
        torch.testing.assert_close(averaged[name], expected)
        assert not torch.equal(averaged[name], third)


def test_the_average_is_what_is_evaluated_and_scored(dataset: Dataset, tmp_path: Path) -> None:
    run = train(
        dataset,
        tmp_path / "run",
        model=DNN,
        plan=made_plan(dataset, "dense"),
        settings=_settings(average=0.95, monitor="auc"),
    )
    label, _ = labels_of(dataset, "valid")
    assert auc(label, score_dataset(run.folder, "valid")) == pytest.approx(run.result.best_value, abs=1e-9)


def test_k_steps_then_resume_equals_one_run_to_the_bit(dataset: Dataset, tmp_path: Path) -> None:
    plan = made_plan(dataset, "dense")
    settings = _settings(max_steps=27, average=0.9)
    whole = train(dataset, tmp_path / "whole", model=DNN, plan=plan, settings=settings)
    for steps in (9, 27):
        parts = train(
            dataset,
            tmp_path / "parts",
            model=DNN,
            plan=plan,
            settings=settings.model_copy(update={"max_steps": steps}),
            resume=True,
        )
    first, second = saved_tensors(whole.folder), saved_tensors(parts.folder)
    assert first.keys() == second.keys()
    assert all(torch.equal(value, second[key]) for key, value in first.items())
    assert first["average.updates"] == 27


def test_tables_on_the_fused_path_are_refused_before_anything_is_written(
    dataset: Dataset, tmp_path: Path
) -> None:
    plan = made_plan(dataset, "fused")
    with pytest.raises(ConfigError, match=r"train\.average: table .* fused path"):
        train(dataset, tmp_path / "run", model=DNN, plan=plan, settings=_settings(average=0.9))
    assert not (tmp_path / "run").exists()


def test_gates_are_refused() -> None:
    with pytest.raises(ValidationError, match="average cannot be combined with gates"):
        _settings(average=0.9, gates={"epochs": 2})
