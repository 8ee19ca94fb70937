"""Blocks of rows against the layer in one piece, and against the paper's formula written out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from recsys.models import interacting_blocks
from recsys.models.dropout import reseed
from recsys.models.initialise import initialise
from recsys.models.interacting import InteractingLayers

SETTINGS: list[dict[str, Any]] = [
    {},
    {"residual": "identity", "scale": True},
    {"residual": "none"},
    {"residual": "identity", "layer_norm": True, "scale": True, "dropout": 0.3},
]


def stack_of(dtype: torch.dtype, **settings: Any) -> InteractingLayers:
    stack = InteractingLayers(5, 3, 2, 4, **settings)
    generator = torch.Generator().manual_seed(1)
    initialise(stack, generator)
    with torch.no_grad():
        for name, parameter in stack.named_parameters():
            if "norm" in name:
                parameter.normal_(generator=generator)
    return stack.to(dtype)


def draw(*shape: int, dtype: torch.dtype, seed: int = 2) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def gradients(stack: InteractingLayers, x: Tensor, result: Tensor) -> list[Tensor]:
    weights = draw(*result.shape, dtype=result.dtype, seed=3)
    return list(torch.autograd.grad((result * weights).sum(), [x, *stack.parameters()]))


def in_one_piece(stack: InteractingLayers, x: Tensor) -> Tensor:
    for layer in stack.layers:
        x = layer(x)
    return x


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize(("rows", "fields"), [(1, 7), (53, 7), (19, 18)])
def test_blocks_equal_one_piece(
    settings: dict[str, Any], rows: int, fields: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interacting_blocks, "_BLOCK_BYTES", 1)  # blocks of 16 rows, and a rest
    stack = stack_of(torch.float64, **settings)
    x = draw(rows, fields, 5, dtype=torch.float64).requires_grad_()
    reseed(stack, 1, 1)
    blocks = stack(x)
    by_blocks = gradients(stack, x, blocks)
    reseed(stack, 1, 1)
    drawn = [layer.tensors(rows, fields).keep for layer in stack.layers]  # type: ignore[operator]
    for layer, keep in zip(stack.layers, drawn, strict=True):
        if keep is not None:
            monkeypatch.setattr(layer.dropout, "keep", lambda *_, keep=keep: keep)
    whole = in_one_piece(stack, x)
    torch.testing.assert_close(blocks, whole, rtol=0, atol=1e-12)
    for found, expected in zip(by_blocks, gradients(stack, x, whole), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    with torch.no_grad():
        reseed(stack, 1, 1)
        torch.testing.assert_close(stack(x), whole, rtol=0, atol=1e-12)


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("fields", [4, 17])
def test_gradient_is_the_numerical_one(settings: dict[str, Any], fields: int) -> None:
    stack = stack_of(torch.float64, **settings).eval()
    x = draw(2, fields, 5, dtype=torch.float64).requires_grad_()
    parameters = tuple(stack.parameters())
    assert torch.autograd.gradcheck(lambda x, *_: stack(x), (x, *parameters), fast_mode=True)


def test_float32_at_full_size_equals_one_piece() -> None:
    stack = InteractingLayers(16, 3, 2, 32)
    initialise(stack, torch.Generator().manual_seed(1))
    x = draw(160, 39, 16, dtype=torch.float32).requires_grad_()
    blocks, whole = stack(x), in_one_piece(stack, x)
    torch.testing.assert_close(blocks, whole, rtol=1e-4, atol=1e-5)
    for found, expected in zip(gradients(stack, x, blocks), gradients(stack, x, whole), strict=True):
        assert (found - expected).norm() < 1e-5 * expected.norm()


def test_the_papers_formula() -> None:
    stack = InteractingLayers(5, 1, 2, 4)
    initialise(stack, torch.Generator().manual_seed(1))
    stack = stack.double()
    x = draw(2, 3, 5, dtype=torch.float64)
    query, key, value, residual = stack.layers[0].projection.chunk(4)  # type: ignore[operator, union-attr]
    for row, result in zip(x, stack(x), strict=True):
        for field in range(3):
            mixed = []
            for head in range(2):
                part = slice(4 * head, 4 * head + 4)
                scores = torch.stack([(query[part] @ row[field]) @ (key[part] @ other) for other in row])
                weights = scores.exp() / scores.exp().sum()
                mixed.append(sum(w * (value[part] @ other) for w, other in zip(weights, row, strict=True)))
            expected = (torch.cat(mixed) + residual @ row[field]).clamp(min=0)  # type: ignore[arg-type]
            torch.testing.assert_close(result[field], expected)


def test_bars_autoint_plus_has_its_published_size() -> None:
    """622,180 parameters on Frappe_x1, less the biases that batch norm makes idle."""
    from recsys.models import build_model
    from recsys.models.inputs import Layout

    options = {
        "layers": 5, "heads": 4, "head_dim": 32, "residual": "identity", "scale": True, "layer_norm": True,
        "attention_dropout": 0.1, "dropout": 0.1, "hidden": [400, 400, 400],
    }  # fmt: skip
    model = build_model("autoint_plus", options, Layout({f"field{n}": 10 for n in range(10)}), 1)
    tables = 5389 * 10
    # ours has no idle bias in three hidden layers, and a bias in each of the two summed logits as theirs
    assert sum(p.numel() for p in model.parameters()) + tables == 622_180 - 3 * 400
