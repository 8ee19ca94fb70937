"""Pools as bundles ship them: spare rows leave, pieces are put together where that is smaller."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from recsys.embeddings.plan import Plan, ServeDtype, TablePlan, VocabularyPlan
from recsys.training.packed_pools import packed


def _pool(pieces: dict[str, NDArray[np.int64]], rows: int, dim: int) -> tuple[Plan, NDArray[np.float32]]:
    """A pool of so many rows, whose numbers tell them apart."""
    vocabularies = {
        name: VocabularyPlan(mode="pool", table="pool", lookups=each.shape[1], size=len(each))
        for name, each in pieces.items()
    }
    tables = {"pool": TablePlan(rows=rows, dim=dim, path="dense", serve_dtype="int8")}
    weights = np.arange(rows, dtype=np.float32)[:, None] + np.linspace(0, 0.5, dim, dtype=np.float32)
    weights[0] = 0.0
    return Plan(tables=tables, vocabularies=vocabularies, features={name: name for name in pieces}), weights


def _dealt(size: int, pieces: int, held: int, first: int) -> NDArray[np.int64]:
    """Rows of values, ``[size, pieces]``: the first of them have all pieces, the others the first one;
    the missing and the unseen one have none."""
    rows = np.zeros((size, pieces), np.int64)
    rows[2 : 2 + held] = 1
    rows[2:, 0] = 1
    rows[rows != 0] = np.arange(first, first + np.count_nonzero(rows))
    return rows


def _vectors(weights: NDArray[np.float32], rows: NDArray[np.int64]) -> NDArray[np.float32]:
    return weights[rows].reshape(len(rows), -1)


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8", "int4"])
def test_vectors_stay_and_spare_rows_leave(dtype: ServeDtype) -> None:
    pieces = {"user": _dealt(60, 3, 4, first=5), "item": _dealt(40, 3, 36, first=100)}
    pieces["tag"] = np.zeros((9, 3), np.int64)
    plan, weights = _pool(pieces, rows=300, dim=16)
    found = packed(plan, {"pool": weights}, pieces, dtype)
    assert {name: found.plan.vocabularies[name].table for name in pieces} == {
        "user": "pool",
        "item": "pool_whole",
        "tag": "pool",
    }
    for name, rows in pieces.items():
        info = found.plan.vocabularies[name]
        assert np.array_equal(_vectors(found.tables[info.table], found.maps[name]), _vectors(weights, rows))
    used = np.concatenate([found.maps["item"].ravel(), found.maps["user"].ravel()])
    assert sorted(used[used != 0]) == sorted([*range(1, 67), *range(1, 39)]), "every row is one place's"
    assert found.tables["pool"].shape == (1 + 58 + 4 * 2, 16)
    assert found.tables["pool_whole"].shape == (1 + 38, 3 * 16)
    assert {name: (t.rows, t.dim) for name, t in found.plan.tables.items()} == {
        name: array.shape for name, array in found.tables.items()
    }


@pytest.mark.parametrize(("held", "lookups"), [(0, 2), (1, 1)])
def test_the_smaller_way_is_taken(held: int, lookups: int) -> None:
    """A piece of four takes 8 bytes of float16 and 4 of a pointer, both together 12 of int8 and 4, and a
    value's key 8 either way: whole is smaller as soon as one value of ten has both."""
    rows = _dealt(12, 2, held, first=1)
    plan, weights = _pool({"user": rows}, rows=30, dim=4)
    found = packed(plan, {"pool": weights}, {"user": rows})
    assert found.plan.vocabularies["user"].lookups == lookups


def test_each_pool_has_its_own_table_of_whole_vectors_and_types_decide() -> None:
    """Two pieces of eight with all of them: whole is smaller in int8, and in float32, too, by a pointer."""
    pieces = {"user": _dealt(20, 2, 18, first=1), "item": _dealt(20, 2, 18, first=1)}
    user, weights = _pool({"user": pieces["user"]}, rows=40, dim=8)
    tables = {
        "pool": user.tables["pool"],
        "pool1": TablePlan(rows=40, dim=4, path="dense", serve_dtype="float32"),
        "pool_whole": TablePlan(rows=5, dim=8, path="dense", serve_dtype="int8"),
    }
    vocabularies = {
        "user": user.vocabularies["user"],
        "item": VocabularyPlan(mode="pool", table="pool1", lookups=2, size=20),
        "tag": VocabularyPlan(mode="hash", table="pool_whole", size=30),
    }
    plan = Plan(tables=tables, vocabularies=vocabularies, features={name: name for name in vocabularies})
    hashed = np.ones((5, 8), np.float32)
    arrays = {"pool": weights, "pool1": weights[:, :4], "pool_whole": hashed}
    found = packed(plan, arrays, pieces)
    assert {name: info.table for name, info in found.plan.vocabularies.items()} == {
        "user": "pool_whole_",
        "item": "pool1_whole",
        "tag": "pool_whole",
    }
    assert {name: array.shape for name, array in found.tables.items()} == {
        "pool_whole_": (19, 16),
        "pool1_whole": (19, 8),
        "pool_whole": (5, 8),
    }
    assert found.tables["pool_whole"] is hashed
    for name in pieces:
        info, before = found.plan.vocabularies[name], arrays[vocabularies[name].table]
        assert np.array_equal(
            _vectors(found.tables[info.table], found.maps[name]), _vectors(before, pieces[name])
        )


@pytest.mark.parametrize(
    ("stated", "asked", "whole"),
    [("float32", None, False), ("int8", None, True), ("float32", "int8", True), ("int8", "float32", False)],
)
def test_the_type_that_is_served_decides(stated: ServeDtype, asked: ServeDtype | None, whole: bool) -> None:
    """Of 10 values 4 have both pieces of eight: 14 rows of 12 bytes and ten pointers of 4 more make 208,
    ten rows of 20 whole 200; in float32 488 and 640."""
    rows = _dealt(12, 2, 4, first=1)
    plan, weights = _pool({"user": rows}, rows=30, dim=8)
    tables = {"pool": plan.tables["pool"].model_copy(update={"serve_dtype": stated})}
    found = packed(plan.model_copy(update={"tables": tables}), {"pool": weights}, {"user": rows}, asked)
    assert (found.plan.vocabularies["user"].table == "pool_whole") == whole
