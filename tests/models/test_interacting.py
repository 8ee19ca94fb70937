"""Blocks of rows against the layer in one piece, and against the paper's formula written out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch
from torch import Tensor

from recsys.errors import ConfigError
from recsys.models import build_model, interacting_blocks
from recsys.models.dropout import reseed
from recsys.models.initialise import initialise
from recsys.models.inputs import Inputs, Layout
from recsys.models.interacting import InteractingLayers
from recsys.models.onnx_graph import export_onnx, flat_inputs, input_names
from tests.models.made import layouts, make_inputs

SETTINGS: list[dict[str, Any]] = [
    {},
    {"residual": "identity", "scale": True},
    {"residual": "none"},
    {"residual": "identity", "layer_norm": True, "scale": True, "dropout": 0.3},
    {"layer_norm": True, "norm_last": True, "scale": True, "projection_relu": True, "dropout": 0.3},
    {"residual": "none", "projection_relu": True},
    {"residual": "identity", "layer_norm": True, "norm_last": True},
    {"masked": True},
    {"masked": True, "layer_norm": True, "scale": True, "dropout": 0.3},
    {"masked": True, "layer_norm": True, "norm_last": True, "projection_relu": True},
]


def stack_of(dtype: torch.dtype, *, masked: bool = False, **settings: Any) -> InteractingLayers:
    stack = InteractingLayers(5, 3, 2, 4, **settings)
    generator = torch.Generator().manual_seed(1)
    initialise(stack, generator)
    with torch.no_grad():
        for name, parameter in stack.named_parameters():
            if "norm" in name or "bias" in name:
                parameter.normal_(generator=generator)
    for layer in stack.layers if masked else ():
        layer.mask_heads(torch.tensor([1.0, 0.0], dtype=dtype, requires_grad=True))  # type: ignore[operator]
    return stack.to(dtype)


def draw(*shape: int, dtype: torch.dtype, seed: int = 2) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def gradients(stack: InteractingLayers, x: Tensor, result: Tensor) -> list[Tensor]:
    weights = draw(*result.shape, dtype=result.dtype, seed=3)
    return list(torch.autograd.grad((result * weights).sum(), [x, *stack.parameters(), *masks_of(stack)]))


def masks_of(stack: InteractingLayers) -> list[Tensor]:
    return [layer.mask for layer in stack.layers if layer.mask is not None]  # type: ignore[misc]


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
    parameters = (*stack.parameters(), *masks_of(stack)[-1:])
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

    options = {
        "layers": 5, "heads": 4, "head_dim": 32, "residual": "identity", "scale": True, "layer_norm": True,
        "attention_dropout": 0.1, "dropout": 0.1, "hidden": [400, 400, 400],
    }  # fmt: skip
    model = build_model("autoint_plus", options, Layout({f"field{n}": 10 for n in range(10)}), 1)
    tables = 5389 * 10
    # ours has no idle bias in three hidden layers, and a bias in each of the two summed logits as theirs
    assert sum(p.numel() for p in model.parameters()) + tables == 622_180 - 3 * 400


def test_the_authors_code() -> None:
    """ReLU after each projection, scores over the square root of the head's width, norm after the ReLU."""
    stack = stack_of(torch.float64, layer_norm=True, norm_last=True, projection_relu=True, scale=True)
    layer = stack.layers[0]
    x = draw(2, 3, 5, dtype=torch.float64)
    weights, biases = layer.projection.chunk(4), layer.bias.chunk(4)  # type: ignore[operator, union-attr]
    query, key, value, residual = (
        (x @ weight.T + bias).clamp(min=0) for weight, bias in zip(weights, biases, strict=True)
    )
    mixed = []
    for head in (slice(0, 4), slice(4, 8)):
        scores = query[..., head] @ key[..., head].transpose(1, 2) / 2
        mixed.append(torch.softmax(scores, -1) @ value[..., head])
    before = (torch.cat(mixed, -1) + residual).clamp(min=0)
    centred = before - before.mean(-1, keepdim=True)
    normed = centred / torch.sqrt(before.var(-1, correction=0, keepdim=True) + 1e-5)
    expected = normed * layer.norm.weight + layer.norm.bias  # type: ignore[union-attr, operator]
    torch.testing.assert_close(layer(x), expected)


def test_wide_adds_a_weight_of_every_value() -> None:

    layout = Layout({"user": 5, "item": 5, "shop": 3}, ("age",))
    model = build_model("autoint_plus", {"wide": True, "hidden": [4]}, layout, 1).eval()
    inputs = make_inputs(layout, 6, 4)
    plain = model(inputs)
    more = {
        name: field + torch.nn.functional.one_hot(torch.tensor(0), field.shape[1])
        for name, field in inputs.fields.items()
    }
    torch.testing.assert_close(model(Inputs(more, inputs.numerics, inputs.missing)), plain + 3)
    assert sum(p.numel() for p in model.attention.projections.parameters()) == 4 * 2 + 4  # type: ignore[union-attr]
    with pytest.raises(ConfigError, match=r"2 wide or wider, found 1; raise plan.embedding_dim"):
        build_model("autoint", {"wide": True}, Layout({"user": 1}), 1)


@pytest.mark.parametrize("name", ["autoint", "autoint_plus"])
def test_the_papers_options_learn_and_export(name: str, tmp_path: Path) -> None:
    options = {
        "layers": 2, "scale": True, "layer_norm": True, "norm_place": "after_relu", "projection_relu": True,
        "wide": True, "embedding_dropout": 0.2, "attention_dropout": 0.2,
    }  # fmt: skip
    layout = layouts(name)["mixed"]
    model = build_model(name, options, layout, 1)
    inputs = make_inputs(layout, 9, 4)
    model(inputs).square().sum().backward()
    for part, parameter in model.named_parameters():
        assert parameter.grad is not None, part
        assert parameter.grad.abs().sum() > 0, part
    export_onnx(model.eval(), layout, tmp_path / "dense.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "dense.onnx"), providers=["CPUExecutionProvider"])
    tensors = zip(input_names(layout), flat_inputs(inputs, layout), strict=True)
    found = session.run(["logit"], {key: tensor.numpy() for key, tensor in tensors})[0]
    torch.testing.assert_close(torch.from_numpy(found), model(inputs).detach(), rtol=0, atol=1e-5)
