"""Embedding tables of a plan: ids in, a model's inputs out; sharded over processes by torchrec.

Tables that only single-valued features use are looked up together, a key per feature. A table that
a list feature uses is looked up alone, in one stream of all its features' ids. Either way every id
is a bag of one for the pooled kernel (the unpooled one is twenty times slower backward on CPU), and
each table has one lookup and one update per step.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Shard

from recsys.data.batch import Batch
from recsys.data.dataset import Feature
from recsys.embeddings.assembly import holds_all_fields, inputs_of, vectors_of
from recsys.embeddings.combine import initial_std
from recsys.embeddings.gates import Gates
from recsys.embeddings.initial import initial_rows
from recsys.embeddings.lookup import Bags, DeviceBatch, Source, Stream, numbers_of, to_device
from recsys.embeddings.plan import Plan
from recsys.embeddings.pool import Pool
from recsys.embeddings.sharding import ShardedTables, TableShard
from recsys.errors import CheckpointError
from recsys.models.inputs import Inputs

__all__ = ["DeviceBatch", "Tables"]

WEIGHT, ACCUMULATOR = "weight", "accumulator"


class Tables(nn.Module):
    """All tables of a plan, and the lookups of its features.

    The loss of a step must be a sum over rows divided by the global rows: gradients of processes
    add up, and the result does not depend on their number.

    Args:
        plan: tables and vocabularies.
        features: model inputs, in order.
        row_maps: rows of every id, int64 ``[size]`` or with several lookups ``[size, K]``, per hashed
            vocabulary.
        seed, init_std: of the first weights, normal(0, init_std), wider where vectors are products of
            rows; the missing and the unseen value start as zeros where they have rows of their own.
        device: where the tables lie.
        group: the processes that share the tables; default: torch's default group, which must be up.
        fused_lr: learning rate of the fused path's row-wise Adagrad.
        gates: of the plan's vocabularies; default: none.

    Raises:
        PlanError: vocabularies and tables do not fit together.
    """

    def __init__(
        self,
        plan: Plan,
        features: Sequence[Feature],
        *,
        row_maps: Mapping[str, NDArray[np.int64] | Tensor] | None = None,
        seed: int = 0,
        init_std: float = 1e-2,
        device: torch.device | None = None,
        group: dist.ProcessGroup | None = None,
        fused_lr: float = 0.02,
        gates: Gates | None = None,
    ) -> None:
        super().__init__()
        self.gates = gates
        self.device = device or torch.device("cpu")
        shared = group or dist.group.WORLD
        if shared is None:
            raise RuntimeError("no process group; enter recsys.training.distributed.distributed() first")
        self._group: dist.ProcessGroup = shared
        self._rank, self._world = dist.get_rank(self._group), dist.get_world_size(self._group)
        self._mesh = DeviceMesh.from_group(self._group, self.device.type)
        self._features = tuple(features)
        self._numerics = [feature.name for feature in features if feature.kind == "numeric"]
        sources = [
            Source.of(feature, plan, row_maps or {})
            for feature in features
            if feature.vocabulary is not None
        ]
        used = {source.table for source in sources}
        self._shards = {
            name: TableShard.of(
                name, table.rows, table.dim, table.path, self.device, self._rank, self._world
            )
            for name, table in plan.tables.items()
            if name in used
        }
        self._parts = {name: plan.parts_of(name) for name in used}
        pooled = {info.table for info in plan.vocabularies.values() if info.mode == "pool"}
        self.pools = {name: Pool(plan, name, self.device) for name in self._shards if name in pooled}
        """The tables whose rows are dealt to places, by name."""
        self.held_whole: set[str] = set()
        """Tables whose sub-tables lie whole on one process each, so that a lookup asks one process."""
        self._build(sources, fused_lr)
        deviations = {s.table: initial_std(s.combine, s.lookups, init_std) for s in sources}
        self._draw(seed, deviations, plan.special_tables)

    def _build(self, sources: Sequence[Source], fused_lr: float) -> None:
        """Deal tables into collections: one per pool or table with lists, one per kernel of the others."""
        users: dict[str, list[Source]] = {name: [] for name in self._shards}
        for source in sources:
            users[source.table].append(source)
        dealt: dict[tuple[bool, str], list[str]] = {}
        for name, shard in self._shards.items():
            ragged = any(source.feature.kind != "categorical" for source in users[name])
            alone = ragged or name in self.pools or self._parts[name] > 1
            kind = f"table {name}" if alone else f"{shard.path} {shard.lr_factor}"
            dealt.setdefault((ragged, kind), []).append(name)
        self._streams: list[Stream] = []
        self._stream_pools: list[Pool | None] = []
        self._collections: list[ShardedTables] = []
        self._home: dict[str, ShardedTables] = {}
        for (ragged, _), names in dealt.items():
            stream = Stream(tuple(s for name in names for s in users[name]), ragged)
            holders = None if ragged else self._holders(names[0], users[names[0]])
            if holders is not None:
                stream = stream.dealt(holders, self._shards[names[0]].block)
                self.held_whole.add(names[0])
            collection = ShardedTables(
                {name: self._shards[name] for name in names},
                {name: 1 if ragged else sum(s.lookups for s in users[name]) for name in names},
                device=self.device,
                group=self._group,
                fused_lr=fused_lr,
                holders=None if holders is None else sorted(holders),
            )
            self._streams.append(stream)
            self._stream_pools.append(self.pools.get(names[0]))
            self._collections.append(collection)
            self._home.update(dict.fromkeys(names, collection))
        self.collections = nn.ModuleList(self._collections)

    def _holders(self, name: str, sources: Sequence[Source]) -> list[int] | None:
        """The process that holds the sub-tables of each key of a table; None where every process holds a
        block of rows for all of them: of tables without sub-tables, or of too few to go round."""
        parts = self._parts[name]
        if self._world == 1 or parts % self._world:
            return None
        holders = [part * self._world // parts for source in sources for part in source.dealt]
        return holders if set(holders) == set(range(self._world)) else None

    @torch.no_grad()
    def _draw(self, seed: int, std: Mapping[str, float], special: Collection[str]) -> None:
        for name, shard in self._shards.items():
            weight = self._home[name].weight(name)
            weight.zero_()
            drawn = initial_rows(
                name, shard.rows, shard.dim, shard.part, seed=seed, std=std[name], zeros=name in special
            )
            weight[: len(shard.part), : shard.dim] = drawn.to(self.device)

    def prepare(self, batch: Batch) -> DeviceBatch:
        """Bring a batch to the device and turn its ids into table rows; may run in another thread.

        Raises:
            DataError: an id lies outside its vocabulary.
        """
        numerics, missing = numbers_of(batch, self._numerics, self.device)
        streams = tuple(to_device(stream.rows_of(batch), self.device) for stream in self._streams)
        return DeviceBatch(
            index=batch.index,
            global_rows=batch.global_rows,
            rows=batch.rows,
            label=to_device(batch.label, self.device),
            weight=None if batch.weight is None else to_device(batch.weight, self.device),
            streams=streams,
            gates=None if self.gates is None else self._gate_index(self.gates, batch),
            bags={
                feature.name: Bags.of(feature, batch.lengths[feature.name], self.device)
                for feature in self._features
                if feature.kind in ("multi", "sequence")
            },
            numerics=numerics,
            missing=missing,
        )

    def forward(self, batch: DeviceBatch | Batch) -> Inputs:
        """Look a batch up. All processes must call this together, also those without rows."""
        if isinstance(batch, Batch):
            batch = self.prepare(batch)
        counts = [
            rows.shape[0] if stream.ragged else batch.rows
            for stream, rows in zip(self._streams, batch.streams, strict=True)
        ]
        started = [
            collection.lookup(rows if pool is None else pool.rows_of(rows), stride)
            for collection, rows, stride, pool in zip(
                self._collections, batch.streams, self._strides(counts), self._stream_pools, strict=True
            )
        ]
        outputs = [
            collection.wait(lookup) for collection, lookup in zip(self._collections, started, strict=True)
        ]
        if self._world > 1:
            outputs = list(_Together.apply(*outputs))  # type: ignore[no-untyped-call]
        vectors: dict[str, Tensor] = {}
        joined: Tensor | None = None
        looked_up = zip(batch.streams, self._stream_pools, strict=True)
        for stream, output, count, (rows, pool) in zip(
            self._streams, outputs, counts, looked_up, strict=True
        ):
            # A slice of everything would still copy the whole gradient in backward.
            held = output if output.shape[0] == count else output[:count]
            if pool is not None:
                pool.watch(rows, held)
            vectors.update(vectors_of(stream, held, self._shards, batch))
            if holds_all_fields(stream, self._features, self._shards):
                joined = held
        if self.gates is not None:
            vectors, joined = self._gated(self.gates, vectors, batch), None
        return inputs_of(self._features, vectors, joined, batch)

    def _gate_index(self, gates: Gates, batch: Batch) -> Tensor:
        """Gates of the values of all features, one feature after the other, int64."""
        parts = [
            gates.index_of(source.vocabulary, np.asarray(batch.ids[source.feature.name], np.int64))
            for stream in self._streams
            for source in stream.sources
        ]
        return to_device(np.concatenate([np.empty(0, np.int64), *parts]), self.device)

    def _gated(self, gates: Gates, vectors: Mapping[str, Tensor], batch: DeviceBatch) -> dict[str, Tensor]:
        """Every value's vector times its gate."""
        names = [source.feature.name for stream in self._streams for source in stream.sources]
        values = torch.split(gates(_held(batch.gates)), [vectors[name].shape[0] for name in names])
        return {name: vectors[name] * gate.unsqueeze(1) for name, gate in zip(names, values, strict=True)}

    def _strides(self, counts: Sequence[int]) -> list[int]:
        """Places per key of each collection: the most that any process needs."""
        strides = [max(count, 1) for count in counts]
        if self._world == 1 or not strides:
            return strides
        shared = torch.tensor(strides, device=self.device)
        dist.all_reduce(shared, dist.ReduceOp.MAX, group=self._group)
        most: list[int] = shared.tolist()
        return most

    def dense_weights(self) -> dict[str, nn.Parameter]:
        """Dense-path tables by name, for an optimiser of the caller's: this process's rows.

        ``[rows here, D]``, a few rows and columns larger where a table is padded; what lies behind
        the table is zero and has a gradient of zero.
        """
        return {
            name: self._home[name].weight(name)
            for name, shard in self._shards.items()
            if shard.path == "dense"
        }

    @torch.no_grad()
    def add_l2(self, l2: float) -> None:
        """Add ``l2 · E``, the gradient of ``l2/2 · ‖E‖²``, to the dense-path tables' gradients."""
        for weight in self.dense_weights().values():
            if weight.grad is None:
                weight.grad = weight.detach() * l2
            else:
                weight.grad.add_(weight, alpha=l2)

    def set_fused_lr(self, scale: float) -> None:
        """Set the fused path's learning rate to ``scale`` times its first value."""
        for collection in self._collections:
            collection.set_lr(scale)

    def as_sharded(self, table: str, local: Tensor) -> DTensor:
        """A tensor of this process's rows, shaped like the table's weight or one value per row, as one
        sharded tensor of the whole table without padding: ``[rows, D]`` or ``[rows]``. Shares memory.
        """
        shard = self._shards[table]
        part = local.detach()[: len(shard.part)]
        if part.dim() == 2:
            part = part[:, : shard.dim]
        return DTensor.from_local(
            part,
            self._mesh,
            [Shard(0)],
            run_check=False,
            shape=torch.Size([shard.rows, *part.shape[1:]]),
            stride=(*part.shape[1:], 1),
        )

    @torch.no_grad()
    def clear(self, table: str, rows: NDArray[np.int64]) -> None:
        """Set rows of a table to zeros."""
        here = self.rows_here(table, torch.from_numpy(rows)).to(self.device)
        self._home[table].weight(table)[here] = 0.0

    def rows_here(self, table: str, rows: Tensor) -> Tensor:
        """Of these rows of a table, those that this process holds, as numbers within its part."""
        part = self._shards[table].part
        return rows[(rows >= part.start) & (rows < part.stop)] - part.start

    def state(self) -> dict[str, DTensor]:
        """What learning changes, by ``TABLE.weight`` and for fused tables ``TABLE.accumulator``.

        Sharded by rows; shares memory with the tables, so that loading into it loads the tables.
        """
        state: dict[str, DTensor] = {}
        for name, shard in self._shards.items():
            state[f"{name}.{WEIGHT}"] = self.as_sharded(name, self._home[name].weight(name))
            if shard.path == "fused":
                accumulator = self._home[name].accumulator(name)
                state[f"{name}.{ACCUMULATOR}"] = self.as_sharded(name, accumulator)
        return state

    @torch.no_grad()
    def load_state(self, state: Mapping[str, DTensor]) -> None:
        """Copy another state in, sharded over the same processes.

        Raises:
            CheckpointError: keys or shapes differ.
        """
        mine = self.state()
        if set(mine) != set(state):
            raise CheckpointError(f"tables: expected {sorted(mine)}, found {sorted(state)}")
        for key, value in mine.items():
            if value.shape != state[key].shape:
                raise CheckpointError(
                    f"table {key}: expected shape {tuple(value.shape)}, found {tuple(state[key].shape)}"
                )
            value.to_local().copy_(state[key].to_local())

    @torch.no_grad()
    def table(self, name: str) -> NDArray[np.float32]:
        """Weights of a table, ``[rows, D]``, gathered on rank 0; ``[0, D]`` on the others.

        All processes must call this together.
        """
        shard = self._shards[name]
        block = self._home[name].weight(name).detach()
        blocks = [block]
        if self._world > 1:
            blocks = [torch.empty_like(block) for _ in range(self._world)] if self._rank == 0 else []
            dist.gather(block, blocks or None, dst=0, group=self._group)
        if not blocks:
            return np.empty((0, shard.dim), np.float32)
        weights: NDArray[np.float32] = torch.cat(blocks)[: shard.rows, : shard.dim].cpu().numpy()
        return np.ascontiguousarray(weights)


def _held(index: Tensor | None) -> Tensor:
    if index is None:
        raise ValueError("the batch was prepared by tables without gates")
    return index


class _Together(torch.autograd.Function):
    """Hands the gradients of all collections on at once.

    Every process's backward then meets the others in the same collectives in the same order, also
    where its slice of a batch left a collection's vectors unused.
    """

    @staticmethod
    def forward(ctx: object, *vectors: Tensor) -> tuple[Tensor, ...]:
        return vectors

    @staticmethod
    def backward(ctx: object, *gradients: Tensor) -> tuple[Tensor, ...]:
        return gradients
