"""The run file: strict, with overrides, and every shipped one loads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from recsys.config import RatioSplit, RunConfig, load_config, parse_bytes, parse_config
from recsys.errors import ConfigError
from recsys.models import parse_options
from recsys.reference import as_yaml

ROOT = Path(__file__).parents[1]
PIPELINES = sorted((ROOT / "pipelines").glob("*.yaml"))

SMALL: dict[str, Any] = {
    "name": "small",
    "data": {"path": "log.parquet", "label": "clicked"},
    "split": {"by": "ratio", "key": "user_id"},
    "model": {"name": "lr"},
}


def write(folder: Path, values: dict[str, Any]) -> Path:
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def test_defaults_and_blocks(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, SMALL))
    assert config.folder == Path("runs/small")
    assert isinstance(config.split, RatioSplit)
    assert config.train.batch_size == 4096
    assert config.model.options == {}


def test_data_output_and_overrides_replace_what_the_file_says(tmp_path: Path) -> None:
    config = load_config(
        write(tmp_path, SMALL),
        data=tmp_path / "logs",
        output=tmp_path / "out",
        overrides=["train.epochs=3", "model.layers=[8, 4]", "train.dense.lr=0.5", "data.group=user_id"],
    )
    assert config.data.root == tmp_path / "logs"
    assert config.folder == tmp_path / "out"
    assert config.train.epochs == 3
    assert config.train.dense.lr == 0.5
    assert config.model.options == {"layers": [8, 4]}
    assert config.data.group == "user_id"


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("train.epoch", 3, r"train\.epoch: unknown key; did you mean 'epochs'\?"),
        ("trian", {}, r"trian: unknown key; did you mean 'train'\?"),
        ("split.keys", "a", r"split\.keys: unknown key; did you mean 'key'\?"),
        ("split.by", "tiem", "split"),
        (
            "data.columns",
            {"a": {"knd": "numeric"}},
            r"data\.columns\.a\.knd: unknown key; did you mean 'kind'\?",
        ),
        ("plan.tables", {"a": {"dims": 3}}, r"plan\.tables\.a\.dims: unknown key; did you mean 'dim'\?"),
        (
            "train.sparsity",
            {"budget": 0.2, "buget": 1},
            r"train\.sparsity\.buget: unknown key; did you mean 'budget'\?",
        ),
        (
            "split",
            {"by": "files", "train": "a", "test": "b", "valid": {"key": "u", "shar": 0.1}},
            r"split\.valid\.shar: unknown key; did you mean 'share'\?",
        ),
        ("rank.bytes", [1], r"rank\.bytes: .*valid integer \(found \[1\]\)"),
        ("train.tables.rate", 1, r"train\.tables\.rate: unknown key"),
        ("train.epochs", 0, r"train\.epochs: .*greater than or equal to 1 \(found 0\)"),
        ("train.monitor", "acc", r"train\.monitor: .*'auc'"),
        ("train.dense.lr", float("inf"), r"train\.dense\.lr: .*finite number \(found inf\)"),
        ("train.tables.init_std", float("nan"), r"train\.tables\.init_std: .*finite number \(found nan\)"),
        ("train.gates.final_temp", 1e39, r"train\.gates\.final_temp: .*equal to 1000000 \(found 1e\+39\)"),
        ("data.path", None, r"data\.path is missing"),
    ],
)
def test_faults_name_file_and_key(tmp_path: Path, key: str, value: object, message: str) -> None:
    values = yaml.safe_load(yaml.safe_dump(SMALL))
    inner = values
    for part in key.split(".")[:-1]:
        inner = inner.setdefault(part, {})
    inner[key.split(".")[-1]] = value
    path = write(tmp_path, values)
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(path)
    assert str(path) in str(caught.value)
    assert caught.value.exit_code == 2


def test_options_of_a_model_are_finite() -> None:
    with pytest.raises(ConfigError, match=r"temperature: .*finite number \(found inf\)"):
        parse_options("two_tower", {"temperature": float("inf")})


def test_every_fault_is_listed() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(SMALL | {"extra": 1, "train": {"epochs": -1}})
    assert "extra" in str(caught.value)
    assert "train.epochs" in str(caught.value)


@pytest.mark.parametrize("override", ["train.epochs", "=3", "name.x=1", "train.epochs=[1"])
def test_faulty_overrides(tmp_path: Path, override: str) -> None:
    with pytest.raises(ConfigError):
        load_config(write(tmp_path, SMALL), overrides=[override])


@pytest.mark.parametrize("text", ["[1, 2]", "a: [", "- x"])
def test_a_file_that_is_no_mapping(tmp_path: Path, text: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"run\.yaml"):
        load_config(path)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.yaml: no such run file"):
        load_config(tmp_path / "absent.yaml")


def test_files_split_stands_for_the_path() -> None:
    files = {"by": "files", "train": "a", "valid": "b", "test": "c"}
    assert parse_config(SMALL | {"data": {"label": "y"}, "split": files}).data.path is None
    with pytest.raises(ConfigError, match=r"data\.path must be left out"):
        parse_config(SMALL | {"split": files})


@pytest.mark.parametrize(
    ("text", "count"),
    [
        (17, 17),
        ("17", 17),
        ("8MB", 8_000_000),
        ("64KiB", 65_536),
        ("1.5 GB", 1_500_000_000),
        ("2 gib", 2**31),
    ],
)
def test_bytes(text: int | str, count: int) -> None:
    assert parse_bytes(text) == count


@pytest.mark.parametrize("text", ["MB", "8XB", "a lot", ""])
def test_faulty_bytes(text: str) -> None:
    with pytest.raises(ConfigError, match="not a size"):
        parse_bytes(text)


def test_the_printed_config_is_a_run_file_of_the_same_run(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, SMALL), overrides=["model.layers=[4]", "plan.bytes=8MB"])
    assert RunConfig.model_validate(yaml.safe_load(as_yaml(config))) == config


def test_there_are_run_files() -> None:
    assert {path.stem for path in PIPELINES} >= {"demo", "frappe_x1", "ml1m_ctr", "amazon_beauty_din"}


@pytest.mark.parametrize("path", PIPELINES, ids=lambda path: path.stem)
def test_every_shipped_run_file_loads(path: Path) -> None:
    config = load_config(path)
    assert config.name == path.stem
    pytest.importorskip("torch")
    from recsys.models import parse_options

    parse_options(config.model.name, config.model.options)


def test_values_are_not_chosen_twice(tmp_path: Path) -> None:
    file = write(tmp_path, SMALL)
    both = ["export.prune=0.5", "train.sparsity={budget: 0.5}"]
    with pytest.raises(ConfigError, match=r"export\.prune and train\.sparsity both choose"):
        load_config(file, overrides=both)
    assert load_config(file, overrides=[both[0], "train.sparsity={budget: 0.5, tables: 1}"]).export.prune
    assert load_config(file, overrides=[both[0], "train.sparsity={budget: 0.5, method: dsl}"]).export.prune
