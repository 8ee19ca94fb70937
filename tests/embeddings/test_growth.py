"""Plans enlarged to later data: what is known stays, and the settings decide only what is new."""

from __future__ import annotations

from pathlib import Path

import pytest

from recsys.config import PlanSettings
from recsys.embeddings.plan import Plan
from recsys.embeddings.planner import plan
from recsys.errors import PlanError
from recsys.stage import StageRecord
from tests.embeddings.datasets import made_dataset, manifest_only

SIZES = {"user": 1_000, "item": 700, "sex": 4}
LATER = {name: 2 * size for name, size in SIZES.items()}
RUNS: dict[str, dict[str, object]] = {
    "hash": {"bytes": 64 * 400},
    "full": {"bytes": 64 * 1_704, "mode": "full"},
    "mixed": {"bytes": 50_000, "mode": "mixed"},
    "best": {"bytes": 30_000, "mode": "best"},
    "unified": {
        "bytes": 20_000,
        "mode": "unified",
        "lookups": 2,
        "tables": {"unified": {"sub_tables": 3, "rows": 600}, "item": {"lookups": 2}},
    },
}


def before(folder: Path, **run: object) -> tuple[Plan, PlanSettings]:
    """The plan of the earlier data, and the settings that grow it."""
    made = plan(
        made_dataset(folder / "first", SIZES), settings=PlanSettings.parse(**run), output=folder / "p"
    )
    return made, PlanSettings.parse(**run, grow=folder / "p")


@pytest.mark.parametrize("mode", RUNS)
def test_a_run_file_grows_with_its_log_whatever_its_budget(tmp_path: Path, mode: str) -> None:
    earlier, settings = before(tmp_path, **RUNS[mode])
    same = settings.model_copy(update={"bytes": 1})
    for tried in (settings, same):
        made = plan(made_dataset(tmp_path / str(tried.bytes), LATER), settings=tried)
        assert made.features == earlier.features
        for name, info in earlier.vocabularies.items():
            assert made.vocabularies[name] == info.model_copy(update={"size": LATER[name]})
            table = earlier.tables[info.table]
            rows = LATER[name] if info.mode == "full" else table.rows
            assert made.tables[info.table] == table.model_copy(update={"rows": rows})


def test_a_budget_bounds_the_tables_of_new_vocabularies(tmp_path: Path) -> None:
    earlier, settings = before(tmp_path, **RUNS["hash"])
    dataset = manifest_only(LATER | {"shop": 900, "page": 500})
    made = plan(dataset, settings=settings)
    assert [made.tables[name].rows for name in ("shop", "page")] == [200, 200]
    assert made.tables["user"] == earlier.tables["user"]
    assert [made.vocabularies[name].mode for name in ("user", "shop")] == ["hash", "hash"]
    with pytest.raises(PlanError, match="too small for 2 tables; the smallest possible here is 384 bytes"):
        plan(dataset, settings=settings.model_copy(update={"bytes": 383}))
    wider = settings.model_copy(update={"bytes": None, "embedding_dim": 8})
    made = plan(dataset, settings=wider)
    assert {name: made.tables[name].dim for name in ("user", "shop")} == {"user": 16, "shop": 8}


def test_mixed_widths_are_those_of_new_vocabularies(tmp_path: Path) -> None:
    earlier, settings = before(tmp_path, **RUNS["mixed"])
    made = plan(manifest_only(LATER | {"shop": 900, "page": 10}), settings=settings)
    assert {name: made.tables[name].dim for name in SIZES} == {n: earlier.tables[n].dim for n in SIZES}
    assert made.tables["page"].dim == 16
    new = sum(4 * made.tables[name].rows * made.tables[name].dim for name in ("shop", "page"))
    assert 25_000 < new <= 50_000


def test_the_shared_table_that_is_there_costs_nothing(tmp_path: Path) -> None:
    earlier, settings = before(tmp_path, **RUNS["unified"])
    dataset = manifest_only(LATER | {"shop": 900, "mark": 3})
    for tried in (settings, settings.model_copy(update={"bytes": 192}), PlanSettings(grow=settings.grow)):
        made = plan(dataset, settings=tried)
        assert made.tables["unified"] == earlier.tables["unified"]
        assert made.vocabularies["mark"].mode == "full"
        assert made.vocabularies["shop"].mode == tried.mode.replace("auto", "full")
    alone = settings.model_copy(update={"lookups": 1, "embedding_dim": 8})
    assert plan(dataset, settings=alone).vocabularies["shop"].parts == 3
    with pytest.raises(PlanError, match="the smallest possible here is 192 bytes"):
        plan(dataset, settings=settings.model_copy(update={"bytes": 191}))
    with pytest.raises(PlanError, match=r"plan\.tables\.itme: no such table; did you mean 'item'"):
        plan(dataset, settings=PlanSettings.parse(grow=settings.grow, tables={"itme": {"dim": 4}}))


@pytest.mark.parametrize("key", ["min_count", "prepare.min_count"])  # prepared alone, or in a chain
def test_unseen_values_are_not_hashed_where_later_data_made_rare_ones_unseen(
    tmp_path: Path, key: str
) -> None:
    dataset = made_dataset(tmp_path / "later", LATER)
    StageRecord(stage="prepare", version=1, inputs={}, settings={key: 3}).save(dataset.folder)
    _, own = before(tmp_path / "own", **RUNS["hash"])
    assert {info.unseen for info in plan(dataset, settings=own).vocabularies.values()} == {"own"}
    _, hashing = before(tmp_path / "hashing", **RUNS["hash"], unseen="hash")
    grow = PlanSettings(grow=hashing.grow)
    with pytest.raises(
        PlanError, match=r"plan\.grow: vocabulary 'user': unseen: hash .* min_count 3; plan af"
    ):
        plan(dataset, settings=grow)
    assert plan(manifest_only(LATER), settings=grow).vocabularies["user"].unseen == "hash"
    alone = made_dataset(tmp_path / "alone", {"sex": 5})
    StageRecord(stage="prepare", version=1, inputs={}, settings={"min_count": 3}).save(alone.folder)
    assert plan(alone, settings=grow).vocabularies["sex"].mode == "full", "nothing is hashed here"
