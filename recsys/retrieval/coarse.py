"""The codes in memory: a FAISS index of inverted lists, made from arrays, that proposes candidates."""

from __future__ import annotations

import ctypes
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from recsys.errors import RetrievalError
from recsys.retrieval.dense import Metric
from recsys.retrieval.kernels import score_float32
from recsys.retrieval.manifest import CoarseRecord
from recsys.retrieval.quantiser import Quantiser

CODES_FILE = "codes.bin"
LISTS_FILE = "lists.bin"
ROW_NUMBER_BYTES = 8
"""What FAISS's inverted lists hold for each row beside its code."""
_BLOCK = 32
"""Rows that fast scan stores together."""
_ROUTED = 128
"""Queries routed at a time, so that their scores stay in the cache."""
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
    family = faiss.IndexIVFPQ if quantiser.bits == 8 else faiss.IndexIVFPQFastScan
    segments = quantiser.codebooks.shape[0]
    index = family(centres, width, quantiser.lists, segments, quantiser.bits, kind)
    index.referenced_objects = [centres]
    index.by_residual = quantiser.by_residual
    index.pq = quantiser.product()
    index.is_trained = True
    order = np.argsort(lists, kind="stable")
    ends = np.searchsorted(lists[order], np.arange(1, quantiser.lists + 1))
    packer = index.get_CodePacker()
    start = 0
    for each, end in enumerate(ends):
        if end > start:
            rows = order[start:end]
            own = np.ascontiguousarray(codes[rows])
            stored = own if quantiser.bits == 8 else _blocks(own, packer)
            index.invlists.add_entries(each, len(rows), faiss.swig_ptr(rows), faiss.swig_ptr(stored))
        start = end
    index.ntotal = len(lists)
    if quantiser.bits == 8 and metric == "l2" and quantiser.by_residual:
        index.precompute_table()
    return index


def _give_back() -> None:
    """Let the system have what loading needed for a while, where the C library can."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _blocks(codes: NDArray[np.uint8], packer: Any) -> NDArray[np.uint8]:
    """Codes ``[n, code_bytes]`` as fast scan reads them: blocks of 32 rows, the last one filled up."""
    count = -(-len(codes) // packer.nvec)
    flat = np.zeros((count * packer.nvec, codes.shape[1]), np.uint8)
    flat[: len(codes)] = codes
    blocks = np.zeros((count, packer.block_size), np.uint8)
    for at in range(count):
        packer.pack_all(faiss.swig_ptr(flat[at * packer.nvec :]), faiss.swig_ptr(blocks[at]))
    return blocks


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
        self.metric = metric
        self.probes, self.count, self.k = probes, candidates, k
        self.rows = len(lists)
        self._index = inverted_lists(quantiser, lists, codes, metric)
        own = faiss.downcast_index(self._index.quantizer).get_xb()
        centroids = faiss.rev_swig_ptr(own, quantiser.centroids.size).reshape(quantiser.centroids.shape)
        self.quantiser = replace(quantiser, centroids=centroids)  # FAISS's own, so as to hold them once
        filled = np.bincount(lists, minlength=quantiser.lists)
        self._stored = int((-(-filled // _BLOCK) * _BLOCK).sum()) if quantiser.bits == 4 else self.rows

    @classmethod
    def open(cls, folder: Path, record: CoarseRecord, metric: Metric, rows: int) -> Coarse:
        """Read the codes of a version."""
        quantiser = Quantiser.load(
            folder,
            by_residual=record.by_residual,
            routed_by=record.routing,
            made_by=record.codebooks,
        )
        if (quantiser.lists, quantiser.code_bytes) != (record.lists, record.code_bytes):
            raise RetrievalError(
                f"{folder}: its codes are not those of its manifest; build the index again"
            )
        lists = np.fromfile(folder / LISTS_FILE, np.uint32).astype(np.int64)
        codes = np.fromfile(folder / CODES_FILE, np.uint8).reshape(rows, record.code_bytes)
        coarse = cls(
            quantiser, lists, codes, metric, probes=record.probes, candidates=record.candidates, k=record.k
        )
        del lists, codes
        _give_back()
        return coarse

    def memory_bytes(self) -> int:
        """Bytes that codes, row numbers and tables hold in memory."""
        quantiser = self.quantiser
        tables = [quantiser.centroids, quantiser.codebooks, quantiser.routing, quantiser.rotation]
        if quantiser.query_rotation is not quantiser.rotation:
            tables.append(quantiser.query_rotation)
        stored = self._stored * quantiser.code_bytes + self.rows * ROW_NUMBER_BYTES
        return stored + sum(table.nbytes for table in tables)

    def candidates(
        self,
        queries: NDArray[np.float32],
        k: int,
        live: NDArray[np.bool_] | None = None,
        times: float = 1.0,
    ) -> NDArray[np.int64]:
        """Rows ``[Q, R]`` that may be among the ``k`` best of queries ``[Q, D]``, -1 where there are fewer.

        ``live`` are the rows ``[N]`` that may be found; ``times`` as many lists are searched. Where more
        answers are asked than the index was tuned for, still more are, by the square root of how many times
        more: as large a share of the answers is found then (measured from 10 to 3,000).
        """
        count = self.count if k <= self.k else max(self.count, _OVERFETCH * k)
        more = math.sqrt(max(1.0, k / self.k))
        probes = min(self.quantiser.lists, math.ceil(self.probes * times * more))
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
        rotated = self.quantiser.asked(queries)
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
        """The lists ``[Q, probes]`` that each query searches, in no order."""
        with_one = np.hstack([queries, np.ones((len(queries), 1), np.float32)])  # for the offset of a list
        near = np.empty((len(queries), probes), np.int64)
        for start in range(0, len(queries), _ROUTED):
            part = slice(start, start + _ROUTED)
            scores = with_one[part] @ self.quantiser.routing.T
            near[part] = np.argpartition(scores, -probes, axis=1)[:, -probes:]
        return near
