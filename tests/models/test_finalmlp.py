"""FinalMLP against its equations, and its contexts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor

from recsys.errors import ConfigError
from recsys.models import build_model, parse_options
from recsys.models.finalmlp import BilinearFusion, FinalMLP
from recsys.models.initialise import initialise
from recsys.models.inputs import Inputs, Layout
from recsys.models.onnx_graph import export_onnx, flat_inputs, input_names
from tests.models.made import doubled, layouts, make_inputs

SETTINGS: dict[str, Any] = {
    "hidden_1": [12, 6],
    "hidden_2": [9],
    "heads": 3,
    "context_1": ["user", "age"],
    "context_2": ["shops"],
    "gate_hidden": [5],
}


def built(options: dict[str, Any]) -> tuple[FinalMLP, Layout]:
    """A model whose weights are all unlike zero, in evaluation mode."""
    layout = layouts("finalmlp")["mixed"]
    model = build_model("finalmlp", options, layout, 1).eval()
    assert isinstance(model, FinalMLP)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
    return model, layout


def named(layout: Layout, vectors: Tensor, widths: tuple[int, ...]) -> dict[str, Tensor]:
    """Vectors by feature: fields, numbers, sequences."""
    names = [*layout.fields, *layout.numerics, *layout.sequences]
    return dict(zip(names, torch.split(vectors, list(widths), 1), strict=True))


def bilinear(fusion: BilinearFusion, left: Tensor, right: Tensor) -> Tensor:
    """Element by element."""
    heads, per_right, per_left = fusion.weight.shape
    weight, bias = fusion.linear.linear.weight[0], fusion.linear.linear.bias
    assert bias is not None
    rows = []
    for x, y in zip(left, right, strict=True):
        total = bias[0] + weight[: len(x)] @ x + weight[len(x) :] @ y
        for head in range(heads):
            for i in range(per_left):
                for j in range(per_right):
                    total = (
                        total + x[head * per_left + i] * fusion.weight[head, j, i] * y[head * per_right + j]
                    )
        rows.append(total)
    return torch.stack(rows)


def gates(gate: Any, context: Tensor) -> Tensor:
    first, last = gate.mlp.layers[0], gate.linear
    hidden = (context @ first.weight.t() + first.bias).clamp(min=0)
    return 2 / (1 + torch.exp(-(hidden @ last.weight.t() + last.bias)))


def test_gates_streams_and_fusion_are_the_papers() -> None:
    model, layout = built(SETTINGS)
    inputs = doubled(make_inputs(layout, 6, 4))
    vectors = model.double().vectors(inputs)
    by_name = named(layout, vectors, model.vectors.widths)
    first = vectors * gates(model.gates[0], torch.cat([by_name["user"], by_name["age"]], 1))
    second = vectors * gates(model.gates[1], by_name["shops"])
    expected = bilinear(model.fusion, model.streams[0](first), model.streams[1](second))
    torch.testing.assert_close(model(inputs), expected)


def test_without_context_gates_are_constant_and_start_at_one() -> None:
    layout = layouts("finalmlp")["mixed"]
    inputs = make_inputs(layout, 6, 4)
    model = build_model("finalmlp", {}, layout, 1).eval()
    plain = build_model("finalmlp", {"gating": False}, layout, 1).eval()
    assert not any("gates" in name for name, _ in plain.named_parameters())
    torch.testing.assert_close(model(inputs), plain(inputs))
    model, _ = built({})
    vectors = model.vectors(inputs)
    state = model.state_dict()
    left, right = (
        stream(vectors * 2 * state[f"gates.{index}.logits"].sigmoid())
        for index, stream in enumerate(model.streams)
    )
    torch.testing.assert_close(model(inputs), model.fusion(left, right))


def test_elements_meet_within_their_head_only() -> None:
    fusion = BilinearFusion(4, 6, 2)
    initialise(fusion, torch.Generator().manual_seed(1))
    x = torch.ones(1, 4, requires_grad=True)
    y = torch.ones(1, 6, requires_grad=True)
    (by_x,) = torch.autograd.grad(fusion(x, y).sum(), x, create_graph=True)
    met = torch.cat([torch.autograd.grad(element, y, retain_graph=True)[0] for element in by_x[0]]) != 0
    left, right = torch.arange(4) // 2, torch.arange(6) // 3
    assert torch.equal(met, left.unsqueeze(1) == right)
    assert fusion.weight.numel() == 4 * 6 // 2


def test_parameters_of_bars_frappe_settings() -> None:
    """Those of BARS (253,392) without tables, biases before batch norm and a second bias of the logit."""
    layout = Layout(dict.fromkeys(["user", "item", *"abcdefgh"], 10))
    options = {
        "hidden_1": [400],
        "hidden_2": [100],
        "dropout_1": 0.4,
        "dropout_2": 0.4,
        "heads": 5,
        "gate_hidden": [400],
        "context_1": ["user"],
        "context_2": ["item"],
    }
    model = build_model("finalmlp", options, layout, 1)
    gate = 10 * 400 + 400 + 400 * 100 + 100
    streams = 100 * 400 + 2 * 400 + 100 * 100 + 2 * 100
    fusion = 400 + 100 + 1 + 400 * 100 // 5
    assert sum(p.numel() for p in model.parameters()) == 2 * gate + streams + fusion


def test_contexts_are_exported(tmp_path: Path) -> None:
    model, layout = built(SETTINGS)
    path = tmp_path / "dense.onnx"
    export_onnx(model, layout, path)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for rows, longest in [(9, 5), (1, 1), (3, 0), (0, 0)]:
        inputs: Inputs = make_inputs(layout, rows, longest)
        tensors = zip(input_names(layout), flat_inputs(inputs, layout), strict=True)
        found = session.run(["logit"], {key: tensor.numpy() for key, tensor in tensors})[0]
        np.testing.assert_allclose(found, model(inputs).detach().numpy(), rtol=0, atol=1e-5)


def test_what_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"model.heads: .*must divide the last width of hidden_2, 9 "):
        parse_options("finalmlp", {"hidden_1": [8], "hidden_2": [9], "heads": 2})
    with pytest.raises(
        ConfigError,
        match=r"model 'finalmlp': context_1 names 'usr', which is no feature; did you mean 'user'\?",
    ):
        build_model("finalmlp", {"context_1": ["usr"]}, Layout({"user": 4, "item": 4}), 1)
    with pytest.raises(ConfigError, match=r"model.hidden_1: .*at least 1 item"):
        parse_options("finalmlp", {"hidden_1": []})
