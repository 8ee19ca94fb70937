"""Choose lists, codebooks, probes and candidates for a wanted recall, or within wanted bytes per item."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from recsys.errors import ConfigError
from recsys.progress import progress, say
from recsys.retrieval.coarse import ROW_NUMBER_BYTES, Coarse
from recsys.retrieval.codebooks import Judge, Training
from recsys.retrieval.dense import DenseFile
from recsys.retrieval.kernels import best
from recsys.retrieval.learned import OBJECTIVES, Lesson, learned
from recsys.retrieval.quality import Questions
from recsys.retrieval.quantiser import Quantiser
from recsys.retrieval.routing import learned_routing

_POINTS_PER_LIST, _LEAST_POINTS, _MOST_POINTS = 64, 65_536, 524_288
_PROPOSED = 10
"""Candidates per answer that learning tells the answers from."""
_LEAST_ROWS_PER_LIST = 39
_DEPTHS = (1, 2, 3, 5, 8, 12, 20, 30, 50, 100, 200)
"""Candidates per answer that are tried."""
_SMALL = 8
"""Bytes of code up to which, where bytes are what is given, codebooks of 8 bits are tried too."""
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
    tried: dict[str, float] = field(default_factory=dict)
    """Recall of the candidates of each kind of codebooks, on a sample of the items."""
    learned: dict[str, float] = field(default_factory=dict)
    """Recall, on all items, of the candidates of codebooks that were and were not learned."""


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
    for quantiser, tried in _quantisers(dense, goal, tuning, teaching, given, seed):
        lists, codes = _encoded(dense, quantiser)
        routed = _routed(quantiser, lists, tuning, teaching, seed)
        made = _searched(Choice(routed, lists, codes, 1, goal.k, 0.0, tried), dense, goal, tuning)
        if given is None and teaching is not None and len(teaching) and dense.metric != "l2":
            made = _with_learned(made, dense, goal, tuning, teaching, seed)
        if made.recall >= goal.recall:
            return made
        say(f"index     {quantiser.code_bytes} bytes of code reach recall@{goal.k} {made.recall:.4f}")
    assert made is not None
    return made


def _quantisers(
    dense: DenseFile,
    goal: Goal,
    tuning: Questions,
    teaching: Questions | None,
    given: Quantiser | None,
    seed: int,
) -> Iterator[tuple[Quantiser, dict[str, float]]]:
    """Those to try, the smallest first, with what other kinds of the same size reached."""
    if given is not None:
        yield given, {}
        return
    lists = lists_for(dense.rows)
    if goal.bytes_per_item is not None:
        sizes = [_affordable(goal.bytes_per_item, dense, lists)]
    else:
        first = max(4, min(16, dense.dim // 4))
        sizes = [size for size in (first, 2 * first) if size <= max(4, dense.dim // 2)]
    sample = _sample(dense, lists, seed)
    queries = teaching.queries if teaching is not None and len(teaching) else None
    training = Training(sample, lists, dense.metric, Judge(sample, tuning, dense.metric), queries, seed)
    for size in sizes:
        yield training.best(size, wide=_wide_fits(goal, dense, lists, size))


def lists_for(rows: int) -> int:
    """A power of two near twice the square root, as long as lists have enough rows."""
    wanted = 2 ** round(np.log2(2 * np.sqrt(rows)))
    return int(max(1, min(wanted, rows // _LEAST_ROWS_PER_LIST)))


def byte_costs(rows: int, dim: int, lists: int, bits: Literal[4, 8] = 4) -> tuple[float, float]:
    """Bytes per item of the tables, and what a byte of code takes in memory."""
    tables = 4 * (lists * (2 * dim + 1) + 2**bits * dim + dim**2) / rows
    # of 4 bits, lists end in blocks of 32, half empty on average
    return tables, 1 if bits == 8 else 1 + 16 * lists / rows


def _wide_fits(goal: Goal, dense: DenseFile, lists: int, size: int) -> bool:
    """Whether codes are few bytes by demand, and codebooks of 8 bits are no more than that allows."""
    tables, filled = byte_costs(dense.rows, dense.dim, lists, 8)
    wanted = goal.bytes_per_item or 0
    return size <= _SMALL and ROW_NUMBER_BYTES + tables + size * filled <= wanted


def _affordable(bytes_per_item: float, dense: DenseFile, lists: int) -> int:
    """Bytes of code that fit beside row numbers and tables; raises ConfigError where none do."""
    tables, filled = byte_costs(dense.rows, dense.dim, lists)
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


def _coded(dense: DenseFile, quantiser: Quantiser, lists: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Codes of all rows, whose lists are known."""
    parts, start = [], 0
    for block in dense.blocks():
        parts.append(quantiser.codes(block, lists[start : start + len(block)]))
        start += len(block)
    return np.concatenate(parts)


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


def _with_learned(
    made: Choice, dense: DenseFile, goal: Goal, tuning: Questions, teaching: Questions, seed: int
) -> Choice:
    """The choice with learned codebooks, where as many candidates hold no fewer answers."""

    def recall(choice: Choice) -> float:
        coarse = _coarse(choice, dense)
        return tuning.recall(coarse.ranked(tuning.queries, made.candidates, coarse.quantiser.lists))

    count = min(_PROPOSED * goal.k, dense.rows)
    proposed = _coarse(made, dense).ranked(teaching.queries, count, made.probes)
    lesson = Lesson(dense, made.lists, teaching, proposed)
    reached = {"not learned": recall(made)}
    best_known, better = reached["not learned"], made
    for objective in OBJECTIVES:
        quantiser = learned(made.quantiser, lesson, objective, seed)
        other = replace(made, quantiser=quantiser, codes=_coded(dense, quantiser, made.lists))
        reached[objective] = recall(other)
        if reached[objective] >= best_known:
            best_known, better = reached[objective], other
    if better is not made:
        better = _searched(better, dense, goal, tuning)
    return replace(better, learned=reached)


def _coarse(choice: Choice, dense: DenseFile) -> Coarse:
    return Coarse(
        choice.quantiser,
        choice.lists,
        choice.codes,
        dense.metric,
        probes=choice.probes,
        candidates=choice.candidates,
    )


def _searched(choice: Choice, dense: DenseFile, goal: Goal, tuning: Questions) -> Choice:
    """The choice with the probes and candidates that reach the recall soonest."""
    probes, candidates, recall = _tuned(_coarse(choice, dense), dense, goal, tuning)
    return replace(choice, probes=probes, candidates=candidates, recall=recall)


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
