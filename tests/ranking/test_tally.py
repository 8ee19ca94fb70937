"""Counts: right by brute force, and those of two sets of rows merge to those of both."""

from __future__ import annotations

from collections import Counter as Multiset
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.ranking import counting
from recsys.ranking.binning import Bins
from recsys.ranking.counting import Counter
from recsys.ranking.dense_counts import add_counts
from recsys.ranking.tally import Tally

CLASSES = 3
INTS = st.one_of(st.none(), st.integers(-5, 5), st.integers(-(2**63), 2**63 - 1))
STRINGS = st.one_of(st.none(), st.sampled_from(["", "1", "11", "a", "é", "a,b"]))
KINDS: dict[str, tuple[st.SearchStrategy[Any], pl.DataType]] = {
    "ints": (INTS, pl.Int64()),
    "strings": (STRINGS, pl.String()),
    "floats": (st.one_of(st.none(), st.floats(-2, 2, width=16)), pl.Float64()),
    "lists of ints": (st.one_of(st.none(), st.lists(INTS, max_size=4)), pl.List(pl.Int64)),
    "lists of text": (st.one_of(st.none(), st.lists(STRINGS, max_size=4)), pl.List(pl.String)),
}


def tally_of(
    values: Sequence[Any],
    label: Sequence[int],
    dtype: pl.DataType,
    batch: int = 7,
    bins: Bins | None = None,
) -> Tally:
    """Counts in batches of a few rows."""
    counter = Counter(CLASSES, bins)
    series, classes = pl.Series(values, dtype=dtype), np.array(label, np.int64)
    for start in range(0, len(classes), batch):
        counter.add(series[start : start + batch], classes[start : start + batch])
    return counter.tally(np.bincount(classes, minlength=CLASSES))


def brute_force(values: Sequence[Any], label: Sequence[int]) -> dict[Any, list[int]]:
    counts: Multiset[tuple[Any, int]] = Multiset()
    for value, number in zip(values, label, strict=True):
        elements = {x for x in value or () if x is not None} or {None} if _is_list(value) else {value}
        counts.update((element, number) for element in elements)
    return {
        value: [counts[value, number] for number in range(CLASSES)]
        for value in {value for value, _ in counts}
    }


def _is_list(value: object) -> bool:
    return isinstance(value, list)


def as_dict(tally: Tally) -> dict[Any, list[int]]:
    return dict(zip(tally.values.to_list(), tally.counts.tolist(), strict=True))


def same(left: Tally, right: Tally) -> bool:
    return (
        left.values.equals(right.values)
        and np.array_equal(left.counts, right.counts)
        and np.array_equal(left.classes, right.classes)
        and left.share == right.share
    )


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_counts_are_right_and_merge_to_those_of_both(kind: str, data: st.DataObject) -> None:
    strategy, dtype = KINDS[kind]
    rows = data.draw(st.lists(st.tuples(strategy, st.integers(0, CLASSES - 1)), max_size=40))
    cut = data.draw(st.integers(0, len(rows)))
    values, label = [value for value, _ in rows], [number for _, number in rows]
    whole = tally_of(values, label, dtype)
    assert as_dict(whole) == brute_force([_plain(value, kind) for value in values], label)
    parts = [tally_of(values[part], label[part], dtype) for part in (slice(cut), slice(cut, None))]
    assert same(parts[0].merge(parts[1]), whole)
    assert same(parts[1].merge(parts[0]), whole)
    there = whole.values.drop_nulls()
    assert there.equals(there.sort())
    assert whole.distinct == len(there)
    assert whole.missing == sum(brute_force([_plain(v, kind) for v in values], label).get(None, [0]))


def _plain(value: Any, kind: str) -> Any:
    """A list column's null is a list without elements."""
    return [] if value is None and kind.startswith("lists") else value


def test_numbers_are_counted_by_bin() -> None:
    bins = Bins(np.array([0.0, 1.0]))
    tally = tally_of([-3.0, 0.0, 0.5, 1.0, 7.0, None], [0, 0, 1, 1, 2, 2], pl.Float64(), bins=bins)
    assert as_dict(tally) == {None: [0, 0, 1], 0: [2, 0, 0], 1: [0, 2, 0], 2: [0, 0, 1]}


def test_a_range_that_outgrows_its_array_is_counted_all_the_same() -> None:
    values = [*range(50), *range(0, -50, -1), 10**12, -(10**12), 3, None]
    label = [number % CLASSES for number in range(len(values))]
    assert as_dict(tally_of(values, label, pl.Int64(), batch=10)) == brute_force(values, label)


def test_millions_of_values_are_counted_by_a_share(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    values = [f"v{number}" for number in generator.integers(0, 4_000, 20_000).tolist()]
    values[::4] = [None] * 5_000  # type: ignore[list-item]
    label = generator.integers(0, CLASSES, 20_000).tolist()
    exact = tally_of(values, label, pl.String(), batch=1_000)
    monkeypatch.setattr(counting, "MOST_VALUES", 1_000)
    monkeypatch.setattr(counting, "CHUNK_ROWS", 1_000)
    monkeypatch.setattr(counting, "_MERGED_AT", 500)
    shared = tally_of(values, label, pl.String(), batch=1_000)
    order = generator.permutation(20_000)
    shuffled = tally_of([values[i] for i in order], [label[i] for i in order], pl.String(), batch=1_000)
    assert same(shared, shuffled)
    assert shared.share <= 0.25
    assert shared.missing == pytest.approx(5_000, abs=8)
    assert shared.distinct == pytest.approx(exact.distinct, rel=0.15)
    known = as_dict(exact)
    assert all(known[value] == counts for value, counts in as_dict(shared).items() if value is not None)
    halves = [
        tally_of(values[part], label[part], pl.String()) for part in (slice(9_000), slice(9_000, None))
    ]
    merged = as_dict(halves[0].merge(halves[1]))
    np.testing.assert_allclose(merged.pop(None), as_dict(shared)[None], atol=1)  # scaled, so rounded
    assert merged == {value: counts for value, counts in as_dict(shared).items() if value is not None}


def test_a_part_without_rows_changes_nothing() -> None:
    for values in (["a", "b", None], [[1], [1, 2], None], [0.5, None, 1.5]):
        dtype = pl.Series(values).dtype
        whole = tally_of(values, [0, 1, 2], dtype)
        nothing = Counter(CLASSES).tally(np.zeros(CLASSES, np.int64))
        assert same(whole.merge(nothing), whole)
        assert same(nothing.merge(whole), whole)


@pytest.mark.parametrize("place", ["first", "middle", "last"])
def test_where_an_outlier_stands_does_not_change_the_share(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = np.random.default_rng(1)
    values: list[int | None] = [*generator.permutation(np.arange(9_000) % 6_000).tolist(), None, None]
    label = generator.integers(0, CLASSES, len(values) + 1).tolist()
    monkeypatch.setattr(counting, "DENSE_CELLS", 8_000 * CLASSES)
    monkeypatch.setattr(counting, "MOST_VALUES", 1_000)
    monkeypatch.setattr(counting, "CHUNK_ROWS", 500)
    monkeypatch.setattr(counting, "_MERGED_AT", 250)
    expected = tally_of([*values, 10**13], label, pl.Int64(), batch=10**5)
    at = {"first": 0, "middle": 5_000, "last": len(values)}[place]
    moved = tally_of(
        [*values[:at], 10**13, *values[at:]], [*label[:at], label[-1], *label[at:-1]], pl.Int64(), batch=400
    )
    assert expected.share == 0.125
    assert same(moved, expected)


def test_coverage_and_rows() -> None:
    tally = tally_of(["a", None, None, "b"], [0, 1, 2, 2], pl.String())
    assert (tally.rows, tally.missing, tally.distinct, tally.coverage) == (4, 2, 2, 0.5)


@pytest.mark.parametrize("dtype", [pl.Int8, pl.UInt16, pl.Int32, pl.Int64])
def test_the_compiled_loop_counts_as_numpy_does(dtype: pl.DataType) -> None:
    generator = np.random.default_rng(5)
    plain, compiled = Counter(3), Counter(3, add_counts=add_counts)
    for low, high in ((40, 60), (0, 100), (3, 90)):  # the range grows on both sides
        values = pl.Series(generator.integers(low, high, 1_000)).cast(dtype)
        label = generator.integers(0, 3, 1_000)
        plain.add(values, label)
        compiled.add(values, label.astype(np.int16))
    classes = np.array([1, 1, 1])
    assert compiled.tally(classes).values.equals(plain.tally(classes).values)
    np.testing.assert_array_equal(compiled.tally(classes).counts, plain.tally(classes).counts)


def test_the_compiled_loop_leaves_values_out_of_reach_to_hashing() -> None:
    values = pl.Series([1, 2, 2, 1 << 40, 2, 1 << 40, 1])
    label = np.array([0, 1, 1, 0, 1, 1, 0])
    plain, compiled = Counter(2), Counter(2, add_counts=add_counts)
    for counter in (plain, compiled):
        for part in (slice(0, 3), slice(3, 7)):
            counter.add(values[part], label[part])
    found, expected = (counter.tally(np.array([3, 4])) for counter in (compiled, plain))
    assert found.values.to_list() == expected.values.to_list() == [1, 2, 1 << 40]
    np.testing.assert_array_equal(found.counts, expected.counts)
    np.testing.assert_array_equal(found.counts, [[2, 0], [0, 3], [1, 1]])
