"""``serving/score_bundle.py`` alone, in a process where neither torch nor recsys can be imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recsys.embeddings.plan import ServeDtype
from recsys.training.bundle_writer import write_bundle
from tests.serving import made

SCRIPT = Path(__file__).parents[2] / "serving" / "score_bundle.py"
FORBIDDEN = ("torch", "torchrec", "fbgemm_gpu", "recsys", "polars", "safetensors", "onnx")
BLOCKED = f"""
import runpy, sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {FORBIDDEN!r}:
            raise ModuleNotFoundError(f"{{name}} must not be needed to score a bundle")

sys.meta_path.insert(0, Blocker())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def run_script(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", "-W", "error", "-c", BLOCKED, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("dtype", "hashed"), [("float32", False), ("float16", False), ("int8", True), ("int4", False)]
)
def test_it_scores_as_the_library_does(tmp_path: Path, dtype: ServeDtype, hashed: bool) -> None:
    raw = made.log(500, seed=5)
    raw.write_parquet(tmp_path / "log.parquet", row_group_size=90)
    trained = made.trained(tmp_path / "dataset", raw, hashed=hashed)
    bundle = write_bundle(trained, tmp_path / "bundle", dtype=dtype)
    done = run_script(tmp_path / "bundle", tmp_path / "log.parquet", tmp_path / "scored.parquet")
    assert done.returncode == 0, done.stderr
    scored = pl.read_parquet(tmp_path / "scored.parquet")
    assert scored.columns == [*raw.columns, "score"]
    assert scored["score"].dtype == pl.Float32
    assert np.abs(scored["score"].to_numpy() - bundle.scorer().score(raw)).max() < 1e-6
    if dtype == "float32":
        right = made.expected(raw, dict(trained.tables), hashed=hashed)
        assert np.abs(scored["score"].to_numpy() - right).max() < 1e-6


def test_it_names_a_damaged_file_and_a_missing_column(tmp_path: Path) -> None:
    raw = made.log(50)
    raw.write_parquet(tmp_path / "log.parquet")
    raw.drop("tags").write_parquet(tmp_path / "short.parquet")
    bundle = tmp_path / "bundle"
    write_bundle(made.trained(tmp_path / "dataset", raw), bundle)
    done = run_script(bundle, tmp_path / "short.parquet", tmp_path / "scored.parquet")
    assert done.returncode == 1
    assert "no column 'tags'" in done.stderr
    path = bundle / "tables" / "item.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    done = run_script(bundle, tmp_path / "log.parquet", tmp_path / "scored.parquet")
    assert done.returncode == 1
    assert "item.safetensors: damaged" in done.stderr
    assert not (tmp_path / "scored.parquet").exists()


def test_it_is_short_enough_to_port() -> None:
    assert len(SCRIPT.read_text().splitlines()) <= 240
