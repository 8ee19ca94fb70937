"""Pairs: counted right, corrected right, never merging two tuples of values."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import mutual_info_score
from sklearn.metrics.cluster import contingency_matrix, expected_mutual_information

from recsys.errors import DataError
from recsys.ranking.codes import Codes
from recsys.ranking.information import conditional_information, information
from recsys.ranking.pairs import PairCounter, SizeTable, all_pairs, expected_mutual
from tests.ranking.coded import coded, table


def _mixed(rows: int, classes: int, seed: int = 0) -> Codes:
    generator = np.random.default_rng(seed)
    label = generator.integers(0, classes, rows)
    few = (label + generator.integers(0, 3, rows)) % 5
    return coded(
        {
            "few": few,
            "copy": few * 7 + 3,
            "many": generator.zipf(1.3, rows) % 900,
            "more": generator.integers(0, 4_000, rows),
            "one": np.zeros(rows, np.int64),
        },
        label,
    )


@pytest.mark.parametrize("classes", [2, 3])
def test_every_figure_is_that_of_its_definition(classes: int) -> None:
    codes = _mixed(3_000, classes)
    found = all_pairs(codes)
    assert found["a"].to_list() == [a for a, _ in combinations(codes.names, 2)]
    scores = [information(table(column, codes.label)) for column in codes.codes]
    confirmed = 0
    for line, (i, j) in zip(found.iter_rows(named=True), combinations(range(5), 2), strict=True):
        a, b = codes.codes[i].astype(np.int64), codes.codes[j].astype(np.int64)
        _, both = np.unique(a * 5_000 + b, return_inverse=True)
        joint = information(table(both, codes.label))
        assert line["joint"] == pytest.approx(joint.score, abs=1e-8)
        assert line["joint_z"] == pytest.approx(joint.z, rel=1e-5, abs=1e-5)
        gain = joint.score - max(scores[i].score, scores[j].score)
        synergy = joint.score - scores[i].score - scores[j].score
        if line["synergy"] != pytest.approx(synergy, abs=1e-8):
            y = codes.label.astype(np.int64)
            poorer, better = (a, b) if scores[i].score <= scores[j].score else (b, a)
            gain = conditional_information((better, poorer, y)).score
            synergy = gain - min(scores[i].score, scores[j].score)
            confirmed += 1
        assert line["gain"] == pytest.approx(gain, abs=1e-8)
        assert line["synergy"] == pytest.approx(synergy, abs=1e-8)
        expected = expected_mutual_information(contingency_matrix(a, b), len(a))
        assert line["mutual"] == pytest.approx(
            mutual_info_score(a, b) - expected, abs=1e-4 * expected + 1e-9
        )
    assert confirmed >= 4  # few and its copy with the two of many values


def test_what_negatives_drawn_per_user_hide_shows_beside_the_item() -> None:
    """Each click comes with two other items for the same user, so users alone tell less than nothing."""
    generator = np.random.default_rng(4)
    clicks = 8_000
    user = generator.zipf(1.3, clicks) % 300
    taste = generator.integers(0, 400, (300, 5))
    item = np.where(
        generator.random(clicks) < 0.8,
        taste[user, generator.integers(0, 5, clicks)],
        generator.zipf(1.3, clicks) % 400,
    )
    codes = coded(
        {
            "user": np.tile(user, 3),
            "item": np.concatenate([item, generator.integers(0, 400, 2 * clicks)]),
            "noise": generator.integers(0, 300, 3 * clicks),
        },
        np.repeat([1, 0, 0], clicks),
    )
    found = all_pairs(codes)
    synergy = {(a, b): (s, z) for a, b, s, z in found.select("a", "b", "synergy", "synergy_z").iter_rows()}
    assert found["joint"][0] > 0
    assert information(table(codes.codes[0], codes.label)).score < 0
    assert synergy["user", "item"][0] > 0.05
    assert synergy["user", "item"][1] > 50
    assert abs(synergy["item", "noise"][1]) < 4


def test_a_copy_is_all_redundant_and_a_constant_not_at_all() -> None:
    found = all_pairs(_mixed(3_000, 2))
    share = {(a, b): r for a, b, r in found.select("a", "b", "redundancy").iter_rows()}
    assert share["few", "copy"] == pytest.approx(1.0)
    assert share["few", "one"] == 0.0
    assert abs(share["few", "many"]) < 0.02


def test_counting_in_either_way_threads_and_order_of_rows_make_no_difference() -> None:
    codes = _mixed(3_000, 2)
    expected = all_pairs(codes)
    assert all_pairs(codes, threads=3).equals(expected)
    shuffle = np.random.default_rng(1).permutation(3_000)
    moved = replace(codes, codes=np.ascontiguousarray(codes.codes[:, shuffle]), label=codes.label[shuffle])
    again = all_pairs(moved).select(pl.col(pl.Float64)).to_numpy()
    np.testing.assert_allclose(again, expected.select(pl.col(pl.Float64)).to_numpy(), atol=1e-9)


def test_one_eleven_is_not_eleven_one() -> None:
    """'1'+'11' and '11'+'1' are one text and two pairs of values: they tell the label apart."""
    generator = np.random.default_rng(2)
    label = generator.integers(0, 2, 2_000)
    a = np.where(label == 1, 1, 11)
    b = np.where(label == 1, 11, 1)
    counter = PairCounter.of(coded({"a": a, "b": b}, label))
    cells, _ = counter.table(0, 1)
    assert np.count_nonzero(cells) == 2
    assert all_pairs(coded({"a": a, "b": b}, label))["joint"][0] == pytest.approx(np.log(2), abs=1e-3)


def test_wide_tables_are_packed_without_collision() -> None:
    """Three columns of 5,000 values make more cells than 32 bits hold."""
    generator = np.random.default_rng(3)
    columns = {name: generator.integers(0, 5_000, 20_000) for name in "abc"}
    counter = PairCounter.of(coded(columns, generator.integers(0, 2, 20_000)))
    cells, counts = counter.table(0, 1, 2)
    _, expected = np.unique(np.stack(list(columns.values())), axis=1, return_counts=True)
    assert sorted(cells) == sorted(expected)
    assert counts.sum() == 20_000
    with pytest.raises(DataError, match="do not fit; combine fewer columns"):
        counter.table(0, 1, 2, 0, 1, 2)


@pytest.mark.parametrize("widths", [(2, 3), (30, 3_000), (3_000, 8_000)])
def test_independent_columns_tell_nothing_of_each_other(widths: tuple[int, int]) -> None:
    generator = np.random.default_rng(4)
    scores, shares = [], []
    for _ in range(40):
        columns = {str(width): generator.integers(0, width, 6_000) for width in widths}
        line = all_pairs(coded(columns, generator.integers(0, 2, 6_000)))
        scores.append(line["mutual"][0])
        shares.append(line["redundancy"][0])
    assert abs(np.mean(scores)) < 4 * np.std(scores) / np.sqrt(40)
    assert abs(np.mean(shares)) < 0.05


def test_z_of_synergy_and_gain_of_noise_keep_their_measure() -> None:
    generator = np.random.default_rng(5)
    zs = []
    for _ in range(60):
        columns = {str(width): generator.integers(0, width, 5_000) for width in (2, 10, 300, 5_001)}
        found = all_pairs(coded(columns, (generator.random(5_000) < 0.2).astype(np.int64)))
        zs.append(found["synergy_z"].to_numpy())
    z = np.array(zs)
    assert np.abs(z.mean(axis=0)).max() < 0.5
    assert z.std(axis=0).min() > 0.6
    assert z.std(axis=0).max() < 1.3


def test_a_strong_column_crossed_with_noise_has_no_synergy() -> None:
    """Where the label is dealt over all rows, small cells of a strong column would seem to gain."""
    generator, rows = np.random.default_rng(8), 150_000
    strong, noise = generator.integers(0, 40, rows), generator.integers(0, 125, (4, rows))
    rate = np.where(np.arange(40) % 5 == 3, 0.9, 0.05)
    label = (generator.random(rows) < rate[strong]).astype(np.int64)
    columns = {"strong": strong} | {f"noise{number}": column for number, column in enumerate(noise)}
    found = all_pairs(coded(columns, label)).filter(a="strong")
    assert found.height == 4
    assert found["synergy_z"].max() < 3.5
    assert found["gain_z"].max() < 3.5


def test_the_table_over_sizes_agrees_with_the_exact_sums() -> None:
    generator = np.random.default_rng(6)
    x = np.minimum(generator.zipf(1.2, 300_000), 5_000)
    y = (generator.random(300_000) < 0.03).astype(np.int64)
    exact = information(table(x, y))
    counts = table(x, y)
    score, variance, chance = SizeTable(np.bincount(y)).corrected(counts.sum(axis=1), counts.ravel())
    assert chance == pytest.approx(exact.expected, rel=1e-6)
    assert score == pytest.approx(exact.score, abs=1e-6 * exact.expected)
    assert np.sqrt(variance) == pytest.approx(exact.sd, rel=1e-5)


def test_expected_mutual_information_of_skewed_columns() -> None:
    generator = np.random.default_rng(7)
    columns = [np.minimum(generator.zipf(a, 4_000), 700) for a in (1.1, 1.6, 3.0)]
    sizes = [np.unique(column, return_counts=True)[1] for column in columns]
    found = expected_mutual(sizes, 4_000)
    for i, j in combinations(range(3), 2):
        exact = expected_mutual_information(contingency_matrix(columns[i], columns[j]), 4_000)
        assert found[i, j] == pytest.approx(exact, rel=1e-4)
        assert found[j, i] == pytest.approx(found[i, j])


def test_one_column_makes_no_pair() -> None:
    assert all_pairs(coded({"a": np.arange(10)}, np.arange(10) % 2)).height == 0
