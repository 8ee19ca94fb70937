"""The codes in memory: a FAISS index of inverted lists, made from arrays, that proposes candidates."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from recsys.errors import RetrievalError
from recsys.retrieval.dense import Metric, knn
from recsys.retrieval.kernels import score_float32
from recsys.retrieval.manifest import CoarseRecord
from recsys.retrieval.quantiser import Quantiser

CODES_FILE = "codes.bin"
LISTS_FILE = "lists.bin"
_OVERFETCH = 4
"""Candidates per answer, at least, where more answers are asked than the index was tuned for."""


def inverted_lists(
    quantiser: Quantiser, lists: NDArray[np.int64], codes: NDArray[np.uint8], metric: Metric
) -> Any:
    """A FAISS index of rows 0 to N-1 from arrays alone: no training, no encoding.

    Args:
        quantiser: centroids, codebooks and rotation.
        lists: list ``[N]`` of each row.
        codes: code ``[N, code_bytes]`` of each row, as ``Quantiser.encode`` or FAISS writes them.
        metric: of the search.

    Returns:
        IndexIVFPQ for codes of 8 bits, IndexIVFPQFastScan for those of 4. It takes *rotated* queries, and
        through ``search_preassigned`` only: lists are chosen by ``Quantiser.routing``.
    """
    width = quantiser.centroids.shape[1]
    centres = faiss.IndexFlatL2(width)
    centres.add(quantiser.centroids)
    kind = faiss.METRIC_L2 if metric == "l2" else faiss.METRIC_INNER_PRODUCT
    segments = quantiser.codebooks.shape[0]
    index = faiss.IndexIVFPQ(centres, width, quantiser.lists, segments, quantiser.bits, kind)
    index.by_residual = quantiser.by_residual
    index.pq = quantiser.product()
    index.is_trained = True
    order = np.argsort(lists, kind="stable")
    ends = np.searchsorted(lists[order], np.arange(1, quantiser.lists + 1))
    start = 0
    for each, end in enumerate(ends):
        if end > start:
            rows, own = order[start:end], np.ascontiguousarray(codes[order[start:end]])
            index.invlists.add_entries(each, int(end - start), faiss.swig_ptr(rows), faiss.swig_ptr(own))
        start = end
    index.ntotal = len(lists)
    if quantiser.bits == 8:
        if metric == "l2" and quantiser.by_residual:
            index.precompute_table()
        return index
    fast = faiss.IndexIVFPQFastScan(index)
    index.reset()  # its lists are copied
    fast.referenced_objects = [centres]
    return fast


class Coarse:
    """Codes of all rows, held in memory, and how they are searched."""

    def __init__(
        self,
        quantiser: Quantiser,
        lists: NDArray[np.int64],
        codes: NDArray[np.uint8],
        metric: Metric,
        *,
        probes: int,
        candidates: int,
        k: int = 10,
    ) -> None:
        self.quantiser, self.metric = quantiser, metric
        self.probes, self.count, self.k = probes, candidates, k
        self.rows = len(lists)
        self._index = inverted_lists(quantiser, lists, codes, metric)

    @classmethod
    def open(cls, folder: Path, record: CoarseRecord, metric: Metric, rows: int) -> Coarse:
        """Read the codes of a version."""
        quantiser = Quantiser.load(folder, by_residual=record.by_residual, routed_by=record.routing)
        if (quantiser.lists, quantiser.code_bytes) != (record.lists, record.code_bytes):
            raise RetrievalError(
                f"{folder}: its codes are not those of its manifest; build the index again"
            )
        lists = np.fromfile(folder / LISTS_FILE, np.uint32).astype(np.int64)
        codes = np.fromfile(folder / CODES_FILE, np.uint8).reshape(rows, record.code_bytes)
        return cls(
            quantiser, lists, codes, metric, probes=record.probes, candidates=record.candidates, k=record.k
        )

    def memory_bytes(self) -> int:
        """Bytes that codes, row numbers and tables hold in memory."""
        stored = self.rows * (self.quantiser.code_bytes + 8)
        tables: Sequence[NDArray[np.float32]] = (
            self.quantiser.centroids,
            self.quantiser.centroids,  # FAISS keeps its own
            self.quantiser.codebooks,
            self.quantiser.routing,
            self.quantiser.rotation,
        )
        return stored + sum(table.nbytes for table in tables)

    def candidates(
        self,
        queries: NDArray[np.float32],
        k: int,
        live: NDArray[np.bool_] | None = None,
        times: float = 1.0,
    ) -> NDArray[np.int64]:
        """Rows ``[Q, R]`` that may be among the ``k`` best of queries ``[Q, D]``, -1 where there are fewer.

        ``live`` are the rows ``[N]`` that may be found; ``times`` as many lists are searched.
        """
        count = self.count if k <= self.k else max(self.count, _OVERFETCH * k)
        probes = min(self.quantiser.lists, round(self.probes * times))
        return self.ranked(queries, min(count, self.rows), probes, live)

    def ranked(
        self,
        queries: NDArray[np.float32],
        count: int,
        probes: int,
        live: NDArray[np.bool_] | None = None,
    ) -> NDArray[np.int64]:
        """The best rows ``[Q, count]`` of ``probes`` lists by their codes, -1 where there are fewer."""
        near = self.route(queries, probes)
        rotated = self.quantiser.rotated(queries)
        offsets = np.empty(near.shape, np.float32)
        score_float32(self.quantiser.centroids, rotated, near, self.metric == "l2", offsets)
        if self.metric == "l2":
            np.negative(offsets, out=offsets)
        bits = None if live is None else np.packbits(live, bitorder="little")
        selector = None if bits is None else faiss.IDSelectorBitmap(bits)
        settings = faiss.SearchParametersIVF(sel=selector, nprobe=near.shape[1])
        scores = np.empty((len(queries), count), np.float32)
        rows = np.empty((len(queries), count), np.int64)
        self._index.search_preassigned_c(
            len(queries),
            faiss.swig_ptr(rotated),
            count,
            faiss.swig_ptr(near),
            faiss.swig_ptr(offsets),
            faiss.swig_ptr(scores),
            faiss.swig_ptr(rows),
            False,
            settings,
        )
        return rows

    def route(self, queries: NDArray[np.float32], probes: int) -> NDArray[np.int64]:
        """The lists ``[Q, probes]`` that each query searches."""
        ones = np.ones((len(queries), 1), np.float32)
        return knn(np.hstack([queries, ones]), self.quantiser.routing, probes, "ip")[1]
