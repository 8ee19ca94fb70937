"""Codes: FAISS's own to the byte, made from arrays alone, filtered, routed by what queries teach."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import faiss
import numpy as np
import pytest
from numpy.typing import NDArray

from recsys.errors import ConfigError, RetrievalError
from recsys.retrieval.build import IndexSettings, index
from recsys.retrieval.coarse import Coarse, inverted_lists
from recsys.retrieval.dense import Metric
from recsys.retrieval.quantiser import Quantiser
from tests.retrieval.made import made_queries, made_vectors

ROWS, DIM, LISTS, SEGMENTS = 2_000, 16, 24, 4
VECTORS, QUERIES = made_vectors(ROWS), made_queries(50)


@lru_cache
def trained_by_faiss(bits: int, metric: Metric = "ip", *, by_residual: bool = True) -> faiss.IndexIVFPQ:
    """FAISS's own index of the vectors, trained and filled by FAISS."""
    kind = faiss.METRIC_L2 if metric == "l2" else faiss.METRIC_INNER_PRODUCT
    made = faiss.IndexIVFPQ(faiss.IndexFlatL2(DIM), DIM, LISTS, SEGMENTS, bits, kind)
    made.by_residual = by_residual
    made.cp.min_points_per_centroid = made.pq.cp.min_points_per_centroid = 1
    made.cp.niter = made.pq.cp.niter = 4
    made.train(VECTORS)
    made.add(VECTORS)
    return made


def taken_from(made: faiss.IndexIVFPQ, metric: Metric = "ip") -> Quantiser:
    centroids = made.quantizer.reconstruct_n(0, LISTS)
    codebooks = faiss.vector_to_array(made.pq.centroids).reshape(SEGMENTS, -1, DIM // SEGMENTS)
    return Quantiser.of(centroids, codebooks, metric, by_residual=made.by_residual)


def stored(made: faiss.IndexIVFPQ) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """List and code of every row, as they lie in FAISS's lists."""
    lists, codes = np.empty(ROWS, np.int64), np.empty((ROWS, made.code_size), np.uint8)
    for each in range(LISTS):
        size = made.invlists.list_size(each)
        if size:
            rows = faiss.rev_swig_ptr(made.invlists.get_ids(each), size).copy()
            lists[rows] = each
            flat = faiss.rev_swig_ptr(made.invlists.get_codes(each), size * made.code_size)
            codes[rows] = flat.reshape(size, -1)
    return lists, codes


@pytest.mark.parametrize("by_residual", [True, False])
@pytest.mark.parametrize("bits", [4, 8])
def test_codes_are_those_of_faiss_to_the_byte(bits: int, by_residual: bool) -> None:
    made = trained_by_faiss(bits, by_residual=by_residual)
    lists, codes = taken_from(made).encode(VECTORS)
    faiss_lists, faiss_codes = stored(made)
    np.testing.assert_array_equal(lists, faiss_lists)
    np.testing.assert_array_equal(codes, faiss_codes)
    words = taken_from(made).codebooks
    residual = VECTORS - taken_from(made).centroids[lists] * by_residual
    parts = residual.reshape(ROWS, SEGMENTS, 1, -1)
    nearest = ((parts - words[None]) ** 2).sum(axis=3).argmin(axis=2)
    unpacked = codes if bits == 8 else np.stack([codes & 15, codes >> 4], axis=2).reshape(ROWS, SEGMENTS)
    assert (nearest == unpacked).mean() > 0.999  # ties of rounding aside


@pytest.mark.parametrize("metric", ["ip", "l2"])
@pytest.mark.parametrize("bits", [4, 8])
def test_an_index_from_arrays_ranks_as_the_codes_say(bits: int, metric: Metric) -> None:
    made = trained_by_faiss(bits, metric)
    quantiser = taken_from(made, metric)
    lists, codes = quantiser.encode(VECTORS)
    coarse = Coarse(quantiser, lists, codes, metric, probes=LISTS, candidates=100)
    decoded = quantiser.product().decode(codes) + quantiser.centroids[lists]
    scores = QUERIES @ decoded.T
    if metric == "l2":
        scores = -((QUERIES[:, None] - decoded[None]) ** 2).sum(axis=2)
    right = np.argsort(-scores, axis=1)[:, :100]
    ranked = coarse.ranked(QUERIES, 100, LISTS)
    shared = [len(np.intersect1d(a, b)) for a, b in zip(ranked, right, strict=True)]
    assert np.mean(shared) >= (99 if bits == 8 else 95)  # fast scan rounds its tables to 8 bits


@pytest.mark.parametrize("bits", [4, 8])
def test_rows_that_may_not_be_found_are_not(bits: int) -> None:
    quantiser = taken_from(trained_by_faiss(bits))
    coarse = Coarse(quantiser, *quantiser.encode(VECTORS), "ip", probes=4, candidates=50)
    live = np.random.default_rng(0).random(ROWS) < 0.1
    rows = coarse.candidates(QUERIES, 10, live, times=8)
    assert live[rows[rows >= 0]].all()
    assert (rows >= 0).any(axis=1).all()
    assert len(set(rows[0][rows[0] >= 0])) == (rows[0] >= 0).sum()


def test_a_filter_on_a_large_index_goes_through_the_codes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recsys.retrieval.snapshot._EXACT_ROWS", 100)
    made = index(VECTORS, tmp_path / "index", settings=IndexSettings(codes=True, dtype="float32"))
    even, few = (
        made.search(QUERIES, 10, filter="id % 2 = 0"),
        made.search(QUERIES, 10, filter="id % 60 = 0"),
    )
    assert (even.frame()["id"] % 2 == 0).all()
    assert (
        made.search(QUERIES, 10, filter="id % 2 = 0", exact=True)
        .frame()["id"]
        .is_in(even.frame()["id"])
        .mean()
        > 0.95
    )
    exact = made.search(QUERIES, 10, filter="id % 60 = 0", exact=True)
    assert few.frame().equals(exact.frame())


def test_learned_lists_and_codebooks_are_used_as_they_are(tmp_path: Path) -> None:
    given = taken_from(trained_by_faiss(8))
    settings = IndexSettings(codes=True)
    made = index(VECTORS, tmp_path / "index", settings=settings, quantiser=given)
    assert made.manifest.coarse is not None
    assert (made.manifest.coarse.bits, made.manifest.coarse.lists) == (8, LISTS)
    assert made.manifest.measured is not None
    assert made.manifest.measured.recall >= 0.95
    read = Quantiser.load(tmp_path / "index" / "version-000001", by_residual=True, routed_by="centroids")
    np.testing.assert_array_equal(read.codebooks, given.codebooks)
    with pytest.raises(ConfigError, match="made for vectors of 16 numbers, these have 4"):
        index(VECTORS[:, :4], tmp_path / "other", quantiser=given)


def test_arrays_that_do_not_fit_together_are_refused() -> None:
    given = taken_from(trained_by_faiss(4))
    with pytest.raises(RetrievalError, match="do not fit together"):
        Quantiser.of(given.centroids[:, :8], given.codebooks, "ip")
    with pytest.raises(RetrievalError, match="do not fit together"):
        Quantiser.of(given.centroids, given.codebooks[:, :10], "ip")


def test_queries_teach_which_lists_to_search(tmp_path: Path) -> None:
    """Queries that lie far from the items: centroids mislead them, learned weights less."""
    from recsys.retrieval.quality import answered
    from recsys.retrieval.routing import learned_routing

    generator = np.random.default_rng(3)
    queries = generator.normal(size=(3_000, DIM)).astype(np.float32)
    queries[:, : DIM // 2] = 3 + 0.01 * queries[:, : DIM // 2]
    quantiser = taken_from(trained_by_faiss(4))
    lists, _ = quantiser.encode(VECTORS)
    answers = answered(queries, [VECTORS], 10, "ip").answers
    weights = learned_routing(quantiser, queries[1_000:], lists[answers[1_000:]], seed=0)
    ones = np.ones((1_000, 1), np.float32)
    inputs = np.hstack([queries[:1_000], ones])

    def reached(routing: NDArray[np.float32]) -> float:
        near = np.argsort(-(inputs @ routing.T), axis=1)[:, :3]
        hits = (lists[answers[:1_000]][:, :, None] == near[:, None, :]).any(axis=2)
        return float(hits.mean())

    assert reached(weights) > reached(quantiser.routing) + 0.02


@pytest.mark.parametrize(("bytes_per_item", "code_bytes"), [(18, 3), (14, 1)])
def test_bytes_per_item_are_kept(tmp_path: Path, bytes_per_item: float, code_bytes: int) -> None:
    settings = IndexSettings(codes=True, bytes_per_item=bytes_per_item, recall=0.5)
    made = index(VECTORS, tmp_path / "index", settings=settings)
    assert made.manifest.coarse is not None
    assert made.manifest.measured is not None
    assert made.manifest.coarse.code_bytes == code_bytes
    assert made.manifest.measured.memory_bytes_per_item <= bytes_per_item
    least = IndexSettings(codes=True, bytes_per_item=8)
    with pytest.raises(ConfigError, match="8 is too few"):
        index(VECTORS, tmp_path / "index", settings=least)


@pytest.mark.parametrize(("rows", "dim", "metric"), [(64, 1, "ip"), (600, 3, "l2"), (600, 7, "cosine")])
def test_odd_widths_and_few_rows_have_codes(tmp_path: Path, rows: int, dim: int, metric: Metric) -> None:
    made = index(
        made_vectors(rows, dim), tmp_path / "index", settings=IndexSettings(codes=True, metric=metric)
    )
    assert made.manifest.measured is not None
    assert made.manifest.measured.recall >= 0.95


def test_inverted_lists_take_codes_of_any_order() -> None:
    quantiser = taken_from(trained_by_faiss(8))
    lists, codes = quantiser.encode(VECTORS)
    made = inverted_lists(quantiser, lists, codes, "ip")
    assert made.ntotal == ROWS
    assert sum(made.invlists.list_size(each) for each in range(LISTS)) == ROWS
