"""The budget goes where the next weights are worth most; units that others replace are worth little."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from recsys.data.dataset import Dataset
from recsys.embeddings.pool import pooled
from recsys.embeddings.tables import Tables
from recsys.models import build_model
from recsys.settings.sparsity import SparsitySettings
from recsys.training.distributed import Distributed, distributed
from recsys.training.layout import layout_of
from recsys.training.sparsity.rows import Rows
from recsys.training.sparsity.split import Split
from recsys.training.sparsity.tolerance import tolerances
from recsys.training.sparsity.units import Units
from tests.training.made import made_dataset, made_plan

SETTINGS = SparsitySettings(budget=0.3, interval=10, updates=1, drop=0.0)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return made_dataset(tmp_path_factory.mktemp("split") / "dataset", rows=64)


@pytest.fixture(autouse=True)
def ranks() -> Iterator[Distributed]:
    with distributed("cpu") as ranks:
        yield ranks


def _kept(
    dataset: Dataset, ranks: Distributed, worth_of_rows: float, *, alike: bool = False
) -> tuple[int, int]:
    """Weights of the dense part and of the tables after the only update, and that the budget holds.

    Every place is looked up once, and all pull alike; units' masks pull the more the later they stand.
    Where units are ``alike``, all of a layer give the same but for a little noise.
    """
    plan = made_plan(dataset, "dense")
    model = build_model("dnn", {"hidden": [24, 16]}, layout_of(dataset.features, plan), seed=1)
    tables = Tables(
        pooled(plan, 1.0, 1), dataset.features, device=ranks.device, group=ranks.group, init_std=0.1
    )
    units = Units(model, SETTINGS, None)
    rows = Rows(tables, dict, dataset, SETTINGS, ranks, seed=1, batch_size=64)
    split = Split(units, rows, SETTINGS, ranks, batch_size=64)
    pool, weight = tables.pools["pool"], tables.dense_weights()["pool"].detach()
    places = torch.arange(len(pool.slots))
    for mask in units.measured:
        mask.grad = torch.linspace(0.001, 0.03, len(mask))
    units.observe()
    vectors = weight[pool.slots[places].long()][:, None]
    pool.on_gradient(places[:, None], vectors, torch.full_like(vectors, worth_of_rows))  # type: ignore[misc]
    if alike:
        generator = torch.Generator().manual_seed(1)
        for layer in units.layers:
            for _ in range(SETTINGS.interval):
                split.observe()
            same = torch.randn(512, 1, generator=generator)
            noise = torch.randn(512, layer.width, generator=generator)
            assert layer.outputs is not None
            for hook in layer.outputs._forward_hooks.values():  # as if the layer had given these
                hook(layer.outputs, (), same + 0.1 * noise)
    whole = units.whole + rows.whole
    for part in (split, units, rows):
        part.update(10)
    kept = sum(parameter.numel() for parameter in model.parameters()), rows.weights
    assert 0.28 * whole < sum(kept) <= 0.3 * whole
    return kept


def test_the_part_that_is_worth_more_per_weight_keeps_more(dataset: Dataset, ranks: Distributed) -> None:
    kept = [_kept(dataset, ranks, worth) for worth in (1e-5, 0.01, 1.0)]
    dense, tables = zip(*kept, strict=True)
    assert dense[0] > dense[1] > dense[2]
    assert tables[0] < tables[1] < tables[2]


def test_units_that_others_stand_in_for_leave_first(dataset: Dataset, ranks: Distributed) -> None:
    assert _kept(dataset, ranks, 0.01, alike=True)[0] < _kept(dataset, ranks, 0.01)[0]


def _moments(activations: Tensor) -> Tensor:
    known = torch.cat([activations, torch.ones(len(activations), 1)], 1).double()
    return known.t() @ known


def test_tolerance_is_what_the_others_do_not_tell() -> None:
    """Independent units, a sum of two of them, one that is constant; R² of half the variance is a half."""
    made = torch.randn(20_000, 4, generator=torch.Generator().manual_seed(3))
    half = (made[:, :1] + made[:, 3:]) / 2**0.5
    activations = torch.cat([made[:, :2], made[:, :1] + made[:, 1:2], half, torch.ones(len(made), 1)], 1)
    everyone = torch.ones(5, dtype=torch.bool)
    first, second, both, halved, constant = tolerances(_moments(activations + 3), everyone).tolist()
    assert max(first, second, both) < 1e-3
    assert halved == pytest.approx(0.5, abs=0.02)
    assert constant == 1
    alone = torch.tensor([True, False, False, False, False])
    assert tolerances(_moments(activations), alone).tolist() == pytest.approx([1, 1, 0.5, 0.5, 1], abs=0.02)
