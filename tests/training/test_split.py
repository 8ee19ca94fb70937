"""The budget goes where the next weights are worth most; units that others replace are worth little."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from recsys.data.dataset import Dataset
from recsys.embeddings.pool import pooled
from recsys.embeddings.tables import Tables
from recsys.models import build_model
from recsys.models.mlp import MLP
from recsys.settings.sparsity import SparsitySettings
from recsys.training.distributed import Distributed
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


@dataclass
class _Parts:
    """A model and its tables, of which a share is to be kept after one update."""

    model: nn.Module
    tables: Tables
    units: Units
    rows: Rows
    split: Split

    @classmethod
    def of(
        cls, dataset: Dataset, ranks: Distributed, settings: SparsitySettings, narrow: str | None = None
    ) -> _Parts:
        """Vectors of the table ``narrow`` are half as wide, so that it has a pool of its own."""
        plan = made_plan(dataset, "dense")
        if narrow is not None:
            half = plan.tables[narrow].model_copy(update={"dim": plan.tables[narrow].dim // 2})
            plan = plan.model_copy(update={"tables": {**plan.tables, narrow: half}})
        model = build_model("dnn", {"hidden": [24, 16]}, layout_of(dataset.features, plan), seed=1)
        tables = Tables(
            pooled(plan, 1.0, 1), dataset.features, device=ranks.device, group=ranks.group, init_std=0.1
        )
        units = Units(model, settings, None)
        rows = Rows(tables, dict, dataset, settings, ranks, seed=1, batch_size=64)
        return cls(model, tables, units, rows, Split(units, rows, settings, ranks, batch_size=64))

    def measure(self, worth_of_rows: float) -> None:
        """Every place is looked up once, and all pull alike; masks pull the more the later they stand."""
        for mask in self.units.measured:
            mask.grad = torch.linspace(0.001, 0.03, len(mask))
        self.units.observe()
        for name, pool in self.tables.pools.items():
            places = torch.arange(len(pool.slots))
            vectors = self.tables.dense_weights()[name].detach()[pool.slots[places].long()][:, None]
            assert pool.on_gradient is not None
            pool.on_gradient(places[:, None], vectors, torch.full_like(vectors, worth_of_rows))

    def compute(self) -> None:
        """The perceptron's activations of the last step before the update."""
        for _ in range(SETTINGS.interval):
            self.split.observe()
        mlp = self.model.train().get_submodule("mlp")
        assert isinstance(mlp, MLP)
        width = next(mlp.parameters()).shape[1]
        mlp(torch.randn(512, width, generator=torch.Generator().manual_seed(2)))

    def update(self) -> tuple[int, int]:
        """Weights of the dense part and of the tables after the update, once the budget has been met."""
        whole = self.units.whole + self.rows.whole
        for part in (self.split, self.units, self.rows):
            part.update(SETTINGS.interval)
        kept = sum(parameter.numel() for parameter in self.model.parameters()), self.rows.weights
        assert 0.28 * whole < sum(kept) <= SETTINGS.budget * whole
        return kept


def test_the_part_that_is_worth_more_per_weight_keeps_more(dataset: Dataset, ranks: Distributed) -> None:
    kept = []
    for worth in (1e-5, 0.01, 1.0):
        parts = _Parts.of(dataset, ranks, SETTINGS)
        parts.measure(worth)
        kept.append(parts.update())
    dense, tables = zip(*kept, strict=True)
    assert dense[0] > dense[1] > dense[2]
    assert tables[0] < tables[1] < tables[2]


def test_pools_of_different_widths_share_what_the_tables_get(dataset: Dataset, ranks: Distributed) -> None:
    parts = _Parts.of(dataset, ranks, SETTINGS, narrow="item")
    parts.measure(0.01)
    prices = parts.rows.prices()
    widths = {weight.shape[1] for weight in parts.tables.dense_weights().values()}
    assert len(parts.tables.pools) == len(widths) == 2
    assert set(prices.weights.diff().tolist()) == widths
    assert (prices.worth.diff() <= 0).all()
    parts.update()
    kept = [int((pool.slots > 0).sum()) for pool in parts.tables.pools.values()]
    assert all(
        0 < rows < pool.rows - 1 for rows, pool in zip(kept, parts.tables.pools.values(), strict=True)
    )


def test_units_that_others_stand_in_for_leave_first(dataset: Dataset, ranks: Distributed) -> None:
    """As all of a layer do that compute the same but for a little noise."""
    kept = []
    for alike in (False, True):
        parts = _Parts.of(dataset, ranks, SETTINGS)
        if alike:
            for layer in parts.units.layers:
                weight = layer.axes[0].tensor.detach()
                weight.copy_(weight[:1] * (1 + 0.05 * torch.rand(len(weight), 1)))
        parts.measure(0.01)
        parts.compute()
        kept.append(parts.update()[0])
    assert kept[1] < kept[0]


def test_units_that_are_out_are_looked_at_too(dataset: Dataset, ranks: Distributed) -> None:
    parts = _Parts.of(dataset, ranks, SETTINGS.model_copy(update={"start": 0.5}))
    held = parts.units.held()
    assert not all(mask.all() for mask in held.values())
    parts.compute()
    for name in held:
        assert (parts.split.tensors()[f"split.{name}"].diagonal() > 0).float().mean() > 0.9


def test_a_loss_that_is_no_number_is_left_to_the_loop(dataset: Dataset, ranks: Distributed) -> None:
    """Which says so, with the step."""
    parts = _Parts.of(dataset, ranks, SETTINGS)
    parts.measure(math.nan)
    parts.split.update(SETTINGS.interval)


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
