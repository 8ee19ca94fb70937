"""Rows of ids: pinned by golden rows, and a function of name, lookup and key alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import xxhash

from recsys.config import PlanSettings, TableSettings
from recsys.data.dataset import Dataset
from recsys.embeddings.keys import MISSING_KEY, UNSEEN_KEY, keys_of
from recsys.embeddings.methods import METHODS
from recsys.embeddings.plan import Plan, VocabularyMode, VocabularyPlan
from recsys.embeddings.planner import plan
from recsys.embeddings.rows import row_maps
from tests.embeddings.datasets import made_dataset

SIZES = {"user": 400, "item": 300, "day": 9}
MASK = 2**64 - 1


def row_of(key: int, vocabulary: str, lookup: int, rows: int) -> int:
    """The hash law in Python's own integers: SplitMix64 of key and salt, scaled to the rows."""
    word = (key ^ xxhash.xxh3_64_intdigest(vocabulary.encode(), seed=lookup)) + 0x9E3779B97F4A7C15 & MASK
    word = (word ^ (word >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    word = (word ^ (word >> 27)) * 0x94D049BB133111EB & MASK
    return (word ^ (word >> 31)) * rows >> 64


GOLDEN = {
    ("user", 0): [912768, 199670, 53139, 797620, 744949],
    ("user", 1): [84689, 196029, 652244, 488435, 512457],
    ("item", 0): [873264, 168902, 180523, 162007, 364047],
    ("größe", 3): [540400, 290797, 151535, 637648, 592600],
}
"""Rows among 1,000,000 of the missing value, the unseen one, 7, -3 and 2**40, by vocabulary and lookup."""


@pytest.mark.parametrize(("vocabulary", "lookup"), GOLDEN)
def test_golden_rows_pin_the_salts(vocabulary: str, lookup: int) -> None:
    keys = keys_of(pl.Series([7, -3, 2**40]), "int64")

    def rows(mode: VocabularyMode) -> list[int]:
        planned = VocabularyPlan(mode=mode, table="t", lookups=4, size=5)
        found: list[int] = METHODS[mode].rows(keys, planned, 1_000_000, vocabulary)[:, lookup].tolist()
        return found

    assert rows("unified") == GOLDEN[vocabulary, lookup]
    own = rows("hash")
    assert own[:2] == [0, 1]
    assert own[2:] == [2 + row_of(int(key), vocabulary, lookup, 999_998) for key in keys]


def shared(dataset: Dataset, lookups: int = 2, rows: int = 97) -> Plan:
    tables = {"unified": TableSettings(rows=rows)}
    return plan(dataset, settings=PlanSettings(mode="unified", lookups=lookups, tables=tables))


def test_rows_of_a_shared_table_follow_the_hash_law(tmp_path: Path) -> None:
    dataset = made_dataset(tmp_path / "d", SIZES)
    maps = row_maps(shared(dataset), dataset)
    assert set(maps) == set(SIZES)
    for name, size in SIZES.items():
        known = dataset.values(name)["key"].to_list()
        expected = [
            [row_of(key, name, lookup, 97) for lookup in (0, 1)]
            for key in (MISSING_KEY, UNSEEN_KEY, *known)
        ]
        assert maps[name].shape == (size, 2)
        assert maps[name].tolist() == expected
    single = row_maps(shared(dataset, lookups=1), dataset)
    for name in SIZES:
        np.testing.assert_array_equal(single[name], maps[name][:, 0])


def test_several_lookups_of_a_hashed_table_keep_the_first_rows_for_missing_and_unseen(
    tmp_path: Path,
) -> None:
    dataset = made_dataset(tmp_path / "d", SIZES)
    tables = {"user": TableSettings(mode="hash", rows=50, lookups=3, dim=12)}
    made = plan(dataset, settings=PlanSettings(tables=tables))
    assert (made.tables["user"].rows, made.tables["user"].dim) == (50, 4)
    assert (made.vocabularies["user"].mode, made.vocabularies["user"].lookups) == ("hash", 3)
    assert made.width_of("user") == 12
    rows = row_maps(made, dataset)["user"]
    assert rows.shape == (400, 3)
    assert rows[:2].tolist() == [[0, 0, 0], [1, 1, 1]]
    keys = dataset.values("user")["key"].to_list()
    expected = [[2 + row_of(key, "user", lookup, 48) for lookup in range(3)] for key in keys]
    assert rows[2:].tolist() == expected


def test_another_vocabulary_moves_no_rows(tmp_path: Path) -> None:
    fewer = made_dataset(tmp_path / "fewer", SIZES)
    more = made_dataset(tmp_path / "more", {"new": 50, **dict(reversed(SIZES.items()))})
    before, after = row_maps(shared(fewer), fewer), row_maps(shared(more), more)
    assert set(after) - set(before) == {"new"}
    for name in SIZES:
        np.testing.assert_array_equal(before[name], after[name])


def test_the_same_values_in_two_vocabularies_land_in_unrelated_rows(tmp_path: Path) -> None:
    dataset = made_dataset(tmp_path / "d", {"a": 5_000, "b": 5_000})
    rows = row_maps(shared(dataset, rows=1_000), dataset)
    met = (rows["a"][:, 0] == rows["b"][:, 0]).mean()
    assert met < 0.01, "one in a thousand expected"
    assert (rows["a"][:, 0] == rows["a"][:, 1]).mean() < 0.01
