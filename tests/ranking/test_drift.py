"""Drift on logs that change from day to day in known ways, and on logs that do not."""

from __future__ import annotations

import numpy as np
import pytest

from recsys.ranking import drift
from tests.ranking import made_up

DAYS = tuple(f"2026-10-{day:02d}" for day in range(1, 11))
ROWS = 40_000


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(11)


@pytest.fixture
def day(random: np.random.Generator) -> np.ndarray:
    return random.integers(0, 10, ROWS).astype(np.int32)


def codes_of(columns: dict[str, np.ndarray], day: np.ndarray, label: np.ndarray | None = None, **others):
    label = np.arange(len(day), dtype=np.int32) % 2 if label is None else label
    return made_up.codes_of(columns, label, day=day, days=DAYS, **others)


def rows_of(columns, day, **others):
    table = drift.drift(codes_of(columns, day, **others))
    return {row["column"]: row for row in table.iter_rows(named=True)}


@pytest.mark.parametrize("size", [2, 12, 45, 3000])
def test_psi_is_zero_on_average_where_nothing_drifts(random, day, size):
    made = {f"c{at}": random.integers(0, size, ROWS) for at in range(20)}
    psi = np.array([row["psi_by_day"] for row in rows_of(made, day).values()], float)
    cells = min(size, drift.MOST_VALUES + 1)
    spread = 1 / 4000 + 1 / 36_000
    deviation = np.sqrt(2 * (cells - 1)) * spread
    # 200 values, so their mean is known to deviation / 14; uncorrected it would be (cells - 1) * spread
    assert abs(psi.mean()) < 5 * deviation / np.sqrt(psi.size)
    assert psi.std() == pytest.approx(deviation, rel=0.35)


def test_psi_of_a_known_change(random):
    # one day 30/70, the others 50/50: (0.3 - 0.5) ln(0.3 / 0.5) + (0.7 - 0.5) ln(0.7 / 0.5) = 0.1695
    day = np.repeat(np.arange(10, dtype=np.int32), 4000)
    inside = np.arange(4000) % 10
    value = np.where(day == 6, inside[np.arange(ROWS) % 4000] >= 3, np.arange(ROWS) % 2)
    row = rows_of({"x": value}, day)["x"]
    assert row["psi"] == pytest.approx(0.1695, abs=0.002)
    assert row["psi_day"] == "2026-10-07"
    assert row["day_score"] > 0
    assert row["day_z"] > 20
    (finding,) = drift.findings(drift.drift(codes_of({"x": value}, day)))
    assert (finding.kind, finding.severity, finding.column) == ("drift", "note", "x")
    assert "2026-10-07" in finding.sentence


def test_a_great_change_is_a_warning_and_values_that_appear_are_counted(random, day):
    value = np.where(day >= 5, random.integers(20, 40, ROWS), random.integers(0, 20, ROWS))
    row = rows_of({"x": value}, day)["x"]
    assert row["new_values"] == 20
    assert row["new_share"] == 1.0
    assert row["new_by_chance"] == pytest.approx(0, abs=1e-9)
    kinds = {f.kind: f for f in drift.findings(drift.drift(codes_of({"x": value}, day)))}
    assert kinds["drift"].severity == "warning"
    assert kinds["new_values"].number == 1.0


def test_rare_values_alone_are_not_new_ones(random, day):
    value = random.integers(0, 30_000, ROWS)
    row = rows_of({"x": value}, day)["x"]
    assert row["new_share"] > 0.2
    assert row["new_by_chance"] == pytest.approx(row["new_share"], abs=0.02)
    assert drift.findings(drift.drift(codes_of({"x": value}, day))) == []


def test_the_label_is_not_read(random, day):
    columns = {"x": random.integers(0, 9, ROWS), "y": day // 2}
    one = drift.drift(codes_of(columns, day, np.zeros(ROWS, np.int32), classes=2))
    other = drift.drift(codes_of(columns, day, random.integers(0, 2, ROWS).astype(np.int32), classes=2))
    assert one.equals(other)


def test_days_with_few_rows_are_not_judged(random):
    day = np.concatenate([np.zeros(5000), np.ones(5000), np.full(30, 2)]).astype(np.int32)
    value = np.where(day == 2, 1, random.integers(0, 40, day.size))
    row = rows_of({"x": value}, day)["x"]
    assert row["psi_by_day"][2] is None
    assert row["psi"] < 0.05
    small = rows_of({"x": value[-60:]}, day[-60:])["x"]
    assert small["psi"] is None
    assert small["psi_day"] is None


def test_days_without_rows_are_left_out(random):
    day = np.where(np.arange(ROWS) % 2, 3, 8).astype(np.int32)
    codes = codes_of({"x": random.integers(0, 5, ROWS)}, day)
    assert drift.label_by_day(codes)["day"].to_list() == ["2026-10-04", "2026-10-09"]
    assert len(drift.drift(codes)["psi_by_day"][0]) == 2


def test_without_days_there_is_nothing_to_say(random):
    codes = made_up.codes_of({"x": random.integers(0, 5, 500)}, np.arange(500) % 2)
    assert drift.drift(codes).is_empty()
    assert drift.label_by_day(codes).is_empty()
    one = codes_of({"x": random.integers(0, 5, 500)}, np.zeros(500, np.int32))
    assert drift.drift(one).is_empty()
    assert drift.findings(drift.drift(one), drift.label_by_day(one)) == []


def test_label_by_day_has_wilsons_interval():
    day = np.repeat(np.arange(2, dtype=np.int32), 100)
    label = np.r_[np.arange(100) < 10, np.zeros(100, bool)].astype(np.int32)
    table = drift.label_by_day(codes_of({"x": day}, day, label))
    assert table["rows"].to_list() == [100, 100]
    assert table["share"].to_list() == [0.1, 0.0]
    # the textbook's figures for 10 and 0 of 100
    assert table["low"].to_list() == pytest.approx([0.0552, 0.0], abs=1e-4)
    assert table["high"].to_list() == pytest.approx([0.1744, 0.0370], abs=1e-4)


def test_label_by_day_of_three_classes_is_the_mean_class(random):
    day = np.repeat(np.arange(4, dtype=np.int32), 500)
    label = random.integers(0, 3, 2000).astype(np.int32)
    table = drift.label_by_day(codes_of({"x": day}, day, label))
    assert table["share"].to_list() == pytest.approx([label[day == at].mean() for at in range(4)])
    half = 1.96 * label[:500].std() / np.sqrt(500)
    assert table["high"][0] - table["share"][0] == pytest.approx(half, rel=1e-3)


def test_a_day_whose_label_stands_off_is_a_finding(random, day):
    rate = np.where(day == 4, 0.4, 0.2)
    label = (random.random(ROWS) < rate).astype(np.int32)
    codes = codes_of({"x": random.integers(0, 5, ROWS)}, day, label)
    (finding,) = drift.findings(drift.drift(codes), drift.label_by_day(codes))
    assert (finding.column, finding.kind, finding.severity) == (None, "label_by_day", "warning")
    assert "2026-10-05" in finding.sentence
    even = codes_of({"x": day % 3}, day, (random.random(ROWS) < 0.2).astype(np.int32))
    assert [
        f for f in drift.findings(drift.drift(even), drift.label_by_day(even)) if f.column is None
    ] == []


def test_row_order_does_not_matter(random, day):
    columns = {"x": random.integers(0, 90, ROWS), "y": (day + random.integers(0, 3, ROWS)) % 10}
    order = random.permutation(ROWS)
    one = drift.drift(codes_of(columns, day))
    other = drift.drift(codes_of({name: column[order] for name, column in columns.items()}, day[order]))
    for name in ("psi", "day_score", "day_z", "new_share"):
        assert one[name].to_list() == pytest.approx(other[name].to_list())


def test_of_fifty_columns_those_that_were_made_to_drift_are_found():
    codes, _ = made_up.log(50, 262_144)
    table = drift.drift(codes)
    assert {"app", "user_age"} <= set(table.filter(table["psi"] > drift.PSI_NOTE)["column"])


def test_a_year_of_days_is_pooled_for_the_information_only(random):
    day = np.repeat(np.arange(365, dtype=np.int32), 200)
    names = tuple(f"day {at}" for at in range(365))
    columns = {
        "steady": random.integers(0, 5, day.size),
        "half": (day > 180) + random.integers(0, 2, day.size),
    }
    codes = made_up.codes_of(columns, np.arange(day.size) % 2, day=day, days=names)
    steady, half = drift.drift(codes).iter_rows(named=True)
    assert len(steady["psi_by_day"]) == 365
    assert abs(steady["day_z"]) < 5
    # the half of the year is known from 0 and 2, which half of the rows have: ln(2) / 2, but for the
    # span of days that lies across the middle
    assert half["day_score"] == pytest.approx(np.log(2) / 2 * 30 / 31, rel=0.01)
