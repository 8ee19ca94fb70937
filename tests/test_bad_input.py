"""Bad input as a stranger meets it: a command line, its message, its exit code, and nothing half-written.

The checks behind most lines have tests of their own beside their module; here each is met once, through
the verb that a person would type.
"""

from __future__ import annotations

import re
import resource
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pytest
import yaml
from typer.testing import CliRunner, Result

from recsys.cli import app
from recsys.stage import StageRecord

SYNTH = Path(__file__).parents[1] / "data" / "synth_demo.yaml"
SETTINGS: dict[str, Any] = {
    "name": "small",
    "data": {"path": "log.parquet", "label": "y", "group": "user", "weight": "w"},
    "split": {"by": "time", "column": "day", "valid_from": 8, "test_from": 9},
    "plan": {"embedding_dim": 4},
    "model": {"name": "lr"},
    "train": {"epochs": 1, "max_steps": 2, "batch_size": 128, "device": "cpu"},
    "output": "out",
}
ROWS = 300
Change = Callable[[Path], object]


def log() -> pl.DataFrame:
    draw = np.random.default_rng(0)
    return pl.DataFrame(
        {
            "y": draw.integers(0, 2, ROWS),
            "day": np.sort(draw.integers(1, 11, ROWS)),
            "user": draw.integers(0, 30, ROWS),
            "item": draw.integers(0, 20, ROWS),
            "tags": [draw.integers(0, 20, length).tolist() for length in draw.integers(0, 6, ROWS)],
            "site": [f"s{value}" for value in draw.integers(0, 8, ROWS)],
            "price": draw.lognormal(size=ROWS),
            "w": draw.random(ROWS) + 0.1,
            "score": draw.random(ROWS),
        }
    )


def recsys(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def write(folder: Path, settings: dict[str, Any] = SETTINGS) -> None:
    log().write_parquet(folder / "log.parquet")
    (folder / "run.yaml").write_text(yaml.safe_dump(settings))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The outputs of one good run."""
    folder = tmp_path_factory.mktemp("made")
    write(folder)
    result = recsys("run", str(folder / "run.yaml"), "--data", str(folder), "--output", str(folder / "out"))
    assert result.exit_code == 0, result.stderr
    return folder / "out"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: Path) -> Path:
    """A working folder with a good log and run file, and the outputs of a good run as ``made``."""
    write(tmp_path)
    (tmp_path / "made").symlink_to(made)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


# --- changes to the good log and run file --------------------------------------------------------


def rows(**columns: pl.Expr | list[Any]) -> Change:
    """Some columns replaced."""
    return lambda folder: (
        log()
        .with_columns(
            **{
                name: value if isinstance(value, pl.Expr) else pl.Series(value)
                for name, value in columns.items()
            }
        )
        .write_parquet(folder / "log.parquet")
    )


def without(column: str) -> Change:
    return lambda folder: log().drop(column).write_parquet(folder / "log.parquet")


def on_day(day: int, column: str, value: object) -> Change:
    """A value in the rows of one day; 8 is validated on, 9 and 10 are tested on."""
    changed = pl.when(pl.col("day") == day).then(pl.lit(value)).otherwise(column)
    return rows(**{column: changed})


def settings(key: str, value: object) -> Change:
    """One key of the run file, dotted, set to a value."""

    def change(folder: Path) -> None:
        values: dict[str, Any] = yaml.safe_load(yaml.safe_dump(SETTINGS))
        inner, *parts = values, *key.split(".")
        for part in parts[:-1]:
            inner = inner.setdefault(part, {})
        inner[parts[-1]] = value
        (folder / "run.yaml").write_text(yaml.safe_dump(values))

    return change


def text(content: str | bytes, name: str = "run.yaml") -> Change:
    data = content.encode() if isinstance(content, str) else content
    return lambda folder: (folder / name).write_bytes(data)


def cut(folder: Path) -> None:
    path = folder / "log.parquet"
    path.write_bytes(path.read_bytes()[:-100])


def damaged(folder: Path) -> None:
    path = folder / "log.parquet"
    content = bytearray(path.read_bytes())
    content[20:2000] = bytes(1980)
    path.write_bytes(content)


def two_files(folder: Path) -> None:
    (folder / "log").mkdir()
    log().write_parquet(folder / "log" / "a.parquet")
    log().drop("site").write_parquet(folder / "log" / "b.parquet")


def foreign(folder: Path) -> None:
    (folder / "mine").mkdir()
    (folder / "mine" / "thesis.txt").write_text("mine")


def nothing(folder: Path) -> None:
    """The good log."""


class Bad(NamedTuple):
    command: str
    change: Change
    message: str
    code: int = 1


PREPARE = "prepare log.parquet --schema made/schema --output o"
RANK = "rank log.parquet --schema made/schema --output o"
INFER = "infer log.parquet --label y --output o"
EVALUATE = "evaluate log.parquet --label y --output o"
BUNDLE = "predict made/bundle log.parquet --output s.parquet"
RUN = "predict made/run log.parquet --output s.parquet"
SPLIT = " --split '{by: time, column: day, valid_from: 8, test_from: 9}'"
CHAIN = "run run.yaml --data ."

BAD: dict[str, Bad] = {
    # files
    "path, missing": Bad(
        INFER.replace("log.", "lgo."), nothing, "lgo.parquet: no such file .*'log.parquet'"
    ),
    "file of 0 bytes": Bad(CHAIN, text("", "log.parquet"), r"log.parquet: the file is empty \(0 bytes\)"),
    "no rows": Bad(
        PREPARE, lambda f: log().clear().write_parquet(f / "log.parquet"), "no rows in the file"
    ),
    "no rows to score": Bad(BUNDLE, lambda f: log().clear().write_parquet(f / "log.parquet"), "no rows in"),
    "truncated": Bad(RANK, cut, "log.parquet: not a readable Parquet file, it may be truncated"),
    "truncated, to score": Bad(RUN, cut, "log.parquet: not a readable Parquet file, it may be truncated"),
    "damaged inside": Bad(PREPARE, damaged, "log.parquet: cannot be read, it may be truncated or damaged"),
    "files that differ": Bad(
        "infer log --output o", two_files, "b.parquet: no column 'site', which .*a.parq"
    ),
    # columns
    "no label": Bad(INFER, without("y"), r"log.parquet \(label\): no column 'y'"),
    "no group": Bad(CHAIN, without("user"), r"log.parquet \(group\): no column 'user'"),
    "no split column": Bad(CHAIN, without("day"), r"log.parquet \(split.column\): no column 'day'"),
    "no feature": Bad(PREPARE, without("site"), "log.parquet: no column 'site'"),
    "no feature, to score": Bad(BUNDLE, without("site"), "log.parquet: no column 'site'"),
    "no feature, by checkpoint": Bad(RUN, without("site"), "log.parquet: no column 'site'"),
    "no score": Bad(EVALUATE, without("score"), "log.parquet: no column 'score'"),
    "text for a number": Bad(
        PREPARE, on_day(2, "price", "cheap"), r"row \d+: column 'price': expected float64, found 'cheap'"
    ),
    "text, ranked": Bad(
        RANK, rows(price=pl.lit("cheap")), "row 0: column 'price': expected float64, found 'c"
    ),
    "text, scored": Bad(RUN, rows(item=pl.lit("x")), "row 0: column 'item': expected int64, found 'x'"),
    "list for a scalar": Bad(
        PREPARE, rows(item=pl.concat_list("item")), "'item': .*categorical .*found list"
    ),
    "scalar for a list": Bad(
        BUNDLE, rows(tags=pl.lit(3)), "'tags': the schema declares multi .a list., found"
    ),
    "id beyond int64": Bad(
        INFER,
        rows(item=pl.lit(2**63, pl.UInt64)),
        "row 0: column 'item' holds 9223372036854775808, beyond int64",
    ),
    "time, null": Bad(CHAIN, on_day(3, "day", None), "split column 'day' holds None"),
    "time, all null": Bad(CHAIN, rows(day=pl.lit(None)), "log.parquet: split.column 'day' is null"),
    # labels
    "label of 2": Bad(
        PREPARE + SPLIT, on_day(10, "y", 2), r"log.parquet, row 2\d\d: label 'y' must be 0 or 1"
    ),
    "label null": Bad(
        RANK, on_day(3, "y", None), r"log.parquet, row \d+: label 'y' is None, .*missing in 24 of 300 rows"
    ),
    "label all null": Bad(CHAIN, rows(y=pl.lit(None)), "row 0: label 'y' must be 0 or 1"),
    "label text": Bad(INFER, rows(y=pl.lit("no")), "label 'y' must be an integer, .*found text"),
    "label of 2, evaluated": Bad(
        EVALUATE, on_day(1, "y", 2), r"column 'y': \d+ of 300 values are not 0 or 1"
    ),
    "one class": Bad(PREPARE, rows(y=pl.lit(1)), "label 'y' holds only 1 in all 300 rows"),
    "one class in train": Bad(
        CHAIN, rows(y=pl.when(pl.col("day") < 8).then(0).otherwise("y")), r"\(train rows\): .*holds only 0"
    ),
    "one class in valid": Bad(
        CHAIN, on_day(8, "y", 0), r"valid.parquet: auc .* as every label is 0; choose"
    ),
    # parts
    "valid empty": Bad(
        CHAIN,
        lambda f: log().filter(pl.col("day") != 8).write_parquet(f / "log.parquet"),
        "the split leaves no valid rows: column 'day' goes from 1 to 10",
    ),
    "test empty": Bad(
        CHAIN,
        lambda f: log().filter(pl.col("day") < 9).write_parquet(f / "log.parquet"),
        "the split leaves no test rows",
    ),
    # weights and scores
    "weight negative": Bad(
        PREPARE.replace("made/schema", "made/schema/schema.yaml"),
        rows(w=-pl.col("w")),
        "row 0: weight 'w' must be a number from 0 to 1,000,000,000",
    ),
    "weight NaN": Bad(CHAIN, on_day(2, "w", float("nan")), "weight 'w' must be .*found nan"),
    "weights of 0": Bad(PREPARE, rows(w=pl.lit(0.0)), "weight 'w' is 0 in every row"),
    "score NaN": Bad(
        EVALUATE, on_day(1, "score", float("nan")), r"column 'score': \d+ of 300 .*row 0 \(nan\)"
    ),
    "score infinite": Bad(EVALUATE, on_day(1, "score", float("inf")), r"column 'score': .*row 0 \(inf\)"),
    # run file, schema, flags
    "key, unknown": Bad(
        CHAIN, settings("trian", {}), r"run.yaml:\n  trian: unknown key; did you mean 'train'", 2
    ),
    "key twice": Bad(CHAIN, text("name: a\nname: b\n"), "the key 'name' stands twice", 2),
    "model, unknown": Bad(CHAIN, settings("model.name", "autont"), "unknown model .*'autoint'", 2),
    "model option": Bad(CHAIN, settings("model.dropot", 0), "model.dropot: unknown option of lr", 2),
    "out of range": Bad(CHAIN, settings("train.epochs", 0), r"train.epochs: .*1 \(found 0\)", 2),
    "no size": Bad(CHAIN, settings("plan.bytes", "lots"), "plan.bytes: 'lots' is not a size", 2),
    "negative size": Bad(CHAIN, settings("plan.bytes", "-3MB"), "plan.bytes: '-3MB' .*positive", 2),
    "slice, misspelt": Bad(CHAIN, settings("evaluate.by", ["dya"]), "evaluate.by: .*'dya'; .*'day'", 2),
    "embedding, misspelt": Bad(
        CHAIN, settings("export.embeddings", ["itm"]), "export.embeddings: .*'item'", 2
    ),
    "no YAML": Bad(CHAIN, text("a: b: c"), "run.yaml: not valid YAML", 2),
    "no text": Bad("run log.parquet", nothing, "log.parquet: not valid YAML: expected UTF-8 text", 2),
    "schema key": Bad(
        "prepare log.parquet --schema s.yaml --output o",
        text("columns: {y: {kind: numeric, type: int64, rols: [label]}}", "s.yaml"),
        "columns.y.rols: unknown key; did you mean 'roles'",
    ),
    "schema is a log": Bad(
        PREPARE.replace("made/schema", "log.parquet"), nothing, "log.parquet: not valid YAML"
    ),
    "schema missing": Bad(PREPARE.replace("made/schema", "s.yaml"), nothing, "s.yaml: no such schema file"),
    "flag, misspelt": Bad(INFER + " --labl y", nothing, "--label", 2),
    "plan for no model": Bad("plan made/dataset --model autont", nothing, "did you mean 'autoint'", 2),
    "plan too small": Bad(
        "plan made/dataset --bytes 10B", nothing, "plan.bytes: '10B' .*smallest possible"
    ),
    "plan of a log": Bad("plan log.parquet", nothing, "log.parquet: not a prepared dataset"),
    "export of a log": Bad("export log.parquet --output o", nothing, "log.parquet: not a run folder"),
    "embeddings of no ids": Bad(
        "export made/run --output o --embeddings price", nothing, "no feature 'price'", 2
    ),
    "model is a dataset": Bad("predict made/dataset log.parquet", nothing, "neither a bundle", 2),
    "synth key": Bad("synth s.yaml --output o", text("rows: 5\nctrr: 1", "s.yaml"), "ctrr: unknown key", 2),
    # outputs
    **{
        f"{command.split()[0]} over other files": Bad(command, foreign, "mine: holds ", code)
        for command, code in (
            ("infer log.parquet --output mine", 1),
            ("rank log.parquet --schema made/schema --output mine", 1),
            ("prepare log.parquet --schema made/schema --output mine", 1),
            ("plan made/dataset --output mine", 1),
            ("export made/run --output mine", 1),
            ("evaluate log.parquet --label y --output mine", 1),
            (f"synth {SYNTH} --rows 500 --output mine", 2),
        )
    },
    "predict over a folder": Bad(
        BUNDLE.replace("s.parquet", "."), nothing, "expected a file to write, found a f"
    ),
    "infer over a file": Bad(
        INFER.replace("--output o", "--output run.yaml"), nothing, "expected a folder"
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_it_is_refused_with_its_name_and_nothing_is_written(case: str, here: Path) -> None:
    bad = BAD[case]
    bad.change(here)
    before = files(here)
    result = recsys(*shlex.split(bad.command))
    assert_refused(result, bad.code)
    assert_says(result, bad.message)
    assert_nothing_half_written(here, before)


def assert_refused(result: Result, code: int) -> None:
    assert result.exit_code == code, result.output
    assert isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.stderr


def assert_says(result: Result, message: str) -> None:
    assert re.search(message, result.output), result.output


def assert_nothing_half_written(folder: Path, before: set[str]) -> None:
    """Of a chain, the stages before the one that failed stay, each with its record."""
    new = {path for path in files(folder) - before if not path.startswith("out")}
    assert not new
    for stage in (folder / "out").glob("*"):
        assert list(stage.glob("st*.json")), stage
    assert not [path for path in files(folder) if "partial" in path]


# --- what is treated, and said -------------------------------------------------------------------

TREATED: dict[str, tuple[str, Change, str]] = {
    "NaN and infinity": (
        CHAIN + " --until plan",
        rows(
            price=pl.when(pl.int_range(ROWS) == 1)
            .then(float("nan"))
            .when(pl.int_range(ROWS) == 2)
            .then(float("inf"))
            .otherwise("price")
        ),
        "2 values: price: NaN or infinity → missing",
    ),
    "NaN, ranked": (
        RANK,
        rows(price=pl.lit(float("nan"))),
        "price: 300 rows with NaN or infinity: missing",
    ),
    "NaN, scored": (BUNDLE, rows(price=pl.lit(float("nan"))), "price: 300 rows with NaN or infinity"),
    "NaN, by checkpoint": (
        RUN,
        rows(price=pl.lit(float("nan"))),
        "300 values: price: NaN or infinity → miss",
    ),
    "nothing but null": (
        CHAIN + " --until plan",
        rows(site=pl.lit(None)),
        "site: not a feature, it holds no va",
    ),
    "null in new rows": (BUNDLE, rows(site=pl.lit(None), tags=pl.lit(None)), "300 rows scored"),
    "ids beyond int32": (CHAIN + " --until plan", rows(item=pl.col("item") + 2**40), "plan .*not made yet"),
    "a text per row": (
        CHAIN + " --until plan",
        lambda f: (
            pl.concat([log()] * 4)
            .with_columns(hash=pl.int_range(4 * ROWS).cast(pl.String) + "x")
            .write_parquet(f / "log.parquet")
        ),
        "hash: not a feature, it has a different value in every row",
    ),
    "a group per row": (
        EVALUATE + " --group id",
        rows(id=pl.int_range(ROWS)),
        "gauc +– +no 'id' has both labels",
    ),
    "no group": (EVALUATE + " --group user", rows(user=pl.lit(None)), "300 rows have no value in 'user'"),
    "one class": (EVALUATE, rows(y=pl.lit(1)), "auc +– +every label is 1"),
    "scores of another system": (
        "evaluate scored.parquet --group group",
        lambda f: (
            log()
            .select(label=pl.col("y").cast(pl.Float32), score="score", group="site")
            .write_parquet(f / "scored.parquet")
        ),
        "gauc +0",
    ),
    "names in two cases": (CHAIN + " --until plan", rows(SITE=pl.col("site")), "plan .*not made yet"),
    "odd names": (
        CHAIN + " --until plan",
        lambda f: (
            log()
            .rename({"site": "a b/../é.", "price": "", "tags": "x'\"\n"})
            .write_parquet(f / "log.parquet")
        ),
        "column 7 has no name: left out",
    ),
}


@pytest.mark.parametrize("case", TREATED)
def test_it_is_treated_and_said(case: str, here: Path) -> None:
    command, change, message = TREATED[case]
    change(here)
    result = recsys(*shlex.split(command))
    assert result.exit_code == 0, result.output
    assert_says(result, message)


# --- a full disk, and Ctrl-C ---------------------------------------------------------------------

WRITING = [
    INFER,
    RANK,
    PREPARE,
    "plan made/dataset --output o",
    EVALUATE,
    "export made/run --output o",
    f"synth {SYNTH} --rows 500 --output o",
    BUNDLE,
]


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Writing more fails as on a full disk, for every library and without a mount."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("command", WRITING, ids=lambda command: command.split()[0])
def test_where_writing_fails_nothing_stays(command: str, here: Path) -> None:
    before = files(here)
    with files_of_at_most(64):
        result = recsys(*shlex.split(command))
    assert_refused(result, 1)
    assert_says(result, r"error: [a-z/.0-9_-]+: cannot be written: ")
    assert_nothing_half_written(here, before)


@pytest.mark.parametrize("most", [3_000, 6_000])
def test_a_training_that_cannot_write_says_where(most: int, here: Path) -> None:
    with files_of_at_most(most):
        result = recsys("run", "run.yaml", "--data", ".", "--until", "train")
    assert_refused(result, 1)
    assert_says(result, "out/[a-z/.0-9_-]+: cannot be written: ")
    assert not [path for path in files(here / "out") if "partial" in path]


@pytest.mark.parametrize("command", [INFER, PREPARE, EVALUATE, "export made/run --output o"])
def test_ctrl_c_at_the_last_write_leaves_nothing(
    command: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(StageRecord, "save", interrupt)
    before = files(here)
    result = recsys(*shlex.split(command))
    assert_refused(result, 130)
    assert result.stderr.endswith("recsys: interrupted\n")
    assert_nothing_half_written(here, before)
