"""What models say of their attention, against softmax and scores written out from their weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from recsys.models import MODELS, build_model
from recsys.models.activation_unit import ActivationUnit
from recsys.models.autoint import AutoInt
from recsys.models.din import DIN
from recsys.models.explained import MapsFields, WeighsEvents
from recsys.models.inputs import Layout
from recsys.models.units import hidden_layers
from tests.models.made import doubled, layouts, make_inputs

AUTOINT: list[dict[str, Any]] = [
    {"layers": 3, "heads": 2, "head_dim": 4},
    {"layers": 2, "heads": 3, "head_dim": 4, "residual": "identity", "scale": True, "layer_norm": True},
    {"layers": 2, "heads": 1, "head_dim": 8, "residual": "none"},
]


def wide_layout() -> Layout:
    """More fields than the short softmax takes."""
    return Layout({f"field{n}": 8 for n in range(17)}, ("age",))


def written_out(model: AutoInt, x: Tensor, settings: dict[str, Any]) -> Tensor:
    """Maps by the paper's equations, head by head, from ``x [B, M, D]``."""
    heads, dim = settings["heads"], settings["head_dim"]
    found = []
    for layer in model.attention.layers.layers:
        parts = layer.projection.split(heads * dim)  # type: ignore[operator, union-attr]
        query, key, value = ((x @ part.T).unflatten(2, (heads, dim)).transpose(1, 2) for part in parts[:3])
        scores = query @ key.transpose(2, 3)
        if settings.get("scale"):
            scores = scores / dim**0.5
        weights = scores.exp() / scores.exp().sum(-1, keepdim=True)
        found.append(weights)
        mixed = (weights @ value).transpose(1, 2).flatten(2)
        if len(parts) == 4:
            mixed = mixed + x @ parts[3].T
        elif settings.get("residual") == "identity":
            mixed = mixed + x
        if layer.norm is not None:
            mixed = layer.norm(mixed)  # type: ignore[operator]
        x = mixed.clamp(min=0)
    return torch.stack(found, 1)


@pytest.mark.parametrize("name", ["autoint", "autoint_plus"])
@pytest.mark.parametrize("settings", AUTOINT)
@pytest.mark.parametrize("layout", [layouts("autoint")["mixed"], wide_layout()], ids=["mixed", "wide"])
@torch.no_grad()
def test_maps_are_the_softmax_that_is_computed(name: str, settings: dict[str, Any], layout: Layout) -> None:
    model = build_model(name, settings, layout, 1).double().eval()
    assert isinstance(model, AutoInt)
    inputs = doubled(make_inputs(layout, 37, 4))
    maps = model.attention_maps(inputs)
    fields = len(model.field_names)
    assert maps.shape == (37, settings["layers"], settings["heads"], fields, fields)
    x = model.attention.evened(model.vectors(inputs))
    torch.testing.assert_close(maps, written_out(model, x, settings))
    torch.testing.assert_close(maps.sum(-1), torch.ones(maps.shape[:-1], dtype=torch.float64))


@torch.no_grad()
def test_values_mixed_by_the_maps_are_the_layers_output() -> None:
    layout = layouts("autoint")["mixed"]
    settings = {"layers": 1, "heads": 2, "head_dim": 4, "residual": "none"}
    model = build_model("autoint", settings, layout, 1).eval()
    assert isinstance(model, AutoInt)
    inputs = make_inputs(layout, 9, 4)
    x = model.attention.evened(model.vectors(inputs))
    values = (x @ model.attention.layers.layers[0].projection.split(8)[2].T).unflatten(2, (2, 4))  # type: ignore[operator, union-attr]
    mixed = torch.einsum("bhij,bjhd->bihd", model.attention_maps(inputs)[:, 0], values)
    torch.testing.assert_close(model.attention.layers(x), mixed.flatten(2).clamp(min=0))


def test_fields_are_named_in_their_order() -> None:
    model = build_model("autoint", {}, layouts("autoint")["mixed"], 1)
    assert isinstance(model, AutoInt)
    assert model.field_names == ("user", "item", "shop", "age", "price", "items", "shops", "words")


@pytest.mark.parametrize("softmax", [False, True])
@torch.no_grad()
def test_event_weights_are_what_events_are_multiplied_by(softmax: bool) -> None:
    layout = layouts("din")["mixed"]
    model = build_model("din", {"softmax": softmax}, layout, 1).double()
    for seed in range(3):
        model(doubled(make_inputs(layout, 64, 5, seed=seed)))
    model.eval()
    assert isinstance(model, DIN)
    assert model.histories == (("items", "shops"),)
    inputs = doubled(make_inputs(layout, 20, 5))
    (weights,) = model.event_weights(inputs)
    lengths = inputs.lengths["items"]
    keys = torch.cat([inputs.sequences["items"], inputs.sequences["shops"]], 2)
    query = torch.cat([inputs.fields["item"], inputs.fields["shop"]], 1)
    unit = model.units[0]
    assert isinstance(unit, ActivationUnit)
    for row, length in enumerate(lengths.tolist()):
        assert (weights[row, length:] == 0).all()
        scores = torch.stack(
            [score(unit, query[row], key) for key in keys[row, :length]] or [torch.empty(0)]
        )
        expected = scores.flatten().double()
        if softmax:
            expected = expected.exp() / expected.exp().sum()
        torch.testing.assert_close(weights[row, :length], expected)
    pooled = torch.einsum("bh,bhd->bd", weights, keys)
    torch.testing.assert_close(unit(query, keys, lengths), pooled)


def score(unit: ActivationUnit, query: Tensor, key: Tensor) -> Tensor:
    """The activation unit's score of one event, in evaluation."""
    x = torch.cat([query, key, query - key, query * key])
    for linear, activation in zip(unit.linears, unit.activations, strict=True):
        x = linear.weight @ x + linear.bias  # type: ignore[operator]
        x = activation(x.unsqueeze(0)).squeeze(0)
    return unit.score.weight @ x + unit.score.bias  # type: ignore[no-any-return]


def test_who_can_explain() -> None:
    def kinds(name: str) -> tuple[bool, bool]:
        model: nn.Module = build_model(name, {}, layouts(name)["mixed"], 1)
        return isinstance(model, MapsFields), isinstance(model, WeighsEvents)

    fields, events = (True, False), (False, True)
    attending = {"autoint": fields, "autoint_plus": fields, "din": events, "dien": events}
    assert {name: kinds(name) for name in MODELS} == {
        name: attending.get(name, (False, False)) for name in MODELS
    }


def test_maps_of_layers_with_fewer_heads_end_in_zeros() -> None:
    """Of heads 1 and 2 of three, the maps are those of the whole layer; what is lost is no attention."""
    layout = Layout({"user": 6, "item": 6, "shop": 6})
    options = {"layers": 2, "heads": 3, "head_dim": 4, "hidden": [8]}
    model = build_model("autoint_plus", options, layout, 1).eval()
    assert isinstance(model, AutoInt)
    inputs = make_inputs(layout, 5, 4)
    whole = model.attention_maps(inputs)
    hidden_layers(model)[0].keep(torch.tensor([1, 2]))
    cut = model.attention_maps(inputs)
    torch.testing.assert_close(cut[:, 0, :2], whole[:, 0, 1:])
    assert not cut[:, 0, 2].any()
    torch.testing.assert_close(cut[:, 1].sum(-1), torch.ones(5, 3, 3))
