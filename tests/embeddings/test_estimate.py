"""What plans are expected to lose: nothing where rows are own, what is merged where they are not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from recsys.config import PlanSettings
from recsys.data.dataset import Dataset
from recsys.embeddings.estimate import LEARNT, PRECISION, Estimate, Values, estimate, values_of
from recsys.embeddings.plan import Plan
from recsys.embeddings.planner import plan
from recsys.embeddings.rows import table_rows
from tests.embeddings.datasets import made_dataset

SIZES = {"user": 6_002, "film": 3_002, "sex": 4}
ROWS = 500_000


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return made_dataset(tmp_path_factory.mktemp("estimate") / "d", SIZES, rows=ROWS)


def made(dataset: Dataset, **settings: object) -> Plan:
    return plan(dataset, settings=PlanSettings.parse(**settings))


def expected(dataset: Dataset, **settings: object) -> Estimate:
    return estimate(made(dataset, **settings), values_of(dataset))


def test_own_rows_lose_what_their_type_costs(dataset: Dataset) -> None:
    for dtype, cost in PRECISION.items():
        found = expected(dataset, mode="full", serve_dtype=dtype)
        assert (found.alike, found.crowded) == (0.0, 0.0)
        assert found.loss == pytest.approx(cost)


@pytest.mark.parametrize("lookups", [1, 2])
@pytest.mark.parametrize("mode", ["hash", "unified"])
def test_what_is_merged_is_what_the_rows_of_the_keys_merge(
    dataset: Dataset, mode: str, lookups: int
) -> None:
    """Against the definition, by the rows that keys have."""
    found = made(dataset, mode=mode, lookups=lookups, bytes=150_000)
    values = values_of(dataset, {"user": 1.0, "film": 0.0, "sex": 0.0})
    counts = dataset.values("user")["count"].to_numpy().astype(float)
    rows = table_rows(found, dataset, "user")
    assert rows is not None
    share = np.ones(len(counts))
    for lookup in rows.reshape(len(rows), -1)[2:].T:
        share *= 1 - counts / np.bincount(lookup, counts)[lookup]
    alike = (share * counts**2 / (counts + LEARNT)).sum() / counts.sum()
    assert estimate(found, values).alike == pytest.approx(alike, rel=0.1)


def test_rows_lookups_and_exact_values_help(dataset: Dataset) -> None:
    budgets = (60_000, 120_000, 240_000, 480_000)
    for mode in ("hash", "unified", "adaptive"):
        losses = [expected(dataset, mode=mode, bytes=budget).loss for budget in budgets]
        assert losses == sorted(losses, reverse=True)
        assert losses[0] > 1.5 * losses[-1]
    one, two = (expected(dataset, mode="unified", bytes=120_000, lookups=each) for each in (1, 2))
    assert two.alike < one.alike / 2
    shared, own = (expected(dataset, mode=mode, bytes=120_000) for mode in ("unified", "hash"))
    assert shared.alike < own.alike
    assert own.crowded == 0.0 < shared.crowded
    hot = expected(dataset, mode="adaptive", hot=0.6, bytes=120_000)
    assert hot.alike < own.alike


def test_a_vocabulary_counts_as_much_as_it_tells(dataset: Dataset) -> None:
    found = made(dataset, tables={"user": {"mode": "hash", "rows": 500}})
    films = values_of(dataset, {"user": 0.0, "film": 0.2, "sex": 0.0})
    assert films["film"].weight == 1.0
    assert estimate(found, films).loss == 0.0
    whole = estimate(found, values_of(dataset, {"user": 1.0, "film": 0.0, "sex": 0.0})).alike
    half = estimate(found, values_of(dataset, {"user": 1.0, "film": 1.0, "sex": 0.0})).alike
    assert half == pytest.approx(whole / 2)
    assert half > 0.1
    unknown = values_of(dataset, {"user": 0.3, "sex": 0.1})
    assert unknown["film"].weight == pytest.approx(0.2 / 0.6), "as the mean of what is known"
    entropy = values_of(dataset)
    assert entropy["user"].weight > entropy["film"].weight > 5 * entropy["sex"].weight


def test_bins_hold_all_values_and_rows() -> None:
    counts = np.sort(np.random.default_rng(3).zipf(1.5, 20_000).clip(1, 10**6))[::-1]
    values = Values.of(counts, 1.0)
    assert values.numbers.sum() == 20_000
    assert values.counts @ values.numbers == pytest.approx(counts.sum())
    assert len(values.counts) <= 48
    assert values.after(500).sum() == 19_500
    assert values.after(500) @ values.counts == pytest.approx(counts[500:].sum(), rel=0.02)
    assert values.after(30_000).sum() == 0.0
    none = Values.of(np.empty(0, np.int64), 0.0)
    assert len(none.counts) == 0


def test_an_empty_vocabulary_has_nothing_to_lose(tmp_path: Path) -> None:
    dataset = made_dataset(tmp_path / "d", {"user": 300, "none": 2}, rows=1_000)
    assert expected(dataset, mode="unified", exact=0, bytes=4_000).loss > 0
