"""Compiled loops that score rows of a mapped file where they lie: gathered, never copied.

Scores are inner products, or with ``nearness`` negative squared distances: higher is better in both.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.compiled import compiled_fast

_HALF_BIAS = np.float32(2.0**112)
"""A float16's bits moved into a float32 stand for the value divided by this."""


@compiled_fast
def score_float32(
    vectors: NDArray[np.float32],
    queries: NDArray[np.float32],
    rows: NDArray[np.int64],
    nearness: bool,
    scores: NDArray[np.float32],
) -> None:
    """``scores[q, i]`` of ``queries[q]`` with row ``rows[q, i]``; minus infinity where that is negative."""
    dim = vectors.shape[1]
    for q in range(rows.shape[0]):
        query = queries[q]
        for i in range(rows.shape[1]):
            row = rows[q, i]
            if row < 0:
                scores[q, i] = -np.inf
                continue
            total = np.float32(0)
            if nearness:
                for j in range(dim):
                    difference = vectors[row, j] - query[j]
                    total -= difference * difference
            else:
                for j in range(dim):
                    total += vectors[row, j] * query[j]
            scores[q, i] = total


@compiled_fast
def score_float16(
    bits: NDArray[np.uint16],
    queries: NDArray[np.float32],
    rows: NDArray[np.int64],
    nearness: bool,
    scores: NDArray[np.float32],
) -> None:
    """The same for float16 vectors, given as their bits ``[N, D]``, which processors do not multiply."""
    dim = bits.shape[1]
    for q in range(rows.shape[0]):
        query = queries[q]
        for i in range(rows.shape[1]):
            row = rows[q, i]
            if row < 0:
                scores[q, i] = -np.inf
                continue
            total = np.float32(0)
            for j in range(dim):
                half = np.uint32(bits[row, j])
                sign = (half & np.uint32(0x8000)) << np.uint32(16)
                rest = (half & np.uint32(0x7FFF)) << np.uint32(13)
                value = np.uint32(sign | rest).view(np.float32) * _HALF_BIAS
                if nearness:
                    difference = value - query[j]
                    total -= difference * difference
                else:
                    total += value * query[j]
            scores[q, i] = total


@compiled_fast
def score_int8(
    codes: NDArray[np.int8],
    scales: NDArray[np.float32],
    queries: NDArray[np.float32],
    rows: NDArray[np.int64],
    nearness: bool,
    scores: NDArray[np.float32],
) -> None:
    """The same for rows that mean ``scale * code``."""
    dim = codes.shape[1]
    for q in range(rows.shape[0]):
        query = queries[q]
        for i in range(rows.shape[1]):
            row = rows[q, i]
            if row < 0:
                scores[q, i] = -np.inf
                continue
            scale = scales[row]
            total = np.float32(0)
            if nearness:
                for j in range(dim):
                    difference = scale * np.float32(codes[row, j]) - query[j]
                    total -= difference * difference
            else:
                for j in range(dim):
                    total += np.float32(codes[row, j]) * query[j]
                total *= scale
            scores[q, i] = total


def best(
    scores: NDArray[np.float32], rows: NDArray[np.int64], k: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The ``k`` highest scores of each line ``[Q, M]`` and their rows, best first, ties by row.

    Lines with fewer finite scores are filled up with row -1 and minus infinity.
    """
    if scores.shape[1] > k:
        at = np.argpartition(-scores, k - 1, axis=1)[:, :k]
        scores, rows = np.take_along_axis(scores, at, 1), np.take_along_axis(rows, at, 1)
    order = np.lexsort((rows, -scores), axis=1)
    scores, rows = np.take_along_axis(scores, order, 1), np.take_along_axis(rows, order, 1)
    if scores.shape[1] < k:
        missing = ((0, 0), (0, k - scores.shape[1]))
        scores = np.pad(scores, missing, constant_values=-np.inf)
        rows = np.pad(rows, missing, constant_values=-1)
    return scores, np.where(np.isneginf(scores), -1, rows)


def widest(vectors: NDArray[Any]) -> NDArray[np.float32]:
    """Largest absolute number of each row ``[N]``."""
    return np.asarray(np.abs(vectors).max(axis=1), np.float32)
