"""Two scorings of the same rows: right variances, intervals that cover, and honest p values."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from recsys.errors import ConfigError
from recsys.evaluation import auc, gauc, logloss
from recsys.evaluation.compare import Both, compare_scores
from recsys.evaluation.delong import delong, placements
from recsys.evaluation.resample import MOST_UNITS, auc_draws, interval, mean_draws, p_value
from recsys.evaluation.values import as_groups


def by_pairs(label: NDArray[np.bool_], scores: list[NDArray[np.float64]]) -> tuple[list[float], float]:
    """AUCs and the standard error of their difference from all pairs, by DeLong's definitions."""
    up, down, areas = [], [], []
    for score in scores:
        lead = score[label][:, None] - score[~label][None, :]
        kernel = np.where(lead > 0, 1.0, np.where(lead == 0, 0.5, 0.0))
        areas.append(float(kernel.mean()))
        up.append(kernel.mean(axis=1))
        down.append(kernel.mean(axis=0))
    covariance = np.cov(up) / label.sum() + np.cov(down) / (~label).sum()
    contrast = np.array([-1.0, 1.0])
    return areas, float(np.sqrt(contrast @ covariance @ contrast))


def two_models(
    rows: int, generator: np.random.Generator, gap: float = 0.0
) -> tuple[NDArray[np.bool_], NDArray[np.float64], NDArray[np.float64]]:
    """Labels and two correlated scores; the second is the better one by ``gap``."""
    label = generator.random(rows) < 0.3
    shared = generator.normal(size=rows) + label
    first = shared + 0.7 * generator.normal(size=rows)
    second = shared + 0.7 * generator.normal(size=rows) + gap * label
    return label, first, second


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("digits", [0, 1, 12])
def test_delong_is_the_covariance_of_all_pairs(seed: int, digits: int) -> None:
    label, first, second = two_models(60, np.random.default_rng(seed))
    first, second = first.round(digits), second.round(digits)
    found = delong(label, first, second)
    areas, error = by_pairs(label, [first, second])
    assert (found.first, found.second) == pytest.approx(areas, abs=1e-12)
    assert found.difference == pytest.approx(areas[1] - areas[0], abs=1e-12)
    assert found.standard_error == pytest.approx(error, abs=1e-12)
    assert found.first == auc(label, first)


def test_placements_count_ties_half() -> None:
    label = np.array([True, False, True, False, False])
    score = np.array([0.5, 0.5, 0.9, 0.1, 0.9])
    assert placements(label, score).tolist() == [3, 3, 5, 4, 1]


def test_the_interval_covers_a_true_difference_of_nothing_and_p_is_level() -> None:
    generator = np.random.default_rng(5)
    chances, covered = [], 0
    for _ in range(400):
        label, first, second = two_models(300, generator)
        found = compare_scores(Both(label, first, second), scores_are="logits", resamples=100)
        difference = found.differences["auc"]
        covered += difference.low <= 0 <= difference.high
        chances.append(difference.p_value)
    assert 0.92 <= covered / 400 <= 0.98
    assert 0.4 <= np.mean(chances) <= 0.6


def test_the_bootstrap_covers_a_true_difference_of_nothing() -> None:
    generator = np.random.default_rng(6)
    users = as_groups(np.arange(400) % 40)
    covered = {"gauc": 0, "logloss": 0}
    for _ in range(200):
        rows = Both(*two_models(400, generator), users)
        found = compare_scores(rows, scores_are="logits", resamples=200).differences
        for metric in covered:
            covered[metric] += found[metric].low <= 0 <= found[metric].high
    for times in covered.values():
        assert 0.89 <= times / 200 <= 0.99


def test_bootstrap_and_delong_agree_on_the_standard_error() -> None:
    label, first, second = two_models(2_000, np.random.default_rng(1), gap=0.2)
    exact = delong(label, first, second).standard_error
    draws = auc_draws(label, first, second, np.arange(2_000), 1_000, 0)
    assert draws.std() == pytest.approx(exact, rel=0.1)
    assert draws.mean() == pytest.approx(delong(label, first, second).difference, abs=1e-3)


def test_rows_of_one_group_that_move_together_widen_the_bootstrap_only() -> None:
    generator = np.random.default_rng(2)
    of_users = two_models(100, generator)
    label = np.repeat(of_users[0], 20)
    first, second = (np.repeat(score, 20) for score in of_users[1:])
    users = as_groups(np.repeat(np.arange(100), 20))
    found = compare_scores(
        Both(label, first, second, users), scores_are="logits", resamples=500, bootstrap_auc=True
    )
    exact, drawn = found.differences["auc"], found.differences["auc_bootstrap"]
    assert drawn.method == "bootstrap of 100 groups"
    assert drawn.high - drawn.low > 3 * (exact.high - exact.low)
    assert (drawn.first, drawn.difference) == (exact.first, exact.difference)


@pytest.mark.parametrize("units", [500, 3 * MOST_UNITS])
def test_bundles_keep_the_spread_of_a_mean(units: int) -> None:
    amount = np.random.default_rng(3).exponential(size=units)
    draws = mean_draws(amount, None, 400, seed=1)
    assert draws.std() == pytest.approx(amount.std() / np.sqrt(units), rel=0.15)
    assert draws.mean() == pytest.approx(amount.mean(), abs=4 * amount.std() / np.sqrt(400 * units))
    assert np.array_equal(draws, mean_draws(amount, None, 400, seed=1))
    assert not np.array_equal(draws, mean_draws(amount, None, 400, seed=2))


def test_the_bootstrap_of_a_ratio_weighs_units() -> None:
    generator = np.random.default_rng(4)
    weight = generator.integers(1, 50, 400).astype(np.float64)
    lead = generator.normal(0.1, 1.0, 400)
    draws = mean_draws(lead * weight, weight, 1_000, seed=0)
    mean = np.average(lead, weights=weight)
    linear = np.sqrt(((weight * (lead - mean)) ** 2).sum()) / weight.sum()
    assert draws.mean() == pytest.approx(mean, abs=0.01)
    assert draws.std() == pytest.approx(linear, rel=0.1)


def test_interval_and_p_value_of_known_draws() -> None:
    draws = np.arange(-2.0, 98.0)
    assert interval(draws) == pytest.approx((0.475, 94.525))
    assert p_value(draws) == pytest.approx(2 * 4 / 101)
    assert p_value(np.zeros(99)) == 1.0
    assert p_value(np.ones(99)) == pytest.approx(0.02)


def scored(rows: int = 3_000) -> tuple[Both, NDArray[np.int64]]:
    """A good and a worse model of known probabilities, and users."""
    generator = np.random.default_rng(9)
    truth = generator.beta(1, 3, rows)
    label = generator.random(rows) < truth
    worse = (truth + generator.uniform(0, 1, rows)) / 2
    users = generator.integers(0, 150, rows)
    return Both(label, truth, worse, as_groups(users)), users


def test_a_worse_model_is_found_worse_by_every_metric() -> None:
    rows, users = scored()
    found = compare_scores(rows, bootstrap_auc=True)
    assert set(found.differences) == {"auc", "gauc", "logloss", "auc_bootstrap"}
    for difference in found.differences.values():
        assert difference.better == "first"
        assert difference.p_value < 0.01
        assert difference.low < difference.difference < difference.high
    right = (logloss(rows.label, score) for score in (rows.first, rows.second))
    assert (found.differences["logloss"].first, found.differences["logloss"].second) == pytest.approx(
        tuple(right)
    )
    grouped = [gauc(rows.label, score, users).value for score in (rows.first, rows.second)]
    difference = found.differences["gauc"]
    assert (difference.first, difference.second) == (grouped[0], grouped[1])
    assert difference.difference == pytest.approx((grouped[1] or 0) - (grouped[0] or 0), abs=1e-12)
    assert found.sentence.startswith("A is better by 0.")
    assert "A change of seed" in found.sentence
    turned = compare_scores(Both(rows.label, rows.second, rows.first, rows.groups))
    assert turned.sentence == found.sentence.replace("A is better", "B is better")
    assert {difference.better for difference in turned.differences.values()} == {"second"}


def test_identical_scorings_differ_by_exactly_nothing() -> None:
    rows, _ = scored()
    found = compare_scores(Both(rows.label, rows.first, rows.first.copy(), rows.groups), bootstrap_auc=True)
    assert len(found.differences) == 4
    for difference in found.differences.values():
        assert (difference.difference, difference.low, difference.high) == (0.0, 0.0, 0.0)
        assert difference.p_value == 1.0
        assert difference.better is None
    assert found.sentence.startswith("A and B have the same AUC")


def test_a_difference_that_chance_could_make_is_not_called_one() -> None:
    label, first, second = two_models(400, np.random.default_rng(0))
    found = compare_scores(Both(label, first, second), scores_are="logits")
    assert found.differences["auc"].better is None
    assert found.sentence.startswith("No difference of AUC shown: ")


def test_a_metric_that_says_otherwise_is_told() -> None:
    """Scores moved up and down by user: the order within users is the better one, that of all rows not."""
    rows, users = scored()
    moved = rows.first / 2 + users % 2 / 4
    found = compare_scores(Both(rows.label, rows.second / 2, moved, rows.groups))
    assert found.differences["gauc"].better == "second"
    assert found.differences["auc"].better is None
    assert "No difference of AUC shown" in found.sentence
    assert ". By GAUC B is better by 0." in found.sentence


def test_what_cannot_be_compared_says_why() -> None:
    score = np.array([0.1, 0.4, 0.6])
    none = compare_scores(Both(np.zeros(3, np.bool_), score, score * 2))
    assert none.reasons["auc"] == "every label is 0"
    assert "lie outside [0, 1]" in none.reasons["logloss"]
    assert none.sentence.startswith("AUC cannot be compared: every label is 0")
    one = compare_scores(Both(np.array([True, False, False]), score, score[::-1].copy()))
    assert "a single row" in one.reasons["auc"]
    assert one.reasons["gauc"] == "no groups were given"
    assert "logloss" in one.sentence
    rows, _ = scored(100)
    alone = rows._replace(groups=as_groups(np.zeros(100, np.int64)))
    reasons = compare_scores(alone, bootstrap_auc=True).reasons
    assert reasons["gauc"] == "fewer than two groups have both labels"
    assert "all rows are of one group" in reasons["auc_bootstrap"]
    with pytest.raises(ConfigError, match="expected at least 100"):
        compare_scores(rows, resamples=10)


def test_plain_values() -> None:
    rows, _ = scored(200)
    found = compare_scores(rows).to_dict()
    assert found["differences"]["auc"]["better"] == "first"
    assert found["sentence"]
    assert found["names"] == ("first", "second")
