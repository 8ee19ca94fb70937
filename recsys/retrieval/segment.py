"""A segment: the dense vectors and the items of one set of rows. A base version is one, a delta another."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from recsys.retrieval.dense import DenseDtype, DenseFile, DenseWriter
from recsys.retrieval.items import IdType, Items, ItemWriter
from recsys.retrieval.sources import Chunk

VECTORS_FILE = "vectors.bin"


@dataclass(frozen=True)
class Segment:
    """Rows on disk."""

    dense: DenseFile
    items: Items

    @property
    def rows(self) -> int:
        return self.items.rows


class SegmentWriter:
    """Writes a segment into a folder, chunk after chunk."""

    def __init__(self, folder: Path, dim: int, dtype: DenseDtype, name: str) -> None:
        self._dense = DenseWriter(folder / VECTORS_FILE, dim, dtype, name)
        self._items = ItemWriter(folder, name)

    def append(self, chunk: Chunk) -> None:
        self._dense.append(chunk.vectors)
        self._items.append(chunk.items)

    def close(self) -> tuple[int, IdType]:
        """Finish; the number of rows and the type of the ids. Raises DataError for an id given twice."""
        self._dense.close()
        self._items.close()
        return self._dense.rows, self._items.id_type
