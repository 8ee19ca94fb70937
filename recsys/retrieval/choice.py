"""Choose lists, codes, probes and candidates for a wanted recall, or within wanted bytes per item."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import faiss
import numpy as np
from numpy.typing import NDArray

from recsys.errors import ConfigError
from recsys.progress import progress, say
from recsys.retrieval.coarse import ROW_NUMBER_BYTES, Coarse
from recsys.retrieval.dense import DenseFile, Metric, knn
from recsys.retrieval.kernels import best
from recsys.retrieval.quality import Questions, answered
from recsys.retrieval.quantiser import Quantiser
from recsys.retrieval.routing import learned_routing

_POINTS_PER_LIST, _LEAST_POINTS, _MOST_POINTS = 64, 65_536, 524_288
_OPQ_POINTS, _OPQ_ROUNDS = 16_384, 5
_JUDGED, _JUDGING = 65_536, 200
"""Items and questions that say which codebooks rank better."""
_LEAST_ROWS_PER_LIST = 39
_DEPTHS = (1, 2, 3, 5, 8, 12, 20, 30, 50, 100, 200)
"""Candidates per answer that are tried."""
_TIMED = 128
_MARGIN = 0.003
"""Recall on the questions that probes are chosen by is a little kinder than on others."""


@dataclass(frozen=True)
class Goal:
    """What is wanted of the codes."""

    recall: float = 0.95
    k: int = 10
    bytes_per_item: float | None = None
    """Memory for codes, row numbers and tables; None: as little as reaches the recall."""


@dataclass(frozen=True)
class Choice:
    """Codes of all rows, and how to search them."""

    quantiser: Quantiser
    lists: NDArray[np.int64]
    codes: NDArray[np.uint8]
    probes: int
    candidates: int
    recall: float
    """On the questions that it was chosen by."""


def choose(
    dense: DenseFile,
    goal: Goal,
    tuning: Questions,
    teaching: Questions | None,
    *,
    given: Quantiser | None,
    seed: int,
) -> Choice:
    """Train, encode and tune; tries longer codes until the wanted recall is reached.

    Args:
        dense: all vectors.
        goal: recall, or bytes.
        tuning: questions that probes and candidates are chosen by.
        teaching: other questions, from which it is learned which lists to search; None: centroids decide.
        given: a quantiser made elsewhere, instead of training one.
        seed: of the samples and of k-means.
    """
    made = None
    for quantiser in _quantisers(dense, goal, tuning, given, seed):
        lists, codes = _encoded(dense, quantiser)
        routed = _routed(quantiser, lists, tuning, teaching, seed)
        coarse = Coarse(routed, lists, codes, dense.metric, probes=1, candidates=goal.k)
        probes, candidates, recall = _tuned(coarse, dense, goal, tuning)
        made = Choice(routed, lists, codes, probes, candidates, recall)
        if recall >= goal.recall:
            return made
        say(f"index     {quantiser.code_bytes} bytes of code reach recall@{goal.k} {recall:.4f}")
    assert made is not None
    return made


def _quantisers(
    dense: DenseFile, goal: Goal, tuning: Questions, given: Quantiser | None, seed: int
) -> Iterator[Quantiser]:
    """Those to try, the smallest first."""
    if given is not None:
        yield given
        return
    lists = lists_for(dense.rows)
    if goal.bytes_per_item is not None:
        sizes = [_affordable(goal.bytes_per_item, dense, lists)]
    else:
        first = max(4, min(16, dense.dim // 4))
        sizes = [size for size in (first, 2 * first) if size <= max(4, dense.dim // 2)]
    sample = _sample(dense, lists, seed)
    centroids = _centroids(sample, lists, seed)
    for size in sizes:
        yield _trained(sample, centroids, size, dense.metric, tuning, seed)


def lists_for(rows: int) -> int:
    """A power of two near twice the square root, as long as lists have enough rows."""
    wanted = 2 ** round(np.log2(2 * np.sqrt(rows)))
    return int(max(1, min(wanted, rows // _LEAST_ROWS_PER_LIST)))


def _affordable(bytes_per_item: float, dense: DenseFile, lists: int) -> int:
    """Bytes of code that fit beside row numbers and tables; raises ConfigError where none do."""
    tables = 4 * (lists * (2 * dense.dim + 1) + 16 * dense.dim + dense.dim**2) / dense.rows
    filled = 1 + 16 * lists / dense.rows  # lists end in blocks of 32, half empty on average
    left = int((bytes_per_item - ROW_NUMBER_BYTES - tables) / filled)
    if left < 1:
        least = ROW_NUMBER_BYTES + tables + filled
        raise ConfigError(
            f"bytes_per_item: {bytes_per_item:g} is too few; row numbers take {ROW_NUMBER_BYTES}, tables "
            f"{tables:.1f}, so ask for at least {least:.1f}"
        )
    return min(left, max(1, dense.dim // 2))


def _sample(dense: DenseFile, lists: int, seed: int) -> NDArray[np.float32]:
    count = min(dense.rows, _MOST_POINTS, max(_LEAST_POINTS, _POINTS_PER_LIST * lists))
    rows = np.random.default_rng(seed).choice(dense.rows, count, replace=False)
    return dense.take(np.sort(rows))


def _centroids(sample: NDArray[np.float32], lists: int, seed: int) -> NDArray[np.float32]:
    """K-means by distance, for inner products too: spherical lists, FAISS's choice there, lose norms."""
    clustering = faiss.Kmeans(
        sample.shape[1], lists, niter=10, seed=seed, min_points_per_centroid=1, max_points_per_centroid=256
    )
    with progress("lists"):
        clustering.train(sample)
    found: NDArray[np.float32] = clustering.centroids
    return found


def _trained(
    sample: NDArray[np.float32],
    centroids: NDArray[np.float32],
    size: int,
    metric: Metric,
    tuning: Questions,
    seed: int,
) -> Quantiser:
    """Codebooks of 4 bits for residuals, turned by OPQ or at random: whichever ranks a sample better.

    The items with the largest inner products are long ones with large residuals, which codebooks of typical
    residuals cut short. So for that metric they are learned from residuals of the centroid that has the
    largest inner product, which are larger (as FAISS does), though codes are made of the nearest one.
    """
    dim, segments = sample.shape[1], 2 * size
    width = segments * max(1, dim // segments)
    nearest = knn(sample, centroids, 1, "ip" if metric == "ip" else "l2")[1][:, 0]
    residual = np.ascontiguousarray(sample - centroids[nearest])
    with progress("codebooks"):
        turns = [_opq(residual, segments, width)]
        if width == dim:
            turns.append(np.linalg.qr(np.random.default_rng(seed).normal(size=(dim, dim)))[0])
        made = []
        for turn in turns:
            rotation = np.ascontiguousarray(turn, np.float32)
            product = faiss.ProductQuantizer(width, segments, 4)
            product.cp.min_points_per_centroid = 1
            product.train(np.ascontiguousarray(residual @ rotation.T))
            words = faiss.vector_to_array(product.centroids).reshape(segments, 16, width // segments)
            made.append(Quantiser.of(centroids @ rotation.T, words, metric, rotation=rotation))
        return max(made, key=lambda each: _ranks(each, sample[:_JUDGED], tuning, metric))


def _opq(residual: NDArray[np.float32], segments: int, width: int) -> NDArray[np.float32]:
    """FAISS's OPQ rotation ``[width, D]``."""
    rough = faiss.ProductQuantizer(width, segments, 4)  # OPQ changes its settings: not to be used again
    rough.cp.min_points_per_centroid = 1
    turn = faiss.OPQMatrix(residual.shape[1], segments, width)
    turn.niter, turn.niter_pq, turn.max_train_points = _OPQ_ROUNDS, 2, _OPQ_POINTS
    turn.pq = rough
    turn.train(residual)
    rotation: NDArray[np.float32] = faiss.vector_to_array(turn.A).reshape(width, residual.shape[1])
    return rotation


def _ranks(quantiser: Quantiser, items: NDArray[np.float32], questions: Questions, metric: Metric) -> float:
    """Recall of the codes alone on a sample of the items."""
    k = questions.answers.shape[1]
    queries = questions.queries[:_JUDGING]
    right = answered(queries, [items], min(k, len(items)), metric)
    coarse = Coarse(quantiser, *quantiser.encode(items), metric, probes=1, candidates=k)
    ranked = coarse.ranked(queries, min(2 * k, len(items)), quantiser.lists)
    return right.recall(ranked)


def _encoded(dense: DenseFile, quantiser: Quantiser) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    lists = np.empty(dense.rows, np.int64)
    codes = np.empty((dense.rows, quantiser.code_bytes), np.uint8)
    with progress("codes", dense.rows, "items") as bar:
        start = 0
        for block in dense.blocks():
            part = slice(start, start + len(block))
            lists[part], codes[part] = quantiser.encode(block)
            start += len(block)
            bar.advance(len(block))
    return lists, codes


def _routed(
    quantiser: Quantiser,
    lists: NDArray[np.int64],
    tuning: Questions,
    teaching: Questions | None,
    seed: int,
) -> Quantiser:
    """The quantiser with learned routing, where that finds the answers of other questions sooner."""
    if teaching is None or not len(teaching):
        return quantiser
    weights = learned_routing(quantiser, teaching.queries, lists[teaching.answers], seed)
    learned = replace(quantiser, routing=weights, routed_by="learned")
    better = _rows_to_scan(learned, lists, tuning) < _rows_to_scan(quantiser, lists, tuning)
    return learned if better else quantiser


def _rows_to_scan(quantiser: Quantiser, lists: NDArray[np.int64], questions: Questions) -> float:
    """Rows in all lists up to that of an answer, the logarithm's mean over the answers."""
    inputs = np.column_stack([questions.queries, np.ones(len(questions), np.float32)])
    order = np.argsort(-(inputs @ quantiser.routing.T), axis=1)
    sizes = np.bincount(lists, minlength=quantiser.lists)
    scanned = np.empty(order.shape, np.int64)
    np.put_along_axis(scanned, order, np.cumsum(sizes[order], axis=1), axis=1)
    return float(np.log(np.take_along_axis(scanned, lists[questions.answers], axis=1)).mean())


def _tuned(coarse: Coarse, dense: DenseFile, goal: Goal, tuning: Questions) -> tuple[int, int, float]:
    """Probes and candidates that reach the recall soonest, or come nearest to it; and that recall."""
    depths = [depth * goal.k for depth in _DEPTHS if depth * goal.k < dense.rows] or [dense.rows]
    reached: list[tuple[float, int, int, float]] = []
    nearest = (0.0, 1, depths[0])
    probes = 1
    while True:
        ranked = coarse.ranked(tuning.queries, depths[-1], probes)
        recalls = tuning.recall_by_depth(ranked)
        curve = [(float(recalls[depth - 1]), depth) for depth in depths]
        enough = [(recall, depth) for recall, depth in curve if recall >= goal.recall + _MARGIN]
        if enough:
            recall, depth = enough[0]
            reached.append((_seconds(coarse, dense, tuning, depth, probes, goal.k), probes, depth, recall))
        nearest = max(nearest, (curve[-1][0], probes, depths[-1]))
        worse = len(reached) > 2 and reached[-1][0] > reached[-2][0] > reached[-3][0]
        if probes == coarse.quantiser.lists or worse:
            break
        probes = min(coarse.quantiser.lists, max(probes + 1, int(probes * 1.5)))
    if not reached:
        return nearest[1], nearest[2], nearest[0]
    _, probes, depth, recall = min(reached)
    return probes, depth, recall


def _seconds(
    coarse: Coarse, dense: DenseFile, questions: Questions, candidates: int, probes: int, k: int
) -> float:
    """Seconds of a search of some questions, the better of two."""
    queries = questions.queries[:_TIMED]
    spent = []
    for _ in range(2):
        started = time.perf_counter()
        rows = coarse.ranked(queries, candidates, probes)
        best(dense.scores(queries, rows), rows, k)
        spent.append(time.perf_counter() - started)
    return min(spent)
