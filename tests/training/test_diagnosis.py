"""Learning that goes wrong is stopped, and the message says where."""

from __future__ import annotations

import re
from pathlib import Path

import polars as pl
import pytest
import torch

from recsys.config import DenseOptimizer, TrainSettings
from recsys.data.batches import Batches
from recsys.data.dataset import Dataset
from recsys.errors import TrainingError
from recsys.progress import Silent, reporting
from recsys.report import write_run_report
from recsys.training.checkpoint import Checkpoints
from recsys.training.diagnosis import describe_batch
from recsys.training.optimisers import Optimisers
from recsys.training.row_l2 import LookedUp
from recsys.training.train import train
from tests.training.made import made_dataset

DNN = {"name": "dnn", "hidden": [8]}
BAD_ROW = 321


def settings(**changes: object) -> TrainSettings:
    values: dict[str, object] = {"epochs": 2, "batch_size": 128, "log_every": 5, "seed": 7}
    return TrainSettings.model_validate(values | changes)


def dataset_with(folder: Path, column: str, value: float) -> Dataset:
    """A dataset with one odd value in row 321 of the train rows."""
    dataset = made_dataset(folder, rows=1_000)
    rows = pl.read_parquet(dataset.part("train")).with_row_index("row")
    odd = pl.when(pl.col("row") == BAD_ROW).then(pl.lit(value, pl.Float32)).otherwise(column)
    rows.with_columns(odd.alias(column)).drop("row").write_parquet(
        dataset.part("train"), row_group_size=200
    )
    return dataset


@pytest.mark.parametrize(
    ("column", "value"), [("price", float("inf")), ("price", 1e38), ("__label__", float("nan"))]
)
def test_the_batch_its_rows_and_the_first_bad_column_are_named(
    tmp_path: Path, column: str, value: float
) -> None:
    dataset = dataset_with(tmp_path / "dataset", column, value)
    with pytest.raises(TrainingError) as stopped:
        train(dataset, tmp_path / "run", model=DNN, settings=settings(evaluate_every=1, max_steps=16))
    message = str(stopped.value)
    found = re.search(r"at step (\d+) \(batch (\d+) of epoch 0", message)
    assert found is not None, message
    batches = Batches(dataset, "train", 128, seed=7)
    assert int(found[1]) == int(found[2]) + 1
    assert BAD_ROW in batches.rows_of(int(found[2]))
    assert f"(128 in all, shuffled) of {dataset.part('train')}" in message
    shown = pl.Series([value], dtype=pl.Float32)[0]
    assert f"column {column!r} holds {shown} in row {BAD_ROW}, the first of 1" in message
    newest = Checkpoints(tmp_path / "run" / "checkpoints").named("latest")
    kept = 0 if newest is None else int(newest.name.removeprefix("step-"))
    assert kept == int(found[2])  # the last step before
    good = "No checkpoint was saved before" if newest is None else f"checkpoint stands: {newest}. Lower"
    assert good in message


def test_learning_that_runs_away_is_told_from_bad_data(tmp_path: Path) -> None:
    dataset = made_dataset(tmp_path / "dataset", rows=1_000)
    wild = settings(dense=DenseOptimizer(name="sgd", lr=1e30), clip_norm=None, epochs=3)
    with pytest.raises(
        TrainingError, match=r"the loss is (nan|inf) at step \d+ .*learning itself ran away"
    ):
        train(dataset, tmp_path / "run", model=DNN, settings=wild)


def test_weights_that_an_update_spoilt_are_neither_scored_nor_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = made_dataset(tmp_path / "dataset", rows=1_000)
    step = Optimisers.step
    steps: list[int] = []

    def spoil(self: Optimisers, looked_up: LookedUp) -> None:
        step(self, looked_up)
        steps.append(len(steps) + 1)
        if len(steps) == 4:
            with torch.no_grad():
                self.parameters[-1].fill_(float("nan"))

    monkeypatch.setattr(Optimisers, "step", spoil)
    every_two = settings(evaluate_every=2, log_every=2)
    with pytest.raises(
        TrainingError, match=r"weights are not finite after step 4: .* \(\d+ of \d+ numbers\)"
    ):
        train(dataset, tmp_path / "run", model=DNN, settings=every_two)
    newest = Checkpoints(tmp_path / "run" / "checkpoints").named("latest")
    assert newest is not None
    assert newest.name == "step-00000002"


def test_rows_in_file_order_are_a_range(tmp_path: Path) -> None:
    dataset = dataset_with(tmp_path / "dataset", "price", 1.0)
    batches = Batches(dataset, "train", 128, shuffle=False)
    text = describe_batch(batches, 2)
    assert text.startswith(f"batch 2 of epoch 0: rows 256 to 383 of {dataset.part('train')}; its columns")


class Heard(Silent):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


def test_a_feature_that_holds_the_label_is_called_out_once(tmp_path: Path) -> None:
    dataset = made_dataset(tmp_path / "dataset", rows=1_000)
    for part in ("train", "valid"):
        path = dataset.folder / f"{part}.parquet"
        pl.read_parquet(path).with_columns(price=4 * pl.col("__label__") - 2).write_parquet(path)
    heard = Heard()
    with reporting(heard):
        run = train(
            dataset,
            tmp_path / "run",
            model=DNN,
            settings=settings(epochs=6, dense=DenseOptimizer(lr=0.05)),
        )
    assert run.result.best_value == 1.0
    warnings = [line for line in heard.lines if line.startswith("warning")]
    assert len(warnings) == 1
    assert "AUC of 250 validation rows is exactly 1: " in warnings[0]
    pytest.importorskip("matplotlib")
    write_run_report(tmp_path / "report.html", title="leak", curves=run.metrics)
    assert "AUC of the validation rows at step" in (tmp_path / "report.html").read_text()
