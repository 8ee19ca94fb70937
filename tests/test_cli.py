"""The command line: exit codes, messages, and what it never imports."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml
from typer.testing import CliRunner, Result

from recsys.cli import app
from recsys.data.dataset import Dataset
from recsys.embeddings.accounting import counted_bytes
from recsys.embeddings.plan import Plan
from recsys.schema import Schema
from recsys.stage import load_record

VERBS = [
    "infer",
    "rank",
    "prepare",
    "plan",
    "train",
    "tune",
    "evaluate",
    "compare",
    "predict",
    "explain",
    "export",
    "index",
    "search",
    "run",
    "synth",
    "doctor",
]
HEAVY = "{'torch', 'torchrec', 'fbgemm_gpu', 'matplotlib', 'sklearn', 'pandas', 'faiss'}"


def recsys(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def in_a_process(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "recsys", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | environment,
    )


def test_help_lists_the_verbs_that_exist() -> None:
    listed = recsys("--help").stdout
    for verb in VERBS:
        assert f" {verb} " in listed
    for verb in ("serve", "bench"):
        assert f" {verb} " not in listed


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(verb: str) -> None:
    result = recsys(verb, "--help")
    assert result.exit_code == 0
    assert result.stderr == ""


def test_version() -> None:
    assert recsys("--version").stdout.startswith("recsys 0.")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["infer", "log.parquet", "--labl", "y"], "--label"),
        (["prepre"], "prepare"),
        (["run"], "FILE"),
        (["plan", "dataset", "--embedding-dim", "0"], "--embedding-dim"),
    ],
)
def test_wrong_usage_exits_with_2_and_names_the_nearest(arguments: list[str], message: str) -> None:
    result = recsys(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "absent.yaml"], "error: absent.yaml: no such run file"),
        (["prepare", "log.parquet"], "error: --schema is missing"),
        (["export", "run"], "error: --output is missing"),
        (["export", "run", "--output", "bundle", "--dtype", "int2"], "dtype: Input should be 'float32'"),
        (["infer", "run.yaml", "--label", "y"], "error: --label is for data given by path"),
        (["infer", "log.parquet", "--label", "y", "--set", "a=1"], "error: --set changes a run file"),
        (["rank", "log.parquet", "--split", "{by: tiem}"], "did you mean 'time'?"),
        (["rank", "log.parquet", "--split", "{by: ratio, kee: a}"], "did you mean 'key'?"),
        (["rank", "log.parquet", "--split", "{by"], "not valid YAML"),
        (["rank", "log.parquet", "--split", "ratio"], "expected a mapping"),
    ],
)
def test_a_refusal_is_one_message_without_a_traceback(arguments: list[str], message: str) -> None:
    result = recsys(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def succeed(*arguments: str | Path) -> str:
    """What a verb that goes through prints on stdout."""
    result = recsys(*(str(argument) for argument in arguments))
    assert result.exit_code == 0, result.output
    return result.stdout


def test_light_verbs_on_paths(tmp_path: Path) -> None:
    small_log().write_parquet(tmp_path / "log.parquet")
    log, schema, dataset = tmp_path / "log.parquet", tmp_path / "schema", tmp_path / "dataset"
    printed = succeed("infer", log, "--label", "clicked")
    assert Schema.from_dict(yaml.safe_load(printed)).label == "clicked"
    assert "user_id" in succeed(
        "infer", log, "--label", "clicked", "--ignore", "junk,day", "--output", schema
    )
    assert "junk" not in Schema.load(schema / "schema.yaml").columns
    ranked = succeed("rank", log, "--schema", schema, "--keep", "1", "--output", tmp_path / "ranking")
    assert ranked.index("item_id") < ranked.index("user_id")
    split = "{by: ratio, key: user_id, valid: 0.2, test: 0.2}"
    shown = succeed("prepare", log, "--schema", schema, "--split", split, "--output", dataset)
    assert sum(Dataset.load(dataset).manifest.rows.values()) == 500
    assert "train" in shown
    chosen = ("--ranking", tmp_path / "ranking")
    succeed("prepare", log, "--schema", schema, *chosen, "--output", tmp_path / "narrow")
    assert [feature.name for feature in Dataset.load(tmp_path / "narrow").features] == ["item_id"]
    shown = succeed(
        "plan", dataset, "--bytes", "1kB", "--embedding-dim", "4", "--output", tmp_path / "plan"
    )
    assert counted_bytes(Plan.load(tmp_path / "plan" / "plan.json"), "bundle") <= 1_000
    assert "unified" in shown
    for folder in ("schema", "ranking", "dataset", "plan"):
        assert load_record(tmp_path / folder) is not None, folder


def test_a_verb_does_its_stage_of_a_run_file(tmp_path: Path) -> None:
    small_log().write_parquet(tmp_path / "log.parquet")
    file = tmp_path / "run.yaml"
    file.write_text(
        "{name: a, data: {path: log.parquet, label: clicked}, split: {by: ratio, key: user_id, valid: 0.2, "
        "test: 0.2}, model: {name: lr}}"
    )
    flags = ("--data", tmp_path, "--output", tmp_path / "out")
    assert "prepare  made" in succeed("prepare", file, *flags)
    assert not (tmp_path / "out" / "plan").exists()
    shown = succeed("prepare", file, *flags)
    assert "infer    up to date" in shown
    assert "prepare  made" in shown
    shown = succeed("plan", file, *flags)
    assert "in the bundle: tables" in shown, "the plan is printed as that of a dataset is"


def test_scores_of_another_system(tmp_path: Path) -> None:
    pl.DataFrame({"label": [0, 1, 0, 1], "score": [0.1, 0.4, 0.5, 0.8], "k": [1, 1, 2, 2]}).write_parquet(
        tmp_path / "scores.parquet"
    )
    shown = succeed("evaluate", tmp_path / "scores.parquet", "--group", "k", "--by", "k")
    assert "0.75000" in shown
    assert shown.count("1.00000") >= 2


def small_log() -> pl.DataFrame:
    """500 rows whose clicks follow from the item alone."""
    draw = np.random.default_rng(0)
    item = draw.integers(0, 40, 500)
    return pl.DataFrame(
        {
            "clicked": ((item % 2 == 0) ^ (draw.random(500) < 0.2)).astype(np.int8),
            "user_id": draw.integers(0, 50, 500),
            "item_id": item,
            "day": draw.integers(1, 9, 500),
            "junk": draw.integers(0, 5, 500),
        }
    )


def test_debug_shows_the_traceback_wherever_it_stands() -> None:
    for arguments in (["--debug", "run", "absent.yaml"], ["run", "absent.yaml", "--debug"]):
        result = in_a_process(*arguments)
        assert result.returncode == 2
        assert "Traceback" in result.stderr
        assert "error: absent.yaml: no such run file" in result.stderr


def test_an_unknown_stage_is_named(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("{name: a, data: {path: a, label: y}, split: {by: ratio, key: k}, model: {name: lr}}")
    result = recsys("run", str(file), "--force", "prepar")
    assert result.exit_code == 2
    assert "did you mean 'prepare'?" in result.stderr


def test_print_config_prints_defaults_and_overrides(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("{name: a, data: {path: a, label: y}, split: {by: ratio, key: k}, model: {name: lr}}")
    result = recsys("run", str(file), "--print-config", "--set", "train.epochs=7")
    assert result.exit_code == 0
    assert "  epochs: 7\n" in result.stdout
    assert "  batch_size: 4096\n" in result.stdout


@pytest.mark.parametrize("arguments", [["--help"], ["infer", "--help"], ["doctor"], ["run", "absent.yaml"]])
def test_light_verbs_import_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys\n"
        "from recsys.cli import main\n"
        "try:\n"
        f"    main({arguments!r})\n"
        "except SystemExit:\n"
        "    pass\n"
        f"heavy = {HEAVY} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def first_line(*arguments: str) -> tuple[str, float]:
    """The first line of a verb, and the seconds until it came."""
    started = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "recsys", *arguments], stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    with process, process.stderr:
        line = process.stderr.readline()
        seconds = time.monotonic() - started
        process.stderr.read()
    return line, seconds


def test_the_first_line_comes_within_a_second(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("{}")
    lines, seconds = zip(*(first_line("train", str(file)) for _ in range(3)), strict=True)
    assert lines[0].startswith("recsys ")
    assert "train" in lines[0]
    assert min(seconds) < 1.0  # of three, as other work may share the machine


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_exits_with_130_and_no_traceback(stop: signal.Signals) -> None:
    code = (
        "import time\n"
        "from recsys import cli\n"
        "@cli.app.command()\n"
        "def wait():\n"
        "    cli._begin('wait', '')\n"
        "    time.sleep(60)\n"
        "cli.main(['wait'])\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(stop, signal.SIG_DFL),  # ignored in what a shell runs behind it
    )
    assert process.stderr is not None
    with process, process.stderr:
        process.stderr.readline()
        process.send_signal(stop)
        rest = process.stderr.read()
    assert process.returncode == 130
    assert rest == "recsys: interrupted\n"


def test_without_torch_a_verb_says_what_to_install() -> None:
    code = (
        "import importlib.util, sys\n"
        "find = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name: None if name.startswith('torch') else find(name)\n"
        "from recsys.cli import main\n"
        "main(['train', 'run.yaml'])\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "requirements/cpu.txt" in result.stderr
    assert "Traceback" not in result.stderr
