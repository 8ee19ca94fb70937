"""The chain: what is redone, why, and what is left alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml

from recsys.chain import Finished, run
from recsys.config import load_config
from recsys.data.dataset import Dataset
from recsys.embeddings.plan import Plan
from recsys.errors import ConfigError, DataError, SchemaError, TrainingError
from recsys.evaluation import Evaluation, auc
from recsys.progress import Bar, reporting
from recsys.schema import Schema
from recsys.serving.bundle import Bundle
from recsys.stage import load_record

LIGHT = ("infer", "rank", "prepare", "plan")
ROWS = 2_000


def log(rows: int = ROWS, seed: int = 0) -> pl.DataFrame:
    """Clicks that follow from the item alone; ``junk`` tells nothing."""
    draw = np.random.default_rng(seed)
    item = draw.integers(0, 20, rows)
    clicked = draw.random(rows) < np.where(item % 2 == 0, 0.8, 0.2)
    return pl.DataFrame(
        {
            "clicked": clicked.astype(np.int8),
            "day": np.sort(draw.integers(1, 11, rows)),
            "user_id": draw.integers(0, 100, rows),
            "item_id": item,
            "history": [draw.integers(0, 20, length).tolist() for length in draw.integers(0, 6, rows)],
            "junk": [f"j{value}" for value in draw.integers(0, 8, rows)],
            "price": draw.lognormal(size=rows),
        }
    )


SETTINGS: dict[str, Any] = {
    "name": "small",
    "data": {"path": "log.parquet", "label": "clicked", "group": "user_id"},
    "split": {"by": "time", "column": "day", "valid_from": 8, "test_from": 9},
    "plan": {"embedding_dim": 8},
    "model": {"name": "lr"},
    "train": {"epochs": 1, "batch_size": 256, "device": "cpu"},
}


class Listener:
    """Keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)

    def open(self, bar: Bar) -> None:
        return

    def close(self, bar: Bar) -> None:
        return


class Case:
    """A log, a run file and an output folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "run.yaml"
        self.out = folder / "out"
        self.file.write_text(yaml.safe_dump(SETTINGS))
        log().write_parquet(folder / "log.parquet")
        self.said: list[str] = []

    def run(self, *overrides: str, until: str | None = "plan", **arguments: Any) -> dict[str, str]:
        """What became of each stage, by name."""
        listener = Listener()
        with reporting(listener):
            finished: Finished = run(
                self.file,
                data=self.folder,
                output=self.out,
                overrides=overrides,
                until=until,
                **arguments,
            )
        self.said = listener.lines
        return {outcome.stage: outcome.state for outcome in finished.outcomes}

    def why(self, stage: str) -> str:
        """What the last run said about a stage."""
        return next(line.removeprefix(stage).strip() for line in self.said if line.startswith(stage))


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)


def states(**changed: str) -> dict[str, str]:
    return dict.fromkeys(LIGHT, "up to date") | changed


def test_first_all_then_nothing(case: Case) -> None:
    assert case.run() == dict.fromkeys(LIGHT, "made")
    assert case.why("prepare") == "not made yet"
    assert case.run() == states()
    assert case.why("prepare") == "up to date"


def test_every_folder_has_its_record(case: Case) -> None:
    case.run()
    for stage, folder in zip(LIGHT, ("schema", "ranking", "dataset", "plan"), strict=True):
        record = load_record(case.out / folder)
        assert record is not None
        assert record.stage == stage
        assert record.outputs
    prepared = load_record(case.out / "dataset")
    assert prepared is not None
    assert prepared.rows == ROWS
    assert {Path(path).name for path in prepared.inputs} == {"log.parquet", "schema.yaml"}


def test_a_setting_redoes_its_stage_and_what_follows(case: Case) -> None:
    case.run()
    assert case.run("prepare.min_count=20") == states(prepare="made", plan="made")
    assert case.why("prepare") == "stale: setting prepare.min_count: 1 → 20"
    assert case.run("prepare.min_count=20", "plan.embedding_dim=4") == states(plan="made")
    assert case.why("plan") == "stale: setting plan.embedding_dim: 8 → 4"


def test_which_optimiser_moves_which_table_is_said(case: Case) -> None:
    case.run("plan.tables={item_id: {path: fused}}", "train.tables.dense=adagrad")
    said = next(line for line in case.said if "updates by size" in line)
    assert "plan.dense_below: 16MB" in said
    dense, fused = said.split("adagrad on whole tables: ")[1].split("; fused row-wise Adagrad: ")
    assert ("junk" in dense, "item_id" in dense, fused) == (True, False, "item_id")


def test_other_rows_redo_everything(case: Case) -> None:
    case.run()
    log(seed=1).write_parquet(case.folder / "log.parquet")
    assert case.run() == dict.fromkeys(LIGHT, "made")
    assert case.why("infer") == f"stale: input {case.folder / 'log.parquet'} changed"


def test_a_log_touched_without_a_change_stops_where_results_are_the_same(case: Case) -> None:
    case.run()
    os.utime(case.folder / "log.parquet", ns=(1, 1))
    assert case.run() == states(infer="made", rank="made", prepare="made")


def test_another_split_leaves_the_schema(case: Case) -> None:
    case.run()
    made = case.run("split.valid_from=7")
    assert made["rank"] == made["prepare"] == "made"
    assert case.why("rank") == "stale: setting split.valid_from: 8 → 7"


def test_force_redoes_one_stage_and_what_changed_after_it(case: Case) -> None:
    case.run()
    assert case.run(force=["prepare"]) == states(prepare="made")
    assert case.why("prepare") == "asked for"


def test_a_schema_edited_by_hand_is_kept_and_followed(case: Case) -> None:
    case.run()
    path = case.out / "schema" / "schema.yaml"
    schema = Schema.load(path)
    columns = schema.columns | {"junk": schema.columns["junk"].model_copy(update={"roles": ()})}
    Schema(columns=columns).save(path)
    edited = path.read_bytes()
    kept = "written by hand, kept"
    assert case.run() == states(infer=kept, rank="made", prepare="made", plan="made")
    assert case.why("prepare") == "stale: input schema/schema.yaml changed"
    assert "junk" not in [feature.name for feature in Dataset.load(case.out / "dataset").features]
    log(seed=1).write_parquet(case.folder / "log.parquet")
    assert case.run()["infer"] == kept
    assert "log.parquet changed" in case.why("infer")
    assert path.read_bytes() == edited
    assert case.run(force=["infer"])["infer"] == "made"
    assert "junk" in Schema.load(path).features


def test_a_schema_written_before_the_first_run_is_kept(case: Case) -> None:
    case.run(until="infer")
    path = case.out / "schema" / "schema.yaml"
    (case.out / "schema" / "stage.json").unlink()
    assert case.run()["infer"] == "written by hand, kept"
    assert path.exists()


def test_an_output_that_is_gone_or_damaged_is_made_again(case: Case) -> None:
    case.run()
    (case.out / "dataset" / "train.parquet").unlink()
    assert case.run() == states(prepare="made")
    assert case.why("prepare") == "stale: dataset/train.parquet is gone"
    (case.out / "plan" / "plan.json").write_text("{}")
    assert case.run() == states(plan="made")
    assert case.why("plan") == "stale: plan/plan.json was changed since"


def test_ranking_may_choose_the_features(case: Case) -> None:
    case.run()
    assert case.run("rank.keep=1") == states(rank="made", prepare="made", plan="made")
    assert [feature.name for feature in Dataset.load(case.out / "dataset").features] == ["item_id"]


def test_the_column_that_tells_the_label_is_the_one_that_stays_whole(case: Case) -> None:
    """The planner hears of it from the ranking, and again when the ranking changes."""
    wanted = ("plan={mode: best, bytes: 2KB, embedding_dim: 8, exact: 5}",)
    modes = {}
    for column in ("item_id", "user_id"):
        rows = log()
        share = np.where(rows[column].to_numpy() % 2 == 0, 0.8, 0.2)
        clicked = np.random.default_rng(0).random(len(rows)) < share
        rows.with_columns(clicked=pl.Series(clicked.astype(np.int8))).write_parquet(
            case.folder / "log.parquet"
        )
        assert case.run(*wanted)["plan"] == "made"
        plan = Plan.load(case.out / "plan" / "plan.json")
        modes[column] = {name: plan.vocabularies[name].mode for name in ("item_id", "user_id")}
    assert modes["item_id"]["item_id"] == modes["user_id"]["user_id"] == "full"
    assert modes["item_id"]["user_id"] != "full"
    assert modes["user_id"]["item_id"] != "full"


def test_given_files(case: Case) -> None:
    whole = log()
    for part, rows in (("a", whole[:1_000]), ("b", whole[1_000:1_500]), ("c", whole[1_500:])):
        rows.write_parquet(case.folder / f"{part}.parquet")
    files = {"by": "files", "train": "a.parquet", "valid": "b.parquet", "test": "c.parquet"}
    case.file.write_text(yaml.safe_dump(SETTINGS | {"data": {"label": "clicked"}, "split": files}))
    case.run()
    dataset = Dataset.load(case.out / "dataset")
    assert dataset.manifest.rows == {"train": 1_000, "valid": 500, "test": 500}
    assert case.run() == states()


def test_a_stage_that_fails_leaves_what_was_there(case: Case) -> None:
    case.run()
    before = (case.out / "dataset" / "dataset.json").read_bytes()
    broken = log().with_columns(clicked=pl.lit(2, pl.Int8))
    broken.write_parquet(case.folder / "log.parquet")
    with pytest.raises(DataError, match="clicked"):
        case.run()
    assert (case.out / "dataset" / "dataset.json").read_bytes() == before
    assert not list(case.out.glob(".*"))
    log().drop("clicked").write_parquet(case.folder / "log.parquet")
    with pytest.raises(SchemaError, match="clicked"):
        case.run()
    log().write_parquet(case.folder / "log.parquet")
    assert case.run()["plan"] == "up to date"


def test_a_config_in_memory_is_a_run_file(case: Case, tmp_path: Path) -> None:
    config = load_config(case.file)
    finished = run(config, data=case.folder, output=tmp_path / "other", until="infer")
    assert finished.folder == tmp_path / "other"
    assert (tmp_path / "other" / "schema" / "schema.yaml").exists()
    with pytest.raises(ConfigError, match="overrides"):
        run(config, overrides=["train.epochs=1"])


@pytest.mark.parametrize("arguments", [{"force": ["prepar"]}, {"until": "prepar"}])
def test_an_unknown_stage_is_refused(case: Case, arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="did you mean 'prepare'"):
        case.run(**({"until": "plan"} | arguments))
    assert not case.out.exists()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """A case that has been carried to its bundle."""
    pytest.importorskip("torchrec")
    case = Case(tmp_path_factory.mktemp("finished"))
    case.run(until=None)
    return case


def test_the_whole_chain(finished: Case) -> None:
    evaluation = Evaluation.load(finished.out / "evaluation")
    assert evaluation.overall["rows"] == Dataset.load(finished.out / "dataset").manifest.rows["test"]
    assert evaluation.overall["auc"] is not None
    assert evaluation.overall["gauc"] is not None
    assert "<html" in (finished.out / "run" / "report.html").read_text(encoding="utf-8")
    for folder in ("run", "evaluation", "bundle"):
        assert load_record(finished.out / folder) is not None


def test_the_evaluation_is_that_of_the_bundle_on_the_raw_rows(finished: Case) -> None:
    test = log().filter(pl.col("day") >= 9)
    score = Bundle.load(finished.out / "bundle").scorer().score(test)
    expected = Evaluation.load(finished.out / "evaluation").overall["auc"]
    assert auc(test["clicked"], score) == pytest.approx(expected, abs=2e-3)


def test_a_finished_run_is_left_alone_without_torch(finished: Case) -> None:
    code = (
        "import sys; from recsys.chain import run\n"
        f"done = run({str(finished.file)!r}, data={str(finished.folder)!r}, output={str(finished.out)!r})\n"
        "assert {outcome.state for outcome in done.outcomes} == {'up to date'}, done\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_another_slicing_redoes_the_evaluation_alone(finished: Case) -> None:
    redone = finished.run("evaluate.by=[junk]", until=None)
    assert [stage for stage, state in redone.items() if state == "made"] == ["evaluate"]
    assert Evaluation.load(finished.out / "evaluation").slices["column"].unique().to_list() == ["junk"]


def test_other_rows_with_the_same_plan_redo_everything_that_learned(finished: Case) -> None:
    before = Evaluation.load(finished.out / "evaluation").overall["auc"]
    log(seed=7).write_parquet(finished.folder / "log.parquet")
    assert set(finished.run(until=None).values()) == {"made"}
    assert Evaluation.load(finished.out / "evaluation").overall["auc"] != before


def test_an_interrupted_training_goes_on(finished: Case) -> None:
    run_folder = finished.out / "run"
    (run_folder / "stage.json").unlink()
    (run_folder / "result.json").unlink()
    finished.run(until="train")
    assert "going on where it stood" in "".join(finished.said)
    (run_folder / "stage.json").unlink()
    finished.run("train.seed=3", until="train")
    assert "going on where it stood" not in "".join(finished.said)


def test_a_training_that_runs_away_leaves_the_finished_run_aside(finished: Case) -> None:
    before, run_folder = finished.out / "run.before", finished.out / "run"
    whole = (run_folder / "result.json").read_text()
    wild = ("train.dense={name: sgd, lr: 1.0e+30}", "train.clip_norm=null", "train.epochs=3")
    for _ in range(2):  # also where what stands there is already one that failed
        with pytest.raises(
            TrainingError, match=r"\. No checkpoint was saved before\. Lower train\.dense\.lr"
        ):
            finished.run(*wild, "model.name=dnn", until="train", force=["train"])
        assert (before / "result.json").read_text() == whole
        assert not (run_folder / "result.json").exists()
    finished.run(until="train")
    assert (run_folder / "result.json").exists()
    assert not before.exists()


def test_a_training_that_is_refused_leaves_the_run_where_it_was(finished: Case) -> None:
    """Nothing of it was begun: the finished run stays, and is up to date with its settings."""
    result = finished.out / "run" / "result.json"
    whole = result.read_bytes()
    with pytest.raises(ConfigError, match=r"the run at step .* at the latest"):
        finished.run("train.sparsity={budget: 0.5, interval: 1000000}", until="train")
    assert result.read_bytes() == whole
    assert not (finished.out / "run.before").exists()
    finished.said.clear()
    finished.run(until="train")
    assert result.read_bytes() == whole


def torchrun(case: Case, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "recsys"]
    flags = ["--data", str(case.folder), "--output", str(case.out)]
    return subprocess.run(
        [*command, "train", str(case.file), *flags, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.mark.distributed
def test_under_torchrun_the_first_process_prepares_and_both_train(case: Case) -> None:
    pytest.importorskip("torchrec")
    result = torchrun(case)
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("not made yet") == 5
    assert (case.out / "run" / "result.json").exists()
    assert case.run(until="train") == states(train="up to date")


@pytest.mark.distributed
def test_under_torchrun_a_failure_of_the_first_process_ends_the_others(case: Case) -> None:
    pytest.importorskip("torchrec")
    log().drop("clicked").write_parquet(case.folder / "log.parquet")
    result = torchrun(case)
    assert result.returncode == 1
    assert "no column 'clicked'" in result.stderr


def test_a_misspelt_model_option_is_refused_before_anything_is_made(case: Case) -> None:
    with pytest.raises(ConfigError, match=r"model\.layrs"):
        case.run("model.name=autoint", "model.layrs=2", until=None)
    assert not case.out.exists()


def test_it_is_silent_as_a_function(case: Case, capfd: pytest.CaptureFixture[str]) -> None:
    run(case.file, data=case.folder, output=case.out, until="plan")
    assert capfd.readouterr() == ("", "")
