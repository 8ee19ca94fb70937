"""L2 on the table rows that a batch looks up, and on no others: mini-batch-aware regularisation.

DIN (Zhou et al. 2018, section 5.1, eq. 6): besides the loss's gradient, row j of a table that batch m
looks up gets the gradient ``l2 / n_j * w_j``, once however often it is looked up; n_j is how often the
train rows hold it. A step then costs what its batch looks up, where an L2 of whole tables touches every
row.

On the dense path the term joins the gradient, and the optimiser makes of it what it makes of gradients.
A fused table updates itself in backward, so the term follows as a second update of the row by the same
rule, row-wise Adagrad. fbgemm's own weight decay cannot stand in: its CPU kernel applies it to tables
that several keys look up, and leaves it out, without a word, for a table of one key.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from recsys.config import TableOptimizer
from recsys.data.batch import Batch
from recsys.data.batches import Batches
from recsys.data.dataset import Dataset
from recsys.embeddings.lookup import Source, Stream
from recsys.embeddings.plan import Plan
from recsys.embeddings.rows import row_maps
from recsys.embeddings.sharding import ADAGRAD_EPS, TableShard
from recsys.embeddings.tables import ACCUMULATOR, WEIGHT, Tables
from recsys.training.distributed import Distributed

LookedUp = dict[str, NDArray[np.int64]]
"""Rows by table."""
_COUNTED_AT_ONCE = 1 << 15
_MASK_BELOW = 8
"""Rows of a table per id below which marking rows is faster than sorting ids."""


class RowL2:
    """Adds the L2 of looked-up rows to a step.

    Args:
        tables: the tables of this process.
        dataset, plan: which rows a batch looks up, and how often the train rows hold each.
        settings: strength, whether it is divided by n_j, and the fused path's learning rate.
        ranks: the processes that share the tables.
    """

    def __init__(
        self, tables: Tables, dataset: Dataset, plan: Plan, settings: TableOptimizer, ranks: Distributed
    ) -> None:
        self._tables, self._plan, self._ranks = tables, plan, ranks
        self._fused_lr = settings.fused_lr
        maps = row_maps(plan, dataset)
        sources: dict[str, list[Source]] = {}
        for feature in dataset.features:
            if feature.vocabulary is not None:
                source = Source.of(feature, plan, maps)
                sources.setdefault(source.table, []).append(source)
        self._streams = {name: Stream(tuple(each), ragged=True) for name, each in sources.items()}
        self._shards = {name: self._shard(name) for name in sources}
        counts = self._counts(dataset) if settings.l2_rows_by_count else {}
        self._strength = {
            name: self._local_strength(name, settings.l2_rows, counts.get(name)) for name in sources
        }

    def _shard(self, name: str) -> TableShard:
        table, ranks = self._plan.tables[name], self._ranks
        return TableShard.of(name, table.rows, table.dim, table.path, ranks.device, ranks.rank, ranks.world)

    def _counts(self, dataset: Dataset) -> LookedUp:
        """How often the train rows hold each row, by table: ``[rows]``."""
        counts = {name: np.zeros(shard.rows, np.int64) for name, shard in self._shards.items()}
        batches = Batches(dataset, "train", _COUNTED_AT_ONCE, shuffle_rows=_COUNTED_AT_ONCE, shuffle=False)
        for batch in batches.epoch():
            for name, rows in self._rows_of(batch).items():
                counts[name] += np.bincount(rows, minlength=len(counts[name]))
        return counts

    def _local_strength(self, name: str, l2: float, counts: NDArray[np.int64] | None) -> Tensor:
        """``l2 / n_j`` of the rows of this process, float32."""
        part = self._shards[name].part
        held = np.ones(len(part)) if counts is None else np.maximum(counts[part.start : part.stop], 1)
        return torch.from_numpy((l2 / held).astype(np.float32)).to(self._ranks.device)

    def _rows_of(self, batch: Batch) -> LookedUp:
        """Table rows that a batch looks up, by table, in any order and with repeats."""
        return {name: stream.rows_of(batch) for name, stream in self._streams.items()}

    def looked_up(self, batch: Batch) -> LookedUp:
        """Distinct rows that this process's slice of a batch looks up; may run in another thread."""
        rows = self._rows_of(batch)
        return {table: _distinct(each, self._plan.tables[table].rows) for table, each in rows.items()}

    @torch.no_grad()
    def add(self, looked_up: LookedUp, lr_scale: float) -> None:
        """Add the term, between backward and the optimisers' step. All processes call this together.

        Args:
            looked_up: of this process's slice of the global batch.
            lr_scale: what learning rates are multiplied by at this step.
        """
        dense, state = self._tables.dense_weights(), self._tables.state()
        for table, rows in self._mine(looked_up).items():
            if table in dense:
                weight = dense[table]
                if weight.grad is None:
                    weight.grad = torch.zeros_like(weight)
                weight.grad.index_add_(0, rows, weight[rows] * self._strength[table][rows].unsqueeze(1))
            else:
                weights, sums = (state[f"{table}.{part}"].to_local() for part in (WEIGHT, ACCUMULATOR))
                self._update_fused(table, weights, sums, rows, lr_scale)

    def _update_fused(
        self, table: str, weight: Tensor, sums: Tensor, rows: Tensor, lr_scale: float
    ) -> None:
        """A step of row-wise Adagrad on ``weight [rows here, D]``, whose means count the stored width."""
        shard = self._shards[table]
        gradient = weight[rows] * self._strength[table][rows].unsqueeze(1)
        sums.index_add_(0, rows, gradient.square().sum(1) / shard.storage_dim)
        lr = self._fused_lr * lr_scale * shard.lr_factor
        step = lr / (sums[rows].sqrt() + ADAGRAD_EPS * shard.lr_factor)
        weight.index_add_(0, rows, gradient * -step.unsqueeze(1))

    def _mine(self, looked_up: LookedUp) -> dict[str, Tensor]:
        """Distinct rows that the global batch looks up, of those that this process holds: local numbers."""
        mine = {}
        for table, rows in self._shared(looked_up).items():
            part = self._shards[table].part
            inside = rows[(rows >= part.start) & (rows < part.stop)] - part.start
            mine[table] = torch.from_numpy(inside).to(self._ranks.device)
        return mine

    def _shared(self, looked_up: LookedUp) -> Mapping[str, NDArray[np.int64]]:
        """Distinct rows over all processes."""
        ranks = self._ranks
        if ranks.world == 1:
            return looked_up
        names = list(self._shards)
        lengths = torch.tensor([len(looked_up[name]) for name in names], device=ranks.device)
        all_lengths = _gathered(lengths, ranks)
        longest = max(int(each.sum()) for each in all_lengths)
        sent = torch.zeros(longest, dtype=torch.int64, device=ranks.device)
        flat = torch.from_numpy(np.concatenate([looked_up[name] for name in names]))
        sent[: len(flat)] = flat.to(ranks.device)
        parts: dict[str, list[NDArray[np.int64]]] = {name: [] for name in names}
        for each, rows in zip(all_lengths, _gathered(sent, ranks), strict=True):
            cuts = torch.split(rows[: int(each.sum())], each.tolist())
            for name, cut in zip(names, cuts, strict=True):
                parts[name].append(cut.cpu().numpy())
        return {name: np.unique(np.concatenate(each)) for name, each in parts.items()}


def _distinct(rows: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Distinct rows, rising."""
    if size > _MASK_BELOW * len(rows):
        return np.unique(rows)
    marked = np.zeros(size, np.bool_)
    marked[rows] = True
    return np.flatnonzero(marked)


def _gathered(tensor: Tensor, ranks: Distributed) -> list[Tensor]:
    """A tensor of every process; all of one shape."""
    parts = [torch.empty_like(tensor) for _ in range(ranks.world)]
    dist.all_gather(parts, tensor, group=ranks.group)
    return parts
