"""Learn from queries which lists hold their answers.

Queries of a two-tower model come from another distribution than items, and the centroid with the largest
inner product is then a poor guess of where the answers lie. A linear layer over the lists, started from
the centroids and trained by cross-entropy on the lists of the true answers, guesses better at the same cost
(Vecchiato et al., "A Learning-to-Rank Formulation of Clustering-Based Approximate Nearest Neighbor
Search", SIGIR 2024; they take the first answer, we all ``k``).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recsys.progress import progress
from recsys.retrieval.quantiser import Quantiser

_EPOCHS, _BATCH, _RATE = 30, 256, 0.02


def learned_routing(
    quantiser: Quantiser, queries: NDArray[np.float32], lists: NDArray[np.int64], seed: int
) -> NDArray[np.float32]:
    """Routing weights ``[L, D + 1]`` for queries ``[Q, D]`` whose answers lie in ``lists`` ``[Q, k]``."""
    generator = np.random.default_rng(seed)
    inputs = np.column_stack([queries, np.ones(len(queries), np.float32)])
    spread = float((inputs @ quantiser.routing.T).std()) or 1.0
    weights = quantiser.routing / spread
    mean, square = np.zeros_like(weights), np.zeros_like(weights)
    step = 0
    with progress("routing", _EPOCHS * len(queries), "queries") as bar:
        for _ in range(_EPOCHS):
            order = generator.permutation(len(queries))
            for start in range(0, len(order), _BATCH):
                at = order[start : start + _BATCH]
                slope = _slope(weights, inputs[at], lists[at])
                step += 1
                mean = 0.9 * mean + 0.1 * slope
                square = 0.999 * square + 0.001 * slope**2
                rate = _RATE / spread * np.sqrt(1 - 0.999**step) / (1 - 0.9**step)
                weights -= (rate * mean / (np.sqrt(square) + 1e-8)).astype(np.float32)
                bar.advance(len(at))
    return np.ascontiguousarray(weights, np.float32)


def _slope(
    weights: NDArray[np.float32], inputs: NDArray[np.float32], lists: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Gradient ``[L, D + 1]`` of the mean cross-entropy with an equal share for each answer's list."""
    logits = inputs @ weights.T
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    lines = np.repeat(np.arange(len(inputs)), lists.shape[1])
    np.subtract.at(shares, (lines, lists.ravel()), np.float32(1 / lists.shape[1]))
    slope: NDArray[np.float32] = shares.T @ inputs / len(inputs)
    return slope
