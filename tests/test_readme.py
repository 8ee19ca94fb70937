"""The README does what it says: its commands and its Python run, one after the other."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

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
def test_every_command_runs(tmp_path: Path) -> None:
    pytest.importorskip("torchrec")
    (tmp_path / "data").symlink_to(ROOT / "data")
    (run_file,) = blocks("yaml")
    (tmp_path / "clicks.yaml").write_text(run_file)
    run = [line for line in commands() if line.startswith(("recsys ", "torchrun "))]
    assert len(run) >= 10
    for line in run:
        execute(shlex.split(line), tmp_path)
    scores = pl.read_parquet(tmp_path / "scores.parquet")
    assert scores.height == 20_000
    assert scores["score"].is_between(0, 1).all()
    assert (tmp_path / "bundle-int4" / "embeddings" / "item_id.parquet").exists()
    (code,) = blocks("python")
    execute([sys.executable, "-c", code], tmp_path)


def execute(command: list[str], folder: Path) -> None:
    """Run a command with this interpreter's environment first on the path."""
    found = Path(sys.executable).parent / command[0]
    environment = os.environ | {"PATH": f"{found.parent}{os.pathsep}{os.environ['PATH']}"}
    result = subprocess.run(
        [str(found) if found.exists() else command[0], *command[1:]],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, f"{shlex.join(command)}\n{result.stdout}\n{result.stderr}"
