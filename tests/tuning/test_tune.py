"""The search: it finds, prunes, resumes, prepares once, and never looks at test rows."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml
from typer.testing import CliRunner

from recsys.chain import run
from recsys.cli import app
from recsys.config import TrainSettings, load_config
from recsys.data.dataset import Dataset, Part
from recsys.errors import ConfigError, Interrupted, TrainingError
from recsys.progress import reporting
from recsys.stage import load_record
from recsys.training.run_folder import Run
from recsys.tuning.study import Asked
from recsys.tuning.trial import Trial, Tuning
from recsys.tuning.tune import _reached, tune
from tests.test_run import SETTINGS, Listener, log

pytest.importorskip("torchrec")
pytest.importorskip("optuna")

GOOD, USELESS = 0.05, 1e-7
"""Learning rates: of a model that learns what makes clicks, and of one that stays where it began."""
RATES = {"train.tables.lr": {"choices": [USELESS, GOOD]}}
SMOOTH = {
    "train.tables.lr": {"low": 0.001, "high": 0.1, "log": True},
    "train.batch_size": {"choices": [128, 256]},
}


class Case:
    """A log, a run file with a search, and an output folder."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.file, self.out = folder, folder / "run.yaml", folder / "out"
        log().write_parquet(folder / "log.parquet")
        self.said: list[str] = []

    def tune(self, space: dict[str, Any], train: dict[str, Any] | None = None, **settings: Any) -> Tuning:
        call = {key: settings.pop(key) for key in ("trials", "restart") if key in settings}
        values = {
            **SETTINGS,
            "train": {**SETTINGS["train"], "epochs": 2, **(train or {})},
            "tune": {"space": space, **settings},
        }
        self.file.write_text(yaml.safe_dump(values))
        listener = Listener()
        with reporting(listener):
            found = tune(self.file, data=self.folder, output=self.out, **call)
        self.said = listener.lines
        return found


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)


def timeless(trials: tuple[Trial, ...]) -> list[Trial]:
    return [replace(trial, seconds=0.0) for trial in trials]


def test_the_better_of_two_settings_is_found_and_written(case: Case) -> None:
    found = case.tune(RATES)
    assert [trial.values["train.tables.lr"] for trial in found.trials] == [USELESS, GOOD]
    assert found.best.number == 2
    assert found.best.score is not None
    assert found.best.score > 0.7
    best = load_config(found.best_file)
    assert best.train.tables.lr == GOOD
    assert best.tune.space == {}
    assert "trial 2, auc" in found.best_file.read_text().splitlines()[0]
    page = (case.out / "tune" / "tune.html").read_text()
    assert page.count("<svg") == 2
    assert "http" not in page.replace("http://www.w3.org", "")
    kept = [path.parent.parent.name for path in (case.out / "tune").glob("trial-*/run/checkpoints")]
    assert kept == ["trial-002"]

    finished = run(found.best_file, until="train")
    states = {outcome.stage: outcome.state for outcome in finished.outcomes}
    assert states == {"infer": "up to date", "rank": "up to date", "prepare": "up to date",
                      "plan": "up to date", "train": "made"}  # fmt: skip
    assert Run.load(case.out / "run").result.best_value == found.best.score


def test_logloss_is_better_where_it_is_lower(case: Case) -> None:
    found = case.tune(RATES, {"monitor": "logloss"})
    assert found.best.values == {"train.tables.lr": GOOD}
    reached = found.shown(found.best.score)
    assert reached is not None
    assert 0 < reached < 0.65


def test_a_trial_behind_the_others_is_pruned(case: Case) -> None:
    space = {"train.tables.lr": {"choices": [GOOD, USELESS]}}
    found = case.tune(space, {"epochs": 3}, startup=1, warmup=0)
    assert [trial.state for trial in found.trials] == ["finished", "pruned"]
    assert found.trials[1].evaluations == 1
    assert Run.load(case.out / "tune" / "trial-002" / "run").result.epochs == 1
    assert found.trials[0].evaluations == 3
    left_alone = Case(case.folder / "whole").tune(space, {"epochs": 3}, startup=1, pruner="none")
    assert [trial.state for trial in left_alone.trials] == ["finished", "finished"]


def test_a_trial_is_told_by_the_best_that_it_had_reached(tmp_path: Path) -> None:
    lines = [
        {"step": step, "valid/auc": auc, "valid/logloss": 1 - auc}
        for step, auc in ((1, 0.75), (2, 0.5), (3, 0.875))
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert _reached(tmp_path, TrainSettings(monitor="auc")) == [0.75, 0.75, 0.875]
    assert _reached(tmp_path, TrainSettings(monitor="logloss")) == [-0.25, -0.25, -0.125]
    sparse = TrainSettings.parse(monitor="auc", sparsity={"budget": 0.5, "interval": 1, "updates": 2})
    assert _reached(tmp_path, sparse) == [0.5, 0.875]  # the first was of the whole model


def test_an_interrupted_search_goes_on_as_if_it_had_not_been(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Case(case.folder / "whole").tune(SMOOTH, {"epochs": 3}, trials=3, startup=1)
    report = Asked.report

    def stops(self: Asked, scores: list[float]) -> bool:
        if self.number == 2 and len(scores) == 2:
            raise Interrupted("a signal")
        return report(self, scores)

    with monkeypatch.context() as patched:
        patched.setattr(Asked, "report", stops)
        with pytest.raises(Interrupted, match=r"stopped in trial 2; .* the same command goes on"):
            case.tune(SMOOTH, {"epochs": 3}, trials=3, startup=1)
    first = case.out / "tune" / "trial-001" / "run" / "result.json"
    when = first.stat().st_mtime_ns
    found = case.tune(SMOOTH, {"epochs": 3}, trials=3, startup=1)
    assert any("going on where it stood" in line for line in case.said)
    assert first.stat().st_mtime_ns == when
    assert timeless(found.trials) == timeless(whole.trials)
    assert len({trial.values["train.tables.lr"] for trial in found.trials}) == 3

    more = case.tune(SMOOTH, {"epochs": 3}, trials=4, startup=1)
    assert more.trials[:3] == found.trials
    assert len(more.trials) == 4


def test_test_rows_are_never_read(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    other = Case(case.folder / "other")
    flipped = 1 - pl.col("clicked")
    is_test = pl.col("day") >= SETTINGS["split"]["test_from"]
    log().with_columns(pl.when(is_test).then(flipped).otherwise("clicked").alias("clicked")).write_parquet(
        other.folder / "log.parquet"
    )
    opened: list[Part] = []
    part = Dataset.part

    def watched(self: Dataset, name: Part) -> Path:
        opened.append(name)
        return part(self, name)

    monkeypatch.setattr(Dataset, "part", watched)
    found = [each.tune(SMOOTH, trials=2) for each in (case, other)]
    assert timeless(found[0].trials) == timeless(found[1].trials)
    assert set(opened) == {"train", "valid"}
    assert not (case.out / "evaluation").exists()


def test_what_trials_share_is_made_once(case: Case) -> None:
    space = {"prepare.min_count": {"choices": [1, 1_000]}, **RATES}
    found = case.tune(space)
    assert len(found.trials) == 4
    assert found.best.values == {"prepare.min_count": 1, "train.tables.lr": GOOD}
    assert len(list((case.out / "tune" / "shared").glob("*/dataset"))) == 2
    assert (case.out / "ranking").exists()
    assert not (case.out / "dataset").exists()
    assert sum(line.startswith("prepare") and "not made" in line for line in case.said) == 2
    assert sum(line.startswith("infer") for line in case.said) == 1


def test_settings_that_do_not_train_are_told_and_the_search_goes_on(case: Case) -> None:
    space = {"plan.bytes": {"choices": ["1B", "1MB"]}}
    found = case.tune(space)
    assert [trial.state for trial in found.trials] == ["failed", "finished"]
    assert "too small" in found.trials[0].reason
    with pytest.raises(TrainingError, match=r"none of 1 trials went through; the first: .*too small"):
        Case(case.folder / "none").tune({"plan.bytes": {"choices": ["1B"]}})


def test_trials_of_other_settings_are_not_compared(case: Case) -> None:
    case.tune(RATES)
    with pytest.raises(ConfigError, match=r"setting train\.epochs: 2 → 1\); forget them with"):
        case.tune(RATES, {"epochs": 1})
    again = case.tune(RATES, {"epochs": 1}, restart=True)
    assert [trial.evaluations for trial in again.trials] == [1, 1]
    record = load_record(case.out / "tune")
    assert record is not None
    assert record.settings["train.epochs"] == 1


def test_a_misspelt_path_is_refused_before_anything_is_made(case: Case) -> None:
    with pytest.raises(ConfigError, match=r"did you mean 'train\.tables\.lr'"):
        case.tune({"train.tables.lrr": {"choices": [1]}})
    assert not case.out.exists()


def test_the_verb(case: Case) -> None:
    values = {**SETTINGS, "tune": {"space": RATES}}
    case.file.write_text(yaml.safe_dump(values))
    flags = ["--data", str(case.folder), "--output", str(case.out)]
    result = CliRunner().invoke(app, ["tune", str(case.file), *flags, "--set", "train.epochs=1"])
    assert result.exit_code == 0, result.output
    assert result.stdout.index(str(GOOD)) < result.stdout.index(str(USELESS))
    assert "best.yaml" in result.stdout


def test_without_optuna_the_extra_is_named() -> None:
    code = (
        "import importlib.util, sys\n"
        "find = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name: None if name == 'optuna' else find(name)\n"
        "from recsys.cli import main\n"
        "main(['tune', 'run.yaml'])\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "pip install 'recsys[tune]'" in result.stderr
    assert "Traceback" not in result.stderr
