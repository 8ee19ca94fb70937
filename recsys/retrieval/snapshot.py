"""One state of an index, searched: base version, codes, and the delta on top of them. Never changes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.errors import ConfigError, RetrievalError
from recsys.retrieval.coarse import Coarse
from recsys.retrieval.dense import DenseFile
from recsys.retrieval.items import Filter, Items, expression
from recsys.retrieval.kernels import best
from recsys.retrieval.manifest import (
    DELTA_FILE,
    MANIFEST_FILE,
    DeltaManifest,
    IndexManifest,
    check_files,
    load,
)
from recsys.retrieval.segment import VECTORS_FILE, Segment
from recsys.retrieval.versions import Current

DEAD_FILE = "dead.bin"
_QUERIES = 256
"""Queries answered at a time."""
_EXACT_ROWS = 50_000
"""A filter that keeps no more rows than this, nor more than half of all, is answered exactly: that is as
fast as the codes."""
_EXACT_SHARE = 0.02
"""So is one that keeps no larger share of the rows: codes would find too few of them."""
_MOST_PROBES = 8
"""Times more lists that are searched where a filter keeps few of the rows in each."""

Rows = tuple[NDArray[np.float32], NDArray[np.int64]]
"""Scores and row numbers ``[Q, M]``, best first."""


@dataclass(frozen=True)
class Delta:
    """Rows that came and went since the base version was built."""

    manifest: DeltaManifest
    segment: Segment
    dead: NDArray[np.int64]
    """Base rows that were deleted or replaced, ascending."""


@dataclass(frozen=True)
class Wanted:
    """What a search asks for beside its queries."""

    k: int
    exact: bool = False
    live: NDArray[np.bool_] | None = None
    """Base rows ``[N]`` that may be found; None: all."""
    fresh: NDArray[np.int64] | None = None
    """Delta rows that may be found; None: all."""
    excluded: list[NDArray[np.int64]] = field(default_factory=list)
    """Rows that each query must not find; delta rows count on from the base's. Empty: none of any."""


@dataclass(frozen=True)
class Snapshot:
    """A base version and its delta, opened."""

    manifest: IndexManifest
    base: Segment
    coarse: Coarse | None
    delta: Delta | None

    @classmethod
    def open(cls, folder: Path, current: Current, *, verify: bool = True) -> Snapshot:
        """Open what the pointer of an index names; raises RetrievalError for anything damaged."""
        home = folder / current.version
        manifest = load(IndexManifest, home / MANIFEST_FILE)
        check_files(home, manifest.files, contents=verify)
        stored = manifest.dense
        dense = DenseFile(home / stored.file, manifest.rows, stored.dim, stored.dtype, manifest.metric)
        base = Segment(dense, Items(home, manifest.rows, manifest.id_type))
        coarse = (
            None
            if manifest.coarse is None
            else Coarse.open(home, manifest.coarse, manifest.metric, manifest.rows)
        )
        delta = None
        if current.delta is not None:
            delta = _open_delta(folder / current.delta, manifest, verify=verify)
        return cls(manifest, base, coarse, delta)

    @property
    def fingerprint(self) -> str:
        """Of the version, and of the delta where there is one."""
        mine = self.manifest.fingerprint
        return mine if self.delta is None else f"{mine}+{self.delta.manifest.fingerprint}"

    @property
    def rows(self) -> int:
        """Items that can be found."""
        if self.delta is None:
            return self.base.rows
        return self.base.rows - len(self.delta.dead) + self.delta.segment.rows

    @cached_property
    def _alive(self) -> NDArray[np.bool_] | None:
        """Base rows that no delta replaced; None: all."""
        if self.delta is None or not len(self.delta.dead):
            return None
        alive = np.ones(self.base.rows, bool)
        alive[self.delta.dead] = False
        return alive

    def ids(self, rows: NDArray[np.int64]) -> pl.Series:
        """Ids of rows ``[n]``, those of the delta counted on from the base's; null for -1."""
        if self.delta is None:
            return self.base.items.ids(rows)
        in_delta = rows >= self.base.rows
        old = self.base.items.ids(np.where(in_delta, -1, rows))
        new = self.delta.segment.items.ids(np.where(in_delta, rows - self.base.rows, -1))
        return pl.select(pl.coalesce(old, new)).to_series().alias(old.name)

    def find(self, ids: pl.Series) -> NDArray[np.int64]:
        """Rows ``[n]`` of ids; -1 for what is not in the index now."""
        rows = self.base.items.find(ids)
        if self._alive is not None:
            rows = np.where((rows >= 0) & ~self._alive[rows], -1, rows)
        if self.delta is not None:
            new = self.delta.segment.items.find(ids)
            rows = np.where(new >= 0, new + self.base.rows, rows)
        return rows

    def vectors(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Stored vectors ``[n, D]`` of rows that are there."""
        found = self.base.dense.take(np.minimum(rows, self.base.rows - 1))
        if self.delta is not None and (new := rows >= self.base.rows).any():
            found[new] = self.delta.segment.dense.take(rows[new] - self.base.rows)
        return found

    def wanted(self, k: int, given: Filter | None, *, exact: bool) -> Wanted:
        """What may be found under a filter; raises ConfigError for a filter or ``k`` that make no sense."""
        if not isinstance(k, int | np.integer) or isinstance(k, bool) or k < 1:
            raise ConfigError(f"k: expected a number of answers, at least 1; found {k!r}")
        if k > self.rows:
            raise ConfigError(f"k: {k} answers asked of an index that holds {self.rows} items")
        live, fresh = self._alive, None
        if given is not None:
            condition = expression(given, self.base.items.schema)
            kept = self.base.items.where(condition)
            live = kept if live is None else kept & live
            if self.delta is not None:
                fresh = np.flatnonzero(self.delta.segment.items.where(condition))
        return Wanted(k, exact, live, fresh)

    def search(self, queries: NDArray[np.float32], wanted: Wanted) -> Rows:
        """Best rows of queries ``[Q, D]``, or of several interests each ``[Q, I, D]``: ``[Q, k]``.

        An item that several interests find counts with the best of its scores.
        """
        parts = list(self._parts(queries, wanted))
        return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])

    def _parts(self, queries: NDArray[np.float32], wanted: Wanted) -> Iterator[Rows]:
        for start in range(0, len(queries), _QUERIES):
            block = queries[start : start + _QUERIES]
            excluded = wanted.excluded[start : start + _QUERIES]
            more = max((len(rows) for rows in excluded), default=0)
            count = min(wanted.k + more, self.base.rows + (self.delta.segment.rows if self.delta else 0))
            flat = block.reshape(-1, block.shape[-1])
            scores, rows = self._base_best(flat, count, wanted)
            if self.delta is not None and self.delta.segment.rows:
                new_scores, new = self.delta.segment.dense.exact(flat, count, wanted.fresh)
                new = np.where(new < 0, -1, new + self.base.rows)
                scores, rows = np.hstack([scores, new_scores]), np.hstack([rows, new])
            if block.ndim == 3:
                scores, rows = _once_each(scores.reshape(len(block), -1), rows.reshape(len(block), -1))
            if more:
                scores = _without(scores, rows, excluded)
            yield best(scores, rows, wanted.k)

    def _base_best(self, queries: NDArray[np.float32], count: int, wanted: Wanted) -> Rows:
        """The best base rows, by codes and dense vectors or by dense vectors alone."""
        live, rows = wanted.live, self.base.rows
        kept = rows if live is None else int(np.count_nonzero(live))
        coarse = self.coarse
        if coarse is None or wanted.exact or kept <= max(min(_EXACT_ROWS, rows // 2), _EXACT_SHARE * rows):
            return self.base.dense.exact(queries, count, None if live is None else np.flatnonzero(live))
        times = min(_MOST_PROBES, rows / kept)
        candidates = coarse.candidates(queries, count, live, times)
        return best(self.base.dense.scores(queries, candidates), candidates, count)


def _open_delta(home: Path, base: IndexManifest, *, verify: bool) -> Delta:
    manifest = load(DeltaManifest, home / DELTA_FILE)
    if manifest.base != base.fingerprint:
        raise RetrievalError(f"{home}: belongs to another version of the index; build the index again")
    check_files(home, manifest.files, contents=verify)
    dense = DenseFile(home / VECTORS_FILE, manifest.rows, base.dense.dim, base.dense.dtype, base.metric)
    segment = Segment(dense, Items(home, manifest.rows, base.id_type))
    return Delta(manifest, segment, np.fromfile(home / DEAD_FILE, np.int64))


def _once_each(scores: NDArray[np.float32], rows: NDArray[np.int64]) -> Rows:
    """Lines ``[Q, M]`` in which a row that stands several times keeps only its best score."""
    order = np.lexsort((-scores, rows), axis=1)
    scores, rows = np.take_along_axis(scores, order, 1), np.take_along_axis(rows, order, 1)
    scores[:, 1:][rows[:, 1:] == rows[:, :-1]] = -np.inf
    return scores, rows


def _without(
    scores: NDArray[np.float32], rows: NDArray[np.int64], excluded: list[NDArray[np.int64]]
) -> NDArray[np.float32]:
    """Scores ``[Q, M]`` with minus infinity for the rows that a query must not find."""
    width = max(int(rows.max(initial=0)), *(int(gone.max(initial=0)) for gone in excluded)) + 2
    line = np.arange(len(rows))[:, None] * width
    unwanted = np.concatenate([gone + at * width for at, gone in enumerate(excluded)])
    return np.where(np.isin(line + rows, unwanted), np.float32(-np.inf), scores)
