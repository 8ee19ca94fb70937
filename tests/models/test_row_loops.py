"""The compiled loops give what torch gives, forward and backward."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from recsys.models.activation_unit import ActivationUnit
from recsys.models.dice import Dice
from recsys.models.initialise import initialise
from recsys.models.row_loops import add_moments, sigmoid, summed_over_rows


def test_sigmoid_over_the_whole_range() -> None:
    z = np.concatenate([np.linspace(-30, 30, 20_001), [-1e6, -200, -100, -88, 88, 100, 200, 1e6]])
    z = z.astype(np.float32)
    found = np.array([sigmoid(each) for each in z])
    np.testing.assert_allclose(found, 1 / (1 + np.exp(-z.astype(np.float64).clip(-700))), atol=3e-7)


@pytest.mark.parametrize("rows", [0, 1, 5, 5000])
def test_moments_lose_no_digits_far_from_zero(rows: int) -> None:
    generator = np.random.default_rng(0)
    x = (generator.normal(size=(rows, 12)) + 1e4).astype(np.float32)
    near = np.full(12, 1e4, np.float32)
    found = summed_over_rows(add_moments, rows, (x, near), sums=2, channels=12)
    distance = x.astype(np.float64) - 1e4
    np.testing.assert_allclose(found[0], distance.sum(0), rtol=1e-5, atol=1e-3)
    np.testing.assert_allclose(found[1], np.square(distance).sum(0), rtol=1e-5)


@pytest.mark.parametrize("rows", [2, 7, 3000])
def test_dice_and_its_gradients_are_those_of_double_precision(rows: int) -> None:
    generator = torch.Generator().manual_seed(rows)
    x, weight = (torch.randn(rows, 20, generator=generator) for _ in range(2))
    gradients = []
    for dtype in (torch.float32, torch.float64):  # the loops take float32 only
        dice = Dice(20).to(dtype)
        dice.alpha.data = torch.linspace(-0.5, 1.5, 20, dtype=dtype)
        inputs = (3 * x + 1).to(dtype).requires_grad_()
        result = dice(inputs)
        (result * weight.to(dtype)).sum().backward()
        assert inputs.grad is not None
        assert dice.alpha.grad is not None
        gradients.append([result, inputs.grad, dice.alpha.grad, dice.statistics.mean])
    for found, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("softmax", [False, True])
def test_activation_unit_and_its_gradients_are_those_of_double_precision(softmax: bool) -> None:
    generator = torch.Generator().manual_seed(3)
    query, keys = (torch.randn(*shape, generator=generator) for shape in ((40, 8), (40, 6, 8)))
    lengths = torch.randint(0, 7, (40,), generator=generator)
    keys = keys * (torch.arange(6) < lengths.unsqueeze(1)).unsqueeze(2)
    found = [_run(query, keys, lengths, softmax, dtype) for dtype in (torch.float32, torch.float64)]
    for single, double in zip(*found, strict=True):
        torch.testing.assert_close(single.double(), double, rtol=1e-4, atol=1e-5)


def _run(query: Tensor, keys: Tensor, lengths: Tensor, softmax: bool, dtype: torch.dtype) -> list[Tensor]:
    """Result of a unit, and the gradients of all that it depends on."""
    unit = ActivationUnit(8, (16, 4), activation="dice", dropout=0.0, softmax=softmax)
    initialise(unit, torch.Generator().manual_seed(1))
    unit.to(dtype)
    inputs = [tensor.to(dtype).detach().clone().requires_grad_() for tensor in (query, keys)]
    result: Tensor = unit(*inputs, lengths)
    result.square().sum().backward()
    gradients = [tensor.grad for tensor in (*inputs, *unit.parameters())]
    return [result, *(gradient for gradient in gradients if gradient is not None)]


def test_lengths_beyond_the_padding_read_nothing_beyond_it() -> None:
    unit = ActivationUnit(8, (16,), activation="relu", dropout=0.0, softmax=False)
    initialise(unit, torch.Generator().manual_seed(1))
    query, keys = torch.ones(3, 8), torch.ones(3, 2, 8)
    found = unit(query, keys, torch.tensor([2, 9, 2**40]))
    torch.testing.assert_close(found, unit(query, keys, torch.tensor([2, 2, 2])))
