"""The contract between plans and models: every model learns on any plan."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from recsys.config import TrainSettings
from recsys.data.batches import Batches
from recsys.data.dataset import Dataset
from recsys.embeddings.plan import Plan
from recsys.models import MODELS, build_model, table_dim
from recsys.training.distributed import Distributed
from recsys.training.layout import layout_of
from recsys.training.tables_of import build_tables
from tests.training.made import compressed_plan, hashed_plan, made_dataset, made_plan, shared_plan

PLANS: dict[str, Callable[[Dataset, int], Plan]] = {
    "full": lambda dataset, dim: made_plan(dataset, "dense", dim),
    "hash-1": lambda dataset, dim: hashed_plan(dataset, "dense", dim, lookups=1),
    "hash-2": lambda dataset, dim: hashed_plan(dataset, "dense", dim, lookups=2),
    "adaptive": lambda dataset, dim: compressed_plan(dataset, "dense", dim, mode="adaptive"),
    "quotient": lambda dataset, dim: compressed_plan(dataset, "dense", dim, mode="quotient"),
    "unified-1": lambda dataset, dim: shared_plan(dataset, "dense", dim, lookups=1),
    "unified-2": lambda dataset, dim: shared_plan(dataset, "dense", dim, lookups=2),
}

OPTIONS: dict[str, dict[str, Any]] = {"finalmlp": {"hidden_1": [8], "hidden_2": [8]}}
"""Products of wide streams first overshoot on so few rows."""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return made_dataset(tmp_path_factory.mktemp("any") / "dataset", rows=64)


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("model", MODELS)
def test_a_model_learns_on_any_plan(dataset: Dataset, ranks: Distributed, model: str, plan: str) -> None:
    options = OPTIONS.get(model, {})
    made = PLANS[plan](dataset, table_dim(model, options, 8))
    tables = build_tables(dataset, made, TrainSettings(device="cpu"), ranks)
    network = build_model(model, options, layout_of(dataset.features, made), seed=1)
    batch = next(iter(Batches(dataset, "train", 64, shuffle_rows=64, shuffle=False).epoch(0, 0)))
    optimizer = torch.optim.Adam([*network.parameters(), *tables.dense_weights().values()], lr=1e-3)
    losses = []
    for _ in range(8):
        optimizer.zero_grad()
        prepared = tables.prepare(batch)
        logits = network(tables(prepared))
        assert logits.shape == (64,)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, prepared.label)
        loss.backward()
        for name, weight in tables.dense_weights().items():
            assert weight.grad is not None, name
            assert weight.grad.any(), name
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
