"""FM and DeepFM against their equations, pair by pair."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from recsys.errors import ConfigError
from recsys.models import build_model
from recsys.models.fm import FactorPairs
from recsys.models.inputs import Inputs, Layout
from tests.models.made import doubled, layouts, make_inputs

KINDS = ["mixed", "fields", "numbers", "history", "sequences"]


def built(name: str, kind: str) -> tuple[Any, Inputs]:
    """A model in double precision, its weights all unlike zero, and 6 rows."""
    layout = layouts(name)[kind]
    model: Any = build_model(name, {}, layout, 1).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1)
    return model, doubled(make_inputs(layout, 6, 4))


def apart(model: Any, inputs: Inputs) -> tuple[Tensor, list[Tensor]]:
    """Sum of the first-order weights, and every field's factors, all of one width."""
    whole: Tensor = model.factors.vectors(inputs)
    vectors = torch.split(whole, list(model.factors.vectors.widths), 1)
    projections = model.pairs.projections
    factors = [vector[:, 1:] for vector in vectors]
    for index, projection in projections.items():
        factors[int(index)] = factors[int(index)] @ projection.weight.t()
    return torch.stack([vector[:, 0] for vector in vectors]).sum(0), factors


def by_pairs(weights: Tensor, factors: list[Tensor]) -> Tensor:
    total = weights.clone()
    for left, right in itertools.combinations(factors, 2):
        for row in range(len(total)):
            total[row] += torch.dot(left[row], right[row])
    return total


@pytest.mark.parametrize("kind", KINDS)
def test_fm_is_weights_and_all_pairs(kind: str) -> None:
    model, inputs = built("fm", kind)
    expected = by_pairs(*apart(model, inputs)) + model.bias
    torch.testing.assert_close(model(inputs), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_deepfm_adds_a_perceptron_of_the_factors_alone(kind: str) -> None:
    model, inputs = built("deepfm", kind)
    model.eval()
    whole = model.factors.vectors(inputs)
    vectors = torch.split(whole, list(model.factors.vectors.widths), 1)
    deep = model.head(model.mlp(torch.cat([vector[:, 1:] for vector in vectors], 1)))
    torch.testing.assert_close(model(inputs), by_pairs(*apart(model, inputs)) + deep)


def test_fm_of_two_values_by_hand() -> None:
    model = build_model("fm", {}, Layout({"user": 3, "item": 3}), 1)
    inputs = Inputs(
        fields={"user": torch.tensor([[0.5, 1.0, 2.0]]), "item": torch.tensor([[-2.0, 3.0, 4.0]])}
    )
    assert model(inputs).item() == 0.5 - 2.0 + 1.0 * 3.0 + 2.0 * 4.0


def test_a_number_has_a_weight_and_factors() -> None:
    layout = Layout({"item": 3}, ("age",))
    model: Any = build_model("fm", {}, layout, 1)
    numbers = model.factors.vectors.numerics
    item = torch.tensor([[0.5, 1.0, 2.0]])
    inputs = Inputs({"item": item}, {"age": torch.tensor([3.0])}, {"age": torch.tensor([0.0])})
    slope = numbers.slope[0]
    expected = 0.5 + 3 * slope[0] + 3 * slope[1:] @ item[0, 1:]
    torch.testing.assert_close(model(inputs), expected.view(1))


def test_only_factors_of_another_width_are_projected() -> None:
    pairs = FactorPairs((4, 2, 4))
    assert {name: tuple(p.shape) for name, p in pairs.named_parameters()} == {
        "projections.1.weight": (4, 2)
    }


@pytest.mark.parametrize("name", ["fm", "deepfm"])
def test_a_vector_without_room_for_a_factor_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"model '{name}': .*2 wide or wider, found 1; .*embedding_dim"):
        build_model(name, {}, Layout({"user": 4, "item": 1}), 1)
    with pytest.raises(ConfigError, match=r"model.numeric_dim: .*greater than or equal to 2"):
        build_model(name, {"numeric_dim": 1}, Layout({"user": 4}, ("age",)), 1)
