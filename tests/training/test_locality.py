"""Local batches: every row once, queries with common candidates together, none twice in a batch."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
from numpy.typing import NDArray

from recsys.training.locality import local_order

QUERIES, ITEMS, CIRCLES, BATCH = 200, 100, 5, 32
Kind = Literal["walk", "snowball"]


def made(seed: int = 0) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Queries of 1 to 60 rows and their pools; query and items of a circle are the same modulo 5."""
    draw = np.random.default_rng(seed)
    counts = np.minimum(draw.geometric(0.1, QUERIES), 60)
    query_of_row = draw.permutation(np.repeat(np.arange(QUERIES), counts)).astype(np.int32)
    pools = np.full((QUERIES, 8), -1, np.int32)
    for query in range(2, QUERIES):  # two have empty pools
        size = 1 if query < 10 else 8
        picked = draw.choice(ITEMS // CIRCLES, size, replace=False) * CIRCLES + query % CIRCLES
        pools[query, :size] = np.sort(picked)
    return query_of_row, pools


def ordered(kind: Kind, seed: int = 1) -> NDArray[np.int64]:
    return local_order(*made(), ITEMS, BATCH, kind, np.random.default_rng(seed))


@pytest.mark.parametrize("kind", ["walk", "snowball"])
def test_every_row_comes_once_and_as_the_seed_has_it(kind: Kind) -> None:
    order = ordered(kind)
    assert sorted(order.tolist()) == list(range(len(made()[0])))
    assert order.tolist() == ordered(kind).tolist()
    assert order.tolist() != ordered(kind, seed=2).tolist()


@pytest.mark.parametrize("kind", ["walk", "snowball"])
def test_batches_stay_among_queries_with_common_candidates(kind: Kind) -> None:
    query_of_row, _ = made()
    full = len(query_of_row) // BATCH
    batches = query_of_row[ordered(kind)[: full * BATCH]].reshape(full, BATCH)
    drawn = np.random.default_rng(0).permutation(query_of_row)[: full * BATCH].reshape(full, BATCH)
    largest = [
        np.mean([np.bincount(batch % CIRCLES).max() for batch in each]) / BATCH for each in (batches, drawn)
    ]
    assert largest[0] > 0.75  # all but what begins anew when a circle's queries are used up
    assert largest[1] < 0.4


@pytest.mark.parametrize("kind", ["walk", "snowball"])
def test_a_batch_meets_a_query_once(kind: Kind) -> None:
    """Pools of all items lead from each query to each: only the last rows of all have no choice."""
    query_of_row = np.repeat(np.arange(QUERIES, dtype=np.int32), 16)
    pools = np.tile(np.arange(ITEMS, dtype=np.int32), (QUERIES, 1))
    order = local_order(query_of_row, pools, ITEMS, BATCH, kind, np.random.default_rng(1))
    distinct = [len(set(batch)) for batch in query_of_row[order].reshape(-1, BATCH).tolist()]
    assert distinct.count(BATCH) > 0.95 * len(distinct)


@pytest.mark.parametrize("kind", ["walk", "snowball"])
def test_without_pools_batches_are_random_and_complete(kind: Kind) -> None:
    query_of_row, pools = made()
    generator = np.random.default_rng(1)
    order = local_order(query_of_row, np.full_like(pools, -1), ITEMS, BATCH, kind, generator)
    assert sorted(order.tolist()) == list(range(len(query_of_row)))
