"""What each of several gloo processes does in test_sharding.py; also run by one process to compare."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.optim import Optimizer

from recsys.embeddings.plan import Plan, UpdatePath
from recsys.embeddings.tables import Tables
from recsys.ranks import end
from recsys.training.distributed import distributed
from tests.embeddings.table_cases import (
    SIZES,
    TINY,
    dealt_plan,
    loss_of,
    make_batch,
    make_plan,
    make_tables,
    share_of,
    whole,
)

STEPS = (17, 17, 16, 17, 17, 17, 17, 5, 2, 1)
"""Global rows of each step: the last ones leave processes without a row."""
MORE = (17, 3)
L2 = 0.01


@dataclass(frozen=True)
class Case:
    """One path, and tables whose rows do not divide by the processes, or are fewer than them."""

    path: UpdatePath
    sizes: Mapping[str, int]
    dim: int = 10
    dealt: bool = False
    """Whether vocabularies share a table whose sub-tables lie on one process each."""

    @property
    def plan(self) -> Plan:
        return dealt_plan(self.path) if self.dealt else make_plan(self.path, self.dim, self.sizes)


WORLD = 3
CASES = {
    "dense": Case("dense", SIZES),
    "fused": Case("fused", SIZES),
    "dense-tiny": Case("dense", TINY),
    "fused-tiny": Case("fused", TINY),
    "dense-dealt": Case("dense", SIZES, dealt=True),
    "fused-dealt": Case("fused", SIZES, dealt=True),
}


class Learner:
    """Tables and an optimiser of the dense ones."""

    def __init__(self, case: Case, seed: int = 3) -> None:
        self.case = case
        self.tables: Tables = make_tables(case.plan, seed=seed)
        weights = list(self.tables.dense_weights().values())
        self.optimizer: Optimizer | None = (
            torch.optim.Adam(weights, lr=0.05, fused=True) if weights else None
        )
        self.losses: list[float] = []
        alone = dist.get_world_size() == 1
        assert self.tables.held_whole == ({"shared"} if case.dealt and not alone else set())

    def learn(self, sizes: tuple[int, ...], first: int = 0) -> None:
        rank, world = dist.get_rank(), dist.get_world_size()
        for index, rows in enumerate(sizes, start=first):
            batch = share_of(make_batch(rows, index, self.case.sizes), rank, world)
            if self.optimizer is not None:
                self.optimizer.zero_grad()
            loss = loss_of(self.tables(batch), batch.global_rows)
            loss.backward()
            self.tables.add_l2(L2)
            if self.optimizer is not None:
                self.optimizer.step()
            total = loss.detach().clone()
            dist.all_reduce(total)
            self.losses.append(float(total))

    def tensors(self) -> dict[str, Tensor]:
        tensors: dict[str, Tensor] = dict(self.tables.state())
        if self.optimizer is None:
            return tensors
        for table, weight in self.tables.dense_weights().items():
            for key, value in self.optimizer.state[weight].items():
                sharded = value if value.dim() == 0 else self.tables.as_sharded(table, value)
                tensors[f"optimizer.{table}.{key}"] = sharded
        return tensors

    def load(self, folder: Path) -> None:
        if self.optimizer is not None:
            for weight in self.tables.dense_weights().values():
                weight.grad = torch.zeros_like(weight)
            self.optimizer.step()
        dcp.load(self.tensors(), checkpoint_id=folder)

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything whole, on every process."""
        arrays = {key: whole(value) for key, value in self.tensors().items()}
        arrays.update({f"table.{name}": self.tables.table(name) for name in self.case.plan.tables})
        return arrays


def quiet_dcp() -> None:
    """torch.distributed.checkpoint warns about its own internals."""
    warnings.filterwarnings("ignore", category=UserWarning, module=r"torch\.distributed")


def work(folder: Path, cases: Mapping[str, Case]) -> None:
    """Learn, save, then load what one process saved and go on."""
    rank = dist.get_rank()
    for name, case in cases.items():
        learner = Learner(case)
        learner.learn(STEPS)
        dcp.save(learner.tensors(), checkpoint_id=folder / "many" / name)
        arrays = learner.arrays()
        if rank == 0:
            np.savez(folder / f"{name}.learnt.npz", losses=learner.losses, **arrays)
        other = Learner(case, seed=9)
        other.load(folder / "one" / name)
        arrays = other.arrays()
        if rank == 0:
            np.savez(folder / f"{name}.loaded.npz", **arrays)
        other.learn(MORE, first=len(STEPS))
        arrays = other.arrays()
        if rank == 0:
            np.savez(folder / f"{name}.more.npz", losses=other.losses, **arrays)


def job(rank: int, world: int, folder: Path, cases: Mapping[str, Case]) -> None:
    """One process of several; they meet through a file."""
    warnings.simplefilter("error", append=True)
    quiet_dcp()
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world)
    try:
        with distributed("cpu") as ranks:
            assert (ranks.rank, ranks.world) == (rank, world)
            work(folder, cases)
        assert dist.is_initialized()
    finally:
        dist.destroy_process_group()
    end(0)
