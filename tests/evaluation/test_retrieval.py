"""Full ranking against sorting everything, one query at a time."""

from __future__ import annotations

import numpy as np
import pytest

from recsys.evaluation import retrieval
from recsys.evaluation.retrieval import ItemLists, best_items, rank_metrics

QUERIES, ITEMS = 40, 90
Case = tuple[np.ndarray, np.ndarray, ItemLists, ItemLists]


@pytest.fixture
def case(monkeypatch: pytest.MonkeyPatch) -> Case:
    """Vectors with many equal products, relevant and seen items; some queries want nothing."""
    monkeypatch.setattr(retrieval, "_AT_ONCE", 7 * ITEMS)  # several pieces
    draw = np.random.default_rng(3)
    queries = draw.integers(-2, 3, (QUERIES, 4)).astype(np.float32)
    items = draw.integers(-2, 3, (ITEMS, 4)).astype(np.float32)
    pairs = draw.integers(0, (QUERIES - 5, ITEMS), (300, 2)), draw.integers(0, (QUERIES, ITEMS), (400, 2))
    wanted, seen = (ItemLists.of(each[:, 0], each[:, 1], QUERIES) for each in pairs)
    return queries, items, wanted, seen


def of(lists: ItemLists, query: int) -> set[int]:
    return set(lists.items[lists.offsets[query] : lists.offsets[query + 1]].tolist())


def test_best_items_are_those_of_a_full_sort(case: Case) -> None:
    queries, items, _, seen = case
    found = best_items(queries, items, 20, seen)
    for query in range(QUERIES):
        scores = items @ queries[query]
        order = [item for item in np.argsort(-scores, kind="stable") if item not in of(seen, query)]
        assert found[query].tolist() == order[:20]


def test_metrics_are_those_of_counting(case: Case) -> None:
    queries, items, wanted, seen = case
    best = best_items(queries, items, 20, seen)
    unknown = np.arange(QUERIES) % 3
    found = rank_metrics(best, wanted, (5, 20), unknown)
    asked = [query for query in range(QUERIES) if of(wanted, query) or unknown[query]]
    assert found.queries.tolist() == asked
    for k in (5, 20):
        for at, query in enumerate(asked):
            hits = [int(item in of(wanted, query)) for item in best[query][:k]]
            total = len(of(wanted, query)) + unknown[query]
            gain = sum(hit / np.log2(rank + 2) for rank, hit in enumerate(hits))
            ideal = sum(1 / np.log2(rank + 2) for rank in range(min(k, total)))
            assert found.recall[k][at] == pytest.approx(sum(hits) / total)
            assert found.ndcg[k][at] == pytest.approx(gain / ideal)
    assert found.means()["recall@20"] == pytest.approx(found.recall[20].mean())


def test_small_catalogues_and_exhausted_lists() -> None:
    queries, items = np.ones((2, 1), np.float32), np.array([[1.0], [3.0], [2.0]], np.float32)
    seen = ItemLists.of(np.array([1, 1]), np.array([1, 0]), 2)
    assert best_items(queries, items, 9, seen).tolist() == [[1, 2, 0], [2, -1, -1]]
    wanted = ItemLists.of(np.array([0, 1]), np.array([0, 1]), 2)
    found = rank_metrics(best_items(queries, items, 9, seen), wanted, (1, 9))
    assert found.recall[1].tolist() == [0, 0]
    assert found.recall[9].tolist() == [1, 0]


def test_items_of_a_kind_apart() -> None:
    lists = ItemLists.of(np.array([0, 0, 2, 2]), np.array([1, 3, 3, 0]), 3)
    odd = lists.among(np.array([False, True, False, True]))
    assert odd.offsets.tolist() == [0, 2, 2, 3]
    assert odd.items.tolist() == [1, 3, 3]
