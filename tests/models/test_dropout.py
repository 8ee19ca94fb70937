"""Dropout: how much is dropped, and that nothing but (seed, step, rank) decides what."""

from __future__ import annotations

import pytest
import torch

from recsys.models import build_model
from recsys.models.dropout import Dropout, reseed
from tests.models.made import layouts, make_inputs


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_share_and_expectation(p: float) -> None:
    drop = Dropout(p)
    drop.generator = torch.Generator().manual_seed(1)
    y = drop(torch.ones(1_000_000))
    dropped = float((y == 0).float().mean())
    assert dropped == pytest.approx(p, abs=5 * (p * (1 - p) / 1e6) ** 0.5)
    assert float(y.mean()) == pytest.approx(1.0, abs=0.02)
    assert y.unique().numel() == 2


def test_positions_are_independent() -> None:
    drop = Dropout(0.5)
    drop.generator = torch.Generator().manual_seed(1)
    kept = drop.keep((250_000, 4), torch.device("cpu")).float()
    correlation = torch.corrcoef(kept.T).fill_diagonal_(0)
    assert correlation.abs().max() < 0.01


def test_gradient_follows_the_mask() -> None:
    drop = Dropout(0.3)
    drop.generator = torch.Generator().manual_seed(1)
    x = torch.ones(1001, requires_grad=True)
    y = drop(x)
    y.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, y.detach())


@pytest.mark.parametrize("name", ["dnn", "autoint_plus", "din"])
def test_a_step_can_be_repeated(name: str) -> None:
    layout = layouts(name)["mixed"]
    options = {"dropout": 0.2} | ({} if name == "dnn" else {"attention_dropout": 0.2})
    model = build_model(name, options, layout, 1)
    inputs = make_inputs(layout, 16, 5)
    before = torch.random.get_rng_state()

    def at(step: int, rank: int) -> torch.Tensor:
        reseed(model, 5, step, rank)
        logits: torch.Tensor = model(inputs)
        return logits

    assert torch.equal(at(3, 0), at(3, 0))
    assert not torch.equal(at(3, 0), at(4, 0))
    assert not torch.equal(at(3, 0), at(3, 1))
    assert torch.equal(torch.random.get_rng_state(), before)
    model.eval()
    assert torch.equal(at(3, 0), at(4, 1))


def test_refusals() -> None:
    with pytest.raises(RuntimeError, match="reseed"):
        Dropout(0.5)(torch.ones(3))
    with pytest.raises(ValueError, match="below 1"):
        Dropout(1.0)
