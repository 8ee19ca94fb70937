"""Lists and codebooks of several kinds, and the one whose codes rank a sample of the items best.

Which kind is best depends on the vectors and on the queries, so none is taken on trust:

- Space: vectors as they are, or for inner products weighted by the queries. The error that a code makes in
  a score is ``q · (x - x̂)``, its mean square ``(x - x̂)ᵀ E[q qᵀ] (x - x̂)``: what queries hardly use need not
  be stored well (Guo et al., "Quantization based Fast Inner Product Search", AISTATS 2016). Items are
  multiplied by a power of that matrix, queries by its inverse, so that products stay as they are.
- Rotation: none (PQ), OPQ's (Ge et al., CVPR 2013), or a random one, as FAISS's fast scan rounds its tables
  by the largest part.
- Residuals that codebooks are learned from: those that are coded, or for inner products those of the
  centroid with the largest product (as FAISS does). These are larger, and so are those of the best items.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain

import faiss
import numpy as np
from numpy.typing import NDArray

from recsys.progress import progress
from recsys.retrieval.coarse import Coarse
from recsys.retrieval.dense import Metric, knn
from recsys.retrieval.quality import Questions, answered
from recsys.retrieval.quantiser import Quantiser

_OPQ_POINTS, _OPQ_ROUNDS = 16_384, 5
_JUDGED, _JUDGING = 65_536, 200
"""Items and questions that say which codebooks rank better."""
_DEPTHS = (2, 5, 10)
"""Candidates per answer at which they do."""
_POWERS = (0.5, 1.0)
"""Of the queries' second moment; 1 leaves the smallest mean square error of a score."""
_FLOOR = 0.01
"""Least weight of a direction, as a share of the mean."""
_LEAST_WIDE = 256
"""Vectors: as many as a codebook of 8 bits has codewords."""
_ROUGH = 8
"""Times fewer lists where only the space is judged."""

Matrix = NDArray[np.float32]


@dataclass(frozen=True)
class Space:
    """Where vectors are coded: ``items @ x`` and ``queries @ q`` have the product of ``x`` and ``q``."""

    name: str
    items: Matrix
    queries: Matrix


class Judge:
    """Recall of the candidates that codes propose among a sample of the items."""

    def __init__(self, items: Matrix, questions: Questions, metric: Metric) -> None:
        self.items, self._metric = items[:_JUDGED], metric
        k = min(questions.answers.shape[1], len(self.items))
        self._right = answered(questions.queries[:_JUDGING], [self.items], k, metric)

    def recall(self, quantiser: Quantiser) -> float:
        """The mean over several numbers of candidates; every list is searched."""
        k = self._right.answers.shape[1]
        codes = quantiser.encode(self.items)
        coarse = Coarse(quantiser, *codes, self._metric, probes=1, candidates=k)
        depths = [min(times * k, len(self.items)) for times in _DEPTHS]
        found = self._right.recall_by_depth(coarse.ranked(self._right.queries, depths[-1], quantiser.lists))
        return float(np.mean([found[depth - 1] for depth in depths]))


@dataclass(frozen=True)
class Training:
    """What codebooks are learned from and judged by.

    ``queries`` are real ones, for the weights; None: there are none.
    """

    sample: Matrix
    lists: int
    metric: Metric
    judge: Judge
    queries: Matrix | None
    seed: int
    _centroids: dict[str, Matrix] = field(default_factory=dict, init=False, repr=False)
    """Of the lists that were made, by space."""

    def best(self, code_bytes: int, *, wide: bool = False) -> tuple[Quantiser, dict[str, float]]:
        """Lists and codebooks of 4 bits for codes of so many bytes; and what each kind reached.

        ``wide``: codebooks of 8 bits too, half as many: they lose less at the same bytes, and are slower to
        search than those of 4, whose tables stay in registers.
        """
        tried: dict[str, float] = {}
        made: list[Quantiser] = []
        with progress("codebooks"):
            space = self._space(code_bytes)
            kinds = self._kinds(space, code_bytes)
            if wide and len(self.sample) >= _LEAST_WIDE:
                kinds = chain(kinds, self._wide(space, code_bytes))
            for quantiser in kinds:
                tried[quantiser.made_by] = self.judge.recall(quantiser)
                made.append(quantiser)
        return max(made, key=lambda each: tried[each.made_by]), tried

    @cached_property
    def _spaces(self) -> dict[str, Space]:
        dim = self.sample.shape[1]
        same = np.eye(dim, dtype=np.float32)
        found = [Space("", same, same)]
        if self.metric != "l2" and self.queries is not None:
            found += [weighted(self.queries, power) for power in _POWERS]
        return {space.name: space for space in found}

    def _space(self, code_bytes: int) -> Space:
        """The space whose codes rank best, judged with fewer lists and one rotation."""
        if len(self._spaces) == 1:
            return self._spaces[""]
        few = max(1, self.lists // _ROUGH)

        def recall(space: Space) -> float:
            turned = self._turned(space, self.judge.items)
            centroids = _kmeans(turned, few, 5, self.seed)
            nearest = knn(turned, centroids, 1, "l2")[1][:, 0]
            turn = _random_turn(turned.shape[1], 2 * code_bytes, self.seed)
            return self.judge.recall(
                _quantiser(space, turn, centroids, turned - centroids[nearest], 2 * code_bytes, self.metric)
            )

        return max(self._spaces.values(), key=recall)

    def _kinds(self, space: Space, code_bytes: int) -> Iterator[Quantiser]:
        """Quantisers of 4 bits, of every rotation and residual."""
        for long, centroids, residual in self._residuals(space):
            for name, turn in _turns(residual, 2 * code_bytes, self.seed):
                made_by = _name(name, "long residuals" if long else "", space.name)
                yield _quantiser(space, turn, centroids, residual, 2 * code_bytes, self.metric, made_by)

    def _wide(self, space: Space, code_bytes: int) -> Iterator[Quantiser]:
        """Quantisers of 8 bits, of every residual."""
        for long, centroids, residual in self._residuals(space):
            turn = _opq(residual, code_bytes, code_bytes * max(1, residual.shape[1] // code_bytes), 8)
            made_by = _name("OPQ of 8 bits", "long residuals" if long else "", space.name)
            yield _quantiser(space, turn, centroids, residual, code_bytes, self.metric, made_by, 8)

    def _residuals(self, space: Space) -> Iterator[tuple[bool, Matrix, Matrix]]:
        """Whether they are the long ones, centroids, and what the sample differs from them by."""
        turned = self._turned(space, self.sample)
        if space.name not in self._centroids:
            self._centroids[space.name] = _kmeans(turned, self.lists, 10, self.seed)
        centroids = self._centroids[space.name]
        for long in (False, True) if self.metric == "ip" else (False,):
            own = knn(turned, centroids, 1, "ip" if long else "l2")[1][:, 0]
            yield long, centroids, np.ascontiguousarray(turned - centroids[own])

    def _turned(self, space: Space, vectors: Matrix) -> Matrix:
        return np.ascontiguousarray(vectors @ space.items.T) if space.name else vectors


def plain(vectors: Matrix, lists: int, code_bytes: int, seed: int) -> Quantiser:
    """OPQ of 4 bits over residuals of lists of nearest centroids, for inner products: judged by nobody."""
    same = np.eye(vectors.shape[1], dtype=np.float32)
    centroids = _kmeans(vectors, lists, 10, seed)
    residual = np.ascontiguousarray(vectors - centroids[knn(vectors, centroids, 1, "l2")[1][:, 0]])
    segments = 2 * code_bytes
    turn = _opq(residual, segments, segments * max(1, vectors.shape[1] // segments))
    return _quantiser(Space("", same, same), turn, centroids, residual, segments, "ip")


def weighted(queries: Matrix, power: float) -> Space:
    """The space of items weighted by a power of the second moment of queries ``[Q, D]``."""
    values, axes = np.linalg.eigh((queries.T @ queries / len(queries)).astype(np.float64))
    root = np.maximum(values, _FLOOR * values.mean()) ** (power / 2)
    root /= root.mean()
    return Space(
        f"weighted by queries to the {power:g}",
        ((axes * root) @ axes.T).astype(np.float32),
        ((axes / root) @ axes.T).astype(np.float32),
    )


def _kmeans(points: Matrix, lists: int, rounds: int, seed: int) -> Matrix:
    """Centroids by distance, for inner products too: spherical ones, FAISS's choice there, lose norms."""
    clustering = faiss.Kmeans(
        points.shape[1],
        lists,
        niter=rounds,
        seed=seed,
        min_points_per_centroid=1,
        max_points_per_centroid=256,
    )
    clustering.train(points)
    found: Matrix = clustering.centroids
    return found


def _turns(residual: Matrix, segments: int, seed: int) -> Iterator[tuple[str, Matrix]]:
    """Rotations ``[C, D]`` to try, by name."""
    dim = residual.shape[1]
    yield "OPQ", _opq(residual, segments, segments * max(1, dim // segments))
    if dim % segments == 0:
        yield "PQ", np.eye(dim, dtype=np.float32)
        yield "PQ, random rotation", _random_turn(dim, segments, seed)


def _random_turn(dim: int, segments: int, seed: int) -> Matrix:
    width = segments * max(1, dim // segments)
    normal = np.random.default_rng(seed).normal(size=(max(width, dim), dim))
    return np.asarray(np.linalg.qr(normal)[0][:width], np.float32)


def _name(*parts: str) -> str:
    return ", ".join(part for part in parts if part)


def _opq(residual: Matrix, segments: int, width: int, bits: int = 4) -> Matrix:
    """FAISS's OPQ rotation ``[width, D]``."""
    rough = faiss.ProductQuantizer(width, segments, bits)  # OPQ changes its settings: not to be used again
    rough.cp.min_points_per_centroid = 1
    turn = faiss.OPQMatrix(residual.shape[1], segments, width)
    turn.niter, turn.niter_pq, turn.max_train_points = _OPQ_ROUNDS, 2, _OPQ_POINTS
    turn.pq = rough
    turn.train(residual)
    rotation: Matrix = faiss.vector_to_array(turn.A).reshape(width, residual.shape[1])
    return rotation


def _quantiser(
    space: Space,
    turn: Matrix,
    centroids: Matrix,
    residual: Matrix,
    segments: int,
    metric: Metric,
    made_by: str = "",
    bits: int = 4,
) -> Quantiser:
    """Codebooks of residuals ``[n, D]``, all in the space's numbers, under a rotation ``[C, D]``."""
    product = faiss.ProductQuantizer(len(turn), segments, bits)
    product.cp.min_points_per_centroid = 1
    product.train(np.ascontiguousarray(residual @ turn.T))
    words = faiss.vector_to_array(product.centroids).reshape(segments, 1 << bits, len(turn) // segments)
    return Quantiser.of(
        centroids @ turn.T,
        words,
        metric,
        rotation=turn @ space.items,
        query_rotation=turn @ space.queries if space.name else None,
        made_by=made_by,
    )
