"""Bins of numbers: equal mass, heavy values by themselves, and as many as the label supports."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.ranking.binning import Bins, coarse_bins, coarser, fine_bins, grouped, luck, resolved
from recsys.ranking.chance import Chance
from recsys.ranking.counting import Counter
from recsys.ranking.tally import Tally


def counted(values: np.ndarray, label: np.ndarray, bins: Bins) -> tuple[Tally, Chance]:
    counter = Counter(2, bins)
    counter.add(pl.Series(values).fill_nan(None), label.astype(np.int64))
    classes = np.bincount(label, minlength=2)
    return counter.tally(classes), Chance(classes)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=300))
def test_bins_are_ordered_and_few_values_get_one_each(values: list[float]) -> None:
    numbers = np.array(values)
    bins = fine_bins(numbers)
    found = bins.number(np.sort(numbers))
    assert (np.diff(found) >= 0).all()
    assert found.max() < bins.size
    if len(np.unique(numbers)) <= 64:
        assert len(np.unique(found)) == len(np.unique(numbers)) == bins.size


def test_bins_have_equal_mass_whatever_the_order() -> None:
    values = np.random.default_rng(0).lognormal(size=50_000)
    bins = fine_bins(values)
    assert bins.size == 1024
    counts = np.bincount(bins.number(values))
    assert counts.min() > 0.8 * counts.mean()
    assert counts.max() < 1.2 * counts.mean()
    assert np.array_equal(fine_bins(values[::-1]).edges, bins.edges)


def test_a_heavy_value_has_a_bin_of_its_own_at_every_resolution() -> None:
    generator = np.random.default_rng(1)
    values = generator.normal(size=20_000)
    values[:8_000] = 0.0
    bins = fine_bins(values)
    zero = int(bins.number(np.zeros(1))[0])
    number = bins.number(values)
    assert (values[number == zero] == 0).all()
    counts = np.bincount(number, minlength=bins.size)[:, None]
    for groups in coarser(counts):
        alone = np.flatnonzero(groups == groups[zero])
        assert alone.tolist() == [zero] or int(groups[-1]) < 3


def test_coarser_bins_are_of_equal_mass_and_ever_more() -> None:
    counts = np.full((1024, 2), 5)
    sizes = [int(groups[-1]) + 1 for groups in coarser(counts)]
    assert sizes == [2**level for level in range(1, 11)]
    for groups in coarser(counts):
        merged = grouped(counts, groups).sum(1)
        assert merged.min() == merged.max()


def test_the_resolution_follows_the_data() -> None:
    generator = np.random.default_rng(2)
    values = generator.random(60_000)

    def bins_of(chance_of: np.ndarray) -> int:
        label = (generator.random(60_000) < chance_of).astype(np.int64)
        tally, chance = counted(values, label, fine_bins(values))
        return resolved(tally, chance)[0].distinct

    step = bins_of(np.where(values > 0.5, 0.6, 0.3))
    wave = bins_of(np.where(np.floor(values * 64) % 2 == 0, 0.8, 0.2))
    assert step <= 8
    assert wave >= 64


def test_missing_is_a_value_and_coarse_bins_are_those_of_the_counts() -> None:
    generator = np.random.default_rng(3)
    values = generator.normal(size=30_000)
    label = (generator.random(30_000) < np.where(values > 0, 0.7, 0.2)).astype(np.int64)
    values[::10] = np.nan
    fine = fine_bins(values[np.isfinite(values)])
    tally, chance = counted(values, label, fine)
    coarse, groups, found = resolved(tally, chance)
    assert coarse.missing == 3_000
    assert coarse.values[0] is None
    assert found.z > 100
    edges = coarse_bins(fine, tally.values.drop_nulls().to_numpy(), groups)
    again, _ = counted(values, label, edges)
    assert np.array_equal(again.counts, coarse.counts)


def test_noise_is_not_mistaken_for_a_fine_structure() -> None:
    generator = np.random.default_rng(4)
    scores = []
    for _ in range(20):
        values, label = generator.normal(size=5_000), generator.integers(0, 2, 5_000)
        tally, chance = counted(values, label, fine_bins(values))
        scores.append(resolved(tally, chance)[2].z)
    assert max(scores) < 6
    assert np.median(scores) < 2


@pytest.mark.parametrize("missing", [0, 500])
def test_noise_is_as_far_from_chance_as_chance_is(missing: int) -> None:
    generator = np.random.default_rng(6)
    z = []
    for _ in range(400):
        values, label = generator.normal(size=5_000), (generator.random(5_000) < 0.2).astype(np.int64)
        values[:missing] = np.nan
        tally, chance = counted(values, label, fine_bins(values[missing:]))
        z.append(resolved(tally, chance)[2].z)
    assert abs(np.mean(z)) < 0.15
    assert np.std(z) == pytest.approx(1.0, abs=0.15)
    assert np.mean(np.array(z) > 3) < 0.022  # that of a column of two values, by the chi-square law


def test_the_choice_of_a_resolution_is_no_choice_where_there_is_one() -> None:
    assert luck((5,)) == (0.0, 1.0)
    mean, deviation = luck(tuple(2**level - 1 for level in range(1, 11)))
    assert 0.2 < mean < 0.5
    assert 1.1 < deviation < 1.5


def test_a_weak_curve_is_still_told_from_noise() -> None:
    generator = np.random.default_rng(7)
    z = []
    for _ in range(20):
        values = generator.normal(size=5_000)
        label = (generator.random(5_000) < 0.2 + 0.04 * (values > 0)).astype(np.int64)
        tally, chance = counted(values, label, fine_bins(values))
        z.append(resolved(tally, chance)[2].z)
    assert np.median(z) > 4
