"""One sharded collection of tables: torchrec's own collection, kernels and sharder.

Everything this package uses of torchrec passes through here. Several processes shard each table by
rows; one process holds it whole, which torchrec calls table-wise, and then distributes nothing. A table
whose lookups are dealt over sub-tables is cut at the same rows, but each block is a table of one process.

Blocks of rows are as ``DTensor``'s ``Shard(0)`` cuts them: ``ceil(rows / world)`` rows per process,
the last ones shorter or empty. torchrec stores full blocks on every process, because a kernel whose
tables are all empty fails; the surplus rows stand behind the table, and no id ever reaches them.
"""

from __future__ import annotations

import logging
import math
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from recsys.embeddings.plan import UpdatePath

with warnings.catch_warnings():
    # fbgemm warns on import that its SSD kernels are not in the wheel and that it imports an old name.
    warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"fbgemm_gpu\.")
    from fbgemm_gpu.split_embedding_configs import EmbOptimType
    from fbgemm_gpu.split_table_batched_embeddings_ops_common import BoundsCheckMode
    from torchrec.distributed.comm_ops import set_gradient_division
    from torchrec.distributed.embedding_types import EmbeddingComputeKernel
    from torchrec.distributed.embeddingbag import EmbeddingBagCollectionSharder
    from torchrec.distributed.sharding_plan import construct_module_sharding_plan, row_wise, table_wise
    from torchrec.distributed.types import ShardingEnv, ShardingType
    from torchrec.modules.embedding_configs import EmbeddingBagConfig, PoolingType
    from torchrec.modules.embedding_modules import EmbeddingBagCollection
    from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

ADAGRAD_EPS = 1e-8
_ALIGNMENT = 4
"""fbgemm's fused kernels, and all of its CUDA kernels, read vectors in steps of four floats."""
_NOISE = {
    "torchrec.distributed.utils": "caching params will be ignored",
    "torch.fx._symbolic_trace": "is_fx_tracing will return true",
}


def _silence(logger: str, phrase: str) -> None:
    """Drop one message that says nothing to a user."""
    logging.getLogger(logger).addFilter(lambda record: phrase not in record.getMessage())


for _logger, _phrase in _NOISE.items():
    _silence(_logger, _phrase)

# torchrec calls two collectives by names that torch 2.13 calls old.
warnings.filterwarnings(
    "ignore",
    message=r"`torch\.distributed\.(reduce_scatter_tensor|all_gather_into_tensor)` is deprecated",
    category=FutureWarning,
)

# fbgemm's dense kernel brings its own autograd inside its CPU kernel. Torch warns of every operator
# that registers none, unless it is told to pass through, as here.
_FBGEMM: Any = torch.library.Library("fbgemm", "IMPL")  # type: ignore[no-untyped-call]
_FBGEMM.impl("dense_embedding_codegen_lookup_function", torch.library.fallthrough_kernel, "AutogradCPU")


@dataclass(frozen=True)
class TableShard:
    """A table's shape, and which of its rows this process holds."""

    name: str
    rows: int
    dim: int
    path: UpdatePath
    block: int
    """Rows stored per process."""
    storage_dim: int
    """Floats stored per row; those behind ``dim`` are zeros and stay so."""
    part: range
    """Rows of the table that this process holds; may be empty."""

    @classmethod
    def of(
        cls, name: str, rows: int, dim: int, path: UpdatePath, device: torch.device, rank: int, world: int
    ) -> TableShard:
        """Cut a table for one process."""
        block = -(-rows // world)
        aligned = path == "fused" or device.type != "cpu"
        storage_dim = -(-dim // _ALIGNMENT) * _ALIGNMENT if aligned else dim
        part = range(min(rank * block, rows), min((rank + 1) * block, rows))
        return cls(name, rows, dim, path, block, storage_dim, part)

    @property
    def lr_factor(self) -> float:
        """Undoes what padding does to row-wise Adagrad, whose mean square counts the pad's zeros."""
        return math.sqrt(self.dim / self.storage_dim) if self.path == "fused" else 1.0


class _RowWiseSharder(EmbeddingBagCollectionSharder):  # type: ignore[misc]
    """Offers row-wise sharding and both kernels on every device; torchrec leaves them out on CPU."""

    def sharding_types(self, compute_device_type: str) -> list[str]:
        return [ShardingType.ROW_WISE.value, ShardingType.TABLE_WISE.value]

    def compute_kernels(self, sharding_type: str, compute_device_type: str) -> list[str]:
        return [EmbeddingComputeKernel.DENSE.value, EmbeddingComputeKernel.FUSED.value]


@dataclass(frozen=True)
class _Stored:
    """A table as torchrec knows it."""

    name: str
    rows: int
    dim: int
    """Floats stored per row."""
    keys: list[str]
    cut: Callable[..., Any]
    """How it is sharded, given the kernel."""


class ShardedTables(nn.Module):
    """Tables of one update path, looked up together: every id is a bag of one.

    Args:
        tables: all on the same path and with the same ``lr_factor``.
        keys: number of lookup keys per table; keys of one table are adjacent, because fbgemm's CPU
            backward is wrong where they are not.
        device, group: where the tables lie, and over which processes.
        fused_lr: learning rate of the fused path.
        holders: of one table alone: the process that holds the rows of each key, in rising order, so that
            a lookup asks that process only, for rows numbered within its block; every process holds those
            of some key. Default: a key may ask for any row, and all processes for theirs.
    """

    def __init__(
        self,
        tables: Mapping[str, TableShard],
        keys: Mapping[str, int],
        *,
        device: torch.device,
        group: dist.ProcessGroup,
        fused_lr: float,
        holders: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self._shards = tuple(tables.values())
        first = self._shards[0]
        self._path, self._world = first.path, dist.get_world_size(group)
        self._base_lr = fused_lr * first.lr_factor
        # Table and column names may hold dots, or be names that nn.ModuleDict refuses.
        self._numbers = {shard.name: f"t{i}" for i, shard in enumerate(self._shards)}
        self._keys = [f"k{i}" for i in range(sum(keys.values()))]
        names = iter(self._keys)
        if holders is None:
            held = self._held_by_all({table: [next(names) for _ in range(keys[table])] for table in tables})
        else:
            held = self._held_by_one(holders)
            self._numbers[first.name] = f"r{dist.get_rank(group)}"
        self._sharded: Any = self._shard(held, device, group)
        self._accumulators = self._find_accumulators()
        self._places = torch.arange(1, dtype=torch.int64, device=device)
        self._ones = torch.ones(0, dtype=torch.int64, device=device)

    def _held_by_all(self, keys: Mapping[str, list[str]]) -> list[_Stored]:
        """Tables cut by rows over all processes; of one process, held whole."""
        by_rows = row_wise if self._world > 1 else partial(table_wise, rank=0)
        return [
            _Stored(
                name=self._numbers[shard.name],
                rows=shard.block * self._world,
                dim=shard.storage_dim,
                keys=keys[shard.name],
                cut=by_rows,
            )
            for shard in self._shards
        ]

    def _held_by_one(self, holders: Sequence[int]) -> list[_Stored]:
        """The blocks of the only table, each a table to torchrec with the keys whose rows lie in it."""
        return [
            _Stored(
                name=f"r{rank}",
                rows=self._shards[0].block,
                dim=self._shards[0].storage_dim,
                keys=[key for key, holder in zip(self._keys, holders, strict=True) if holder == rank],
                cut=partial(table_wise, rank=rank),
            )
            for rank in range(self._world)
        ]

    def _shard(self, held: Sequence[_Stored], device: torch.device, group: dist.ProcessGroup) -> nn.Module:
        configs = [
            EmbeddingBagConfig(
                name=stored.name,
                num_embeddings=stored.rows,
                embedding_dim=stored.dim,
                feature_names=stored.keys,
                pooling=PoolingType.SUM,
            )
            for stored in held
        ]
        fused = {
            "optimizer": EmbOptimType.EXACT_ROWWISE_ADAGRAD,
            "learning_rate": self._base_lr,
            "eps": ADAGRAD_EPS * self._shards[0].lr_factor,
            # Ids are checked before they are looked up.
            "bounds_check_mode": BoundsCheckMode.NONE,
        }
        kernel = EmbeddingComputeKernel.DENSE if self._path == "dense" else EmbeddingComputeKernel.FUSED
        sharder = _RowWiseSharder(fused_params=fused if self._path == "fused" else {})
        collection = EmbeddingBagCollection(tables=configs, device=torch.device("meta"))
        plan = construct_module_sharding_plan(
            collection,
            {stored.name: stored.cut(compute_kernel=kernel.value) for stored in held},
            sharder=sharder,
            local_size=int(os.environ.get("LOCAL_WORLD_SIZE", self._world)),
            world_size=self._world,
            device_type=device.type,
        )
        # Losses are sums over rows divided by the global rows, so gradients of ranks add up.
        set_gradient_division(False)
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            sharded: nn.Module = sharder.shard(
                collection, plan, ShardingEnv.from_process_group(group), device
            )
        return sharded

    def lookup(self, rows: Tensor, stride: int) -> Any:
        """Start a lookup; ``wait`` for its vectors.

        Args:
            rows: int64 ``[K * n]``, the rows of the first key, then those of the second, and so on.
            stride: at least n and 1; the same on all processes, which torchrec's collectives over
                gloo ask for. Places behind n hold empty bags.
        """
        keys = len(self._keys)
        count = rows.shape[0] // keys
        total = keys * stride
        if self._places.shape[0] <= total:
            self._places = torch.arange(2 * total + 1, device=rows.device)
            self._ones = torch.ones(2 * total, dtype=torch.int64, device=rows.device)
        if count == stride:
            lengths, offsets = self._ones[:total], self._places[: total + 1]
        else:
            held = torch.zeros(keys, stride, dtype=torch.int64, device=rows.device)
            held[:, :count] = 1
            lengths, offsets = held.view(-1), None
        features = KeyedJaggedTensor(
            keys=self._keys,
            values=rows,
            lengths=lengths,
            offsets=offsets,
            stride=stride,
            length_per_key=[count] * keys,
            offset_per_key=[count * key for key in range(keys + 1)],
        )
        return self._sharded(features)

    def wait(self, lookup: Any) -> Tensor:
        """Vectors of a lookup, float32 ``[stride, sum of the keys' stored widths]``."""
        vectors: Tensor = lookup.values()
        return vectors

    def weight(self, table: str) -> nn.Parameter:
        """What this process stores of a table, ``[block, storage_dim]``: a view of the kernel's memory."""
        weight: nn.Parameter = self._sharded.embedding_bags[self._numbers[table]].weight
        return weight

    def accumulator(self, table: str) -> Tensor:
        """Row-wise Adagrad's sum of mean squares of a fused table, ``[block]``: a view of the kernel's.

        Means are over the stored width.
        """
        return self._accumulators[table]

    def _find_accumulators(self) -> dict[str, Tensor]:
        if self._path == "dense":
            return {}
        state = self._sharded.fused_optimizer.state_dict()["state"]
        return {
            table: state[f"embedding_bags.{number}.weight"][f"{number}.momentum1"].local_shards()[0].tensor
            for table, number in self._numbers.items()
        }

    def set_lr(self, scale: float) -> None:
        """Multiply the fused path's first learning rate; no effect on the dense path."""
        optimizer = self._sharded.fused_optimizer
        for group in optimizer.param_groups:
            group["lr"] = self._base_lr * scale
        optimizer.step()
