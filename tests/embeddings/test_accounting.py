"""Expected collisions against counted ones, and bytes by part."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from recsys.config import PlanSettings, TableSettings
from recsys.embeddings.accounting import bytes_by_part, collisions
from recsys.embeddings.planner import plan
from recsys.embeddings.rows import row_maps
from tests.embeddings.datasets import made_dataset, manifest_only


def pairs_within(rows: NDArray[np.int64]) -> float:
    """Pairs of values in one row."""
    counts = np.unique(rows, return_counts=True)[1]
    return float((counts * (counts - 1) / 2).sum())


def test_expected_collisions_are_those_that_happen(tmp_path: Path) -> None:
    dataset = made_dataset(tmp_path / "d", {"user": 3_000, "item": 2_000, "sex": 4, "shop": 1_000})
    tables = {"unified": TableSettings(rows=500), "shop": TableSettings(mode="hash", rows=102)}
    made = plan(dataset, settings=PlanSettings(mode="unified", lookups=2, tables=tables))
    maps = row_maps(made, dataset)
    lines = {line["vocabulary"]: line for line in collisions(made).iter_rows(named=True)}
    assert list(lines) == ["user", "item", "sex", "shop"]
    for name in ("user", "item"):
        counted = [pairs_within(maps[name][:, lookup]) for lookup in (0, 1)]
        np.testing.assert_allclose(counted, lines[name]["within"], rtol=0.05)
        both = maps[name][:, 0] * 500 + maps[name][:, 1]
        expected = lines[name]["alike"]
        assert abs(pairs_within(both) - expected) < 5 * np.sqrt(expected)
        assert lines[name]["rows_per_value"] == 500 / 5_000
    users = np.bincount(maps["user"][:, 0], minlength=500)
    items = np.bincount(maps["item"].ravel(), minlength=500)
    assert (users * items).sum() == pytest.approx(lines["user"]["between"], rel=0.02)
    assert lines["item"]["between"] == lines["user"]["between"]
    shop = lines["shop"]
    assert shop["within"] == 998 * 997 / 2 / 100
    np.testing.assert_allclose(pairs_within(maps["shop"][2:, 0]), shop["within"], rtol=0.1)
    assert shop["between"] == 0
    assert [lines["sex"][key] for key in ("mode", "within", "alike", "between")] == ["full", 0, 0, 0]
    assert [line["width"] for line in lines.values()] == [16, 16, 16, 16]


def test_every_byte_has_its_part() -> None:
    dataset = manifest_only({"user": 1_002, "sex": 4})
    tables = {
        "unified": TableSettings(rows=300, serve_dtype="int8"),
        "sex": TableSettings(serve_dtype="float16"),
    }
    made = plan(dataset, settings=PlanSettings(mode="unified", lookups=2, tables=tables, unseen="hash"))
    assert bytes_by_part(made) == {
        "tables": 4 * (300 * 8 + 4 * 16),
        "tables served": 300 * (8 + 4) + 4 * 16 * 2,
        "keys": 8 * 2,
        "row maps": 4 * 2,
    }
    listed = plan(dataset, settings=PlanSettings(mode="unified", lookups=2, tables=tables))
    assert bytes_by_part(listed) == bytes_by_part(made) | {
        "keys": 8 * 1_002,
        "row maps": 4 * (1_000 * 2 + 2),
    }
    assert collisions(plan(manifest_only({}))).is_empty()
