"""Item vectors whose right answers are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.retrieval.build import IndexSettings, index
from recsys.retrieval.index import Index

ITEMS, DIM = 4_000, 16


def made_vectors(rows: int = ITEMS, dim: int = DIM, seed: int = 0) -> NDArray[np.float32]:
    """Vectors around 200 centres, of different lengths."""
    generator = np.random.default_rng(seed)
    centres = generator.normal(size=(200, dim))
    vectors = centres[generator.integers(0, 200, rows)] + 0.3 * generator.normal(size=(rows, dim))
    lengths = np.exp(0.2 * generator.normal(size=(rows, 1)))
    return np.asarray(vectors * lengths, np.float32)


def made_items(rows: int = ITEMS) -> pl.DataFrame:
    """Ids that are no row numbers, and attributes."""
    generator = np.random.default_rng(1)
    return pl.DataFrame(
        {
            "item_id": np.arange(rows) * 7 + 1_000,
            "price": generator.random(rows),
            "brand": [("acme", "zeta", None)[row % 3] for row in range(rows)],
        }
    )


def made_queries(queries: int = 20, dim: int = DIM, seed: int = 2) -> NDArray[np.float32]:
    return np.asarray(np.random.default_rng(seed).normal(size=(queries, dim)), np.float32)


def made_index(
    folder: Path,
    settings: IndexSettings | None = None,
    rows: int = ITEMS,
    queries: NDArray[np.float32] | None = None,
) -> Index:
    """An index of ``made_vectors`` with ``made_items``."""
    return index(
        made_vectors(rows),
        folder,
        settings=settings,
        queries=queries,
        ids=made_items(rows),
        id_column="item_id",
        attributes=["price", "brand"],
    )


def exact_ids(
    vectors: NDArray[np.float32],
    ids: NDArray[np.int64],
    queries: NDArray[np.float32],
    k: int,
    metric: str = "ip",
) -> list[list[int]]:
    """The right answers, by numpy in float64."""
    items, asked = vectors.astype(np.float64), queries.astype(np.float64)
    if metric == "cosine":
        items = items / np.linalg.norm(items, axis=1, keepdims=True)
    scores = asked @ items.T
    if metric == "l2":
        scores = -((asked[:, None] - items[None]) ** 2).sum(axis=2)
    return [ids[np.argsort(-line, kind="stable")[:k]].tolist() for line in scores]
