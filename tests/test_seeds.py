"""Several seeds: they differ, mean and sd are right, what is finished is not repeated."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

import recsys
from recsys.chain import Finished, run
from recsys.cli import app
from recsys.config import TrainSettings
from recsys.errors import CheckpointError, ConfigError
from recsys.evaluation import Evaluation
from recsys.seeds import SeedRun, SeedRuns, Spread
from recsys.training.run_folder import Run
from tests.test_run import SETTINGS, log
from tests.training.made import made_dataset

pytest.importorskip("torchrec")


class Case:
    """A log, a run file and an output folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.file, self.out = folder, folder / "run.yaml", folder / "out"
        self.file.write_text(yaml.safe_dump(SETTINGS))
        log().write_parquet(folder / "log.parquet")

    def run(self, seeds: int | None, *overrides: str, **arguments: Any) -> Finished:
        flags = {"data": self.folder, "output": self.out, "overrides": overrides, "seeds": seeds}
        return run(self.file, **flags, **arguments)

    def results(self) -> dict[str, int]:
        """When each run was made."""
        found = self.out.rglob("result.json")
        return {str(path.relative_to(self.out)): path.stat().st_mtime_ns for path in found}


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)


def states(finished: Finished) -> dict[str, str]:
    return {outcome.stage: outcome.state for outcome in (*finished.outcomes, *finished.further)}


def test_mean_and_sd_are_those_of_the_runs_and_finished_seeds_stay(case: Case) -> None:
    first = case.run(2, until="train")
    assert first.seeds is not None
    assert [made.seed for made in first.seeds.runs] == [2024, 2025]
    assert not (case.out / "evaluation").exists()
    before = case.results()
    assert set(before) == {"run/result.json", "seeds/seed-2025/run/result.json"}

    second = case.run(3, until="train")
    assert states(second)["train"] == states(second)["train 2025"] == "up to date"
    assert states(second)["train 2026"] == "made"
    assert {path: when for path, when in case.results().items() if path in before} == before
    assert second.seeds is not None
    reached, losses = [], set()
    for made in second.seeds.runs:
        lines = [json.loads(line) for line in (made.folder / "metrics.jsonl").read_text().splitlines()]
        best = Run.load(made.folder).result.best_step
        reached += [line["valid/auc"] for line in lines if line["step"] == best and "valid/auc" in line]
        losses |= {line["loss"] for line in lines if "loss" in line}
    assert len(losses) == len(reached) == 3
    spread = second.seeds.spread("valid", "auc")
    assert spread is not None
    assert spread.mean == pytest.approx(np.mean(reached))
    assert spread.sd == pytest.approx(np.std(reached, ddof=1))
    written = json.loads((case.out / "seeds" / "seeds.json").read_text())
    assert written["valid"]["auc"]["sd"] == spread.sd
    assert [made["seed"] for made in written["runs"]] == [2024, 2025, 2026]


def test_the_chain_measures_every_seed_and_reports_them(case: Case) -> None:
    finished = case.run(2, until="evaluate")
    assert finished.seeds is not None
    for made, folder in zip(finished.seeds.runs, ("evaluation", "seeds/seed-2025/evaluation"), strict=True):
        assert made.test["auc"] == Evaluation.load(case.out / folder).overall["auc"]
    assert finished.seeds.runs[0].test != finished.seeds.runs[1].test
    spread = finished.seeds.spread("test", "auc")
    assert spread is not None
    report = (case.out / "run" / "report.html").read_text()
    assert "2 seeds" in report
    assert f"{spread.mean:.5f} ± {spread.sd:.5f}" in report


def test_the_run_itself_is_that_of_the_first_seed(case: Case) -> None:
    case.run(None, until="evaluate")
    before = case.results()
    again = case.run(2, until="evaluate")
    assert states(again)["train"] == states(again)["evaluate"] == "up to date"
    assert case.results()["run/result.json"] == before["run/result.json"]
    assert "2 seeds" in (case.out / "run" / "report.html").read_text()


def test_seeds_of_other_settings_are_not_counted(case: Case) -> None:
    case.run(2, until="evaluate")
    changed = case.run(None, "train.batch_size=128", until="evaluate")
    assert changed.seeds is None
    assert "2 seeds" not in (case.out / "run" / "report.html").read_text()
    assert case.run(2, "train.batch_size=128", until="train").seeds is not None
    report = (case.out / "run" / "report.html").read_text()
    assert "2 seeds" in report
    assert "test AUC" in report


def test_what_cannot_be(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="of a chain that trains"):
        case.run(2, until="plan")
    with pytest.raises(ConfigError, match="expected 1 or more"):
        case.run(0)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="on one process"):
        case.run(2)


def test_the_verb_shows_the_table(case: Case) -> None:
    flags = ["--data", str(case.folder), "--output", str(case.out)]
    result = CliRunner().invoke(app, ["train", str(case.file), "--seeds", "2", *flags])
    assert result.exit_code == 0, result.output
    assert "± sd" in result.stdout
    assert "seed 2024, the first" in result.stdout


def test_a_dataset_with_several_seeds(tmp_path: Path) -> None:
    dataset = made_dataset(tmp_path / "dataset", rows=400)
    settings = TrainSettings(epochs=1, batch_size=128, device="cpu", seed=7)
    arguments: dict[str, Any] = {"model": "lr", "settings": settings}
    found = recsys.train_seeds(dataset, tmp_path / "runs", seeds=2, **arguments)
    assert [made.seed for made in found.runs] == [7, 8]
    when = {made.seed: (made.folder / "result.json").stat().st_mtime_ns for made in found.runs}
    more = recsys.train_seeds(dataset.folder, tmp_path / "runs", seeds=[7, 3], **arguments)
    assert more.runs[0] == found.runs[0]
    assert (more.runs[0].folder / "result.json").stat().st_mtime_ns == when[7]
    alone = recsys.train(dataset, tmp_path / "alone", model="lr", settings=TrainSettings(
        epochs=1, batch_size=128, device="cpu", seed=3
    ))  # fmt: skip
    assert more.runs[1].valid["auc"] == alone.result.best_value

    other = {"model": "lr", "settings": settings.model_copy(update={"batch_size": 64})}
    with pytest.raises(CheckpointError, match="batch_size"):
        recsys.train_seeds(dataset, tmp_path / "runs", seeds=1, **other)
    replaced = recsys.train_seeds(dataset, tmp_path / "runs", seeds=1, overwrite=True, **other)
    assert replaced.runs[0].valid != found.runs[0].valid
    for none in (0, [], [1, 1], [-1]):
        with pytest.raises(ConfigError, match="seeds: expected"):
            recsys.train_seeds(dataset, tmp_path / "none", seeds=none, **arguments)


def test_a_seed_that_was_interrupted_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from recsys.training.loop import Trainer

    dataset = made_dataset(tmp_path / "dataset", rows=400)
    settings = TrainSettings(epochs=3, batch_size=128, device="cpu", seed=7)
    whole = recsys.train_seeds(dataset, tmp_path / "whole", model="lr", seeds=1, settings=settings)
    judge = Trainer._judge

    def stops(self: Trainer, value: float) -> bool:
        if self.position.epoch == 2:
            raise KeyboardInterrupt
        return judge(self, value)

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "_judge", stops)
        with pytest.raises(KeyboardInterrupt):
            recsys.train_seeds(dataset, tmp_path / "runs", model="lr", seeds=1, settings=settings)
    found = recsys.train_seeds(dataset, tmp_path / "runs", model="lr", seeds=1, settings=settings)
    assert found.runs[0].valid == whole.runs[0].valid
    assert Run.load(found.runs[0].folder).metrics["step"].to_list() == sorted(
        Run.load(whole.runs[0].folder).metrics["step"].to_list()
    )


def test_a_spread_needs_every_run() -> None:
    def made(seed: int, **valid: float) -> SeedRun:
        return SeedRun(seed, Path("run"), valid, {})

    runs = SeedRuns((made(1, auc=0.5, logloss=0.4), made(2, auc=0.7)))
    assert runs.measured == [("valid", "auc"), ("valid", "logloss")]
    found = runs.spread("valid", "auc")
    assert found is not None
    assert found.mean == pytest.approx(0.6)
    assert found.sd == pytest.approx(0.2 / np.sqrt(2))
    assert runs.spread("valid", "logloss") is None
    assert runs.to_dict()["valid"]["logloss"] is None
    assert Spread.of([0.5]).sd is None
