"""Codes: one dense number per value, whatever the kind; days; a sample spread evenly."""

from __future__ import annotations

from datetime import datetime
from itertools import pairwise

import numpy as np
import polars as pl
import pytest

from recsys.data.source import open_source
from recsys.ranking.binning import Bins
from recsys.ranking.codes import Codes, coded, days_of
from recsys.ranking.counting import count
from recsys.ranking.label import open_label
from recsys.ranking.spread import Spread
from recsys.schema import Column, Schema

LOG = pl.DataFrame(
    {
        "big": [2**62, -(2**62), None, 2**62, 5, 5],
        "small": [3, 9, 3, 3, 9, 7],
        "text": ["b", None, "a", "", "a", "b"],
        "number": [0.5, float("nan"), 2.0, -1.0, 0.1, 3.0],
        "tags": [["x", "y"], ["y", "x", "x"], [], None, ["x,y"], ["x\\", "y"]],
        "ids": [[1, 11], [11, 1], [111], [None], [1], [1, 11, 1]],
        "day": [0, 0, 1, 1, 2, 2],
        "label": [0, 1, 0, 1, 1, 1],
    }
)
SCHEMA = Schema(
    columns={
        "big": Column(kind="categorical", type="int64"),
        "small": Column(kind="categorical", type="int64"),
        "text": Column(kind="categorical", type="string"),
        "number": Column(kind="numeric", type="float64"),
        "tags": Column(kind="multi", type="string"),
        "ids": Column(kind="multi", type="int64"),
        "day": Column(kind="numeric", type="int64", roles=("timestamp",)),
        "label": Column(kind="numeric", type="int64", roles=("label",)),
    }
)


@pytest.fixture
def codes() -> Codes:
    source = open_source(LOG)
    spread = Spread(len(LOG), 1_000)
    label = open_label(source, "label", spread)
    counted = count(source, SCHEMA, label, spread, extra=("day",))
    return coded(counted.sample, SCHEMA, {"number": Bins(np.array([0.2]))}, 2, len(LOG))


def test_equal_values_have_equal_codes_and_others_do_not(codes: Codes) -> None:
    expected = {
        "big": "abcadd",
        "small": "abaabc",
        "text": "abcdca",
        "number": "abacca",
        "tags": "aabbcd",
        "ids": "aabcda",
    }
    assert codes.names == tuple(expected)
    for row, (name, pattern) in enumerate(expected.items()):
        same = np.equal.outer(list(pattern), list(pattern))
        assert np.array_equal(np.equal.outer(codes.codes[row], codes.codes[row]), same), name
        assert sorted(set(codes.codes[row].tolist())) == list(range(int(codes.sizes[row])))
    assert codes.codes.flags.c_contiguous
    assert codes.codes.dtype == np.int32


def test_where_values_are_missing_they_are_code_0(codes: Codes) -> None:
    missing = {"big": [2], "text": [1], "number": [1], "tags": [2, 3], "ids": [3]}
    for name, rows in missing.items():
        assert np.flatnonzero(codes.codes[codes.names.index(name)] == 0).tolist() == rows, name


def test_label_and_days(codes: Codes) -> None:
    assert codes.label.tolist() == LOG["label"].to_list()
    assert codes.classes == 2
    assert codes.day is not None
    assert codes.day.tolist() == LOG["day"].to_list()
    assert codes.days == ("0", "1", "2")


@pytest.mark.parametrize(
    "times",
    [
        pl.Series([datetime(2026, 1, 1, 23), datetime(2026, 1, 2, 1)]),
        pl.Series([1_767_308_400, 1_767_315_600]),
        pl.Series([1_767_308_400_000, 1_767_315_600_000]),
        pl.Series(["2026-01-01", "2026-01-02"]),
        pl.Series(["2026-01-01 23:00:00", "2026-01-02 01:00:00"]),
    ],
)
def test_times_become_dates(times: pl.Series) -> None:
    numbers, names = days_of(
        times.alias("time").cast(pl.Datetime("us")) if times.dtype == pl.Datetime else times
    )
    assert names == ("2026-01-01", "2026-01-02")
    assert numbers is not None
    assert numbers.tolist() == [0, 1]


def test_other_days_stay_as_they_are_in_their_order() -> None:
    assert days_of(pl.Series([10, 9, 10, 2]))[1] == ("2", "9", "10")
    assert days_of(pl.Series(["mon", "tue", None]))[1] == ("missing", "mon", "tue")
    assert days_of(pl.Series([1, 1]))[0] is None
    assert days_of(pl.Series(range(5_000)))[0] is None


@pytest.mark.parametrize("rows", [999, 1_000, 1_001, 12_345])
def test_a_sample_is_spread_over_all_rows_and_the_same_for_any_batches(rows: int) -> None:
    spread = Spread(rows, 1_000)
    assert len(spread.places) <= 1_000
    assert len(spread.places) > 450
    assert (np.diff(spread.places) > 0).all()
    assert (np.diff(spread.places) < 2 * spread.step).all()
    frame = pl.DataFrame({"row": range(rows)})
    cuts = [0, 1, 500, 777, rows]
    parts = [spread.of(frame[a:b], a) for a, b in pairwise(cuts)]
    assert pl.concat(parts)["row"].to_list() == spread.places.tolist()


def test_occurrences_of_a_candidate_in_its_history() -> None:
    history = [[1, 2, 1], [], None, [3], [1] * 20, [None, 2]]
    sample = pl.DataFrame(
        {"item": [1, 1, 1, None, 1, 2], "other": [1] * 6, "history": history, "__label__": [0, 1] * 3}
    )
    columns = {
        "item": Column(kind="categorical", type="int64"),
        "other": Column(kind="categorical", type="int64"),
        "history": Column(kind="sequence", type="int64", vocabulary="item"),
    }
    codes = coded(sample, Schema(columns=columns), {}, 2, 6)
    (pair,) = codes.occurrences
    assert pair == ("item", "history")
    assert codes.occurrences[pair].tolist() == [2, 0, 0, 0, 7, 1]
    assert codes.at(np.array([4, 0])).occurrences[pair].tolist() == [7, 2]
    assert codes.only(["history", "item"]).occurrences.keys() == {pair}
    assert not codes.only(["history", "other"]).occurrences
