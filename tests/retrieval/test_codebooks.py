"""Kinds of codebooks, learned ones among them: each right by itself, the best one taken."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import faiss
import numpy as np
import pytest
from numpy.typing import NDArray

from recsys.retrieval.build import IndexSettings, index
from recsys.retrieval.coarse import Coarse
from recsys.retrieval.codebooks import Judge, Training, weighted
from recsys.retrieval.dense import DenseFile, DenseWriter, Metric
from recsys.retrieval.learned import OBJECTIVES, Lesson, Objective, _shares, _slopes, _softmax, learned
from recsys.retrieval.quality import Questions, answered
from recsys.retrieval.quantiser import Quantiser
from tests.retrieval.made import made_vectors

ROWS, DIM, LISTS, CODE_BYTES = 4_000, 16, 8, 2
GENERATOR = np.random.default_rng(5)
VECTORS = made_vectors(ROWS, DIM)
TURN = np.linalg.qr(GENERATOR.normal(size=(DIM, DIM)))[0]
QUERIES = GENERATOR.normal(size=(2_500, DIM)) * np.where(np.arange(DIM) < 4, 1, 0.1) @ TURN
QUERIES = np.asarray(QUERIES, np.float32)
"""They ask for a quarter of the directions, above all."""
SKEWED = np.asarray(GENERATOR.normal(size=(ROWS, DIM)) * np.geomspace(3, 0.1, DIM), np.float32)
"""A few directions hold most of what there is, and lie in one part of a code where nothing turns them."""


def training(
    metric: Metric = "ip",
    queries: NDArray[np.float32] | None = None,
    vectors: NDArray[np.float32] = VECTORS,
) -> Training:
    judged = answered(QUERIES[:200], [vectors], 10, metric)
    return Training(vectors, LISTS, metric, Judge(vectors, judged, metric), queries, seed=0)


def restored(quantiser: Quantiser, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """What codes stand for, in the vectors' own numbers."""
    lists, codes = quantiser.encode(vectors)
    turned = quantiser.product().decode(codes) + quantiser.centroids[lists]
    return np.asarray(turned @ quantiser.query_rotation)


def test_every_rotation_restores_vectors_as_well_as_it_should() -> None:
    """PQ as well as FAISS's own index does; OPQ far better than a random rotation."""
    own = training("l2", vectors=SKEWED)
    error = {
        made.made_by: float(((restored(made, SKEWED) - SKEWED) ** 2).sum())
        for made in own._kinds(own._space(CODE_BYTES), CODE_BYTES)
    }
    theirs = faiss.index_factory(DIM, f"IVF{LISTS},PQ{2 * CODE_BYTES}x4")
    theirs.cp.min_points_per_centroid = theirs.pq.cp.min_points_per_centroid = 1
    theirs.train(SKEWED)
    theirs.add(SKEWED)
    theirs.make_direct_map()
    faiss_error = float(((theirs.reconstruct_n(0, ROWS) - SKEWED) ** 2).sum())
    assert error["PQ"] == pytest.approx(faiss_error, rel=0.05)
    assert error["PQ, random rotation"] < 0.95 * error["PQ"]
    assert error["OPQ"] < 0.75 * error["PQ, random rotation"]


def test_the_best_kind_is_taken() -> None:
    made, tried = training().best(CODE_BYTES)
    assert set(tried) == {
        f"{turn}{residual}"
        for turn in ("OPQ", "PQ", "PQ, random rotation")
        for residual in ("", ", long residuals")
    }
    assert tried[made.made_by] == max(tried.values()) > min(tried.values())
    assert tried[made.made_by] == training().judge.recall(made)


def test_few_bytes_keep_more_in_codebooks_of_8_bits() -> None:
    made, tried = training().best(CODE_BYTES, wide=True)
    wide = {name: recall for name, recall in tried.items() if "8 bits" in name}
    assert set(wide) == {"OPQ of 8 bits", "OPQ of 8 bits, long residuals"}
    assert (made.bits, made.code_bytes) == (8, CODE_BYTES)
    assert tried[made.made_by] > max(recall for name, recall in tried.items() if name not in wide) + 0.01
    assert not any("8 bits" in name for name in training(vectors=VECTORS[:255]).best(1, wide=True)[1])


def test_weights_of_queries_keep_products_and_raise_recall() -> None:
    space = weighted(QUERIES, 0.5)
    own = (QUERIES[:20] @ space.queries.T) @ (VECTORS @ space.items.T).T
    np.testing.assert_allclose(own, QUERIES[:20] @ VECTORS.T, rtol=1e-3, atol=1e-3)
    plain, known = training().best(CODE_BYTES)
    better, tried = training(queries=QUERIES[500:]).best(CODE_BYTES)
    assert "weighted by queries" in better.made_by
    assert max(tried.values()) > max(known.values()) + 0.05
    assert "weighted" not in plain.made_by
    assert set(training("l2", QUERIES[500:])._spaces) == {""}


@lru_cache
def lesson(folder: Path) -> tuple[Quantiser, Lesson]:
    writer = DenseWriter(folder / "vectors.bin", DIM, "float32", "made")
    writer.append(VECTORS)
    writer.finish()
    start, _ = training().best(CODE_BYTES)
    teaching = answered(QUERIES[500:], [VECTORS], 10, "ip")
    lists, codes = start.encode(VECTORS)
    coarse = Coarse(start, lists, codes, "ip", probes=LISTS, candidates=100)
    dense = DenseFile(folder / "vectors.bin", ROWS, DIM, "float32", "ip")
    return start, Lesson(dense, lists, teaching, coarse.ranked(teaching.queries, 100, LISTS))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lesson")


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_learned_codes_rank_better_and_are_those_of_faiss_to_the_byte(
    objective: Objective, home: Path
) -> None:
    start, taught = lesson(home)
    made = learned(start, taught, objective, seed=0)
    judge = training().judge
    assert judge.recall(made) > judge.recall(start) + 0.05
    lists, codes = made.encode(VECTORS)
    np.testing.assert_array_equal(lists, taught.lists)
    centres = faiss.IndexFlatL2(DIM)
    centres.add(made.centroids)
    theirs = faiss.IndexIVFPQ(centres, DIM, LISTS, made.codebooks.shape[0], 4, faiss.METRIC_INNER_PRODUCT)
    faiss.copy_array_to_vector(made.codebooks.ravel(), theirs.pq.centroids)
    theirs.is_trained = True
    theirs.add(made.rotated(VECTORS))
    for each in range(LISTS):
        size = theirs.invlists.list_size(each)
        rows = faiss.rev_swig_ptr(theirs.invlists.get_ids(each), size)
        flat = faiss.rev_swig_ptr(theirs.invlists.get_codes(each), size * CODE_BYTES)
        assert (lists[rows] == each).all()
        np.testing.assert_array_equal(codes[rows], flat.reshape(size, -1))


def test_gradients_are_those_of_the_loss(home: Path) -> None:
    start, taught = lesson(home)
    rows, queries = np.arange(60), QUERIES[:8]
    vectors, lists = VECTORS[rows], taught.lists[rows]
    wanted = _shares(np.arange(16).reshape(8, 2), rows, 60)
    weight = np.linspace(0, 1, 60, dtype=np.float32)
    codes = start.words(vectors, lists)

    def loss(words: NDArray[np.float64], turn: NDArray[np.float64]) -> float:
        decoded = np.hstack([words[m, codes[:, m]] for m in range(codes.shape[1])])
        logits = (queries @ turn.T) @ (decoded + start.centroids[lists]).T + weight
        chances = np.log(_softmax(logits))
        return float(-(wanted * chances).sum() / len(queries))

    arrays = [start.codebooks.astype(np.float64), start.query_rotation.astype(np.float64)]
    slopes = _slopes(start, queries, vectors, lists, wanted, weight)
    for at, slope in enumerate(slopes):
        direction = np.random.default_rng(at).normal(size=slope.shape)
        step = [array.copy() for array in arrays]
        back = [array.copy() for array in arrays]
        step[at] += 1e-5 * direction
        back[at] -= 1e-5 * direction
        measured = (loss(*step) - loss(*back)) / 2e-5
        assert measured == pytest.approx(float((slope * direction).sum()), rel=1e-3)


def test_an_index_says_which_codebooks_it_has_and_what_others_reached(tmp_path: Path) -> None:
    settings = IndexSettings(codes=True, dtype="float32", bytes_per_item=16)
    made = index(VECTORS, tmp_path / "index", settings=settings, queries=QUERIES)
    coarse = made.manifest.coarse
    assert coarse is not None
    assert set(coarse.learned) == {"not learned", *OBJECTIVES}
    best = max(coarse.learned.values())
    shipped = [name for name in OBJECTIVES if coarse.codebooks.endswith(name)]
    assert coarse.learned[shipped[0] if shipped else "not learned"] == best
    assert coarse.codebooks.removesuffix(f", {shipped[0]}" if shipped else "") in coarse.tried
    opened = Coarse.open(tmp_path / "index" / "version-000001", coarse, "ip", ROWS)
    assert opened.quantiser.made_by == coarse.codebooks
    codes = (tmp_path / "index" / "version-000001" / "codes.bin").read_bytes()
    made.compact()
    assert made.manifest.coarse is not None
    assert made.manifest.coarse.codebooks == coarse.codebooks
    assert (tmp_path / "index" / "version-000002" / "codes.bin").read_bytes() == codes


def test_learned_codebooks_that_propose_fewer_answers_are_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoilt(start: Quantiser, *_: object) -> Quantiser:
        wrong = np.roll(start.query_rotation, 1, axis=0)
        return Quantiser(
            start.rotation, wrong, start.centroids, start.codebooks, start.routing, made_by="spoilt"
        )

    monkeypatch.setattr("recsys.retrieval.choice.learned", spoilt)
    settings = IndexSettings(codes=True, bytes_per_item=16)
    made = index(VECTORS, tmp_path / "index", settings=settings, queries=QUERIES)
    assert made.manifest.coarse is not None
    assert made.manifest.coarse.codebooks in made.manifest.coarse.tried
    assert made.manifest.coarse.learned["contrastive"] < made.manifest.coarse.learned["not learned"]


def test_without_queries_nothing_is_learned_from_items(tmp_path: Path) -> None:
    made = index(made_vectors(1_000), tmp_path / "index", settings=IndexSettings(codes=True))
    assert made.manifest.coarse is not None
    assert not made.manifest.coarse.learned
    assert not any("weighted" in name for name in made.manifest.coarse.tried)


def test_a_query_with_few_candidates_teaches_too(home: Path) -> None:
    start, taught = lesson(home)
    few = taught.candidates[:300].copy()
    few[:, 3:] = -1
    part = Lesson(taught.dense, taught.lists, taught.questions.part(0, 300), few)
    made = learned(start, part, "contrastive", seed=0)
    assert np.isfinite(made.codebooks).all()
    assert isinstance(part.questions, Questions)
