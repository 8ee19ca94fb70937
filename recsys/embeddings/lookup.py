"""From a batch's ids to streams of table rows, and from looked-up vectors to a model's inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import fbgemm_gpu  # noqa: F401  registers torch.ops.fbgemm
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.data.batch import Batch
from recsys.data.dataset import Feature
from recsys.embeddings.combine import Combine
from recsys.embeddings.plan import Plan
from recsys.embeddings.pool import pool_starts
from recsys.errors import DataError, PlanError


@dataclass(frozen=True)
class Source:
    """One feature's ids on their way to the rows of a table."""

    feature: Feature
    vocabulary: str
    table: str
    size: int
    """Ids of the vocabulary."""
    lookups: int
    """Rows of an id, K."""
    combine: Combine
    """How they make its vector."""
    rows: NDArray[np.int64] | None
    """Rows of every id, ``[size, K]``; None where the row is the id, or has its place in a pool."""
    start: int = 0
    """First place of the vocabulary, where its table is a pool."""
    dealt: tuple[int, ...] = ()
    """Sub-table of each lookup, where the table has some."""

    @classmethod
    def of(cls, feature: Feature, plan: Plan, row_maps: Mapping[str, NDArray[np.int64] | Tensor]) -> Source:
        """Check a vocabulary against its table.

        Raises:
            PlanError: ids and rows do not fit together.
        """
        if feature.name not in plan.features:
            raise PlanError(f"feature {feature.name!r} is not in the plan; redo 'recsys plan'")
        name = plan.features[feature.name]
        vocabulary = plan.vocabularies[name]
        table_rows = plan.tables[vocabulary.table].rows
        if vocabulary.mode == "pool":
            start = pool_starts(plan, vocabulary.table)[name]
            lookups = vocabulary.lookups
            return cls(feature, name, vocabulary.table, vocabulary.size, lookups, "concat", None, start)
        given = row_maps.get(name)
        if given is None:
            if vocabulary.mode != "full":
                raise PlanError(f"vocabulary {name!r} is hashed, but the rows of its ids were not given")
            if vocabulary.size > table_rows:
                raise PlanError(
                    f"vocabulary {name!r} has {vocabulary.size} ids, its table {vocabulary.table!r} only "
                    f"{table_rows} rows; redo 'recsys plan'"
                )
            return cls(feature, name, vocabulary.table, vocabulary.size, 1, "concat", None)
        lookups = vocabulary.lookups
        rows = np.ascontiguousarray(np.asarray(given), dtype=np.int64)
        rows = rows.reshape(rows.shape[0], -1)
        if rows.shape[1] != lookups:
            raise PlanError(
                f"vocabulary {name!r}: expected rows of {lookups} lookups, found {rows.shape[1]}; "
                "redo 'recsys plan'"
            )
        if rows.shape[0] != vocabulary.size or rows.min() < 0 or rows.max() >= table_rows:
            raise PlanError(
                f"vocabulary {name!r}: expected {vocabulary.size} rows within [0, {table_rows}) of table "
                f"{vocabulary.table!r}, found {rows.shape[0]} rows within [{rows.min()}, {rows.max()}]; "
                "redo 'recsys plan'"
            )
        table, dealt = vocabulary.table, vocabulary.dealt
        return cls(feature, name, table, vocabulary.size, lookups, vocabulary.combine, rows, dealt=dealt)

    def write(self, ids: NDArray[np.int64], out: NDArray[np.int64], batch: int) -> None:
        """Write the table rows of ids ``[n]`` to ``out`` ``[n, K]``; of a pool, the places.

        Raises:
            DataError: an id is not one of the vocabulary's.
        """
        if ids.size and int(ids.view(np.uint64).max()) >= self.size:
            at = int(np.flatnonzero(ids.view(np.uint64) >= self.size)[0])
            raise DataError(
                f"feature {self.feature.name!r}: value {at} of batch {batch} has id {int(ids[at])}, "
                f"expected 0 to {self.size - 1} (vocabulary {self.vocabulary!r}); the dataset and the plan "
                "do not belong together: redo 'recsys prepare' and 'recsys plan'"
            )
        if self.rows is None:
            for lookup in range(self.lookups):
                np.add(ids * self.lookups, self.start + lookup, out=out[:, lookup])
        else:
            np.take(self.rows, ids, axis=0, out=out, mode="clip")


@dataclass(frozen=True)
class Stream:
    """The ids that one collection looks up together.

    Flat: a key per source and lookup, one row of a table per row of the batch. Ragged: one table and
    one key, whose stream is the ids of the sources one after the other, so that a shared table is looked
    up and updated once a step; the rows of an id's lookups stand side by side.
    """

    sources: tuple[Source, ...]
    ragged: bool
    order: NDArray[np.int64] | None = None
    """Order of a flat stream's keys; None: a source's lookups one after the other, source by source."""

    def dealt(self, holders: Sequence[int], block: int) -> Stream:
        """A flat stream whose keys are ordered by the process that holds their rows, and whose rows are
        numbered within that process's block."""
        sources = [
            source if source.rows is None else replace(source, rows=source.rows % block)
            for source in self.sources
        ]
        return Stream(tuple(sources), self.ragged, np.argsort(holders, kind="stable"))

    def rows_of(self, batch: Batch) -> NDArray[np.int64]:
        """Table rows of a batch, int64; raises DataError for an id that no vocabulary holds."""
        ids = [_ids(batch, source.feature.name) for source in self.sources]
        shapes = [
            (values.shape[0], source.lookups) for source, values in zip(self.sources, ids, strict=True)
        ]
        out = np.empty(sum(count * lookups for count, lookups in shapes), dtype=np.int64)
        start = 0
        for source, values, (count, lookups) in zip(self.sources, ids, shapes, strict=True):
            part = out[start : start + count * lookups]
            shaped = part.reshape(count, lookups) if self.ragged else part.reshape(lookups, count).T
            source.write(values, shaped, batch.index)
            start += count * lookups
        return out if self.order is None else out.reshape(len(self.order), -1)[self.order].ravel()


@dataclass(frozen=True)
class Bags:
    """Where the values of a multi or sequence feature belong."""

    count: int
    longest: int
    lengths: Tensor
    """int64 ``[B]``."""
    index: Tensor
    """Sequence: offsets int64 ``[B + 1]``. Multi: row of each value, int64 ``[count]``."""

    @classmethod
    def of(cls, feature: Feature, lengths: NDArray[np.int64], device: torch.device) -> Bags:
        lengths = np.ascontiguousarray(lengths, dtype=np.int64)
        if feature.kind == "sequence":
            index = np.zeros(lengths.shape[0] + 1, dtype=np.int64)
            np.cumsum(lengths, out=index[1:])
        else:
            index = np.repeat(np.arange(lengths.shape[0]), lengths)
        return cls(
            count=int(lengths.sum()),
            longest=int(lengths.max(initial=0)),
            lengths=to_device(lengths, device),
            index=to_device(index, device),
        )

    def mean(self, vectors: Tensor) -> Tensor:
        """Mean of each row's vectors ``[count, D]``: ``[B, D]``; zeros where a row has none."""
        sums = vectors.new_zeros(self.lengths.shape[0], vectors.shape[1]).index_add(0, self.index, vectors)
        return sums / self.lengths.clamp(min=1).unsqueeze(1)

    def pad(self, vectors: Tensor) -> Tensor:
        """Each row's vectors ``[count, D]`` in order, then zeros: ``[B, longest, D]``."""
        if self.count == 0:
            return vectors.reshape(self.lengths.shape[0], 0, vectors.shape[1])
        padded: Tensor = torch.ops.fbgemm.jagged_to_padded_dense(vectors, [self.index], [self.longest], 0.0)
        return padded


@dataclass
class DeviceBatch:
    """A batch on its device, ready to be looked up."""

    index: int
    """Number of the global batch since the start of training, from 0."""
    global_rows: int
    """Rows of the global batch, summed over ranks."""
    rows: int
    """Rows of this rank's slice, B."""
    label: Tensor
    """float32 ``[B]``."""
    weight: Tensor | None
    """float32 ``[B]``."""
    streams: tuple[Tensor, ...]
    """Table rows per collection, int64."""
    gates: Tensor | None = None
    """Gates of the values of all features, int64; None where tables have none."""
    bags: dict[str, Bags] = field(default_factory=dict)
    """Per multi and sequence feature."""
    numerics: dict[str, Tensor] = field(default_factory=dict)
    """float32 ``[B]``, 0 where missing."""
    missing: dict[str, Tensor] = field(default_factory=dict)
    """float32 ``[B]``, 1 where missing."""


def numbers_of(
    batch: Batch, names: Sequence[str], device: torch.device
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Numeric features with NaN replaced by 0, and where that was."""
    if not names:
        return {}, {}
    values = np.stack([batch.numerics[name] for name in names]).astype(np.float32, copy=False)
    missing = np.isnan(values)
    values[missing] = 0.0
    numerics = to_device(values, device)
    masks = to_device(missing.astype(np.float32), device)
    return dict(zip(names, numerics, strict=True)), dict(zip(names, masks, strict=True))


def to_device(values: NDArray[np.int64] | NDArray[np.float32], device: torch.device) -> Tensor:
    """A tensor of an array; to a GPU through pinned memory, without waiting for the copy."""
    tensor = torch.from_numpy(values if values.flags.writeable else values.copy())
    return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)


def _ids(batch: Batch, feature: str) -> NDArray[np.int64]:
    return np.ascontiguousarray(batch.ids[feature], dtype=np.int64)
