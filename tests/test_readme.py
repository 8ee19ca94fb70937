"""The README does what it says: its commands and its Python run, one after the other."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

from recsys.cli import app

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    lines = [line.partition("  #")[0].strip() for block in blocks("sh") for line in block.splitlines()]
    return [line for line in lines if line]


def test_targets_and_files_that_it_names_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for line in commands():
        if line.startswith("make "):
            assert f"\n{line.removeprefix('make ')}:" in makefile, line
        for path in re.findall(r"requirements/\w+\.txt", line):
            assert (ROOT / path).exists(), line
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


@pytest.mark.slow
def test_every_command_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torchrec")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").symlink_to(ROOT / "data")
    (run_file,) = blocks("yaml")
    (tmp_path / "clicks.yaml").write_text(run_file)
    verbs = [shlex.split(line)[1:] for line in commands() if line.startswith("recsys ")]
    assert len(verbs) >= 8
    for arguments in verbs:
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, f"{shlex.join(arguments)}\n{result.output}"
    scores = pl.read_parquet("scores.parquet")
    assert scores.height == 20_000
    assert scores["score"].is_between(0, 1).all()
    assert (tmp_path / "bundle-int4" / "embeddings" / "item_id.parquet").exists()
    (code,) = blocks("python")
    shown: list[str] = []
    exec(code, {"print": shown.append})
    assert 0.0 < float(shown[0]) < 1.0
    (together,) = [shlex.split(line)[1:] for line in commands() if line.startswith("torchrun ")]
    command = [sys.executable, "-m", "torch.distributed.run", *together]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
