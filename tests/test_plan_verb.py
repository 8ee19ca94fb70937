"""What ``recsys plan`` says of shared rows and of bytes."""

from __future__ import annotations

from pathlib import Path

import polars as pl
from typer.testing import CliRunner

from recsys.cli import app
from recsys.embeddings.plan import Plan
from recsys.ranking.ranking import Ranking
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


def test_a_ranking_says_where_rows_go(tmp_path: Path) -> None:
    """At 90 kB one of the two vocabularies has its rows to itself."""
    made_dataset(tmp_path / "dataset", {"user": 3_502, "item": 3_002}, rows=500_000)
    for told in ("user", "item"):
        nats = [0.2 if name == told else 1e-5 for name in ("user", "item")]
        columns = {"column": ["user", "item"], "score": [0.1, 0.1], "gain": nats, "kept": [True, True]}
        folder = tmp_path / told
        folder.mkdir()
        Ranking(pl.DataFrame(columns)).save(folder)
        asked = ("--bytes", "90000", "--ranking", folder, "--output", tmp_path / f"plan-{told}")
        planned(tmp_path / "dataset", *asked)
        modes = Plan.load(tmp_path / f"plan-{told}" / "plan.json").vocabularies
        assert {name for name, info in modes.items() if info.mode == "full"} == {told}


def test_without_shared_rows_only_tables_and_bytes_are_shown(tmp_path: Path) -> None:
    made_dataset(tmp_path / "dataset", {"user": 102})
    shown = planned(tmp_path / "dataset")
    assert "in the bundle: tables" in shown
    assert "expected pairs" not in shown
