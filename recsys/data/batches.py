"""The sequence of batches: a function of the data, the seed and the batch size alone.

Row groups are dealt into windows that fit in memory; each epoch permutes the row groups and then the
rows of each window. Batches run on across windows, so every global batch but an epoch's last is
full. Any number of ranks sees the same global batches: rank r takes the r-th contiguous slice. Where an
order of rows is given, batches are cut from that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from recsys.data.batch import Batch
from recsys.data.columns import Columns, column_names
from recsys.data.dataset import Dataset, Part
from recsys.errors import DataError

_SHUFFLE_STREAM = 0x5348_5546


@dataclass
class Cursor:
    """Position in the sequence of global batches; valid for any number of ranks."""

    epoch: int = 0
    batch: int = 0
    """Batches of this epoch that have been used."""


def rank_slice(rows: int, rank: int, world: int) -> slice:
    """The rows of a global batch that a rank takes; may be empty.

    >>> [rank_slice(5, rank, 4) for rank in range(4)]
    [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None), slice(5, 5, None)]
    """
    share = -(-rows // world)
    return slice(min(rank * share, rows), min((rank + 1) * share, rows))


class Batches:
    """Batches of one part of a prepared dataset.

    Args:
        dataset: the prepared dataset.
        part: ``train``, ``valid`` or ``test``.
        batch_size: rows of a global batch.
        seed: of the shuffle.
        shuffle_rows: rows held in memory and shuffled together.
        rank, world: which slice of each global batch to yield.
        shuffle: False yields rows in file order.
        order: called with an epoch as it begins, or is gone on with; the numbers ``[rows]`` of all rows in
            the order in which to take them, or None: shuffled. They must fit in ``shuffle_rows``.

    Raises:
        DataError: the part is damaged or holds no rows.
    """

    def __init__(
        self,
        dataset: Dataset,
        part: Part,
        batch_size: int,
        *,
        seed: int = 0,
        shuffle_rows: int = 4_000_000,
        rank: int = 0,
        world: int = 1,
        shuffle: bool = True,
        order: Callable[[int], NDArray[np.int64] | None] = lambda epoch: None,
    ) -> None:
        self._path = dataset.part(part)
        self._features = dataset.features
        self._batch_size = batch_size
        self._seed = seed
        self._shuffle = shuffle
        self._rank, self._world = rank, world
        try:
            self._file = pq.ParquetFile(self._path)
        except (OSError, pa.ArrowInvalid) as error:
            raise DataError(f"{self._path}: cannot be read: {error}; redo 'recsys prepare'") from error
        metadata = self._file.metadata
        self._group_rows = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
        self.rows: int = metadata.num_rows
        self._names = column_names(self._features, self._file.schema_arrow.names)
        self._fits = self.rows <= shuffle_rows
        self._window_rows = shuffle_rows
        self._kept: Columns | None = None
        self._order = order
        self._given: dict[int, NDArray[np.int64] | None] = {}

    @property
    def steps_per_epoch(self) -> int:
        """Global batches of one epoch, a short last one included."""
        return -(-self.rows // self._batch_size)

    def epoch(self, epoch: int = 0, start: int = 0) -> Iterator[Batch]:
        """Yield this rank's slices of the global batches of an epoch, from batch ``start`` on."""
        # the one before is kept for rows_of: what an order is made of changes from epoch to epoch
        self._given = {epoch - 1: self._given.get(epoch - 1), epoch: self._order(epoch)}
        index, skip = start, start * self._batch_size
        pending: list[tuple[Columns, NDArray[np.int64]]] = []
        waiting = 0
        for groups, order in self._windows(epoch):
            rows = len(order)
            if skip >= rows:
                skip -= rows
                continue
            pending.append((self._load(groups), order[skip:]))
            waiting += rows - skip
            skip = 0
            while waiting >= self._batch_size:
                yield self._cut(pending, self._batch_size, epoch, index)
                waiting -= self._batch_size
                index += 1
        if waiting:
            yield self._cut(pending, waiting, epoch, index)

    @property
    def path(self) -> Path:
        """The file of the rows."""
        return self._path

    def rows_of(self, index: int) -> NDArray[np.int64]:
        """Row numbers in the file of a global batch, in its order: ``[global_rows]``.

        ``index`` counts from the start of training, as ``Batch.index`` does. Reads no rows.
        """
        epoch, batch = divmod(index, self.steps_per_epoch)
        starts = np.concatenate(([0], np.cumsum(self._group_rows)))
        low, high = batch * self._batch_size, (batch + 1) * self._batch_size
        passed, found = 0, [np.empty(0, np.int64)]
        for groups, order in self._windows(epoch):
            rows = np.concatenate([np.arange(starts[group], starts[group + 1]) for group in groups])
            found.append(rows[order[max(low - passed, 0) : max(high - passed, 0)]])
            passed += len(rows)
            if passed >= high:
                break
        return np.concatenate(found)

    def _windows(self, epoch: int) -> Iterator[tuple[list[int], NDArray[np.int64]]]:
        """Windows of an epoch, and the order of the rows of each."""
        generator = np.random.default_rng([_SHUFFLE_STREAM, self._seed, epoch])
        given = self._given.get(epoch)
        for groups in self._dealt(generator):
            rows = sum(self._group_rows[group] for group in groups)
            if given is not None:
                yield groups, given
            else:
                yield groups, generator.permutation(rows) if self._shuffle else np.arange(rows)

    def _dealt(self, generator: np.random.Generator) -> list[list[int]]:
        """Row groups dealt into windows of at most ``shuffle_rows`` rows, one group at least."""
        groups = np.arange(len(self._group_rows))
        if self._fits:
            return [groups.tolist()] if self.rows else []
        if self._shuffle:
            groups = generator.permutation(groups)
        windows: list[list[int]] = []
        held = self._window_rows
        for group in groups.tolist():
            if held + self._group_rows[group] > self._window_rows:
                windows.append([])
                held = 0
            windows[-1].append(group)
            held += self._group_rows[group]
        return windows

    def _load(self, groups: list[int]) -> Columns:
        if self._kept is not None:
            return self._kept
        try:
            table = self._file.read_row_groups(groups, columns=self._names)
        except (OSError, pa.ArrowInvalid) as error:
            raise DataError(f"{self._path}: cannot be read: {error}; redo 'recsys prepare'") from error
        columns = Columns.of(table, self._features)
        if self._fits:
            self._kept = columns
        return columns

    def _cut(
        self, pending: list[tuple[Columns, NDArray[np.int64]]], rows: int, epoch: int, index: int
    ) -> Batch:
        """Take the next global batch off the pending rows and gather this rank's slice of it."""
        pieces: list[tuple[Columns, NDArray[np.int64]]] = []
        mine = rank_slice(rows, self._rank, self._world)
        taken = 0
        while taken < rows:
            columns, order = pending.pop(0)
            here = order[: rows - taken]
            low, high = max(mine.start - taken, 0), max(mine.stop - taken, 0)
            pieces.append((columns, here[low:high]))
            taken += len(here)
            if len(here) < len(order):
                pending.insert(0, (columns, order[len(here) :]))
        return gather(pieces, epoch * self.steps_per_epoch + index, rows)


def gather(pieces: list[tuple[Columns, NDArray[np.int64]]], index: int, global_rows: int) -> Batch:
    """A batch of rows, given as columns and row numbers in them; they may lie in more than one window."""
    first = pieces[0][0]
    single = np.concatenate([columns.ids[rows] for columns, rows in pieces])
    numbers = np.concatenate([columns.numbers[rows] for columns, rows in pieces])
    by_feature = np.ascontiguousarray(single.T)
    ids = {name: by_feature[i] for i, name in enumerate(first.single)}
    lengths: dict[str, NDArray[np.int64]] = {}
    for name in first.ragged:
        taken = [columns.ragged[name].take(rows) for columns, rows in pieces]
        ids[name] = np.concatenate([values for values, _ in taken])
        lengths[name] = np.concatenate([length for _, length in taken])
    numeric = np.ascontiguousarray(numbers.T)
    has_weight, has_group = first.weight is not None, first.group is not None
    return Batch(
        index=index,
        global_rows=global_rows,
        label=np.concatenate([columns.label[rows] for columns, rows in pieces]),
        ids=ids,
        lengths=lengths,
        numerics={name: numeric[i] for i, name in enumerate(first.numeric)},
        weight=np.concatenate([c.weight[r] for c, r in pieces if c.weight is not None])
        if has_weight
        else None,
        group=np.concatenate([c.group[r] for c, r in pieces if c.group is not None]) if has_group else None,
    )
