"""Hard negatives: items that the towers themselves rank high for a query though no train row has them.

ANCE (Xiong et al., ICLR 2021) mines them anew as the towers learn; BiDR's dense stage (Xiao et al., WWW
2022, section 3.2) learns from the first N that come back. Mined lists are part of the checkpoint.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from recsys.config import TrainSettings
from recsys.data.batch import Batch
from recsys.data.batches import gather, rank_slice
from recsys.data.check import reading
from recsys.data.columns import Columns, Ragged, column_names
from recsys.data.dataset import Dataset
from recsys.embeddings.tables import Tables
from recsys.errors import ConfigError
from recsys.evaluation.retrieval import ItemLists, best_items
from recsys.models.two_tower import QUERY_SIDES, TwoTower, TwoTowerConfig
from recsys.progress import progress, say
from recsys.training.catalogue import Catalogue
from recsys.training.distributed import Distributed
from recsys.training.locality import local_order
from recsys.training.query_keys import query_keys
from recsys.training.softmax import gathered
from recsys.training.vectors import device_batches, vectors_of

_STREAM, _ORDER_STREAM = 0x4841_5244, 0x4C4F_4341
_LISTS = "hard.places"
_LEAST_CODED = 16
"""Items: as many as a codebook of 4 bits has codewords."""
_MIB = 2**20


@dataclass(frozen=True)
class Drawn:
    """Hard negatives of the rows of a batch."""

    places: NDArray[np.int64]
    """Their places in the catalogue ``[B, N]``; 0 where a row has none."""
    lift: NDArray[np.float32]
    """Added to their logits ``[B, N]``; minus infinity where a row has none."""


class HardNegatives:
    """The pools that hard negatives are drawn from, one for each query of the train rows.

    A query is what rows of one group with the same features of query sides have in common; all items that
    the group's train rows hold are its positives. Pools hold its first items after ``hard_skip``, without
    positives, by the towers as they were when an epoch began, or by codes of their vectors. All items are
    scored, a block of queries at a time: what is held are 4 bytes per place of each pool, 32 per query, 8
    per positive and, for local batches, 4 per row; making those takes as much as the pools once more.

    Args:
        dataset: prepared rows.
        catalogue: items, from which positives are told by the feature that tells them apart.
        config: the model's options, with ``hard_negatives`` above 0.
        settings: the run file's ``train`` block.
        ranks: the processes that train together; each searches for a share of the queries.

    Raises:
        ConfigError: a pool that is not smaller than the catalogue, an epoch that is never reached, codes
            that do not fit the vectors, local batches of more rows than fit in memory.
    """

    def __init__(
        self,
        dataset: Dataset,
        catalogue: Catalogue,
        config: TwoTowerConfig,
        settings: TrainSettings,
        ranks: Distributed,
    ) -> None:
        _require_sense(dataset, config, settings, catalogue)
        self._dataset, self._catalogue, self._config = dataset, catalogue, config
        self._seed, self._ranks = settings.seed, ranks
        self._batch_size = settings.batch_size
        self._steps = -(-dataset.manifest.rows["train"] // settings.batch_size)
        self._features = [feature.name for feature in dataset.features if feature.side in QUERY_SIDES]
        self._find_queries()
        queries = len(self._first)
        self._pools = torch.full((queries, config.hard_pool), -1, dtype=torch.int32)

    def tensors(self) -> dict[str, Tensor]:
        """The pools, int32 ``[Q, hard_pool]``: places in the catalogue, rising, then -1 in short ones."""
        return {_LISTS: self._pools}

    def begin(self, epoch: int, model: TwoTower, tables: Tables) -> None:
        """Mine anew where that is due as an epoch begins; all processes call this together."""
        _require_codes_fit(self._config, len(self._catalogue), model.dim)
        since = epoch - self._config.hard_from
        if since < 0 or since % self._config.hard_every:
            return
        started = time.perf_counter()
        self._mine(model, tables)
        if self._ranks.rank == 0:
            queries, size = self._pools.shape
            say(
                f"hard negatives of epoch {epoch + 1}: {size} of {len(self._catalogue):,} items for each "
                f"of {queries:,} queries, {self._pools.nbytes / _MIB:.1f} MiB, mined in "
                f"{time.perf_counter() - started:.1f} s"
            )

    def draw(self, batch: Batch) -> Drawn | None:
        """Hard negatives of the rows of this process; None before the epoch in which they begin.

        What is drawn follows from seed and batch alone. A pool is cut into N parts of equal length and one
        place drawn from each, so that every item of it is to be expected N / size times. With logQ
        correction each of the N therefore counts as size / N items, and their sum estimates that over the
        pool; without, as one. ``hard_weight`` multiplies both.
        """
        if batch.index // self._steps < self._config.hard_from:
            return None
        number, ranks = self._config.hard_negatives, self._ranks
        draw = np.random.default_rng([_STREAM, self._seed, batch.index])
        chances = draw.random((batch.global_rows, number))
        mine = chances[rank_slice(batch.global_rows, ranks.rank, ranks.world)]
        pools = self._pools.numpy()[self._queries_of(batch)]
        sizes = np.count_nonzero(pools >= 0, axis=1)
        at = ((np.arange(number) + mine) * (sizes[:, None] / number)).astype(np.int64)
        at = np.minimum(at, np.maximum(sizes[:, None] - 1, 0))
        places = np.maximum(np.take_along_axis(pools, at, 1), 0).astype(np.int64)
        count = self._config.hard_weight * np.ones(len(sizes))
        if self._config.correction == "logq":
            count *= np.maximum(sizes, 1) / number
        lift = np.where(sizes > 0, np.log(count), -np.inf).astype(np.float32)
        return Drawn(places, np.repeat(lift[:, None], number, 1))

    def order(self, epoch: int) -> NDArray[np.int64] | None:
        """Numbers of the train rows ``[R]`` in the order that makes batches local; None: they are not. It
        follows from the pools, seed and epoch alone."""
        if self._config.batches == "random" or epoch < self._config.hard_from:
            return None
        return local_order(
            self._query_of_row,
            self._pools.numpy(),
            len(self._catalogue),
            self._batch_size,
            self._config.batches,
            np.random.default_rng([_ORDER_STREAM, self._seed, epoch]),
        )

    def _queries_of(self, batch: Batch) -> NDArray[np.int64]:
        """Number of each row's query ``[B]``."""
        keys = query_keys(batch, self._features)
        return self._numbers[np.searchsorted(self._keys, keys)]

    def _find_queries(self) -> None:
        """Number the queries of the train rows by their first row, and list their positives."""
        keys, groups, items = [], [], []
        for columns in self._row_groups():
            rows = gather([(columns, np.arange(columns.rows))], 0, columns.rows)
            keys.append(query_keys(rows, self._features))
            groups.append(keys[-1].view(np.int64) if rows.group is None else rows.group)
            items.append(self._catalogue.positions(rows.ids[self._catalogue.feature]))
        all_keys = np.concatenate(keys)
        self._keys, first = np.unique(all_keys, return_index=True)
        order = np.argsort(first)
        self._first = first[order]
        self._numbers = np.empty_like(order)
        self._numbers[order] = np.arange(len(order))
        if self._config.batches != "random":
            self._query_of_row = self._numbers[np.searchsorted(self._keys, all_keys)].astype(np.int32)
        owners, owner_of_row = np.unique(np.concatenate(groups), return_inverse=True)
        self._owners = owner_of_row[self._first]
        places = np.concatenate(items)
        known = places >= 0
        lists = ItemLists.of(owner_of_row[known], places[known], len(owners))
        self._positives = Ragged(lists.items, lists.offsets)

    def _row_groups(self, *, first_only: bool = False) -> Iterator[Columns]:
        """The train rows, row group by row group; ``first_only``: the first row of each query alone."""
        path = self._dataset.part("train")
        with reading(str(path)):
            file = pq.ParquetFile(path)
            names = column_names(self._dataset.features, file.schema_arrow.names)
            start = 0
            for number in range(file.num_row_groups):
                table = file.read_row_group(number, columns=names)
                stop = start + table.num_rows
                if first_only:
                    low, high = np.searchsorted(self._first, [start, stop])
                    table = table.take(pa.array(self._first[low:high] - start))
                start = stop
                if table.num_rows:
                    yield Columns.of(table, self._dataset.features)

    @torch.no_grad()
    def _mine(self, model: TwoTower, tables: Tables) -> None:
        was_training = model.training
        model.eval()
        items = self._item_vectors(model, tables)
        start = 0
        with progress("hard negatives", len(self._first), "queries", quiet=self._ranks.rank != 0) as bar:
            for columns in self._row_groups(first_only=True):
                for batch in device_batches(tables, columns, self._ranks):
                    vectors = model.query(tables(batch)).float().cpu().numpy()
                    stop = start + batch.global_rows
                    self._pools[start:stop] = self._searched(vectors, items, start, stop)
                    bar.advance(stop - start)
                    start = stop
        model.train(was_training)

    def _item_vectors(self, model: TwoTower, tables: Tables) -> NDArray[np.float32]:
        """``[I, D]`` on every process: as they are, or as their codes restore them."""
        ranks = self._ranks
        found = vectors_of(model.item, tables, self._catalogue.columns, ranks)
        if found is not None and self._config.hard_from_codes is not None:
            from recsys.retrieval.restored import restored  # needs faiss, which other trainings do not

            found = restored(found, self._config.hard_from_codes, self._seed)
        shared = torch.empty(len(self._catalogue), model.dim) if found is None else torch.from_numpy(found)
        if ranks.world > 1:
            shared = shared.to(ranks.device)
            dist.broadcast(shared, src=0)
        return shared.cpu().numpy()

    def _searched(
        self, vectors: NDArray[np.float32], items: NDArray[np.float32], start: int, stop: int
    ) -> Tensor:
        """Pools of queries from ``start`` up to ``stop``, of which ``vectors`` are this process's share."""
        ranks, config = self._ranks, self._config
        mine = rank_slice(stop - start, ranks.rank, ranks.world)
        owners = self._owners[start + mine.start : start + mine.stop]
        known, lengths = self._positives.take(owners)
        positives = ItemLists(np.concatenate(([0], np.cumsum(lengths))), known)
        best = best_items(vectors, items, config.hard_skip + config.hard_pool, positives)
        pools = best[:, config.hard_skip :]
        # by place and not by rank, so that rounding of scores does not change what is drawn
        pools = np.sort(np.where(pools < 0, len(items), pools), axis=1)
        found = torch.from_numpy(np.where(pools == len(items), -1, pools).astype(np.int32))
        if ranks.world == 1:
            return found
        slices = [rank_slice(stop - start, rank, ranks.world) for rank in range(ranks.world)]
        counts = [part.stop - part.start for part in slices]
        return gathered(found.to(ranks.device), counts, ranks.group).cpu()


def _require_sense(
    dataset: Dataset, config: TwoTowerConfig, settings: TrainSettings, catalogue: Catalogue
) -> None:
    """Raise ConfigError for options that mine nothing, or more than there is."""
    if config.hard_from >= settings.epochs:
        raise ConfigError(
            f"model.hard_from: {config.hard_from} epochs before the first hard negative, and train.epochs "
            f"is {settings.epochs}; lower the one, raise the other, or leave hard_negatives out"
        )
    searched = config.hard_skip + config.hard_pool
    if searched >= len(catalogue):
        raise ConfigError(
            f"model.hard_pool: hard_skip and hard_pool are {searched} items together, and the train rows "
            f"hold {len(catalogue)}; nothing is hard about all of them, lower hard_pool"
        )
    rows = dataset.manifest.rows["train"]
    if config.batches != "random" and rows > settings.shuffle_rows:
        raise ConfigError(
            f"model.batches: {config.batches} takes rows from all over the log, and train.shuffle_rows is "
            f"{settings.shuffle_rows:,} of {rows:,} train rows; raise it, or set batches to random"
        )


def _require_codes_fit(config: TwoTowerConfig, items: int, dim: int) -> None:
    """Raise ConfigError where codes of so many bytes cannot be made."""
    size = config.hard_from_codes
    if size is not None and (2 * size > dim or items < _LEAST_CODED):
        raise ConfigError(
            f"model.hard_from_codes: codes of {size} bytes are made of {_LEAST_CODED} items or more whose "
            f"vectors are {2 * size} wide or more; there are {items}, {dim} wide. Lower it, or leave it out"
        )
