"""Cells of a long study: computed once per settings, kept whole, never half-written."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.benchmarks.scripts import script

cell = script("cells").cell


def test_a_cell_is_computed_once_and_then_kept(tmp_path: Path) -> None:
    calls = []

    def compute() -> dict[str, float]:
        calls.append(1)
        return {"auc": 0.7}

    first = cell("study", {"seed": 1, "model": "lr"}, compute, root=tmp_path)
    again = cell("study", {"model": "lr", "seed": 1}, compute, root=tmp_path)
    assert first == again
    assert first["auc"] == 0.7
    assert len(calls) == 1


def test_other_settings_are_another_cell(tmp_path: Path) -> None:
    for seed in (1, 2):
        assert (
            cell("study", {"seed": seed}, lambda seed=seed: {"seed_seen": seed}, root=tmp_path)["seed_seen"]
            == seed
        )


def test_a_cell_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    def fails() -> dict[str, float]:
        raise ArithmeticError("the loss is not finite")

    with pytest.raises(ArithmeticError):
        cell("study", {"seed": 1}, fails, root=tmp_path)
    assert cell("study", {"seed": 1}, fails, only_kept=True, root=tmp_path) is None
