"""A run folder: what was trained, on what, and how it went.

run/
  run.json                the model, its options, the training settings, the plan, the dataset
  checkpoints/            see checkpoint.py
  metrics.jsonl           one line per logged step and per evaluation
  tensorboard/            the same, for TensorBoard
  result.json             written when training has ended
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
from pydantic import BaseModel, ConfigDict, ValidationError

from recsys.config import TrainSettings
from recsys.data.dataset import Dataset
from recsys.embeddings.plan import Plan
from recsys.errors import CheckpointError
from recsys.place import RUN_FILE as RUN_FILE
from recsys.stage import file_aside
from recsys.training.record import METRICS_FILE, read_metrics

VERSION = 2
RESULT_FILE = "result.json"

# Settings that neither weights nor batches depend on: a resumed run may change them.
_MAY_CHANGE = {
    "epochs",
    "max_steps",
    "device",
    "log_every",
    "evaluate_every",
    "checkpoint_every",
    "keep_checkpoints",
}
_LENGTH = {"epochs", "max_steps"}
"""What learning rates depend on where they fall to the end of the training."""


class RunFile(BaseModel):
    """What ``run.json`` holds: everything that a trained model must be rebuilt with."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    options: dict[str, Any]
    train: TrainSettings
    plan: Plan
    dataset: str
    """Folder of the prepared dataset, relative to the run folder."""

    def settings(self) -> dict[str, Any]:
        """All settings, by their key in a run file."""
        train = self.train.model_dump(mode="json")
        values = {"model": self.model, **{f"model.{k}": v for k, v in self.options.items()}}
        return values | {f"train.{key}": value for key, value in train.items()}

    def identity(self) -> str:
        """Canonical JSON of the settings that must not change between a checkpoint and its resume."""
        values = self.settings()
        free = _MAY_CHANGE if self.train.decay == "none" else _MAY_CHANGE - _LENGTH
        for name in free:
            del values[f"train.{name}"]
        for name, unset in (("sparsity", None), ("decay", "none")):
            if values[f"train.{name}"] == unset:  # as checkpoints say that are older than the setting
                del values[f"train.{name}"]
        if values["train.plateau"]["patience"] == 0:
            del values["train.plateau"]["patience"]
        return json.dumps(values, sort_keys=True, default=str)

    def save(self, folder: Path) -> None:
        """Write ``run.json``, aside and then renamed."""
        with file_aside(folder / RUN_FILE) as aside:
            aside.write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> RunFile:
        """Read ``run.json``; raises CheckpointError that names the folder."""
        try:
            return cls.model_validate_json((folder / RUN_FILE).read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError) as error:
            raise CheckpointError(
                f"{folder}: not a run folder (no {RUN_FILE}); make one with 'recsys train'"
            ) from error
        except ValidationError as error:
            raise CheckpointError(f"{folder / RUN_FILE}: not valid: {error}") from error


class RunResult(BaseModel):
    """What ``result.json`` holds: how training ended."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    steps: int
    epochs: int
    finished: str
    """Why training ended."""
    best_step: int
    best_value: float | None
    """Best monitored validation metric (``-logloss`` for logloss); None without validation rows."""
    parameters: int
    """Number of weights of the dense part."""
    seconds: float
    """Seconds spent in steps, evaluation not counted."""
    rows_per_second: float
    data_wait_share: float
    """Share of those seconds spent waiting for data."""
    kept_values: dict[str, tuple[int, int]] = {}
    """Values whose gates are open, and all values, per vocabulary; empty without gates."""

    def save(self, folder: Path) -> None:
        """Write ``result.json``."""
        with file_aside(folder / RESULT_FILE) as aside:
            aside.write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")


@dataclass(frozen=True)
class Run:
    """A finished training run on disk."""

    folder: Path
    file: RunFile
    result: RunResult

    @classmethod
    def load(cls, folder: str | Path) -> Run:
        """Open a run folder; raises CheckpointError where there is no finished run."""
        folder = Path(folder)
        file = RunFile.load(folder)
        try:
            text = (folder / RESULT_FILE).read_text(encoding="utf-8")
        except FileNotFoundError as error:
            raise CheckpointError(
                f"{folder}: training has not finished; go on with 'recsys train --resume'"
            ) from error
        return cls(folder, file, RunResult.model_validate_json(text))

    @property
    def metrics(self) -> pl.DataFrame:
        """The run's record: ``step`` and one column per metric."""
        return read_metrics(self.folder)

    @property
    def plan(self) -> Plan:
        """The plan that its tables follow."""
        return self.file.plan

    def dataset(self) -> Dataset:
        """The prepared dataset that it was trained on."""
        return Dataset.load(self.folder / self.file.dataset)


def relative_to_run(dataset: Path, folder: Path) -> str:
    """Path of a dataset as a run folder stores it, so that both can be moved together."""
    return os.path.relpath(dataset.resolve(), folder.resolve())


def clear(folder: Path) -> None:
    """Remove what an earlier run wrote into a folder, and nothing else."""
    for name in (RUN_FILE, RESULT_FILE, METRICS_FILE, "report.html"):
        (folder / name).unlink(missing_ok=True)
    for name in ("checkpoints", "tensorboard", "explain"):
        shutil.rmtree(folder / name, ignore_errors=True)
