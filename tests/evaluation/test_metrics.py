"""AUC, GAUC, logloss, NE and calibration against scikit-learn and brute force."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import log_loss, roc_auc_score

from recsys.errors import DataError
from recsys.evaluation import auc, calibration, calibration_curve, ctr, gauc, logloss, ne
from recsys.evaluation.values import ordered_bits


def rows(seed: int, count: int, levels: int = 50) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Labels and tied scores that rank them better than chance."""
    generator = np.random.default_rng(seed)
    label = (generator.random(count) < 0.3).astype(np.float32)
    score = generator.integers(0, levels, count) / levels + 0.2 * label
    return label, (score / 1.3).astype(np.float32)


def brute_gauc(
    label: NDArray[np.float32],
    score: NDArray[np.float32],
    group: Sequence[object],
    weight: NDArray[np.float64] | None = None,
) -> tuple[float, float, float, int, int]:
    """GAUC, unweighted mean, share of impressions, groups and groups used, one group at a time."""
    weight = np.ones(len(label)) if weight is None else weight
    members: dict[object, list[int]] = {}
    for row, name in enumerate(group):
        members.setdefault(name, []).append(row)
    used = {name: at for name, at in members.items() if 0 < label[at].sum() < len(at)}
    each = [roc_auc_score(label[at], score[at], sample_weight=weight[at]) for at in used.values()]
    mass = [weight[at].sum() for at in used.values()]
    return (
        float(np.average(each, weights=mass)),
        float(np.mean(each)),
        float(sum(mass) / weight.sum()),
        len(members),
        len(used),
    )


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.booleans(), st.integers(-3, 3), st.integers(1, 4)), min_size=2, max_size=60
    ).filter(lambda drawn: len({one[0] for one in drawn}) == 2)
)
def test_auc_equals_scikit_learn_with_ties_and_weights(drawn: list[tuple[bool, int, int]]) -> None:
    label, score, weight = (np.array(part, dtype=np.float64) for part in zip(*drawn, strict=True))
    assert auc(label, score) == pytest.approx(roc_auc_score(label, score), abs=1e-12)
    assert auc(label, score, weight) == pytest.approx(
        roc_auc_score(label, score, sample_weight=weight), abs=1e-12
    )


def test_auc_known_by_hand() -> None:
    assert auc([0, 1, 0, 1], [0.1, 0.4, 0.5, 0.8]) == 0.75
    assert auc([1, 0], [0.5, 0.5]) == 0.5
    assert auc([0, 0, 1], [-0.0, 0.0, 0.0]) == 0.5


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int64])
def test_auc_of_many_rows_in_every_type(dtype: type) -> None:
    label, score = rows(1, 70_000, 1000)
    typed = (score * 1000 - 400).astype(dtype)
    assert auc(label, typed) == pytest.approx(roc_auc_score(label, typed), abs=1e-12)


def test_float64_scores_that_float32_cannot_tell_apart_stay_apart() -> None:
    score = 0.5 + np.array([1, 2, 3, 4]) * 1e-12
    assert len(np.unique(score.astype(np.float32))) == 1
    label = np.array([0, 0, 1, 1])
    assert auc(label, score) == 1.0
    assert auc(label, score, np.ones(4)) == 1.0
    assert gauc(label, score, ["a", "a", "a", "a"]).value == 1.0
    assert gauc(label, score, [7, 8, 7, 8]).value == 1.0


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=40))
def test_ordered_bits_compare_as_the_numbers_do(numbers: list[float]) -> None:
    with np.errstate(over="ignore"):
        narrow = np.array(numbers).astype(np.float32)
    for score in (np.array(numbers), narrow[np.isfinite(narrow)]):
        if len(score):
            bits = ordered_bits(score).astype(np.int64)
            assert ((bits[:, None] < bits) == (score[:, None] < score)).all()


@pytest.mark.parametrize("kind", ["int64", "string", "category", "float", "date", "uint64", "bool"])
@pytest.mark.parametrize("weighted", [False, True])
def test_gauc_equals_brute_force(kind: str, weighted: bool) -> None:
    label, score = rows(2, 3000)
    generator = np.random.default_rng(3)
    number = (generator.zipf(1.3, 3000) % 400).astype(np.int64)
    weight = generator.random(3000) if weighted else None
    series = {
        "int64": pl.Series(number * -7_919_000_000_007),
        "string": pl.Series([f"user {value}" for value in number]),
        "category": pl.Series([f"user {value}" for value in number], dtype=pl.Categorical),
        "float": pl.Series(number / 3),
        "date": pl.Series(number.astype(np.int32)).cast(pl.Date),
        "uint64": pl.Series(number.astype(np.uint64) + np.uint64(2**63)),
        "bool": pl.Series(number % 2 == 0),
    }[kind]
    result = gauc(label, score, series, weight)
    found = (result.value, result.unweighted, result.rows_used, result.groups, result.groups_used)
    assert found == pytest.approx(brute_gauc(label, score, series.to_list(), weight), abs=1e-12)


def test_gauc_of_many_groups_and_one_giant_one() -> None:
    label, score = rows(4, 200_000, 5000)
    group = np.random.default_rng(5).integers(0, 30_000, len(label)) << 40
    group[::3] = 5
    by_number, by_name = gauc(label, score, group), gauc(label, score, pl.Series(group).cast(pl.String))
    frame = pl.DataFrame({"label": label, "score": score, "group": group})
    ranked = frame.with_columns(pl.col("score").rank("average").over("group"))
    groups = ranked.group_by("group").agg(
        rows=pl.len(),
        positives=pl.col("label").sum(),
        ranks=pl.col("score").filter(pl.col("label") == 1).sum(),
    )
    used = groups.filter((pl.col("positives") > 0) & (pl.col("positives") < pl.col("rows")))
    n, p = used["rows"].to_numpy(), used["positives"].to_numpy().astype(np.float64)
    each = (used["ranks"].to_numpy() - p * (p + 1) / 2) / (p * (n - p))
    for result in (by_number, by_name):
        assert result.value == pytest.approx(np.average(each, weights=n), abs=1e-12)
        assert (result.groups, result.groups_used) == (len(groups), len(used))


def test_rows_without_a_group_are_a_group_of_their_own() -> None:
    label = [0, 1, 0, 1, 1]
    score = [0.1, 0.2, 0.9, 0.3, 0.4]
    for group in ([None, None, 0, 0, 0], [None, None, "", "", ""], [None, None, 0.0, 0.0, 0.0]):
        result = gauc(label, score, group)
        assert (result.groups, result.groups_used) == (2, 2)
        assert result.value == pytest.approx((2 * 1.0 + 3 * 0.0) / 5)
    assert gauc(label, score, [None] * 5).groups == 1


def test_one_class_has_no_auc_rather_than_a_half() -> None:
    assert auc([1, 1], [0.2, 0.3]) is None
    assert auc([0, 0], [0.2, 0.3], [1, 2]) is None
    assert ne([0, 0], [0.2, 0.3]) is None
    assert calibration([0, 0], [0.2, 0.3]) is None
    result = gauc([1, 1, 0], [0.2, 0.3, 0.1], ["a", "a", "b"])
    assert (result.value, result.unweighted, result.rows_used) == (None, None, 0.0)
    assert (result.groups, result.groups_used) == (2, 0)


@pytest.mark.parametrize("weighted", [False, True])
def test_logloss_ne_and_calibration(weighted: bool) -> None:
    label, score = rows(6, 5000)
    score = score.clip(0.01, 0.99)
    weight = np.random.default_rng(7).random(5000) if weighted else np.ones(5000)
    given_weight = weight if weighted else None
    loss = log_loss(label, score.astype(np.float64), sample_weight=weight)
    base = np.average(label, weights=weight)
    assert logloss(label, score, given_weight) == pytest.approx(loss, abs=1e-12)
    entropy = log_loss(label, np.full(5000, base), sample_weight=weight)
    assert ne(label, score, given_weight) == pytest.approx(loss / entropy, abs=1e-12)
    mean = np.average(score.astype(np.float64), weights=weight)
    assert calibration(label, score, given_weight) == pytest.approx(mean / base, abs=1e-12)
    assert ctr(label, given_weight) == pytest.approx(base, abs=1e-12)


def test_a_constant_prediction_of_the_mean_has_ne_one() -> None:
    label = np.array([0, 0, 0, 1])
    assert ne(label, np.full(4, 0.25)) == pytest.approx(1.0)
    assert calibration(label, np.full(4, 0.25)) == pytest.approx(1.0)


def test_probabilities_are_clipped_and_logits_are_not() -> None:
    assert logloss([1], [0.0]) == pytest.approx(-math.log(1e-7))
    assert logloss([1, 0], [1.0, 0.0]) == pytest.approx(1e-7)
    assert logloss([1], [-800.0], scores_are="logits") == pytest.approx(800.0)
    assert logloss([0], [-800.0], scores_are="logits") == 0.0
    logit = np.linspace(-8, 8, 101)
    label = np.arange(101) % 2
    probability = 1 / (1 + np.exp(-logit))
    for metric in (logloss, ne, calibration):
        as_logits = metric(label, logit, scores_are="logits")
        assert as_logits == pytest.approx(metric(label, probability), rel=1e-9)


def test_calibration_curve_bins() -> None:
    score = np.repeat([0.1, 0.2, 0.3, 0.4], 25)
    label = np.zeros(100)
    label[:5] = label[50:60] = 1
    curve = calibration_curve(label, score, bins=10)
    assert curve["low"].to_list() == curve["high"].to_list() == [0.1, 0.2, 0.3, 0.4]
    assert curve["rows"].to_list() == [25] * 4
    assert curve["prediction"].to_list() == pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert curve["ctr"].to_list() == pytest.approx([0.2, 0, 0.4, 0])
    doubled = calibration_curve(label, score, np.where(label == 1, 2.0, 1.0), bins=10)
    assert doubled["ctr"][0] == pytest.approx(10 / 30)


def test_calibration_curve_bins_hold_equally_many_rows() -> None:
    label, score = rows(8, 1000, 100_000)
    curve = calibration_curve(label, score, bins=7)
    assert curve["rows"].sum() == 1000
    assert curve["rows"].max() - curve["rows"].min() <= 2
    assert (curve["low"][1:] > curve["high"][:-1]).all()
    inside = (score.astype(np.float64) >= curve["low"][3]) & (score.astype(np.float64) <= curve["high"][3])
    assert curve["ctr"][3] == pytest.approx(label[inside].mean())


@pytest.mark.parametrize(
    "make",
    [list, np.array, pl.Series, pd.Series, pa.array, lambda values: pa.chunked_array([values])],
    ids=["list", "numpy", "polars", "pandas", "arrow", "chunked"],
)
def test_any_kind_of_column(make: type) -> None:
    label, score, group = [0, 1, 0, 1], [0.1, 0.4, 0.5, 0.8], ["a", "a", "b", "b"]
    assert auc(make(label), make(score)) == 0.75
    assert gauc(make(label), make(score), make(group)).value == 1.0
    assert logloss(make(label), make(score)) == pytest.approx(log_loss(label, score))


@pytest.mark.parametrize(
    ("label", "score", "message"),
    [
        ([0, 1, 1], [0.1, math.nan, math.inf], r"score: 2 of 3 values .* first at row 1 \(nan\)"),
        ([0, 1, 1], [0.1, 0.2, -math.inf], r"score: 1 of 3 values .* first at row 2 \(-inf\)"),
        ([0, 1], pl.Series([0.1, None]), r"score: 1 of 2 values .* first at row 1 \(missing\)"),
        ([0, 2, 1], [0.1, 0.2, 0.3], r"label: 1 of 3 values are not 0 or 1, the first at row 1 \(2\)"),
        (pl.Series([0, None]), [0.1, 0.2], r"label: 1 of 2 .* row 1 \(missing\)"),
        (pl.Series([True, None]), [0.1, 0.2], r"label: 1 of 2 .* row 1 \(missing\)"),
        (["yes", "no"], [0.1, 0.2], "label: expected 0 or 1 per row, found values of type String"),
        ([0, 1], ["a", "b"], "score: expected a number per row, found values of type String"),
        ([0, 1], [[0.1], [0.2]], "score: expected a number per row, found values of type List"),
        ([0, 1], np.zeros((2, 1)), r"score: expected one value per row, found .* shape \(2, 1\)"),
        ([0, 1], [0.1], "different length: label 2, score 1 rows"),
        (np.array([]), np.array([]), "no rows"),
    ],
)
def test_values_that_cannot_be_used(label: object, score: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        auc(label, score)


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        ([1.0, -2.0], r"weight: 1 of 2 values are negative, the first at row 1 \(-2\)"),
        ([1.0, math.nan], r"weight: 1 of 2 values are missing, NaN or infinite"),
        ([0.0, 0.0], "weight: all 2 weights are 0"),
        ([1.0], "different length: label 2, weight 1"),
    ],
)
def test_weights_that_cannot_be_used(weight: list[float], message: str) -> None:
    with pytest.raises(DataError, match=message):
        auc([0, 1], [0.1, 0.2], weight)


def test_groups_and_probabilities_that_cannot_be_used() -> None:
    with pytest.raises(DataError, match="group: expected one value per row to group by, found List"):
        gauc([0, 1], [0.1, 0.2], [[1], [2]])
    with pytest.raises(DataError, match="different length: label 2, group 1"):
        gauc([0, 1], [0.1, 0.2], [1])
    with pytest.raises(DataError, match=r"score: 1 of 2 values lie outside \[0, 1\], the first at row 1"):
        logloss([0, 1], [0.1, 1.5])
