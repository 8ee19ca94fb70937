"""Findings on columns whose faults are known by construction."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from recsys.ranking.duplicates import agreements
from recsys.ranking.information import information
from recsys.ranking.quality import (
    Finding,
    by_severity,
    column_findings,
    findings,
    findings_table,
    guess,
    percent,
)
from recsys.ranking.tally import Tally
from recsys.schema import Column, Schema
from tests.ranking import made_up

ROWS = 20_000


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(5)


@pytest.fixture
def label(random: np.random.Generator) -> np.ndarray:
    return (random.random(ROWS) < 0.2).astype(np.int32)


def found(
    values: np.ndarray, label: np.ndarray, *, missing: int = -1, kind: str = "categorical"
) -> dict[str, Finding]:
    tally = made_up.tally_of(values, label, missing=missing, classes=int(label.max()) + 1)
    return {
        finding.kind: finding for finding in column_findings("x", tally, information(tally.counts), kind)
    }


def among(columns: dict[str, np.ndarray], label: np.ndarray) -> dict[tuple[str, str], Finding]:
    codes = made_up.codes_of(columns, label)
    tallies, told = made_up.singles(codes)
    schema = Schema(columns={name: Column(kind="categorical", type="int64") for name in columns})
    return {(f.column or "", f.kind): f for f in findings(tallies, told, schema, codes)}


def test_a_healthy_column_has_no_finding(random, label):
    assert found(random.integers(0, 50, ROWS), label) == {}


def test_coverage_is_a_note_and_below_half_a_warning(random, label):
    values = np.where(np.arange(ROWS) % 10 < 3, 9, random.integers(0, 9, ROWS))
    (finding,) = found(values, label, missing=9).values()
    assert (finding.kind, finding.severity, finding.number) == ("coverage", "note", pytest.approx(0.7))
    assert finding.sentence == "'x' has a value in 70 % of rows."
    values = np.where(np.arange(ROWS) % 10 < 6, 9, values)
    (finding,) = found(values, label, missing=9).values()
    assert (finding.severity, finding.number) == ("warning", pytest.approx(0.4))


def test_all_missing_is_an_error_and_nothing_else_is_said(label):
    (finding,) = found(np.zeros(ROWS, int), label, missing=0).values()
    assert (finding.kind, finding.severity) == ("all_missing", "error")
    assert "20,000" in finding.sentence


def test_a_constant_column_is_a_warning_but_present_or_missing_is_not_constant(label):
    assert set(found(np.ones(ROWS, int), label)) == {"constant"}
    assert "constant" not in found(np.arange(ROWS) % 2, label, missing=0)


def test_dominant_and_rare_values_have_their_shares(random, label):
    values = np.where(np.arange(ROWS) % 100 < 97, 1, random.integers(2, 5, ROWS))
    assert found(values, label)["dominant"].number == pytest.approx(0.97)
    # 2000 values seen once and 2000 seen twice stand beside one that fills the rest
    values = np.concatenate([np.arange(2000), np.repeat(np.arange(2000, 4000), 2), np.full(14_000, 4000)])
    finding = found(values, label)["rare"]
    assert finding.number == pytest.approx(0.3)
    assert "4,001 different values" in finding.sentence
    assert "50.0 % of the values" in finding.sentence or "50 % of the values" in finding.sentence
    assert "rare" not in found(values, label, kind="numeric")


def test_a_row_id_is_a_warning_and_not_a_leak(random, label):
    finding = found(random.permutation(ROWS), label)
    assert set(finding) == {"row_id"}
    assert finding["row_id"].severity == "warning"


@pytest.mark.parametrize("noise", [0.0, 0.01])
def test_a_copy_of_the_label_is_a_leak(random, label, noise):
    values = np.where(random.random(ROWS) < noise, 1 - label, label)
    finding = found(values, label)["leak"]
    assert finding.severity == "error"
    assert finding.number > 0.8


def test_many_values_that_determine_a_rare_label_are_a_leak(random):
    label = (random.random(ROWS) < 0.05).astype(np.int32)
    values = np.where(label == 1, random.integers(0, 50, ROWS), random.integers(50, 2000, ROWS))
    assert found(values, label)["leak"].severity == "error"


def test_strong_honest_columns_and_rare_labels_are_no_leaks(random):
    label = (random.random(ROWS) < 0.01).astype(np.int32)
    assert "leak" not in found(random.integers(0, 20, ROWS), label)
    rate = random.beta(0.5, 0.5, 40)
    values = random.integers(0, 40, ROWS)
    assert "leak" not in found(values, (random.random(ROWS) < rate[values]).astype(np.int32))


def test_values_seen_two_or_three_times_are_no_leak(random, label):
    assert "leak" not in found(np.repeat(np.arange(ROWS // 2), 2), label)
    assert "leak" not in found(random.integers(0, ROWS // 3, ROWS), label)


def test_being_missing_can_give_the_label_away(random, label):
    values = np.where((label == 1) & (random.random(ROWS) < 0.9), random.integers(0, 9, ROWS), 9)
    finding = found(values, label, missing=9)
    assert finding["leak_missing"].severity == "error"
    left = np.where(random.random(ROWS) < 0.5, random.integers(0, 9, ROWS), 9)
    assert "leak_missing" not in found(left, label, missing=9)


def test_being_filled_in_for_one_class_alone_is_a_leak(random):
    label = random.integers(0, 3, ROWS).astype(np.int32)
    values = np.where((label == 2) & (random.random(ROWS) < 0.8), 0, 9)
    finding = found(values, label, missing=9)["leak_missing"]
    assert (finding.severity, finding.number) == ("error", 1.0)
    mixed = np.where((label == 2) & (random.random(ROWS) < 0.8) | (random.random(ROWS) < 0.2), 0, 9)
    assert "leak_missing" not in found(mixed, label, missing=9)
    rare = (random.random(ROWS) < 0.02).astype(np.int32)
    assert "leak_missing" not in found(np.where(random.random(ROWS) < 0.9, 0, 9), rare, missing=9)


def test_a_constant_label_gives_no_leak(random):
    tally = Tally(pl.Series([0, 1]), np.array([[50, 0], [60, 0]]), np.array([110, 0]))
    assert [f.kind for f in column_findings("x", tally, None)] == []


def test_guess_leaves_out_the_row_itself():
    # 3 rows against 2: a row of the three sees 2 against 2, a tie; each of the two sees 3 against 1, wrong
    assert guess(np.array([[3, 2]])) == (pytest.approx(1.5 / 5), pytest.approx(3.5 / 2), 1.0)
    assert guess(np.array([[1, 0], [0, 1]])) == (0.0, 1.0, 0.0)


def test_copies_are_found_whatever_their_values_are_called(random, label):
    ad = random.integers(0, 500, ROWS)
    renamed = random.permutation(500)[ad]
    result = among({"ad": ad, "other": random.integers(0, 500, ROWS), "ad_copy": renamed}, label)
    (key,) = result
    assert key == ("ad_copy", "duplicate")
    assert result[key].sentence == (
        "'ad_copy' tells exactly what 'ad' tells: 100 % of rows agree; one of them is enough."
    )


def test_each_copy_is_named_once(random, label):
    ad = random.integers(0, 50, ROWS)
    assert set(among(dict.fromkeys("abcd", ad), label)) == {(name, "duplicate") for name in "bcd"}


def test_near_copies_have_their_share(random, label):
    ad = random.integers(0, 40, ROWS)
    near = np.where(random.random(ROWS) < 0.004, random.integers(0, 40, ROWS), ad)
    finding = among({"ad": ad, "near": near}, label)[("near", "near_duplicate")]
    assert finding.number == pytest.approx((ad == near).mean(), abs=0.001)
    assert finding.severity == "warning"
    far = np.where(random.random(ROWS) < 0.1, random.integers(0, 40, ROWS), ad)
    assert among({"ad": ad, "far": far}, label) == {}


def test_a_copy_of_many_values_is_found(random, label):
    ad = random.integers(0, 5000, ROWS)
    assert set(among({"ad": ad, "copy": 4999 - ad}, label)) >= {("copy", "duplicate")}


def test_a_column_that_follows_from_another_is_a_note(random, label):
    ad = random.integers(0, 300, ROWS)
    result = among({"campaign": ad // 10, "ad": ad}, label)
    assert set(result) == {("campaign", "follows")}
    assert result[("campaign", "follows")].severity == "note"


def test_row_ids_and_dominant_columns_match_nothing(random, label):
    columns = {
        "row": np.arange(ROWS),
        "row_2": random.permutation(ROWS),
        "mostly": (random.random(ROWS) < 0.005).astype(int),
        "mostly_2": (random.random(ROWS) < 0.005).astype(int),
        "constant": np.zeros(ROWS, int),
        "plain": random.integers(0, 30, ROWS),
    }
    kinds = {kind for _, kind in among(columns, label)}
    assert kinds == {"row_id", "dominant", "constant"}


def test_agreements_against_brute_force(random):
    first, second = random.integers(0, 6, 300), random.integers(0, 4, 300)
    second = np.where(random.random(300) < 0.7, first // 2, second)
    for agreement, (x, y) in zip(
        agreements(first.astype(np.int32), second.astype(np.int32)),
        [(first, second), (second, first)],
        strict=True,
    ):
        right = sum(np.bincount(y[x == value]).max() for value in np.unique(x))
        assert agreement.share == pytest.approx(right / 300)
        assert agreement.left == pytest.approx((300 - right) / (300 - np.bincount(y).max()))


def test_findings_are_sorted_and_make_a_table():
    made = [
        Finding("a", "rare", "note", 0.1, "A."),
        Finding("b", "constant", "warning", 1.0, "B."),
        Finding(None, "leak", "error", 1.0, "C."),
    ]
    table = findings_table(by_severity(made))
    assert table["severity"].to_list() == ["error", "warning", "note"]
    assert table["column"].to_list() == [None, "b", "a"]
    assert findings_table([]).columns == table.columns


@pytest.mark.parametrize(
    ("share", "text"),
    [(0, "0 %"), (1, "100 %"), (0.123, "12 %"), (0.0123, "1.2 %"), (0.9999, "99.99 %"), (1e-5, "0.001 %")],
)
def test_a_share_is_never_rounded_to_all_or_nothing(share, text):
    assert percent(share) == text


def test_of_fifty_columns_the_leak_and_the_copy_are_found():
    codes, schema = made_up.log(50, 262_144)
    tallies, told = made_up.singles(codes, of_log=True)
    result = findings(tallies, told, schema, codes)
    kinds = {(finding.column, finding.kind) for finding in result}
    assert {("browser", "leak"), ("os", "duplicate")} <= kinds
