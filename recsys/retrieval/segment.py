"""A segment: the dense vectors and the items of one set of rows. A base version is one, a delta another."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from recsys.retrieval.dense import DenseDtype, DenseFile, DenseWriter
from recsys.retrieval.given_ids import IdType
from recsys.retrieval.items import Items, ItemWriter
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
    """Writes a segment into a folder, chunk after chunk; a context that closes its files."""

    def __init__(self, folder: Path, dim: int, dtype: DenseDtype, name: str) -> None:
        self._dense = DenseWriter(folder / VECTORS_FILE, dim, dtype, name)
        self._items = ItemWriter(folder, name)

    def __enter__(self) -> SegmentWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._dense.close()
        self._items.close()

    def append(self, chunk: Chunk) -> None:
        self._dense.append(chunk.vectors)
        self._items.append(chunk.items)

    def finish(self) -> tuple[int, IdType]:
        """Write what comes last; the number of rows and the type of the ids.

        Raises DataError that names an id which was given twice.
        """
        self._dense.finish()
        self._items.finish()
        return self._dense.rows, self._items.id_type
