"""Information: exact against brute force and scikit-learn; z and intervals hold up in simulation."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import adjusted_mutual_info_score, mutual_info_score
from sklearn.metrics.cluster import contingency_matrix, expected_mutual_information

from recsys.ranking.chance import Chance
from recsys.ranking.dealing import dealt
from recsys.ranking.information import Information, cells, conditional_information, information

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


def _exact(total: int, hits: int, size: int) -> tuple[float, float]:
    """Mean and variance of the divergence by exact integers."""
    p, mean, square = hits / total, 0.0, 0.0
    whole = math.comb(total, size)
    for k in range(max(0, size - total + hits), min(size, hits) + 1):
        mass = float(Fraction(math.comb(hits, k) * math.comb(total - hits, size - k), whole))
        divergence = sum(x * math.log(x / q) for x, q in ((k / size, p), (1 - k / size, 1 - p)) if x > 0)
        mean += mass * divergence
        square += mass * divergence**2
    return mean, square - mean**2


def _of(total: int, hits: int, size: int) -> tuple[float, float]:
    mean, variance, *_ = dealt(*(np.array([number]) for number in (total, hits, size)))
    return float(mean[0]), float(variance[0])


@pytest.mark.parametrize(
    ("total", "hits", "size"),
    [
        *((10, 3, 4), (100, 20, 1), (1000, 209, 30), (1000, 3, 500)),
        *((3000, 600, 1500), (3000, 2990, 900), (5000, 4, 4000), (5000, 1045, 4999)),
    ],
)
def test_moments_are_those_of_exact_integers(total: int, hits: int, size: int) -> None:
    assert _of(total, hits, size) == pytest.approx(_exact(total, hits, size), rel=1e-10, abs=1e-17)


@pytest.mark.parametrize("size", [1_000, 300_000, 50_000_000])
def test_a_hundred_million_rows_agree_with_the_normal_limit(size: int) -> None:
    total, hits = 100_000_000, 20_000_000
    limit = (total - size) / (size * (total - 1.0)) / 2
    p = hits / total
    # Second order of the same expansion in 1 / (n·p·q).
    second = 1 + (1 / (p * (1 - p)) - 1) / (6 * size) * (1 if size < 10_000 else 0)
    mean, variance = _of(total, hits, size)
    assert mean == pytest.approx(limit * second, rel=2e-5)
    assert variance == pytest.approx(2 * limit**2, rel=0.02)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 8), st.integers(0, 3)), min_size=2, max_size=120).filter(
        lambda pairs: len({label for _, label in pairs}) > 1 and len({value for value, _ in pairs}) > 1
    )
)
def test_mi_expectation_and_adjusted_are_those_of_scikit_learn(pairs: list[tuple[int, int]]) -> None:
    values, labels = (list(side) for side in zip(*pairs, strict=True))
    counts = contingency_matrix(values, labels)
    found = information(counts)
    assert found.mi == pytest.approx(mutual_info_score(labels, values), abs=1e-12)
    expected = expected_mutual_information(counts.T.copy(), len(values))
    assert found.expected == pytest.approx(expected, abs=1e-9)
    if found.normaliser - expected > 1e-6:  # else 0 by 0
        assert found.adjusted == pytest.approx(adjusted_mutual_info_score(labels, values), abs=1e-7)


def _noise(rows: int, values: int, share: float, seed: int) -> tuple[Ints, Ints]:
    generator = np.random.default_rng(seed)
    weight = 1.0 / np.arange(1, values + 1) ** 1.1
    return (
        generator.choice(values, rows, p=weight / weight.sum()),
        (generator.random(rows) < share).astype(np.int64),
    )


def _table(x: Ints, y: Ints, classes: int = 2) -> Ints:
    return np.bincount(x * classes + y, minlength=(int(x.max()) + 1) * classes).reshape(-1, classes)


@pytest.mark.parametrize("values", [2, 3, 10, 100, 5_000])
def test_z_of_noise_has_mean_0_and_deviation_1(values: int) -> None:
    x, y = _noise(10_000, values, 0.2, seed=values)
    generator, chance = np.random.default_rng(1), Chance(np.bincount(y))
    z = np.array([information(_table(x, generator.permutation(y)), chance).z for _ in range(1_500)])
    assert abs(z.mean()) < 0.1
    assert z.std() == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("values", [2, 10, 5_000])
def test_z_of_noise_holds_for_four_classes(values: int) -> None:
    x, _ = _noise(6_000, values, 0.2, seed=values)
    generator = np.random.default_rng(2)
    y = generator.choice(4, 6_000, p=[0.6, 0.25, 0.1, 0.05])
    chance = Chance(np.bincount(y))
    z = np.array([information(_table(x, generator.permutation(y), 4), chance).z for _ in range(1_000)])
    assert abs(z.mean()) < 0.1
    assert z.std() == pytest.approx(1.0, abs=0.1)


def test_the_interval_covers_the_true_information() -> None:
    joint = np.array([[0.30, 0.05], [0.25, 0.10], [0.15, 0.15]])
    truth = float((joint * np.log(joint / np.outer(joint.sum(1), joint.sum(0)))).sum())
    generator = np.random.default_rng(3)
    found = [information(generator.multinomial(2_000, joint.ravel()).reshape(3, 2)) for _ in range(1_000)]
    covered = np.mean([one.low <= truth <= one.high for one in found])
    assert 0.93 <= covered <= 0.97


def test_one_chance_serves_columns_in_any_order_and_ignores_classes_without_rows() -> None:
    sizes = np.array([[5, 1, 40], [3, 0, 100]])
    once, twice = Chance(np.array([80, 20])), Chance(np.array([20, 0, 80]))
    twice.mean(np.array([40, 2]))
    np.testing.assert_allclose(once.mean(sizes), twice.mean(sizes), rtol=1e-12)
    np.testing.assert_allclose(once.variance(sizes), twice.variance(sizes), rtol=1e-9, atol=1e-15)
    assert once.mean(sizes)[1, 1] == 0.0
    assert once.mean(sizes)[1, 2] == 0.0


def test_p_is_the_share_of_dealings_that_do_as_well() -> None:
    x, y = _noise(4_000, 12, 0.2, seed=9)
    generator, chance = np.random.default_rng(8), Chance(np.bincount(y))
    p = np.array([information(_table(x, generator.permutation(y)), chance).p for _ in range(3_000)])
    for level in (0.5, 0.1, 0.01):
        assert np.mean(p < level) == pytest.approx(level, abs=4 * math.sqrt(level / 3_000))
    assert information(np.array([[5, 0], [0, 5]]), chance=None).p < 0.01
    assert information(np.array([[30, 70]])).p == 1.0


def test_learnable_is_what_the_best_shrinkage_gains_on_new_rows() -> None:
    """Most values are too rare to be known, most rows are of a few frequent ones."""
    draw = np.random.default_rng(1)
    sizes = np.repeat([3, 10, 100, 5_000], [20_000, 4_000, 200, 12])
    scatter, middle = 0.4, -1.5
    chance = _sigmoid(middle + draw.normal(0, scatter, len(sizes)))
    hits = draw.binomial(sizes, chance)
    grid = np.linspace(-4, 4, 201)
    clicked = _sigmoid(middle + scatter * grid)
    posterior = hits[:, None] * np.log(clicked) + (sizes - hits)[:, None] * np.log1p(-clicked) - grid**2 / 2
    posterior = np.exp(posterior - posterior.max(1, keepdims=True))
    best = posterior @ clicked / posterior.sum(1)
    share = sizes / sizes.sum()
    gained = share @ (_divergence(chance, share @ chance) - _divergence(chance, best))

    found = information(np.stack([sizes - hits, hits], 1))

    assert found.score * found.known < gained
    assert found.learnable == pytest.approx(gained, rel=0.25)  # three deviations of chance are taken off


def _sigmoid(logit: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-logit)))


def _divergence(p: Floats, q: Floats | float) -> Floats:
    return np.asarray(p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q)))


def test_noise_of_many_values_is_not_ranked_above_a_weak_column() -> None:
    weak = information(np.array([[4_100, 900], [4_000, 1_000]]))
    lucky = Information(0.2, 0.199, sd=0.0008, error=0.0008)
    assert lucky.score > weak.score > 0
    assert weak.ranked > 0 > lucky.ranked


def test_constants_tell_nothing() -> None:
    nothing = information(np.array([[30, 70], [0, 0]]))
    assert (nothing.score, nothing.z, nothing.sd) == (0.0, 0.0, 0.0)
    assert information(np.array([[30, 0], [70, 0]])).score == pytest.approx(0.0, abs=1e-15)
    assert information(np.zeros((0, 2), np.int64)) == Information(0.0, 0.0, 0.0, 0.0, 0.0)


def test_elements_of_lists_are_weighed_against_the_rows() -> None:
    """Two rows of three carry 'a'; twice the elements of the log, shares of the rows unchanged."""
    counts, classes = np.array([[10, 40], [50, 40], [60, 80]]), np.array([80, 120])
    share, p = counts / counts.sum(1, keepdims=True), classes / classes.sum()
    weight = counts.sum(1) / counts.sum()
    expected = float((weight[:, None] * share * np.log(share / p)).sum())
    assert information(counts, classes=classes).mi == pytest.approx(expected)
    generator = np.random.default_rng(4)
    z = []
    for _ in range(400):
        held = generator.random((2_000, 40)) < np.linspace(0.02, 0.5, 40)
        y = generator.random(2_000) < 0.3
        counts = np.stack([held[~y].sum(0), held[y].sum(0)], axis=1)
        z.append(information(counts, classes=np.bincount(y)).z)
    assert abs(np.mean(z)) < 0.2
    assert np.std(z) == pytest.approx(1.0, abs=0.15)


def test_conditional_mi_is_the_mean_over_strata() -> None:
    generator = np.random.default_rng(5)
    counts = generator.integers(0, 9, (6, 5, 3))
    parts = [(part.sum() / counts.sum(), information(part)) for part in counts]
    found = conditional_information(counts)
    assert found.mi == pytest.approx(sum(share * part.mi for share, part in parts))
    assert found.expected == pytest.approx(sum(share * part.expected for share, part in parts))
    codes = np.repeat(np.argwhere(counts >= 0), counts.ravel(), axis=0)
    shuffled = generator.permutation(codes)
    again = conditional_information((shuffled[:, 0], shuffled[:, 1], shuffled[:, 2]))
    assert again.score == pytest.approx(found.score)
    assert again.sd == pytest.approx(found.sd)
    binary = counts[:, :, :2]
    parts = [(part.sum() / binary.sum(), information(part)) for part in binary]
    sd = math.sqrt(sum((share * part.sd) ** 2 for share, part in parts))
    assert conditional_information(binary).sd == pytest.approx(sd)


@pytest.mark.parametrize(("strata", "values"), [(2, 2), (300, 2), (40, 40), (3_000, 500)])
def test_z_of_conditional_noise(strata: int, values: int) -> None:
    generator = np.random.default_rng(6)
    z, x = _noise(8_000, strata, 0.2, seed=1)[0], _noise(8_000, values, 0.2, seed=2)[0]
    scores = []
    for _ in range(400):
        y = (generator.random(8_000) < 0.1 + 0.5 * (z % 2)).astype(np.int64)
        scores.append(conditional_information((z, x, y)).z)
    assert abs(np.mean(scores)) < 0.2
    assert np.std(scores) == pytest.approx(1.0, abs=0.13)


def test_cells_by_counting_and_by_sorting_agree() -> None:
    generator = np.random.default_rng(7)
    z, x, y = (generator.integers(0, n, 3_000) for n in (4, 6, 3))
    dense = cells(z, x, y)
    wide = cells(z * 1_000_003, x * 1_009, y)
    np.testing.assert_array_equal(wide[0], dense[0] * 1_000_003)
    np.testing.assert_array_equal(wide[1], dense[1])
    assert dense[1].sum() == 3_000
