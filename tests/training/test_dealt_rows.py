"""Rows of a pool go to places whose lookups pull one way, from rows whose loss would not be noticed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from recsys.data.dataset import Dataset
from recsys.embeddings.pool import pooled
from recsys.embeddings.tables import Tables
from recsys.settings.sparsity import SparsitySettings
from recsys.training.distributed import Distributed
from recsys.training.sparsity.rows import Rows
from tests.training.made import made_dataset, made_plan

SETTINGS = SparsitySettings(budget=0.3, interval=10, updates=100, drop=0.05)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return made_dataset(tmp_path_factory.mktemp("dealt") / "dataset", rows=64)


def test_a_steady_pull_beats_a_noisy_one_and_the_row_of_a_rare_value_leaves(
    dataset: Dataset, ranks: Distributed, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = pooled(made_plan(dataset, "dense"), SETTINGS.tables_density, 1)
    tables = Tables(plan, dataset.features, device=ranks.device, group=ranks.group, init_std=0.1)
    once = {
        name: np.ones(each.size, np.float32) for name, each in tables.pools["pool"].vocabularies.items()
    }
    once["item"][-1] = 0.01
    # every value is in one train row but for the last item, and an update comes every 50 epochs
    monkeypatch.setattr("recsys.training.sparsity.rows._counts", lambda dataset, name, each: once[name])
    rows = Rows(tables, dict, dataset, SETTINGS, ranks, seed=1, batch_size=320)
    pool = tables.pools["pool"]
    rare = pool.vocabularies["item"].places.stop - 1
    if pool.slots[rare] == 0:  # dealt last: it takes the place of another item's row
        other = int(torch.nonzero(pool.slots[pool.vocabularies["item"].places])[0])
        other += pool.vocabularies["item"].places.start
        pool.slots[rare], pool.slots[other] = int(pool.slots[other]), 0
    held, out = (torch.nonzero(mask).flatten() for mask in (pool.slots > 0, pool.slots == 0))
    held = held[held != rare]
    unseen = {each.start + 1 for each in pool.vocabularies.values()}
    steady, noisy = [place for place in out.tolist() if place not in unseen][:2]
    generator = torch.Generator().manual_seed(1)
    weight = tables.dense_weights()["pool"].detach()
    direction = torch.randn(weight.shape[1], generator=generator)
    assert pool.on_gradient is not None
    for _ in range(50):
        looked_up = torch.cat([held, torch.tensor([steady, noisy])])
        vectors = weight[pool.slots[looked_up].long()]
        gradients = torch.randn(vectors.shape, generator=generator)
        gradients[len(held)] = direction
        pool.on_gradient(looked_up[:, None], vectors[:, None], gradients[:, None])
    freed = int(pool.slots[rare])
    rows.update(10)
    assert pool.slots[rare] == 0
    assert pool.slots[steady] == freed
    assert pool.slots[noisy] == 0
    assert not weight[freed].any()
    pool.on_gradient(torch.tensor([[noisy]]), torch.zeros(1, 1, len(direction)), direction.view(1, 1, -1))
    rows.update(20)
    assert pool.slots[steady] == freed  # it has just come, and had no lookup yet
