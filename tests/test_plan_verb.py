"""What ``recsys plan`` says of shared rows and of bytes."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner

from recsys.cli import app
from recsys.embeddings.plan import Plan
from tests.embeddings.datasets import made_dataset


def planned(*arguments: object) -> str:
    done = CliRunner().invoke(app, ["plan", *map(str, arguments)])
    assert done.exit_code == 0, done.output
    return done.stdout


def test_a_shared_table_is_shown_with_its_collisions_and_bytes(tmp_path: Path) -> None:
    made_dataset(tmp_path / "dataset", {"user": 1_002, "item": 502, "sex": 4})
    shared = ("--bytes", "12800", "--mode", "unified", "--lookups", "2", "--output", tmp_path / "plan")
    shown = planned(tmp_path / "dataset", *shared)
    plan = Plan.load(tmp_path / "plan" / "plan.json")
    rows = plan.tables["unified"].rows
    assert rows == (12_800 - 256) // 32 == 392
    lines = {line.split()[0]: line.split() for line in shown.splitlines() if line.strip()}
    pairs = 1_002 * 1_001 / 2
    assert lines["user"][1:] == [
        "unified",
        "1,002",
        "2",
        "16",
        f"{rows / 1_504:.3g}",
        f"{pairs / rows:,.0f}",
        f"{pairs / rows**2:.2g}",
        f"{1_002 * 502 * 2 / rows:,.0f}",
    ]
    assert "keys of values 12.0 kB, their rows 12.0 kB" in shown
    assert "expected pairs of values in one row" in shown


def test_without_shared_rows_only_tables_and_bytes_are_shown(tmp_path: Path) -> None:
    made_dataset(tmp_path / "dataset", {"user": 102})
    shown = planned(tmp_path / "dataset")
    assert "in the bundle: tables" in shown
    assert "expected pairs" not in shown
