"""Locality-centric batches: queries that share candidates stand together, so in-batch negatives are hard.

Sampling of BiDR's dense stage (Xiao et al., WWW 2022, section 3.2) over the bipartite graph of queries and
the items of their pools: a batch begins at a random query and goes on to one that has an item of its pool
in common with it, a random one (walk) or all of them, breadth first (snowball).
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from recsys.compiled import compiled

_TRIES = 32
"""Steps of a walk that may lead nowhere before another one is begun elsewhere."""


def local_order(
    query_of_row: NDArray[np.int32],
    pools: NDArray[np.int32],
    items: int,
    batch_size: int,
    kind: Literal["walk", "snowball"],
    generator: np.random.Generator,
) -> NDArray[np.int64]:
    """Row numbers ``[R]`` in the order of an epoch, each once; every ``batch_size`` of them are a batch.

    A visit takes one of the query's rows. A query is visited once per batch, as its other rows' items are
    no negatives of it, and the likelier the more rows it has left, so that queries of many rows do not
    remain for the end; only a batch that can go nowhere else begins anew at the query of a random row,
    and may then repeat one. Batches are shuffled, as the later ones are less local.

    Args:
        query_of_row: query of each row ``[R]``, in ``[0, Q)``.
        pools: items in ``[0, items)`` of each query ``[Q, P]``, then -1 in short ones.
        items: of the catalogue.
        batch_size: rows of a batch.
        kind: how a batch goes on.
        generator: everything random is drawn from it.
    """
    starts = generator.permutation(query_of_row)
    shuffled = generator.permutation(len(query_of_row))
    rows = shuffled[np.argsort(query_of_row[shuffled], kind="stable")]
    left = np.bincount(query_of_row, minlength=len(pools))
    order = np.empty(len(rows), np.int64)
    edges = _attached(pools, items)
    _visit(rows, left, starts, pools, *edges, batch_size, kind == "walk", generator, order)
    full = len(order) // batch_size
    batches = order[: full * batch_size].reshape(full, batch_size)
    batches[:] = batches[generator.permutation(full)]
    return order


@compiled
def _attached(pools: NDArray[np.int32], items: int) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Queries whose pools hold each item: those of item i are ``queries[offsets[i]:offsets[i + 1]]``."""
    offsets = np.zeros(items + 2, np.int64)
    for item in pools.ravel():
        if item >= 0:
            offsets[item + 2] += 1
    offsets = np.cumsum(offsets)
    queries = np.empty(offsets[-1], np.int32)
    for query in range(pools.shape[0]):
        for item in pools[query]:
            if item >= 0:
                queries[offsets[item + 1]] = query
                offsets[item + 1] += 1
    return offsets[:-1], queries


@compiled
def _visit(
    rows: NDArray[np.int64],
    left: NDArray[np.int64],
    starts: NDArray[np.int32],
    pools: NDArray[np.int32],
    offsets: NDArray[np.int64],
    attached: NDArray[np.int32],
    batch_size: int,
    walk: bool,
    generator: np.random.Generator,
    order: NDArray[np.int64],
) -> None:
    """Write the rows, which are sorted by query, in the order of visits.

    ``starts`` holds each query as often as it has rows, so that none remains when it has been read.
    """
    queries = len(left)
    ends = np.cumsum(left)
    sizes = np.array([np.count_nonzero(pool >= 0) for pool in pools])
    met = np.full(queries, -1)  # the batch in which a query last stood, or was queued
    queue = np.empty(queries, np.int64)
    first = last = start = 0
    for at in range(len(rows)):
        batch = at // batch_size
        if at % batch_size == 0:
            first = last = 0
        if first == last:
            while left[starts[start]] == 0:
                start += 1
            queue[0], first, last = starts[start], 0, 1
        query = queue[first]
        first += 1
        order[at] = rows[ends[query] - left[query]]
        left[query] -= 1
        met[query] = batch
        mean = (len(rows) - at) / queries
        full = last - first >= batch_size - at % batch_size
        for _ in range(0 if full or not sizes[query] else _TRIES):
            item = pools[query, int(generator.random() * sizes[query])]
            low, count = offsets[item], offsets[item + 1] - offsets[item]
            turn = int(generator.random() * count)
            for step in range(1 if walk else count):
                other = attached[low + (turn + step) % count]
                if met[other] != batch and generator.random() * mean < left[other]:
                    met[other] = batch
                    queue[last] = other
                    last += 1
            if last > first or not walk:
                break
