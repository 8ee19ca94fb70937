"""The tables of a dataset and a plan, on one process or many."""

from __future__ import annotations

import torch

from recsys.config import TrainSettings
from recsys.data.dataset import Dataset
from recsys.embeddings.gates import Gates, gates_of
from recsys.embeddings.plan import Plan
from recsys.embeddings.rows import row_maps
from recsys.embeddings.tables import Tables
from recsys.training.distributed import Distributed


def build_tables(dataset: Dataset, plan: Plan, settings: TrainSettings, ranks: Distributed) -> Tables:
    """Tables with their initial weights; hashed vocabularies get their map from id to rows."""
    maps = row_maps(plan, dataset)
    return Tables(
        plan,
        dataset.features,
        row_maps={name: torch.from_numpy(rows) for name, rows in maps.items()},
        seed=settings.seed,
        init_std=settings.tables.init_std,
        device=ranks.device,
        group=ranks.group,
        fused_lr=settings.tables.fused_lr,
        gates=gates_of_run(dataset, plan, settings, ranks.device),
    )


def gates_of_run(
    dataset: Dataset, plan: Plan, settings: TrainSettings, device: torch.device
) -> Gates | None:
    """Gates as they begin; None where the settings ask for none."""
    gates = settings.gates
    if not gates.epochs:
        return None
    return gates_of(dataset, plan, buckets=gates.buckets, init=gates.init, device=device)
