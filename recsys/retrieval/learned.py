"""Codebooks learned from queries, by how their codes rank rather than by how well they restore vectors.

Codes are chosen by FAISS's own rule, the nearest codeword; the gradient of the loss goes straight through
that choice to the codeword that was chosen (Xiao et al., "Progressively Optimized Bi-Granular Document
Representation", WWW 2022), and to the map that queries are turned by. Vectors and lists stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from recsys.progress import progress
from recsys.retrieval.dense import DenseFile
from recsys.retrieval.quality import Questions
from recsys.retrieval.quantiser import Quantiser

Objective = Literal["contrastive", "distilled"]
"""What the softmax over the codes' scores learns: the exact answers, an equal share each (InfoNCE); or the
softmax over the dense scores (ListNet, as in Xiao et al., "Distill-VQ", SIGIR 2022)."""
OBJECTIVES: tuple[Objective, ...] = get_args(Objective)

Matrix = NDArray[np.float32]
_EPOCHS, _BATCH = 12, 256
_RANDOM, _HARD = 1_024, 8
"""Items drawn with equal chances for a batch, and of its candidates for each query."""
_RATE, _QUERY_RATE = 0.02, 0.02
"""Of Adam, in units of the codewords' and the map's size; they fall to a tenth."""
_WARMTH = 0.5
"""Temperature of the softmax, in units of the spread of a query's candidates."""


@dataclass(frozen=True)
class Lesson:
    """What codebooks are learned from."""

    dense: DenseFile
    lists: NDArray[np.int64]
    """List ``[N]`` of each vector."""
    questions: Questions
    """Queries and their exact answers."""
    candidates: NDArray[np.int64]
    """Rows ``[Q, R]`` that codes propose for them, -1 where there are fewer."""

    @property
    def warmth(self) -> float:
        """Temperature of the softmax over scores."""
        few = slice(0, 512)
        scores = self.dense.scores(self.questions.queries[few], self.candidates[few])
        found = np.isfinite(scores)
        counts = np.maximum(np.count_nonzero(found, axis=1, keepdims=True), 1)
        mean = np.where(found, scores, 0).sum(axis=1, keepdims=True) / counts
        square = np.where(found, scores - mean, 0) ** 2
        return _WARMTH * float(np.sqrt(square.sum(axis=1, keepdims=True) / counts).mean()) or 1.0

    def batches(self, generator: np.random.Generator) -> Iterator[tuple[NDArray[np.int64], ...]]:
        """For some queries at a time: their places ``[B]``, rows they concern, ascending, and others."""
        order = generator.permutation(len(self.questions))
        for first in range(0, len(order), _BATCH):
            at = order[first : first + _BATCH]
            picked = generator.integers(0, self.candidates.shape[1], (len(at), _HARD))
            hard = np.take_along_axis(self.candidates[at], picked, axis=1)
            known = np.unique(np.concatenate([self.questions.answers[at].ravel(), hard.ravel()]))
            known = known[known >= 0]
            yield at, known, np.setdiff1d(generator.integers(0, self.dense.rows, _RANDOM), known)


def learned(start: Quantiser, lesson: Lesson, objective: Objective, seed: int) -> Quantiser:
    """The quantiser with other codebooks and another map of queries; for products, not for distances."""
    generator = np.random.default_rng(seed)
    warmth = lesson.warmth
    words, turn = start.codebooks.copy(), start.query_rotation.copy()
    adam = (_Adam(words, _RATE), _Adam(turn, _QUERY_RATE))
    steps = _EPOCHS * -(-len(lesson.questions) // _BATCH)
    step = 0
    with progress(objective, steps, "steps") as bar:
        for _ in range(_EPOCHS):
            for at, known, drawn in lesson.batches(generator):
                rows = np.concatenate([known, drawn])
                weight = np.zeros(len(rows), np.float32)
                weight[len(known) :] = np.log(max(1.0, lesson.dense.rows / _RANDOM))  # stands for so many
                queries, vectors = lesson.questions.queries[at], lesson.dense.take(rows)
                if objective == "distilled":
                    wanted = _softmax(queries @ vectors.T / warmth + weight)
                else:
                    wanted = _shares(lesson.questions.answers[at], known, len(rows))
                now = replace(start, codebooks=words, query_rotation=turn)
                slopes = _slopes(now, queries / warmth, vectors, lesson.lists[rows], wanted, weight)
                step += 1
                for each, slope in zip(adam, slopes, strict=True):
                    each.step(slope, 1 - 0.9 * step / steps)
                bar.advance(1)
    return replace(start, codebooks=words, query_rotation=turn, made_by=f"{start.made_by}, {objective}")


def _slopes(
    quantiser: Quantiser,
    queries: Matrix,
    vectors: Matrix,
    lists: NDArray[np.int64],
    wanted: Matrix,
    weight: Matrix,
) -> tuple[Matrix, Matrix]:
    """Gradients of the mean cross-entropy for the codebooks and for the map of queries.

    ``wanted`` are the shares ``[B, n]`` that the softmax should give to items ``[n, D]``; ``weight``
    ``[n]`` is added to the items' scores.
    """
    segments, _, part = quantiser.codebooks.shape
    codes = quantiser.words(vectors, lists)
    restored = quantiser.restored(codes, lists)
    turned = quantiser.asked(queries)
    wrong = (_softmax(turned @ restored.T + weight) - wanted) / len(queries)
    back = (wrong.T @ turned).reshape(len(codes), segments, part)
    slope = np.zeros_like(quantiser.codebooks)
    for segment in range(segments):
        np.add.at(slope[segment], codes[:, segment], back[:, segment])
    return slope, np.asarray((wrong @ restored).T @ queries, np.float32)


def _shares(answers: NDArray[np.int64], known: NDArray[np.int64], items: int) -> Matrix:
    """``[B, items]``: an equal share for each answer of a query; the first items are ``known``."""
    shares = np.zeros((len(answers), items), np.float32)
    np.put_along_axis(shares, np.searchsorted(known, answers), np.float32(1 / answers.shape[1]), axis=1)
    return shares


def _softmax(logits: Matrix) -> Matrix:
    shares: Matrix = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    return shares


class _Adam:
    """Adam (Kingma and Ba, ICLR 2015) for one array, which it changes; rates are shares of its size."""

    def __init__(self, values: Matrix, rate: float) -> None:
        self._values, self._rate = values, rate * float(np.abs(values).mean())
        self._mean, self._square = np.zeros_like(values), np.zeros_like(values)
        self._steps = 0

    def step(self, slope: Matrix, share: float) -> None:
        """Go down a gradient by a share of the rate."""
        self._steps += 1
        self._mean += np.float32(0.1) * (slope - self._mean)
        self._square += np.float32(0.001) * (slope**2 - self._square)
        mean = self._mean / np.float32(1 - 0.9**self._steps)
        square = self._square / np.float32(1 - 0.999**self._steps)
        self._values -= np.float32(self._rate * share) * mean / (np.sqrt(square) + np.float32(1e-12))
