"""Batch norm and Dice against torch and against their formulas, on one process and on two."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

from recsys.models import build_model
from recsys.models import statistics as statistics_module
from recsys.models.dice import Dice
from recsys.models.inputs import Layout, SequenceLayout
from recsys.models.norm import BatchNorm, set_process_group
from recsys.models.statistics import BatchStatistics, Sums
from recsys.ranks import end
from tests.models.made import make_inputs, take


def made(kind: str, channels: int) -> nn.Module:
    module: nn.Module = BatchNorm(channels) if kind == "batch_norm" else Dice(channels)
    generator = torch.Generator().manual_seed(3)
    for parameter in module.parameters():
        nn.init.normal_(parameter, generator=generator)
    return module


def rows_of(count: int, channels: int = 6) -> Tensor:
    """Columns of very different location and scale."""
    generator = torch.Generator().manual_seed(5)
    drawn = torch.randn(count, channels, generator=generator, dtype=torch.float64)
    return (drawn + torch.arange(channels)) * torch.logspace(-3, 2, channels, dtype=torch.float64)


def dice_written_out(x: Tensor, alpha: Tensor) -> Tensor:
    standard = (x - x.mean(0)) / torch.sqrt(x.var(0, correction=0) + 1e-8)
    p = torch.sigmoid(standard)
    return p * x + (1 - p) * alpha * x


@pytest.mark.parametrize("kind", ["batch_norm", "dice"])
@pytest.mark.parametrize("count", [1, 2, 57])
def test_equals_the_formula(kind: str, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics_module, "_TILE", 60)  # tiles of ten rows, and a rest
    x = rows_of(count).requires_grad_()
    module = made(kind, 6).double()
    (first, *_) = parameters = list(module.parameters())
    if kind == "batch_norm":
        standard = (x - x.mean(0)) / torch.sqrt(x.var(0, correction=0) + 1e-5)
        expected = standard * parameters[0] + parameters[1]
    else:
        expected = dice_written_out(x, first)
    found = module(x)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    weights = rows_of(count).flip(0).sin()
    wanted = torch.autograd.grad((expected * weights).sum(), [x, *parameters])
    for gradient, right in zip(
        torch.autograd.grad((found * weights).sum(), [x, *parameters]), wanted, strict=True
    ):
        torch.testing.assert_close(gradient, right, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("kind", ["batch_norm", "dice"])
def test_gradient_is_the_numerical_one(kind: str) -> None:
    module = made(kind, 3).double()
    x = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, *_: module(x), (x, *module.parameters()))


def test_batch_norm_equals_torch_in_training_and_evaluation() -> None:
    ours, theirs = BatchNorm(6), nn.BatchNorm1d(6, momentum=None)
    for parameter in (ours.weight, theirs.weight):
        nn.init.constant_(parameter, 1.5)
    nn.init.zeros_(ours.bias)
    for start in range(4):  # momentum None: plain averages, as ours over its first ten batches
        x = rows_of(40)[start * 10 : start * 10 + 10].float()
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours.statistics.mean, theirs.running_mean)
    torch.testing.assert_close(ours.statistics.variance, theirs.running_var, rtol=1e-4, atol=1e-9)
    x = rows_of(7).float()
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x), rtol=1e-4, atol=1e-4)


def test_running_averages_forget_their_initial_values() -> None:
    statistics = BatchStatistics(2)
    x = torch.tensor([[1.0, -3.0], [3.0, -5.0]])
    statistics.update(x)
    assert statistics.mean.tolist() == [2.0, -4.0]
    assert statistics.variance.tolist() == [2.0, 2.0]
    for _ in range(9):
        statistics.update(x)
    statistics.update(x + 10)  # the eleventh weighs one tenth
    torch.testing.assert_close(statistics.mean, torch.tensor([3.0, -3.0]))
    before = statistics.mean.clone()
    statistics.update(x[:0])
    assert torch.equal(statistics.mean, before)


def test_no_digits_cancel() -> None:
    x = (
        1e4 + torch.randn(1000, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    ).float()
    sums = Sums(x)
    for part in x.split(300):
        sums.add(part)
    mean, squares = sums.centred()
    assert mean.item() == pytest.approx(x.double().mean().item(), rel=1e-7)
    assert squares.item() == pytest.approx(1000 * x.double().var(correction=0).item(), rel=1e-5)


SPLITS = {"even": (0, 12, 24), "uneven": (0, 5, 24), "one rank without rows": (0, 24, 24)}
LAYOUT = Layout({"item": 8, "user": 8}, ("age",), {"items": SequenceLayout(8, "item")})
DIN_OPTIONS: dict[str, Any] = {"hidden": [16, 8], "batch_norm": True}


def scored(rank: int, part: slice, group: dist.ProcessGroup | None) -> dict[str, np.ndarray[Any, Any]]:
    """Outputs and gradients of one rank's rows: batch norm and Dice alone, and a DIN."""
    results: dict[str, Tensor] = {}
    weights = rows_of(24).flip(0).sin().float()[part]
    for kind in ("batch_norm", "dice"):
        module = made(kind, 6)
        set_process_group(module, group)
        x = rows_of(24).float()[part].requires_grad_()
        for _ in range(2):
            y = module(x)
        (y * weights).sum().backward()
        results |= {f"rows.{kind}.y": y, f"rows.{kind}.x": x.grad if x.grad is not None else x[:0]}
        results |= {
            f"sum.{kind}.{name}": p.grad for name, p in module.named_parameters() if p.grad is not None
        }
        results |= {f"same.{kind}.{name}": buffer for name, buffer in module.named_buffers()}
    model = build_model("din", DIN_OPTIONS, LAYOUT, 3)
    set_process_group(model, group)
    inputs = take(make_inputs(LAYOUT, 24, 5), torch.arange(24)[part])
    inputs.fields["item"].requires_grad_()
    logits = model(inputs)
    (logits * weights[:, 0]).sum().backward()
    results |= {"rows.din.logits": logits, "rows.din.item": inputs.fields["item"].grad}  # type: ignore[dict-item]
    results |= {f"sum.din.{name}": p.grad for name, p in model.named_parameters() if p.grad is not None}
    results |= {f"same.din.{name}": buffer for name, buffer in model.named_buffers()}
    return {key: value.detach().numpy() for key, value in results.items()}


def _rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    for name, bounds in SPLITS.items():
        part = slice(bounds[rank], bounds[rank + 1])
        np.savez(Path(folder) / f"{name}-{rank}.npz", **scored(rank, part, dist.group.WORLD))
    dist.destroy_process_group()
    end(0)


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    mp.spawn(_rank, args=(str(folder),), nprocs=2)
    return folder


@pytest.mark.distributed
@pytest.mark.parametrize("split", SPLITS)
def test_two_processes_equal_one(split: str, two_ranks: Path) -> None:
    alone = scored(0, slice(0, 24), None)
    first, second = (np.load(two_ranks / f"{split}-{rank}.npz") for rank in (0, 1))
    assert set(first) == set(second) == set(alone)
    for key, expected in alone.items():
        parts = (first[key], second[key])
        if key.startswith("rows"):
            found = np.concatenate(parts)
        elif key.startswith("sum"):
            found = parts[0] + parts[1]
        else:
            np.testing.assert_array_equal(*parts, err_msg=key)
            found = parts[0]
        scale = max(1.0, float(np.abs(expected).max()))
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6 * scale, err_msg=key)
