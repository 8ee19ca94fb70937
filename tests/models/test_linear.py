"""Matrix products by every path."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from recsys.models import linear
from recsys.models.linear import Linear, product, set_precision, weight_gradient


@pytest.mark.parametrize("rows", [0, 1, 2049, 4096])
@pytest.mark.parametrize("outputs", [1, 24])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("relu", [True, False])
def test_product_and_gradients(rows: int, outputs: int, bias: bool, relu: bool) -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(rows, 40, generator=generator).requires_grad_()
    weight = torch.randn(outputs, 40, generator=generator).requires_grad_()
    offset = torch.randn(outputs, generator=generator).requires_grad_() if bias else None
    assert linear._is_for_onednn(x, weight) == (rows > 1000 and outputs > 8)
    found, expected = product(x, weight, offset, relu=relu), functional.linear(x, weight, offset)
    expected = expected.relu() if relu else expected
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    leaves = [x, weight] + ([offset] if offset is not None else [])
    flow = torch.randn(found.shape, generator=generator)
    for gradient, right in zip(
        torch.autograd.grad(found, leaves, flow),
        torch.autograd.grad(expected, leaves, flow),
        strict=True,
    ):
        torch.testing.assert_close(gradient, right, rtol=1e-4, atol=1e-3)
    by_weight = weight_gradient(flow, x.detach())
    torch.testing.assert_close(by_weight, flow.t() @ x.detach(), rtol=1e-4, atol=1e-3)


def test_leading_dimensions_are_kept() -> None:
    layer = Linear(40, 24)
    torch.nn.init.normal_(layer.weight, generator=torch.Generator().manual_seed(1))
    assert layer.bias is not None
    torch.nn.init.ones_(layer.bias)
    x = torch.randn(3, 500, 40, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(
        layer(x), functional.linear(x, layer.weight, layer.bias), rtol=1e-4, atol=1e-4
    )


def test_bf16_rounds_operands_and_leaves_one_output_exact() -> None:
    layer, score = Linear(40, 24), Linear(40, 1)
    for part in (layer, score):
        torch.nn.init.normal_(part.weight, generator=torch.Generator().manual_seed(1))
        torch.nn.init.zeros_(part.bias)
    x = torch.randn(8, 40, generator=torch.Generator().manual_seed(2))
    exact = layer(x), score(x)
    both = torch.nn.ModuleList([layer, score])
    set_precision(both, "bf16")
    assert 1e-4 < (layer(x) - exact[0]).abs().max() < 0.2
    assert torch.equal(score(x), exact[1])
    assert layer.weight.dtype == layer(x).dtype == torch.float32
