"""L2 of looked-up rows against plain torch and counts by hand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor, nn

from recsys.config import DenseOptimizer, TableOptimizer, TrainSettings
from recsys.data.batch import Batch
from recsys.data.batches import Batches
from recsys.data.dataset import Dataset
from recsys.embeddings.plan import Plan, UpdatePath
from recsys.embeddings.rows import row_maps
from recsys.embeddings.tables import Tables
from recsys.training.distributed import Distributed
from recsys.training.loaded import load_trained
from recsys.training.optimisers import Optimisers
from recsys.training.row_l2 import RowL2
from recsys.training.tables_of import build_tables
from recsys.training.train import train
from tests.training.made import hashed_plan, made_dataset, made_plan, shared_plan

TABLE_OF = {"colour": "colour", "item": "item", "history": "item", "tags": "tag"}
L2, LR, FUSED_LR = 3.0, 0.05, 0.1


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return made_dataset(tmp_path_factory.mktemp("made") / "dataset", rows=200)


def counted(dataset: Dataset) -> dict[str, Counter[int]]:
    """How often the train rows hold each id of each table."""
    rows = pl.read_parquet(dataset.part("train"))
    counts: dict[str, Counter[int]] = {"colour": Counter(), "item": Counter(), "tag": Counter()}
    for name, table in TABLE_OF.items():
        for value in rows[name].to_list():
            counts[table].update(value if isinstance(value, list) else [value])
    return counts


def totals(tables: Tables, batch: Batch) -> Tensor:
    """Sum ``[B]`` of all vectors of a row; a multi-valued field's mean."""
    inputs = tables(batch)
    fields = torch.stack([vector.sum(1) for vector in inputs.fields.values()]).sum(0)
    return fields + inputs.sequences["history"].sum((1, 2))


def plain_totals(weights: Mapping[str, Tensor], batch: Batch) -> Tensor:
    """The same with plain tensors."""
    total = torch.zeros(batch.rows)
    for name, table in TABLE_OF.items():
        values = weights[table][torch.from_numpy(batch.ids[name].copy())].sum(1)
        if name not in batch.lengths:
            total = total + values
            continue
        lengths = torch.from_numpy(batch.lengths[name])
        owner = torch.repeat_interleave(torch.arange(batch.rows), lengths)
        sums = torch.zeros(batch.rows).index_add(0, owner, values)
        total = total + (sums / lengths.clamp(min=1) if name == "tags" else sums)
    return total


def terms(
    weights: Mapping[str, Tensor], batch: Batch, counts: Mapping[str, Counter[int]] | None
) -> dict[str, Tensor]:
    """``l2 / n_j * w_j`` of every row that a batch looks up, zeros elsewhere."""
    found = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    for name, table in TABLE_OF.items():
        for row in set(batch.ids[name].tolist()):
            count = 1 if counts is None else max(counts[table][row], 1)
            found[table][row] = L2 / count * weights[table][row].detach()
    return found


class RowWiseAdagrad:
    """Row-wise Adagrad, written out."""

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        self.sums = {name: torch.zeros(len(weight)) for name, weight in weights.items()}

    @torch.no_grad()
    def update(self, name: str, weight: Tensor, gradient: Tensor, lr: float) -> None:
        self.sums[name] += gradient.square().mean(1)
        weight -= lr * gradient / (self.sums[name].sqrt() + 1e-8).unsqueeze(1)


OPTIMISERS = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adagrad": torch.optim.Adagrad}


@pytest.mark.parametrize("by_count", [True, False])
@pytest.mark.parametrize("dim", [8, 6])
@pytest.mark.parametrize("update", ["sgd", "adam", "adagrad", "fused"])
def test_three_steps_by_hand(
    dataset: Dataset, ranks: Distributed, update: str, dim: int, by_count: bool
) -> None:
    path: UpdatePath = "fused" if update == "fused" else "dense"
    values = {"lr": LR, "fused_lr": FUSED_LR, "l2_rows": L2, "l2_rows_by_count": by_count, "init_std": 0.3}
    settings = TableOptimizer.parse(**values, dense="sgd" if path == "fused" else update)
    plan = made_plan(dataset, path, dim)
    tables = build_tables(dataset, plan, TrainSettings(tables=settings), ranks)
    row_l2 = RowL2(tables, dataset, plan, settings, ranks)
    ours = Optimisers(nn.Module(), tables, DenseOptimizer(), settings, None, row_l2)
    plain = {name: torch.from_numpy(tables.table(name)).requires_grad_() for name in plan.tables}
    by_rows = RowWiseAdagrad(plain)
    by_torch = OPTIMISERS.get(update, torch.optim.SGD)(list(plain.values()), lr=LR)
    counts = counted(dataset) if by_count else None
    untouched = {name: torch.ones(len(weight), dtype=torch.bool) for name, weight in plain.items()}
    start = {name: weight.detach().clone() for name, weight in plain.items()}
    for step, batch in enumerate(Batches(dataset, "train", 5, seed=1).epoch()):
        if step == 3:
            break
        scale = (1.0, 1.0, 0.1)[step]
        ours.set_scale(scale)
        ours.zero_grad()
        (totals(tables, batch).square().sum() / batch.rows).backward()
        ours.step(ours.looked_up(batch))
        by_torch.zero_grad()
        (plain_totals(plain, batch).square().sum() / batch.rows).backward()
        for name, weight in plain.items():
            assert weight.grad is not None
            if path == "fused":
                by_rows.update(name, weight, weight.grad, FUSED_LR * scale)
                by_rows.update(name, weight, terms(plain, batch, counts)[name], FUSED_LR * scale)
            else:
                weight.grad += terms(plain, batch, counts)[name]
        if path == "dense":
            by_torch.param_groups[0]["lr"] = LR * scale
            by_torch.step()
        for name, table in TABLE_OF.items():
            untouched[table][torch.from_numpy(batch.ids[name].copy())] = False
        for name, weight in plain.items():
            found = torch.from_numpy(tables.table(name))
            torch.testing.assert_close(found, weight.detach(), rtol=1e-4, atol=1e-5)
    assert untouched["item"].any()
    for name, rows in untouched.items():
        found = torch.from_numpy(tables.table(name))
        assert torch.equal(found[rows], start[name][rows])


def test_a_row_without_a_gradient_takes_a_bounded_step(dataset: Dataset, ranks: Distributed) -> None:
    settings = TableOptimizer(fused_lr=FUSED_LR, l2_rows=1e-3)
    plan = made_plan(dataset, "fused")
    tables = build_tables(dataset, plan, TrainSettings(tables=settings), ranks)
    before = tables.table("item")
    (batch,) = Batches(dataset, "valid", 50, shuffle=False).epoch()
    row_l2 = RowL2(tables, dataset, plan, settings, ranks)
    row_l2.add(row_l2.looked_up(batch), 1.0)
    moved = np.abs(tables.table("item") - before)
    assert 0 < moved.max() <= FUSED_LR * np.sqrt(8) * 1.001


@pytest.mark.parametrize("made", [shared_plan, hashed_plan])
def test_every_lookup_of_a_value_is_a_row_of_its_own(
    dataset: Dataset, ranks: Distributed, made: Callable[[Dataset, UpdatePath], Plan]
) -> None:
    plan, settings = made(dataset, "dense"), TableOptimizer(l2_rows=L2, init_std=0.3)
    maps = row_maps(plan, dataset)
    table = plan.table_of("item")

    def rows_of(batch: Batch) -> list[int]:
        names = [name for name in TABLE_OF if plan.table_of(name) == table]
        return [
            row for name in names for row in maps[plan.features[name]][batch.ids[name]].ravel().tolist()
        ]

    (everything,) = Batches(dataset, "train", 200, shuffle=False).epoch()
    batch = next(Batches(dataset, "train", 5, shuffle=False).epoch())
    counts = Counter(rows_of(everything))
    tables = build_tables(dataset, plan, TrainSettings(tables=settings), ranks)
    row_l2 = RowL2(tables, dataset, plan, settings, ranks)
    row_l2.add(row_l2.looked_up(batch), 1.0)
    weight = tables.dense_weights()[table]
    expected = torch.zeros_like(weight)
    for row in set(rows_of(batch)):
        expected[row] = L2 / counts[row] * weight[row].detach()
    assert weight.grad is not None
    torch.testing.assert_close(weight.grad, expected)


@pytest.mark.parametrize("path", ["dense", "fused"])
def test_a_run_file_switches_it_on(dataset: Dataset, tmp_path: Path, path: UpdatePath) -> None:
    def norm(l2_rows: float) -> float:
        tables = {"lr": 0.01, "fused_lr": 0.02, "init_std": 0.3, "l2_rows": l2_rows}
        settings = TrainSettings.model_validate({"epochs": 2, "batch_size": 32, "tables": tables})
        folder = tmp_path / f"{path}{l2_rows}"
        train(dataset, folder, model={"name": "lr"}, plan=made_plan(dataset, path), settings=settings)
        return float(np.linalg.norm(load_trained(folder).tables["item"]))

    assert norm(10.0) < 0.8 * norm(0.0)
