"""Dense vectors on disk: one flat file, mapped, scored where it lies.

Float32 and float16 rows follow each other without a header. An int8 file holds its codes ``[N, D]``
first and, at the next multiple of 64 bytes, a float32 scale for each row: a row is ``scale * code``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Literal

import faiss
import numpy as np
from numpy.typing import NDArray

from recsys.errors import DataError, RetrievalError
from recsys.retrieval.kernels import best, score_float16, score_float32, score_int8, widest

Metric = Literal["ip", "cosine", "l2"]
DenseDtype = Literal["float32", "float16", "int8"]
_BLOCK = 65_536
_LARGEST_HALF = 65_504.0
_ALIGNED = 64
_DECODED = 2**25
"""Numbers decoded at a time for an exact search: 128 MiB of float32."""


def of_length_one(vectors: NDArray[np.float32], name: str, first_row: int = 0) -> NDArray[np.float32]:
    """Vectors ``[..., D]`` divided by their length; raises DataError that names a row of zeros."""
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    if not norms.all():
        row = first_row + int(np.argwhere(norms == 0)[0][0])
        raise DataError(
            f"{name}, row {row}: a vector of zeros has no direction; leave it out, or choose the inner "
            "product (ip) as metric"
        )
    return np.asarray(vectors / norms, np.float32)


class DenseWriter:
    """Appends vectors to a flat file."""

    def __init__(self, path: Path, dim: int, dtype: DenseDtype, name: str) -> None:
        self._file: IO[bytes] = path.open("wb")
        self._dim, self._dtype, self._name = dim, dtype, name
        self._scales: list[NDArray[np.float32]] = []
        self.rows = 0

    def append(self, vectors: NDArray[np.float32]) -> None:
        """Add rows ``[n, D]``; raises DataError that names a row which float16 has no room for."""
        if self._dtype == "float16" and (large := widest(vectors)).max(initial=0) > _LARGEST_HALF:
            row = self.rows + int(large.argmax())
            raise DataError(
                f"{self._name}, row {row}: {large.max()} is beyond float16's {_LARGEST_HALF}; "
                "store the vectors as float32"
            )
        if self._dtype == "int8":
            scale = np.asarray(widest(vectors) / 127, np.float32)
            self._scales.append(scale)
            safe = np.where(scale > 0, scale, 1)[:, None]
            stored: NDArray[Any] = np.rint(vectors / safe).astype(np.int8)
        else:
            stored = np.ascontiguousarray(vectors, self._dtype)
        self._file.write(stored.data)
        self.rows += len(vectors)

    def finish(self) -> None:
        """Write what comes last, and close."""
        if self._dtype == "int8":
            self._file.write(b"\0" * (-self.rows * self._dim % _ALIGNED))
            for scales in self._scales:
                self._file.write(scales.data)
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()


def dense_bytes(rows: int, dim: int, dtype: DenseDtype) -> int:
    """Size of a file of so many rows."""
    if dtype == "int8":
        return -(-rows * dim // _ALIGNED) * _ALIGNED + 4 * rows
    return rows * dim * np.dtype(dtype).itemsize


class DenseFile:
    """A flat file of vectors ``[N, D]``, mapped read-only."""

    def __init__(self, path: Path, rows: int, dim: int, dtype: DenseDtype, metric: Metric) -> None:
        self.rows, self.dim, self.dtype, self.metric = rows, dim, dtype, metric
        self._nearness = metric == "l2"
        size = path.stat().st_size
        if size != dense_bytes(rows, dim, dtype):
            raise RetrievalError(
                f"{path}: damaged: expected {dense_bytes(rows, dim, dtype)} bytes, found {size}"
            )
        kind = np.dtype(dtype)
        self._stored: NDArray[Any] = _mapped(path, kind, (rows, dim))
        self._scales = (
            _mapped(path, np.dtype(np.float32), (rows,), size - 4 * rows) if dtype == "int8" else None
        )

    def take(self, rows: NDArray[np.int64] | slice) -> NDArray[np.float32]:
        """float32 vectors ``[n, D]`` of some rows."""
        found: NDArray[np.float32] = self._stored[rows].astype(np.float32)
        return found if self._scales is None else found * self._scales[rows][:, None]

    def blocks(self, size: int = _BLOCK) -> Iterator[NDArray[np.float32]]:
        """All rows in order, some at a time."""
        for start in range(0, self.rows, size):
            yield self.take(slice(start, start + size))

    def scores(self, queries: NDArray[np.float32], rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Scores ``[Q, M]`` of queries ``[Q, D]`` with the rows ``[Q, M]`` of each; -1 gets -inf."""
        scores = np.empty(rows.shape, np.float32)
        if self.dtype == "float16":
            score_float16(self._stored.view(np.uint16), queries, rows, self._nearness, scores)
        elif self._scales is not None:
            score_int8(self._stored, self._scales, queries, rows, self._nearness, scores)
        else:
            score_float32(self._stored, queries, rows, self._nearness, scores)
        return scores

    def exact(
        self, queries: NDArray[np.float32], k: int, rows: NDArray[np.int64] | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The ``k`` best of all rows, or of the given ones, for each query: scores and rows ``[Q, k]``."""
        size = max(1, _DECODED // self.dim)
        count = self.rows if rows is None else len(rows)
        parts = []
        for start in range(0, count, size):
            if rows is None and self.dtype == "float32":
                block = self._stored[start : start + size]
            else:
                part = slice(start, start + size)
                block = self.take(part if rows is None else rows[part])
            scores, at = knn(queries, block, min(k, len(block)), self.metric)
            at += start
            parts.append((scores, at if rows is None else rows[at]))
        if not parts:
            return best(np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64), k)
        return best(np.hstack([part[0] for part in parts]), np.hstack([part[1] for part in parts]), k)


def knn(
    queries: NDArray[np.float32], vectors: NDArray[np.float32], k: int, metric: Metric
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Scores and row numbers ``[Q, k]`` of the best vectors, by faiss; higher scores are better."""
    kind = faiss.METRIC_L2 if metric == "l2" else faiss.METRIC_INNER_PRODUCT
    scores, at = faiss.knn(queries, vectors, k, metric=kind)
    return (-scores if metric == "l2" else scores), at


def _mapped(path: Path, dtype: np.dtype[Any], shape: tuple[int, ...], offset: int = 0) -> NDArray[Any]:
    if 0 in shape:  # nothing can be mapped
        return np.empty(shape, dtype)
    return np.asarray(np.memmap(path, dtype, "r", offset, shape))
