"""Rows are solved from bytes by one common cap; every id has the row that its key says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.config import PlanSettings, TableSettings
from recsys.embeddings.keys import hash_rows, keys_of
from recsys.embeddings.plan import Plan
from recsys.embeddings.planner import describe, plan, stage_settings
from recsys.embeddings.rows import row_maps, table_rows
from recsys.errors import DataError, PlanError
from recsys.stage import load_record
from tests.embeddings.datasets import made_dataset, manifest_only


def test_without_a_budget_every_value_has_a_row(tmp_path: Path) -> None:
    dataset = made_dataset(tmp_path / "d", {"user": 1000, "item/x": 50}, numerics=("price",))
    made = plan(dataset, settings=PlanSettings(dense_below=64 * 100), output=tmp_path / "plan")
    assert {name: (t.rows, t.dim, t.path) for name, t in made.tables.items()} == {
        "user": (1000, 16, "fused"),
        "item/x": (50, 16, "dense"),
    }
    assert {v.mode for v in made.vocabularies.values()} == {"full"}
    assert made.features == {"user": "user", "item/x": "item/x"}
    assert table_rows(made, dataset, "user") is None
    assert made.train_bytes == 4 * 16 * 1050
    assert Plan.load(tmp_path / "plan" / "plan.json") == made
    record = load_record(tmp_path / "plan")
    assert record is not None
    assert record.stage == "plan"
    assert record.settings == stage_settings(PlanSettings(dense_below=64 * 100))
    assert list(record.inputs) == [str(tmp_path / "d" / "dataset.json")]
    with pytest.raises(DataError, match=r"holds files but no plan\.json"):
        plan(dataset, output=tmp_path / "d")


def test_a_budget_cuts_the_largest_tables_at_one_cap(tmp_path: Path) -> None:
    dataset = made_dataset(tmp_path / "d", {"user": 1000, "item": 700, "day": 10})
    made = plan(tmp_path / "d", settings=PlanSettings(bytes=64 * 511))
    assert {name: t.rows for name, t in made.tables.items()} == {"user": 250, "item": 250, "day": 10}
    assert {n: v.mode for n, v in made.vocabularies.items()} == {
        "user": "hash",
        "item": "hash",
        "day": "full",
    }
    rows = table_rows(made, dataset, "user")
    assert rows is not None
    assert rows.dtype == np.int64
    assert rows[:2].tolist() == [0, 1]
    assert rows[2:].min() >= 2
    assert rows.max() < 250
    keys = keys_of(pl.Series(range(1000, 1998)), "int64")
    np.testing.assert_array_equal(rows[2:], 2 + hash_rows(keys, 248, "user"))
    item_rows = table_rows(made, dataset, "item")
    assert item_rows is not None
    assert (item_rows[2:] != rows[2:700]).mean() > 0.9, "each vocabulary has a salt of its own"
    assert table_rows(made, dataset, "day") is None
    assert set(row_maps(made, dataset)) == {"user", "item"}


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(2, 400), st.integers(1, 9)), min_size=1, max_size=6),
    st.integers(1, 20_000),
)
def test_the_cap_is_the_largest_that_fits(tables: list[tuple[int, int]], budget: int) -> None:
    sizes = {f"t{i}": size for i, (size, _) in enumerate(tables)}
    overrides = {f"t{i}": TableSettings(dim=dim) for i, (_, dim) in enumerate(tables)}

    def total(cap: int) -> int:
        return sum(4 * min(size, cap) * dim for size, dim in tables)

    fitting = [cap for cap in range(3, 401) if total(cap) <= budget]
    run = PlanSettings(bytes=budget, tables=overrides)
    if not fitting:
        with pytest.raises(PlanError, match=f"smallest possible here is {total(3)} bytes"):
            plan(manifest_only(sizes), settings=run)
        return
    made = plan(manifest_only(sizes), settings=run)
    assert made.train_bytes == total(max(fitting)) <= budget
    for name, size in sizes.items():
        hashed = made.tables[name].rows < size
        assert made.vocabularies[name].mode == ("hash" if hashed else "full")


def test_overrides_are_obeyed() -> None:
    dataset = manifest_only({"user": 1000, "item": 700, "tag": 600, "day": 10})
    overrides = {
        "user": TableSettings(mode="full", path="fused", serve_dtype="float16"),
        "item": TableSettings(rows=100, dim=8),
        "day": TableSettings(rows=10_000),
    }
    budget = 64 * 1000 + 32 * 100 + 64 * 10 + 64 * 300
    made = plan(dataset, settings=PlanSettings(bytes=budget, tables=overrides))
    assert made.train_bytes == budget
    assert {n: (t.rows, t.dim, t.path, t.serve_dtype) for n, t in made.tables.items()} == {
        "user": (1000, 16, "fused", "float16"),
        "item": (100, 8, "dense", "int8"),
        "tag": (300, 16, "dense", "int8"),
        "day": (10, 16, "dense", "int8"),
    }
    assert [v.mode for v in made.vocabularies.values()] == ["full", "hash", "hash", "full"]
    hashed = PlanSettings(bytes="1MB", tables={"day": TableSettings(mode="hash")})
    made = plan(dataset, settings=hashed)
    assert (made.tables["day"].rows, made.vocabularies["day"].mode) == (10, "hash")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"itme": TableSettings(dim=4)}, "plan.tables.itme.*did you mean 'item'"),
        ({"item": TableSettings(mode="full", rows=5)}, "item.rows: mode full has a row per value, 700"),
        ({"item": TableSettings(rows=2)}, "at least 3 rows, found 2"),
        ({"item": TableSettings(mode="hash")}, "needs plan.tables.item.rows or a budget"),
    ],
)
def test_overrides_that_cannot_be_obeyed(overrides: dict[str, TableSettings], message: str) -> None:
    dataset = manifest_only({"user": 1000, "item": 700})
    with pytest.raises(PlanError, match=message):
        plan(dataset, settings=PlanSettings(tables=overrides))


def test_a_model_may_fix_the_width() -> None:
    dataset = manifest_only({"user": 1000, "item": 700})
    for made in (plan(dataset, model_name="lr"), plan(dataset, embedding_dim=1)):
        assert [table.dim for table in made.tables.values()] == [1, 1]
    assert stage_settings(PlanSettings(), "lr") != stage_settings(PlanSettings(), "dnn")
    assert stage_settings(PlanSettings(), "din") == stage_settings(PlanSettings(), "dnn")
    with pytest.raises(PlanError, match=r"user\.dim: this model's tables have width 1, found 4"):
        plan(dataset, model_name="lr", settings=PlanSettings(tables={"user": TableSettings(dim=4)}))


def test_a_plan_for_other_values_is_refused(tmp_path: Path) -> None:
    dataset = made_dataset(tmp_path / "d", {"user": 20})
    made = plan(manifest_only({"user": 21}), settings=PlanSettings(bytes=64 * 10))
    with pytest.raises(PlanError, match=r"planned for 21 ids, .* has 20"):
        table_rows(made, dataset, "user")
    with pytest.raises(PlanError, match="did you mean 'user'"):
        table_rows(made, dataset, "usr")


def test_a_budget_too_small_names_the_smallest() -> None:
    dataset = manifest_only({"user": 1000, "day": 2})
    with pytest.raises(PlanError, match=r"plan.bytes: '0.3KB' \(300 bytes\).* 2 tables.* is 320 bytes"):
        plan(dataset, settings=PlanSettings(bytes="0.3KB"))
    made = plan(dataset, settings=PlanSettings(bytes=320))
    assert [table.rows for table in made.tables.values()] == [3, 2]


def test_describe_lists_the_largest_first() -> None:
    made = plan(manifest_only({"day": 10, "user": 1000}), settings=PlanSettings(bytes=64 * 110))
    assert describe(made).rows() == [
        ("user", 100, 16, 6400, "dense", "hash"),
        ("day", 10, 16, 640, "dense", "full"),
    ]
    empty = plan(manifest_only({}), settings=PlanSettings(bytes=1))
    assert empty.tables == {}
    assert describe(empty).is_empty()
