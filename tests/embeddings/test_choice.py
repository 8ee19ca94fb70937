"""Plans that choose: widths by the budget (mixed), and method, widths and precision (best)."""

from __future__ import annotations

from pathlib import Path

import pytest

from recsys.config import PlanSettings
from recsys.embeddings.accounting import counted_bytes
from recsys.embeddings.plan import Plan
from recsys.embeddings.planner import plan
from recsys.errors import PlanError
from recsys.stage import StageRecord
from tests.embeddings.datasets import made_dataset, manifest_only

SIZES = {"user": 6_042, "film": 3_647, "sex": 4}
VALUES = sum(SIZES.values())
LISTED = 12 * (VALUES - 2 * len(SIZES))


def made(mode: str, budget: int | None, **settings: object) -> Plan:
    return plan(manifest_only(SIZES), settings=PlanSettings.parse(mode=mode, bytes=budget, **settings))


def chosen(found: Plan) -> tuple[str, int, str]:
    """Mode of the largest vocabulary, width of its vectors, and its type in the bundle."""
    planned = found.vocabularies["user"]
    return planned.mode, found.width_of("user"), found.tables[planned.table].serve_dtype


CHOICES = {
    "all rows": (VALUES * 20 + LISTED, ("full", 16, "int8")),
    "all rows in half a byte": (VALUES * 20 + LISTED - 1, ("full", 16, "int4")),
    "narrower rows": (VALUES * 12 + LISTED - 1, ("full", 8, "int4")),
    "a shared row per value": (VALUES * 12 + 24, ("unified", 8, "int8")),
    "fewer rows than values": (VALUES * 10, ("unified", 16, "int4")),
}


@pytest.mark.parametrize("case", CHOICES)
def test_the_dearest_plan_that_fits_is_chosen(case: str) -> None:
    budget, expected = CHOICES[case]
    narrow = {"embedding_dim": 8} if case == "a shared row per value" else {}
    found = made("best", budget, **narrow)
    assert chosen(found) == expected
    assert counted_bytes(found, "bundle") <= budget
    assert found.vocabularies["sex"].mode == "full"


def test_what_is_stated_stays() -> None:
    assert chosen(made("best", VALUES * 20 + LISTED - 1, serve_dtype="int8")) == ("full", 8, "int8")
    assert chosen(made("best", VALUES * 4, serve_dtype="float16")) == ("unified", 16, "float16")
    tables = {"film": {"mode": "hash"}}
    assert made("best", VALUES * 10, tables=tables).vocabularies["film"].mode == "hash"
    assert {table.dim for table in plan(
        manifest_only(SIZES), model_name="lr", settings=PlanSettings(mode="best", bytes="1MB")
    ).tables.values()} == {1}  # fmt: skip


@pytest.mark.parametrize("mode", ["best", "mixed"])
def test_a_choice_needs_a_budget_that_holds_something(mode: str) -> None:
    with pytest.raises(PlanError, match=rf"plan\.mode: {mode} needs a budget"):
        made(mode, None)
    with pytest.raises(PlanError, match="smallest possible here"):
        made(mode, 40)


def test_widths_fall_with_the_number_of_values() -> None:
    sizes = {"a": 10, "b": 1_000, "c": 100_000}
    full = 64 * sum(sizes.values())
    for share in (1.0, 0.6, 0.3, 0.15):
        found = plan(manifest_only(sizes), settings=PlanSettings(mode="mixed", bytes=int(full * share)))
        widths = [found.tables[name].dim for name in sizes]
        assert found.train_bytes <= full * share
        assert widths == sorted(widths, reverse=True)
        assert widths[0] == 16
        assert {planned.mode for planned in found.vocabularies.values()} == {"full"}
    assert widths[-1] == 2


def test_unseen_values_are_not_hashed_where_rare_ones_became_unseen(tmp_path: Path) -> None:
    dataset = made_dataset(tmp_path / "d", SIZES)
    settings = {"mode": "unified", "bytes": 30_000, "counted": "bundle"}
    assert _unseen(plan(dataset, settings=PlanSettings.parse(**settings))) == "hash"
    StageRecord(stage="prepare", version=1, inputs={}, settings={"min_count": 3}).save(dataset.folder)
    with pytest.raises(PlanError, match=r"plan\.unseen: hash .* prepared with min_count 3"):
        plan(dataset, settings=PlanSettings.parse(unseen="hash", **settings))
    settings["bytes"] = 200_000
    assert _unseen(plan(dataset, settings=PlanSettings.parse(**settings))) == "own"


def _unseen(found: Plan) -> str:
    return found.vocabularies["user"].unseen
