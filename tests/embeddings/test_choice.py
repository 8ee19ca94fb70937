"""Plans that choose: widths by the budget (mixed), and method, widths and precision (best)."""

from __future__ import annotations

from pathlib import Path

import pytest

from recsys.config import PlanSettings
from recsys.data.dataset import Dataset
from recsys.embeddings.accounting import counted_bytes
from recsys.embeddings.estimate import estimate, values_of
from recsys.embeddings.plan import Plan
from recsys.embeddings.planner import plan
from recsys.errors import PlanError
from recsys.progress import Silent, reporting
from recsys.stage import StageRecord
from tests.embeddings.datasets import made_dataset, manifest_only

SIZES = {"user": 6_042, "film": 3_647, "sex": 4}
VALUES = sum(SIZES.values())
LISTED = 12 * (VALUES - 2 * len(SIZES))
ROWS = 500_000


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return made_dataset(tmp_path_factory.mktemp("choice") / "d", SIZES, rows=ROWS)


def made(
    dataset: Dataset,
    mode: str,
    budget: int | None,
    told: dict[str, float] | None = None,
    **settings: object,
) -> Plan:
    return plan(dataset, settings=PlanSettings.parse(mode=mode, bytes=budget, **settings), told=told)


def chosen(found: Plan) -> tuple[str, int, str]:
    """Mode of the largest vocabulary, width of its vectors, and its type in the bundle."""
    planned = found.vocabularies["user"]
    return planned.mode, found.width_of("user"), found.tables[planned.table].serve_dtype


BY_HAND: tuple[dict[str, object], ...] = (
    {"mode": "full"},
    {"mode": "full", "serve_dtype": "int4"},
    {"mode": "mixed", "serve_dtype": "int4"},
    {"mode": "hash"},
    {"mode": "hash", "lookups": 2, "serve_dtype": "int4"},
    {"mode": "unified"},
    {"mode": "unified", "serve_dtype": "int4"},
    {"mode": "unified", "lookups": 2},
    {"mode": "adaptive"},
    {"mode": "unified", "lookups": 2, "tables": {"film": {"mode": "full"}}},
)


@pytest.mark.parametrize("budget", [30_000, 90_000, 320_000])
def test_nothing_made_by_hand_promises_more(dataset: Dataset, budget: int) -> None:
    found = made(dataset, "best", budget)
    assert counted_bytes(found, "bundle") <= budget
    assert found == made(dataset, "best", budget)
    values = values_of(dataset)
    loss = estimate(found, values).loss
    fitting = 0
    for settings in BY_HAND:
        run = PlanSettings.parse(bytes=budget, counted="bundle", **settings)
        try:
            other = plan(dataset, settings=run)
        except PlanError:
            continue
        fitting += 1
        narrow = any(2 * other.width_of(name) < 16 for name in SIZES)
        assert narrow or loss <= estimate(other, values).loss + 1e-5, settings
    assert fitting >= 5


def test_where_all_rows_fit_all_are_exact(dataset: Dataset) -> None:
    assert chosen(made(dataset, "best", VALUES * 20 + LISTED)) == ("full", 16, "int8")
    assert chosen(made(dataset, "best", VALUES * 12 + LISTED))[0] == "full"


def test_rows_go_where_the_label_is_told(dataset: Dataset) -> None:
    """Films exact take 88 kB of int4 rows and keys, users 145 kB; the others are left what there is."""
    found = made(dataset, "best", 110_000, {"user": 1e-4, "film": 0.1, "sex": 0.0})
    assert found.vocabularies["film"].mode == "full"
    assert found.vocabularies["user"].mode != "full"
    other = made(dataset, "best", 165_000, {"user": 0.1, "film": 1e-4, "sex": 0.0})
    assert other.vocabularies["user"].mode == "full"
    assert other.vocabularies["film"].mode != "full"


@pytest.mark.parametrize("budget", [30_000, 60_000, 90_000])
def test_what_tells_nothing_is_left_a_few_rows(dataset: Dataset, budget: int) -> None:
    found = made(dataset, "best", budget, {"user": 0.0, "film": 0.1, "sex": 0.01})
    assert found.vocabularies["user"].mode == "hash"
    assert found.tables["user"].rows <= 64
    shared = {info.table for name, info in found.vocabularies.items() if name != "film"}
    assert found.vocabularies["film"].table not in shared


def test_what_is_stated_stays(dataset: Dataset) -> None:
    eight = made(dataset, "best", VALUES * 20 + LISTED - 1, serve_dtype="int8")
    assert {table.serve_dtype for table in eight.tables.values()} == {"int8"}
    half = made(dataset, "best", VALUES * 4, serve_dtype="float16")
    assert {table.serve_dtype for table in half.tables.values()} == {"float16"}
    single = made(dataset, "best", 90_000, lookups=1)
    assert {info.lookups for info in single.vocabularies.values()} == {1}
    tables = {"film": {"mode": "hash"}}
    assert made(dataset, "best", VALUES * 10, tables=tables).vocabularies["film"].mode == "hash"
    told = {"user": 0.0, "film": 0.1, "sex": 0.01}
    rows = made(dataset, "best", 60_000, told, tables={"user": {"rows": 500}}).tables
    assert rows["user"].rows == 500
    lr = plan(dataset, model_name="lr", settings=PlanSettings(mode="best", bytes="1MB"))
    assert {table.dim for table in lr.tables.values()} == {1}


def test_the_next_best_are_told(dataset: Dataset) -> None:
    lines: list[str] = []

    class Listener(Silent):
        def say(self, text: str) -> None:
            lines.append(text)

    with reporting(Listener()):
        found = made(dataset, "best", 90_000)
    assert lines[0].startswith("plan: ")
    assert f"{counted_bytes(found, 'bundle'):,} bytes" in lines[0]
    assert [line.partition(":")[0] for line in lines[1:]] == ["next"] * 4
    losses = [float(line.split(" bytes, ")[1].split()[0]) for line in lines]
    assert losses == sorted(losses)


@pytest.mark.parametrize("mode", ["best", "mixed"])
def test_a_choice_needs_a_budget_that_holds_something(dataset: Dataset, mode: str) -> None:
    with pytest.raises(PlanError, match=rf"plan\.mode: {mode} needs a budget"):
        made(dataset, mode, None)
    with pytest.raises(PlanError, match="smallest possible here"):
        made(dataset, mode, 40)


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


@pytest.mark.parametrize("budget", ["40kB", None])
def test_a_model_whose_widths_are_fixed_has_none_to_mix(dataset: Dataset, budget: str | None) -> None:
    settings = PlanSettings(mode="mixed", bytes=budget)
    with pytest.raises(PlanError, match=r"^plan\.mode: mixed has no widths .* have width 1; take best"):
        plan(dataset, model_name="lr", settings=settings)
    instead = settings.model_copy(update={"mode": "best", "bytes": "40kB"})
    made = plan(dataset, model_name="lr", settings=instead)
    assert {table.dim for table in made.tables.values()} == {1}


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


def test_small_vocabularies_keep_a_row_per_value_where_that_fits(tmp_path: Path) -> None:
    dataset = made_dataset(tmp_path / "d", {"user": 6_042, "film": 3_647, "hour": 26, "job": 40})

    def exact(budget: int, **settings: object) -> set[str]:
        found = made(dataset, "best", budget, **settings)
        return {name for name, info in found.vocabularies.items() if info.mode == "full"}

    assert exact(20_000) == {"hour", "job"}
    assert "job" not in exact(1_000)
    assert "job" not in exact(20_000, exact=30, tables={"job": {"mode": "unified"}})
