"""``Index``: open an index of item vectors, search it, change it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from recsys.errors import ConfigError, DataError, RetrievalError
from recsys.retrieval.dense import of_length_one
from recsys.retrieval.given_ids import id_series, ids_by_query
from recsys.retrieval.items import Filter
from recsys.retrieval.manifest import IndexManifest
from recsys.retrieval.snapshot import Snapshot
from recsys.retrieval.versions import Current, read_current

Exclude: TypeAlias = pl.Series | Sequence[Any] | NDArray[Any]
"""Ids that a query must not find: a list of lists or arrays, a Series of lists or a matrix, one for each
query; or one list of ids for all."""
_TRIES = 5
_FINGERPRINT = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class Found:
    """Answers of a search, best first."""

    ids: pl.Series
    """A list of ids for each query; shorter than ``k`` where filter and exclusions leave fewer items."""
    scores: pl.Series
    """Lists beside them: inner product, cosine, or for ``l2`` the negative squared distance."""
    version: str
    """Fingerprint of the version that answered; one for all queries of a search."""

    def __len__(self) -> int:
        return len(self.ids)

    def frame(self) -> pl.DataFrame:
        """A line for each answer: ``query`` (from 0), ``rank`` (from 1), the id, ``score``.

        Ids of a column that is called as one of the others are called ``id``.
        """
        name = "id" if self.ids.name in ("query", "rank", "score") else self.ids.name
        lists = pl.DataFrame([self.ids.alias(name), self.scores.alias("score")]).with_row_index("query")
        ranked = lists.with_columns(rank=pl.int_ranges(1, pl.col("score").list.len() + 1))
        found = ranked.filter(pl.col("score").list.len() > 0).explode("rank", name, "score")
        return found.select("query", "rank", name, "score")


class Index:
    """An index on disk, opened read-only; searches may run in any number of threads.

    >>> index = Index.open("index")  # doctest: +SKIP
    >>> index.search(users, k=100, filter="price < 20", exclude=seen).frame()  # doctest: +SKIP
    """

    def __init__(self, folder: Path, current: Current, snapshot: Snapshot, tower: str | None) -> None:
        self.folder = folder
        self._tower = tower
        self._state = (current, snapshot)

    @classmethod
    def open(cls, folder: str | Path, *, tower: str | Path | None = None, verify: bool = True) -> Index:
        """Open an index.

        Args:
            folder: that ``recsys index`` wrote.
            tower: the query tower whose vectors will be searched: its bundle, or that one's fingerprint.
            verify: check every file's hash; without it a damaged file may go unnoticed.

        Raises:
            RetrievalError: no index, a damaged one, or one whose vectors are for another query tower.
        """
        folder, wanted = Path(folder), None if tower is None else tower_fingerprint(tower)
        current, snapshot = _opened(folder, verify=verify)
        check_tower(snapshot, wanted)
        return cls(folder, current, snapshot, wanted)

    @property
    def manifest(self) -> IndexManifest:
        """What the version says of itself, its measured recall, latency and bytes among it."""
        return self._state[1].manifest

    @property
    def version(self) -> str:
        """Fingerprint of the version and delta that searches see."""
        return self._state[1].fingerprint

    def __len__(self) -> int:
        return self._state[1].rows

    def refresh(self) -> bool:
        """See the newest version from now on; False where it is open already.

        Searches that run meanwhile finish on the version they began with. Raises RetrievalError, and
        keeps the old version, where the new one is damaged or is for another query tower.
        """
        if read_current(self.folder) == self._state[0]:
            return False
        current, snapshot = _opened(self.folder, verify=True)
        check_tower(snapshot, self._tower)
        self._state = (current, snapshot)
        return True

    def search(
        self,
        queries: NDArray[Any] | Sequence[Any],
        k: int = 10,
        *,
        filter: Filter | None = None,
        exclude: Exclude | None = None,
        exact: bool = False,
    ) -> Found:
        """Find the ``k`` best items of each query.

        Args:
            queries: vectors ``[Q, D]``, one vector ``[D]``, or several interests per query ``[Q, I, D]``
                (an item counts with its best interest).
            k: answers per query.
            filter: items to search among; one that keeps almost nothing is answered exactly.
            exclude: ids that must not be found, per query or for all; unknown ones are ignored.
            exact: compare every item's dense vector instead of searching the codes.

        Raises:
            ConfigError: ``k``, ``filter`` or ``exclude`` that make no sense.
            DataError: queries of the wrong width, or that hold NaN.
        """
        snapshot = self._state[1]
        vectors = _checked(queries, snapshot)
        wanted = snapshot.wanted(k, filter, exact=exact)
        if exclude is not None:
            wanted = replace(wanted, excluded=_excluded(exclude, len(vectors), snapshot))
        scores, rows = snapshot.search(vectors, wanted)
        kept = rows >= 0
        ids = snapshot.ids(rows[kept])
        ends = np.concatenate([[0], np.cumsum(np.count_nonzero(kept, axis=1))])
        return Found(
            _lists(ends, ids), _lists(ends, pl.Series("scores", scores[kept])), snapshot.fingerprint
        )

    def vectors(self, ids: Sequence[Any] | pl.Series) -> NDArray[np.float32]:
        """Stored vectors ``[n, D]`` of items; raises RetrievalError that names an id which is not there."""
        snapshot = self._state[1]
        wanted = id_series(ids, "ids")
        rows = snapshot.find(wanted)
        if (rows < 0).any():
            missing = wanted[int((rows < 0).argmax())]
            raise RetrievalError(f"{self.folder}: no item {missing!r} in this index")
        return snapshot.vectors(rows)

    def upsert(
        self,
        ids: pl.DataFrame | pl.Series | Sequence[Any],
        vectors: NDArray[Any],
        *,
        tower: str | None = None,
    ) -> None:
        """Add items or replace those that are there, and see them; with attributes, ``ids`` is a table.

        See ``changes.upsert``, which takes files too.
        """
        from recsys.retrieval.changes import upsert

        upsert(self.folder, vectors, ids=ids, tower=tower or self._tower)
        self.refresh()

    def delete(self, ids: pl.Series | Sequence[Any]) -> None:
        """Remove items, and see it; raises RetrievalError that names an id which is not there."""
        from recsys.retrieval.changes import delete

        delete(self.folder, id_series(ids, "ids"))
        self.refresh()

    def compact(self, *, retrain: bool = False) -> None:
        """Merge what came and went into a new version, and see it; see ``changes.compact``."""
        from recsys.retrieval.changes import compact

        compact(self.folder, retrain=retrain)
        self.refresh()


def tower_fingerprint(tower: str | Path) -> str:
    """The fingerprint of a bundle, whose files are all checked; a fingerprint is returned as it is.

    Raises BundleError where the bundle is damaged, ConfigError for what is neither.
    """
    path = Path(tower)
    if path.is_dir():
        from recsys.serving.files import check_files
        from recsys.serving.manifest import MANIFEST_FILE, BundleManifest, read_json

        check_files(path, BundleManifest.load(path).files)
        return str(read_json(path / MANIFEST_FILE)["checksum"])
    if not _FINGERPRINT.fullmatch(str(tower)):
        raise ConfigError(
            f"tower: expected the folder of a bundle, or its fingerprint of 64 hexadecimal digits, found "
            f"{str(tower)!r}, which is no folder"
        )
    return str(tower)


def _lists(ends: NDArray[np.int64], values: pl.Series) -> pl.Series:
    """A list for each query, from its values in one row and where each begins and the last ends."""
    return pl.Series(values.name, pa.LargeListArray.from_arrays(pa.array(ends), values.to_arrow()))


def _opened(folder: Path, *, verify: bool) -> tuple[Current, Snapshot]:
    """The newest version; tried again where a writer swapped it while it was being opened."""
    for _ in range(_TRIES):
        current = read_current(folder)
        try:
            return current, Snapshot.open(folder, current, verify=verify)
        except (RetrievalError, DataError, OSError):
            if read_current(folder) == current:
                raise
    raise RetrievalError(f"{folder}: swapped {_TRIES} times while it was being opened; try again")


def check_tower(snapshot: Snapshot, tower: str | None) -> None:
    """Raise RetrievalError where the vectors are for another query tower than this; None: not said."""
    made_for = snapshot.manifest.dense.tower
    if tower is not None and tower != made_for:
        known = "not said" if made_for is None else made_for[:12]
        raise RetrievalError(
            f"the index holds vectors for query tower {known}, asked was {tower[:12]}; their scores would "
            "mean nothing: take the tower that the index was built with, or build the index from this one"
        )


def _checked(queries: NDArray[Any] | Sequence[Any], snapshot: Snapshot) -> NDArray[np.float32]:
    """Queries as float32 ``[Q, D]`` or ``[Q, I, D]``, of length one for the cosine."""
    try:
        with np.errstate(over="ignore"):  # what is beyond float32 is named below
            vectors = np.ascontiguousarray(queries, np.float32)
    except (TypeError, ValueError) as error:
        raise DataError(f"queries: expected numbers, as many for every vector; {error}") from error
    if vectors.ndim == 1:
        vectors = vectors[None]
    dim = snapshot.manifest.dense.dim
    if vectors.ndim not in (2, 3) or vectors.shape[-1] != dim or 0 in vectors.shape[:2]:
        raise DataError(
            f"queries: expected vectors of {dim} numbers, found an array of {list(vectors.shape)}"
        )
    finite = np.isfinite(vectors)
    if not finite.all():
        raise DataError(f"queries, row {np.argwhere(~finite)[0][0]}: a number that is not finite")
    if snapshot.manifest.metric == "cosine":
        vectors = of_length_one(vectors, "queries")
    return vectors


def _excluded(exclude: Exclude, queries: int, snapshot: Snapshot) -> list[NDArray[np.int64]]:
    """Rows that each query must not find."""
    column = exclude.name if isinstance(exclude, pl.Series) else ""
    ids, lengths = ids_by_query(exclude, f"exclude, column {column!r}" if column else "exclude")
    rows = snapshot.find(ids)
    if lengths is None:
        return [rows[rows >= 0]] * queries
    if len(lengths) != queries:
        raise ConfigError(f"exclude: {len(lengths)} lists for {queries} queries; expected one for each")
    parts = np.split(rows, np.cumsum(lengths)[:-1])
    return [part[part >= 0] for part in parts]
