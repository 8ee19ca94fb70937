"""Ids fall with the count, ties go by key; decoding gives back what was seen."""

from __future__ import annotations

from collections import Counter

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.embeddings.keys import CANONICAL, keys_of
from recsys.errors import DataError
from recsys.features import vocabulary as vocabulary_module
from recsys.features.vocabulary import ValueCounts, Vocabulary
from recsys.schema import ValueType

VALUES = {
    "int64": st.integers(-(2**63), 2**63 - 1) | st.integers(-5, 5),
    "datetime": st.integers(-(2**40), 2**40),
    "string": st.text(max_size=5),
    "float64": st.floats(allow_nan=False, allow_infinity=False),
}


def built(values: pl.Series, type: ValueType, min_count: int = 1) -> Vocabulary:
    counts = ValueCounts(type)
    counts.add(values)
    return Vocabulary.build("v", type, counts.frame(), min_count)


@given(st.data(), st.sampled_from(["int64", "datetime", "string", "float64"]))
def test_seen_values_survive_a_round_trip(data: st.DataObject, type: ValueType) -> None:
    raw = data.draw(st.lists(st.none() | VALUES[type], max_size=60))
    values = pl.Series("v", raw, dtype=CANONICAL[type])
    vocabulary = built(values, type)
    ids = vocabulary.ids(values)
    decoded = [None if i == 0 else vocabulary.values[int(i) - 2] for i in ids]
    assert decoded == raw
    assert all((i == 0) == (value is None) for i, value in zip(ids, raw, strict=True))
    assert vocabulary.size == len({value for value in raw if value is not None}) + 2


@given(st.lists(st.integers(0, 12), min_size=1, max_size=200), st.integers(1, 4))
def test_ids_fall_with_the_count_and_ties_go_by_key(raw: list[int], min_count: int) -> None:
    vocabulary = built(pl.Series(raw), "int64", min_count)
    counted = Counter(raw)
    kept = [value for value, count in counted.items() if count >= min_count]
    keys = dict(zip(kept, keys_of(pl.Series(kept, dtype=pl.Int64), "int64").tolist(), strict=True))
    expected = sorted(kept, key=lambda value: (-counted[value], keys[value]))
    assert vocabulary.values.to_list() == expected
    assert vocabulary.counts.tolist() == [counted[value] for value in expected]
    assert vocabulary.keys.tolist() == [keys[value] for value in expected]


@pytest.mark.parametrize("type", ["int64", "string"])
def test_neither_order_nor_pieces_change_the_ids(type: ValueType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vocabulary_module, "_MERGE_ROWS", 50)
    rng = np.random.default_rng(3)
    raw = pl.Series(rng.zipf(1.3, 5000) % 700 * 2**33).cast(CANONICAL[type])
    whole = built(raw, type)
    pieces = ValueCounts(type)
    shuffled = raw.shuffle(seed=1)
    for start in range(0, len(raw), 333):
        pieces.add(shuffled[start : start + 333])
    other = Vocabulary.build("v", type, pieces.frame())
    assert other.values.to_list() == whole.values.to_list()
    assert other.counts.tolist() == whole.counts.tolist()


@pytest.mark.parametrize("scale", [1, 2**40])
@pytest.mark.parametrize("type", ["int64", "string"])
def test_missing_and_unseen_values(type: ValueType, scale: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vocabulary_module, "_BLOCK", 3)
    seen = pl.Series([5, 5, 7, -3]) * scale
    asked = pl.Series([7 * scale, None, 6 * scale, 5 * scale, 2**63 - 1, -(2**63), -3 * scale, 0])
    vocabulary = built(seen.cast(CANONICAL[type]), type)
    ids = vocabulary.ids(asked.cast(CANONICAL[type]))
    assert ids[[1, 2, 3, 4, 5, 7]].tolist() == [0, 1, 2, 1, 1, 1]
    assert sorted(ids[[0, 6]].tolist()) == [3, 4]
    assert vocabulary.raw_values()[ids.tolist()].to_list() == [
        value if index in (0, 3, 6) else None for index, value in enumerate(asked.cast(CANONICAL[type]))
    ]


def test_an_empty_vocabulary_knows_nothing() -> None:
    for type in ("int64", "string"):
        vocabulary = built(pl.Series([None], dtype=CANONICAL[type]), type)
        assert vocabulary.size == 2
        values = pl.Series([1, None]).cast(CANONICAL[type])
        assert vocabulary.ids(values).tolist() == [1, 0]


def test_zero_has_one_sign() -> None:
    vocabulary = built(pl.Series([0.0, -0.0, 1.5]), "float64")
    assert vocabulary.counts.tolist() == [2, 1]
    assert vocabulary.ids(pl.Series([-0.0, 0.0])).tolist() == [2, 2]


def test_two_values_with_one_key_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        vocabulary_module, "keys_of", lambda values, type: keys_of(values.str.to_lowercase(), type)
    )
    with pytest.raises(DataError, match=r"'v': the values '(a|A)' and '(a|A)' have the same 64-bit key"):
        built(pl.Series(["b", "A", "a"]), "string")
