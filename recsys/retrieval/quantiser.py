"""What codes are made of: lists, codebooks, a rotation and the weights that choose lists. Plain arrays.

Anyone may bring them: learned centroids and codebooks become an index through ``Quantiser(...)`` alone.
The rule of encoding is FAISS's own (nearest centroid and nearest codeword by squared distance, of the
residual where ``by_residual``), and the bytes are FAISS's, so that codes from elsewhere fit.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import faiss
import numpy as np
from numpy.typing import NDArray

from recsys.errors import RetrievalError
from recsys.retrieval.dense import Metric, knn
from recsys.serving.files import load_tensors, save_tensors

QUANTISER_FILE = "quantiser.safetensors"


RoutedBy = Literal["centroids", "learned"]


@dataclass(frozen=True)
class Quantiser:
    """Lists and codes of vectors ``[N, D]``."""

    rotation: NDArray[np.float32]
    """``[C, D]``: codes are made of ``rotation @ vector``."""
    query_rotation: NDArray[np.float32]
    """``[C, D]``: they are compared with ``query_rotation @ query``. The same as ``rotation``; for inner
    products also its inverse, transposed, where it is no rotation, or a learned map."""
    centroids: NDArray[np.float32]
    """``[L, C]``, rotated."""
    codebooks: NDArray[np.float32]
    """``[M, 2**bits, C / M]``, bits 4 or 8."""
    routing: NDArray[np.float32]
    """``[L, D + 1]``: a query searches the lists whose weights have the largest inner product with it,
    the last weight added."""
    by_residual: bool = True
    """Codes stand for what a vector differs from its centroid by, rather than for the vector."""
    routed_by: RoutedBy = "centroids"
    """Where the routing comes from."""
    made_by: str = "given"
    """How the codebooks were made, in words."""

    def __post_init__(self) -> None:
        segments, words, part = self.codebooks.shape
        lists, width = self.centroids.shape
        dim = self.rotation.shape[1]
        fits = (
            segments * part == width
            and words in (16, 256)
            and self.rotation.shape[0] == width
            and self.query_rotation.shape == self.rotation.shape
            and self.routing.shape == (lists, dim + 1)
            and (words == 256 or segments % 2 == 0)
        )
        if not fits:
            raise RetrievalError(
                "quantiser: rotation and query_rotation [C, D], centroids [L, C], codebooks [M, 16 or 256, "
                "C/M] (M even with 16) and routing [L, D+1] do not fit together: "
                f"{self.rotation.shape}, {self.query_rotation.shape}, {self.centroids.shape}, "
                f"{self.codebooks.shape}, {self.routing.shape}"
            )

    @classmethod
    def of(
        cls,
        centroids: NDArray[np.float32],
        codebooks: NDArray[np.float32],
        metric: Metric,
        *,
        rotation: NDArray[np.float32] | None = None,
        query_rotation: NDArray[np.float32] | None = None,
        by_residual: bool = True,
        made_by: str = "given",
    ) -> Quantiser:
        """A quantiser whose centroids choose the lists: by inner product, or by distance for ``l2``."""
        if rotation is None:
            rotation = np.eye(centroids.shape[1], dtype=np.float32)
        if query_rotation is None:
            query_rotation = rotation = np.ascontiguousarray(rotation, np.float32)
        away = -0.5 * (centroids**2).sum(axis=1) if metric == "l2" else np.zeros(len(centroids))
        routing = np.column_stack([centroids @ query_rotation, away])
        return cls(
            np.ascontiguousarray(rotation, np.float32),
            np.ascontiguousarray(query_rotation, np.float32),
            np.ascontiguousarray(centroids, np.float32),
            np.ascontiguousarray(codebooks, np.float32),
            np.ascontiguousarray(routing, np.float32),
            by_residual,
            made_by=made_by,
        )

    @property
    def bits(self) -> Literal[4, 8]:
        return 4 if self.codebooks.shape[1] == 16 else 8

    @property
    def code_bytes(self) -> int:
        """Bytes of a code."""
        return int(self.codebooks.shape[0]) * self.bits // 8

    @property
    def lists(self) -> int:
        return int(self.centroids.shape[0])

    def rotated(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """``[n, C]`` of vectors ``[n, D]``."""
        return np.ascontiguousarray(vectors @ self.rotation.T)

    def asked(self, queries: NDArray[np.float32]) -> NDArray[np.float32]:
        """``[n, C]`` of queries ``[n, D]``."""
        return np.ascontiguousarray(queries @ self.query_rotation.T)

    def encode(self, vectors: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
        """Lists ``[n]`` and codes ``[n, code_bytes]`` of vectors ``[n, D]``."""
        rotated = self.rotated(vectors)
        lists = np.ascontiguousarray(knn(rotated, self.centroids, 1, "l2")[1][:, 0])
        return lists, self._codes(rotated, lists)

    def codes(self, vectors: NDArray[np.float32], lists: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Codes ``[n, code_bytes]`` of vectors ``[n, D]`` whose lists are known."""
        return self._codes(self.rotated(vectors), lists)

    def words(self, vectors: NDArray[np.float32], lists: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Codewords ``[n, M]`` of vectors ``[n, D]`` whose lists are known."""
        codes = self.codes(vectors, lists)
        return codes if self.bits == 8 else np.stack([codes & 15, codes >> 4], 2).reshape(len(codes), -1)

    def restored(self, words: NDArray[np.uint8], lists: NDArray[np.int64]) -> NDArray[np.float32]:
        """What codewords ``[n, M]`` stand for, ``[n, C]``, to be compared with what ``asked`` returns."""
        found = self.codebooks[np.arange(words.shape[1]), words].reshape(len(words), -1)
        return found + self.centroids[lists] if self.by_residual else found

    def _codes(self, rotated: NDArray[np.float32], lists: NDArray[np.int64]) -> NDArray[np.uint8]:
        residual = rotated - self.centroids[lists] if self.by_residual else rotated
        codes: NDArray[np.uint8] = self.product().compute_codes(np.ascontiguousarray(residual))
        return codes

    def product(self) -> Any:
        """FAISS's product quantiser with these codebooks."""
        segments, _, part = self.codebooks.shape
        product = faiss.ProductQuantizer(segments * part, segments, self.bits)
        faiss.copy_array_to_vector(self.codebooks.ravel(), product.centroids)
        return product

    def save(self, folder: Path) -> None:
        """Write ``quantiser.safetensors``."""
        arrays = {
            "rotation": self.rotation,
            "centroids": self.centroids,
            "codebooks": self.codebooks,
            "routing": self.routing,
        }
        if self.query_rotation is not self.rotation:
            arrays["query_rotation"] = self.query_rotation
        save_tensors(folder / QUANTISER_FILE, arrays)

    @classmethod
    def load(
        cls, folder: Path, *, by_residual: bool, routed_by: RoutedBy, made_by: str = "given"
    ) -> Quantiser:
        """Read what ``save`` wrote."""
        arrays = load_tensors(folder / QUANTISER_FILE)
        return cls(
            arrays["rotation"],
            arrays.get("query_rotation", arrays["rotation"]),
            arrays["centroids"],
            arrays["codebooks"],
            arrays["routing"],
            by_residual,
            routed_by,
            made_by,
        )
