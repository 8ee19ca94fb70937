"""``predict`` from a bundle: what it keeps, what it gives back, what it writes, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from recsys.errors import CheckpointError, ConfigError, DataError, SchemaError
from recsys.prediction import predict
from recsys.training.bundle_writer import write_bundle
from tests.serving import made


@pytest.fixture(scope="module")
def raw() -> pl.DataFrame:
    return made.log(200, seed=4)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, raw: pl.DataFrame) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    write_bundle(made.trained(folder / "dataset", raw), folder / "bundle", dtype="float32")
    return folder / "bundle"


@pytest.fixture(scope="module")
def expected(raw: pl.DataFrame) -> NDArray[np.float64]:
    return made.expected(raw, made.tables(made.plan()))


def test_scores_stand_beside_the_columns_with_a_role(
    bundle: Path, raw: pl.DataFrame, expected: NDArray[np.float64]
) -> None:
    scored = predict(bundle, raw)
    assert isinstance(scored, pl.DataFrame)
    assert scored.columns == ["label", "score"]
    assert scored["label"].to_list() == raw["label"].to_list()
    assert scored["score"].dtype == pl.Float32
    assert np.abs(scored["score"].to_numpy() - expected).max() < 1e-6


def test_a_log_without_a_label_is_scored(
    bundle: Path, raw: pl.DataFrame, expected: NDArray[np.float64]
) -> None:
    scored = predict(str(bundle), raw.drop("label"))
    assert isinstance(scored, pl.DataFrame)
    assert scored.columns == ["score"]
    assert np.abs(scored["score"].to_numpy() - expected).max() < 1e-6


def test_columns_to_keep_are_chosen(bundle: Path, raw: pl.DataFrame) -> None:
    chosen = predict(bundle, raw, keep=["unused", "user", "unused"])
    assert list(chosen.columns) == ["unused", "user", "score"]
    everything = predict(bundle, raw, keep=["*"], score_name="ctr")
    assert isinstance(everything, pl.DataFrame)
    assert everything.drop("ctr").equals(raw)
    assert list(everything.columns) == [*raw.columns, "ctr"]
    with pytest.raises(ConfigError, match=r"keep: .*'usr'; did you mean 'user'"):
        predict(bundle, raw, keep=["usr"])
    with pytest.raises(ConfigError, match=r"score_name: .*'user'"):
        predict(bundle, raw, keep=["user"], score_name="user")


def test_the_answer_is_of_the_kind_that_was_given(bundle: Path, raw: pl.DataFrame, tmp_path: Path) -> None:
    raw.write_parquet(tmp_path / "log.parquet")
    right = predict(bundle, raw)["score"].to_list()
    arrow = predict(bundle, raw.to_arrow())
    assert isinstance(arrow, pa.Table)
    assert arrow["score"].to_pylist() == right
    pandas = predict(bundle, raw.to_pandas())
    assert isinstance(pandas, pd.DataFrame)
    assert pandas["score"].tolist() == right
    for data in (raw.lazy(), tmp_path / "log.parquet", str(tmp_path / "log.parquet")):
        polars = predict(bundle, data)
        assert isinstance(polars, pl.DataFrame)
        assert polars["score"].to_list() == right


def test_a_file_is_written_whole(bundle: Path, raw: pl.DataFrame, tmp_path: Path) -> None:
    target = tmp_path / "deep" / "scores.parquet"
    scored = predict(bundle, raw, target, keep=["item"])
    assert isinstance(scored, pl.DataFrame)
    assert pl.read_parquet(target).equals(scored)
    assert [path.name for path in target.parent.iterdir()] == ["scores.parquet"]


def test_a_full_disk_leaves_nothing(
    bundle: Path, raw: pl.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: pl.DataFrame, path: Path) -> None:
        path.write_bytes(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pl.DataFrame, "write_parquet", full)
    with pytest.raises(DataError, match=r"scores\.parquet: cannot be written: No space left"):
        predict(bundle, raw, tmp_path / "scores.parquet")
    assert list(tmp_path.iterdir()) == []


def test_polars_own_error_of_a_full_disk_is_a_data_error(
    bundle: Path, raw: pl.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise pl.exceptions.ComputeError("underlying IO error: No space left on device (os error 28)")

    monkeypatch.setattr(pl.DataFrame, "write_parquet", full)
    with pytest.raises(DataError, match=r"scores\.parquet: cannot be written: No space left"):
        predict(bundle, raw, tmp_path / "scores.parquet")


def test_the_log_itself_is_never_replaced(bundle: Path, raw: pl.DataFrame, tmp_path: Path) -> None:
    raw.write_parquet(tmp_path / "log.parquet")
    with pytest.raises(ConfigError, match=r"output: .*log\.parquet is a file of the log"):
        predict(bundle, tmp_path, tmp_path / "log.parquet")
    assert pl.read_parquet(tmp_path / "log.parquet").equals(raw)


def test_what_is_no_model_is_refused_with_the_way_out(tmp_path: Path, raw: pl.DataFrame) -> None:
    with pytest.raises(ConfigError, match=r"neither a bundle .* nor a run folder"):
        predict(tmp_path, raw)
    with pytest.raises(ConfigError, match="neither a bundle"):
        predict(tmp_path / "absent", raw)
    (tmp_path / "bundle").mkdir()
    with pytest.raises(ConfigError, match=r"holds bundle: name one of them, e\.g\. .*/bundle"):
        predict(tmp_path, raw)
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"run\.json"):
        predict(tmp_path, raw)


def test_a_missing_feature_and_a_missing_file_are_named(bundle: Path, raw: pl.DataFrame) -> None:
    with pytest.raises(SchemaError, match="'tags'"):
        predict(bundle, raw.drop("tags"))
    with pytest.raises(DataError, match=r"absent\.parquet"):
        predict(bundle, "absent.parquet")
