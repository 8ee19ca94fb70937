"""Hidden units: what is cut is what a mask of zeros leaves out, in every model that can lose units."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from recsys.models import MODELS, build_model
from recsys.models.units import fit_units, hidden_layers
from tests.models.made import layouts, make_inputs

LAYOUT = layouts("dnn")["mixed"]
PRUNABLE = ("dnn", "deepfm", "dcnv2", "finalmlp", "autoint", "autoint_plus", "din", "dien")
OPTIONS: dict[str, Any] = {
    "finalmlp": {"hidden_1": [40, 30], "hidden_2": [20, 20]},
    "autoint": {"heads": 5, "head_dim": 4, "layer_norm": True, "projection_relu": True},
    "autoint_plus": {"heads": 4, "head_dim": 3, "layer_norm": True, "norm_place": "after_relu"},
}


@pytest.mark.parametrize("model", PRUNABLE)
def test_a_cut_model_is_the_masked_one(model: str) -> None:
    whole, cut = (build_model(model, OPTIONS.get(model, {}), LAYOUT, seed=3).eval() for _ in range(2))
    inputs = make_inputs(LAYOUT, 9, 4)
    for layer, same in zip(hidden_layers(whole), hidden_layers(cut), strict=True):
        kept = torch.randperm(layer.width, generator=torch.Generator().manual_seed(1))[: layer.width // 3]
        layer.mask(torch.zeros(layer.width).index_fill(0, kept, 1.0))
        same.keep(kept.sort().values)
        assert same.width == layer.width // 3
    with torch.no_grad():
        torch.testing.assert_close(cut(inputs), whole(inputs), atol=1e-6, rtol=0)
    assert sum(p.numel() for p in cut.parameters()) < sum(p.numel() for p in whole.parameters())


@pytest.mark.parametrize("model", PRUNABLE)
def test_a_fresh_model_takes_the_shapes_of_a_saved_one(model: str) -> None:
    saved, fresh = (build_model(model, OPTIONS.get(model, {}), LAYOUT, seed=seed) for seed in (1, 2))
    for layer in hidden_layers(saved):
        layer.keep(torch.tensor([0, 2, 3]))
    fit_units(fresh, {name: tuple(value.shape) for name, value in saved.state_dict().items()})
    fresh.load_state_dict(saved.state_dict())
    inputs = make_inputs(LAYOUT, 5, 4)
    with torch.no_grad():
        assert torch.equal(fresh.eval()(inputs), saved.eval()(inputs))


def test_what_a_layer_adds_its_input_to_keeps_its_heads() -> None:
    """The last of three layers reads columns of the first, which add up: none can go."""
    options = {"heads": 2, "head_dim": 3, "residual": "identity"}
    assert not hidden_layers(build_model("autoint", options, LAYOUT, seed=1))
    assert len(hidden_layers(build_model("autoint", {**options, "layers": 1}, LAYOUT, seed=1))) == 1


def test_what_weighs_events_can_lose_units() -> None:
    names = [layer.name for layer in hidden_layers(build_model("din", {}, LAYOUT, seed=1))]
    assert "units.0.0" in names
    assert "mlp.0" in names


def test_models_without_perceptrons_have_no_units() -> None:
    for model in set(MODELS) - set(PRUNABLE):
        assert not hidden_layers(build_model(model, {}, layouts(model)["fields"], seed=1))
