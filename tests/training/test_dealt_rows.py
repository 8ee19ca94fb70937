"""Rows of a pool go to places whose lookups pull one way, from rows whose loss would not be noticed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from recsys.data.dataset import Dataset
from recsys.embeddings.pool import pooled
from recsys.embeddings.tables import Tables
from recsys.settings.sparsity import SparsitySettings
from recsys.training.distributed import Distributed, distributed
from recsys.training.sparsity.rows import Rows
from tests.training.made import made_dataset, made_plan

SETTINGS = SparsitySettings(budget=0.3, interval=10, updates=100, drop=0.05)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return made_dataset(tmp_path_factory.mktemp("dealt") / "dataset", rows=64)


@pytest.fixture(autouse=True)
def ranks() -> Iterator[Distributed]:
    with distributed("cpu") as ranks:
        yield ranks


def test_a_steady_pull_beats_a_noisy_one_and_the_idle_row_leaves(
    dataset: Dataset, ranks: Distributed
) -> None:
    plan = pooled(made_plan(dataset, "dense"), SETTINGS.tables_density, 1)
    tables = Tables(plan, dataset.features, device=ranks.device, group=ranks.group, init_std=0.1)
    rows = Rows(tables, dict, dataset, SETTINGS, ranks, seed=1)
    pool = tables.pools["pool"]
    held, out = (torch.nonzero(mask).flatten() for mask in (pool.slots > 0, pool.slots == 0))
    unseen = {each.start + 1 for each in pool.vocabularies.values()}
    steady, noisy = [place for place in out.tolist() if place not in unseen][:2]
    generator = torch.Generator().manual_seed(1)
    weight = tables.dense_weights()["pool"].detach()
    direction = torch.randn(weight.shape[1], generator=generator)
    assert pool.on_gradient is not None
    for _ in range(50):
        looked_up = torch.cat([held[1:], torch.tensor([steady] + [noisy] * 40)])
        vectors = weight[pool.slots[looked_up].long()]
        gradients = torch.randn(vectors.shape, generator=generator)
        gradients[len(held) - 1] = direction
        pool.on_gradient(looked_up[:, None], vectors[:, None], gradients[:, None])
    freed = int(pool.slots[held[0]])
    rows.update(10)
    assert pool.slots[steady] == freed
    assert pool.slots[noisy] == 0
    assert pool.slots[held[0]] == 0
    assert not weight[freed].any()
