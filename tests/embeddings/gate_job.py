"""What each of two gloo processes does in test_gate_ranks.py; also run by one process to compare."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist

from recsys.config import TableOptimizer, TrainSettings
from recsys.data.batches import Batches
from recsys.data.dataset import Dataset
from recsys.embeddings.plan import Plan, UpdatePath
from recsys.ranks import end
from recsys.settings.gates import GateSettings
from recsys.training.distributed import distributed
from recsys.training.tables_of import build_tables
from tests.embeddings.table_cases import loss_of, whole
from tests.training.made import compressed_plan, hashed_plan, made_plan, shared_plan

WORLD = 2
PLANS: dict[str, Callable[[Dataset, UpdatePath], Plan]] = {
    "full": made_plan,
    "hash": hashed_plan,
    "unified": shared_plan,
    "adaptive": partial(compressed_plan, mode="adaptive"),
    "quotient": partial(compressed_plan, mode="quotient"),
}
PATHS: tuple[UpdatePath, ...] = ("dense", "fused")
CASES: dict[str, tuple[str, UpdatePath]] = {
    f"{mode}-{path}": (mode, path) for mode in PLANS for path in PATHS
}
BATCH = 33
"""Of 100 rows: the last batch has one row, and leaves a process without any."""
SETTINGS = TrainSettings(
    tables=TableOptimizer(init_std=0.3, fused_lr=0.1), gates=GateSettings(epochs=1, buckets=20)
)


def learn(dataset: Dataset, case: str) -> dict[str, np.ndarray]:
    """Losses, the gates' gradients of each step, and what was learnt: whole, on every process."""
    mode, path = CASES[case]
    plan = PLANS[mode](dataset, path)
    with distributed("cpu") as ranks:
        tables = build_tables(dataset, plan, SETTINGS, ranks)
        gates = tables.gates
        assert gates is not None
        optimizer = torch.optim.SGD([gates.theta, *tables.dense_weights().values()], lr=0.5)
        batches = Batches(
            dataset, "train", BATCH, seed=1, shuffle_rows=100, rank=ranks.rank, world=ranks.world
        )
        losses, gradients = [], []
        for epoch in range(2):
            gates.set_temperature(1.0 + epoch)
            for batch in batches.epoch(epoch):
                optimizer.zero_grad()
                loss = loss_of(tables(batch), batch.global_rows)
                loss.backward()
                total = loss.detach().clone()
                assert gates.theta.grad is not None
                dist.all_reduce(total)
                dist.all_reduce(gates.theta.grad)
                losses.append(float(total))
                gradients.append(gates.theta.grad.numpy().copy())
                gates.add_l1(1e-2)
                optimizer.step()
        learnt = {key: whole(value) for key, value in tables.state().items() if key.endswith("weight")}
    return learnt | {
        "losses": np.array(losses),
        "gradients": np.stack(gradients),
        "theta": gates.theta.detach().numpy(),
    }


def job(rank: int, folder: Path) -> None:
    """One of the processes; they meet through a file."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=WORLD)
    try:
        dataset = Dataset.load(folder / "dataset")
        for case in CASES:
            found = learn(dataset, case)
            if rank == 0:
                np.savez(folder / f"{case}.npz", **found)
    finally:
        dist.destroy_process_group()
    end(0)
