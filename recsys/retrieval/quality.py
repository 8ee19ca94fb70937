"""What an index answers against what it should: questions with exact answers, recall and latency."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from recsys.retrieval.dense import Metric, knn
from recsys.retrieval.kernels import best
from recsys.retrieval.manifest import Measured
from recsys.retrieval.snapshot import Snapshot, Wanted

_TIMED, _TIMED_EXACTLY = 200, 20


@dataclass(frozen=True)
class Questions:
    """Queries whose exact answers are known."""

    queries: NDArray[np.float32]
    """``[Q, D]``."""
    answers: NDArray[np.int64]
    """Rows ``[Q, k]`` of an exact search of the vectors as they were given, best first."""
    origin: Literal["given", "items"]
    own: NDArray[np.int64] | None = None
    """Rows ``[Q]`` of the items that stand in for queries, which are no answers."""

    def __len__(self) -> int:
        return len(self.queries)

    def part(self, start: int, stop: int) -> Questions:
        """Some of them."""
        own = None if self.own is None else self.own[start:stop]
        return replace(self, queries=self.queries[start:stop], answers=self.answers[start:stop], own=own)

    def recall(self, rows: NDArray[np.int64]) -> float:
        """Mean share of the answers among found rows ``[Q, M]``."""
        return float(self.recall_by_depth(rows)[-1])

    def recall_by_depth(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """The same among the first one, two, … ``M`` found rows of each query."""
        width = int(self.answers.max(initial=0)) + 1
        line = np.arange(len(rows))[:, None] * width
        known = np.where((rows < 0) | (rows >= width), -1, line + rows)
        hits = np.isin(known, line + self.answers).sum(axis=0)
        return np.asarray(hits.cumsum() / self.answers.size)


def answered(
    queries: NDArray[np.float32],
    chunks: Iterable[NDArray[np.float32]],
    k: int,
    metric: Metric,
    own: NDArray[np.int64] | None = None,
) -> Questions:
    """Ask queries ``[Q, D]`` of all vectors, which come in chunks ``[n, D]``; ``own`` as in Questions."""
    count = k if own is None else k + 1
    scores = np.empty((len(queries), 0), np.float32)
    rows = np.empty((len(queries), 0), np.int64)
    start = 0
    for chunk in chunks:
        new_scores, new = knn(queries, chunk, min(count, len(chunk)), metric)
        scores, rows = best(np.hstack([scores, new_scores]), np.hstack([rows, new + start]), count)
        start += len(chunk)
    if own is not None:
        scores, rows = best(np.where(rows == own[:, None], np.float32(-np.inf), scores), rows, k)
    return Questions(queries, rows, "given" if own is None else "items", own)


def measure(snapshot: Snapshot, questions: Questions, k: int, wanted_recall: float | None) -> Measured:
    """Recall at k of a finished index, and the median time of one query at a time."""
    wanted = Wanted(k)
    if questions.own is not None:
        wanted = replace(wanted, excluded=[np.array([row]) for row in questions.own])
    _, rows = snapshot.search(questions.queries, wanted)
    coarse = snapshot.coarse
    exact = replace(wanted, exact=True, excluded=[])
    return Measured(
        k=k,
        recall=questions.recall(rows),
        wanted_recall=None if coarse is None else wanted_recall,
        queries=len(questions),
        queries_from=questions.origin,
        milliseconds=_median(lambda query: snapshot.search(query, Wanted(k)), questions.queries[:_TIMED]),
        exact_milliseconds=_median(
            lambda query: snapshot.search(query, exact), questions.queries[:_TIMED_EXACTLY]
        ),
        memory_bytes_per_item=0.0 if coarse is None else coarse.memory_bytes() / snapshot.base.rows,
    )


def _median(search: Callable[[NDArray[np.float32]], object], queries: NDArray[np.float32]) -> float:
    """Milliseconds of one query at a time, after one that is not counted."""
    search(queries[:1])
    spent = []
    for at in range(len(queries)):
        started = time.perf_counter()
        search(queries[at : at + 1])
        spent.append(time.perf_counter() - started)
    return 1000 * float(np.median(spent))
