"""Result files of the benchmark scripts: when they are written, what they hold, what they never hold."""

from __future__ import annotations

import json
import platform
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.benchmarks.scripts import script


@pytest.fixture(scope="module")
def harness() -> ModuleType:
    return script("harness")


def test_a_full_run_writes_a_dated_result(
    harness: ModuleType,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "argv", ["/home/somebody/benchmarks/made.py", "--data", "/home/somebody/log"])
    spread = {"ratio": harness.Spread.of([0.5, 0.123456, 0.9])}
    harness.finish("made", {"ratio": 0.123456, "rows": 7}, quick=False, spread=spread, results=tmp_path)
    (path,) = tmp_path.iterdir()
    result = json.loads(path.read_text())
    assert set(result) == {"figures", "hardware", "versions", "command", "spread"}
    assert result["figures"] == {"ratio": 0.1235, "rows": 7}
    assert result["spread"]["ratio"] == {"median": 0.5, "low": 0.1235, "high": 0.9, "repeats": 3}
    assert result["command"] == "python benchmarks/made.py --data log"
    assert "somebody" not in path.read_text()
    assert (platform.node() or "somebody") not in path.read_text()
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == result["figures"]
    assert harness.newest("made", results=tmp_path) == (path.name, result)


def test_a_quick_run_writes_nothing(
    harness: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    harness.finish("made", {"ratio": 1.0}, quick=True, results=tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert json.loads(capsys.readouterr().out) == {"ratio": 1.0}


def test_newest_result_is_of_this_kind_of_machine(harness: ModuleType, tmp_path: Path) -> None:
    assert harness.newest("made", results=tmp_path) is None
    here = harness.hardware()
    for day, hardware in (("01", here), ("02", here), ("03", here | {"cores": 999})):
        content = json.dumps({"hardware": hardware, "figures": {"day": day}})
        (tmp_path / f"made-2026-01-{day}.json").write_text(content)
    (tmp_path / "made_otherwise-2026-01-04.json").write_text("{}")
    name, result = harness.newest("made", results=tmp_path)
    assert (name, result["figures"]) == ("made-2026-01-02.json", {"day": "02"})


def test_interleaved_runs_round_after_round(harness: ModuleType) -> None:
    calls: list[str] = []
    measured = harness.interleaved({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 2)
    assert "".join(calls) == "ab" * 3
    assert [len(each) for each in measured.values()] == [2, 2]


def test_parts_of_a_study_take_the_place_of_older_figures(harness: ModuleType, tmp_path: Path) -> None:
    assert harness.newest_of("made", ["first", "second"], results=tmp_path) == {}
    here = harness.hardware()
    for name, figures in (("made", {"a": 1, "b": 1}), ("made_second", {"b": 2})):
        content = json.dumps({"hardware": here, "figures": figures})
        (tmp_path / f"{name}-2026-01-01.json").write_text(content)
    found = harness.newest_of("made", ["first", "second"], results=tmp_path)
    files = "made-2026-01-01.json, made_second-2026-01-01.json"
    assert found == {"a": 1, "b": 2, "earlier_from": files}
