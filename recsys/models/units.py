"""What a model can lose: hidden units of its perceptrons, heads of its interacting layers, crossed outputs.

A model names its perceptrons and what reads them in ``PERCEPTRONS``, its interacting layers in ``HEADS``;
the perceptrons of activation units and cross networks are found. A hidden unit is a row of its layer's
matrix, entries of the layer's bias, batch norm and activation, and a column of the matrix that reads it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import torch
from torch import nn

from recsys.models.activation_unit import ActivationUnit
from recsys.models.axes import Axis, HiddenLayer, mask_output
from recsys.models.cross import CrossNetwork, cross_layers_of
from recsys.models.dropout import Dropout
from recsys.models.heads import heads_of
from recsys.models.linear import Linear
from recsys.models.mlp import MLP
from recsys.models.options import Perceptrons

_Group = list[tuple[str, nn.Module]]
"""A layer's own modules by name, its matrix first."""
_EVENTS = 50
"""Events that a row is taken to have: how many there are, a model does not know."""


def hidden_layers(model: nn.Module) -> list[HiddenLayer]:
    """Layers of a model that can lose hidden units, heads or outputs, in order; empty where it has none."""
    attention: Mapping[str, str] = getattr(model, "HEADS", {})
    readers: Perceptrons = getattr(model, "PERCEPTRONS", {})
    crossed = [(name, part) for name, part in model.named_modules() if isinstance(part, CrossNetwork)]
    units = [(name, part) for name, part in model.named_modules() if isinstance(part, ActivationUnit)]
    return [
        *(layer for name, reader in attention.items() for layer in heads_of(model, name, reader)),
        *(layer for name, network in crossed for layer in cross_layers_of(name, network)),
        *(layer for name, unit in units for layer in _layers_of_unit(name, unit)),
        *(layer for name, reader in readers.items() for layer in _layers_of(model, name, reader)),
    ]


def _layers_of(model: nn.Module, name: str, reader: str | None) -> Iterator[HiddenLayer]:
    owner, _, attribute = name.rpartition(".")
    perceptron = getattr(model.get_submodule(owner), attribute)
    if perceptron is None:  # built without hidden layers
        return
    assert isinstance(perceptron, MLP)
    groups: list[_Group] = []
    for number, part in perceptron.layers.named_children():
        if isinstance(part, Linear):
            groups.append([])
        groups[-1].append((f"{name}.layers.{number}", part))
    last = None if reader is None else model.get_submodule(reader)
    yield from _chained(name, groups, last, uses=1)


def _layers_of_unit(name: str, unit: ActivationUnit) -> Iterator[HiddenLayer]:
    groups: list[_Group] = [
        [(f"{name}.linears.{number}", linear), (f"{name}.activations.{number}", activation)]
        for number, (linear, activation) in enumerate(zip(unit.linears, unit.activations, strict=True))
    ]
    yield from _chained(name, groups, unit.score, uses=_EVENTS)


def _chained(
    name: str, groups: Sequence[_Group], last: nn.Module | None, *, uses: int
) -> Iterator[HiddenLayer]:
    """Layers, each read by the first module of the next one; the last one by ``last``, or else whole."""
    matrices = [group[0][1] for group in groups[1:]]
    if last is not None:
        matrices.append(last)
    for index, (group, matrix) in enumerate(zip(groups, matrices, strict=False)):
        own = [axis for _, part in group for axis in _axes_of(part)]
        outputs = [part for _, part in group if not isinstance(part, Dropout)]
        yield HiddenLayer(
            name=f"{name}.{index}",
            weight=f"{group[0][0]}.weight",
            mask=partial(mask_output, group[-1][1]),
            axes=(*own, Axis(matrix, "weight", 1)),
            outputs=outputs[-1],
            uses=uses,
        )


def _axes_of(part: nn.Module) -> Iterator[Axis]:
    """Tensors of a layer, a norm or an activation: all have an entry or a row per unit."""
    if isinstance(part, Dropout):
        return
    for owner in part.modules():
        for attribute, tensor in (
            *owner.named_parameters(recurse=False),
            *owner.named_buffers(recurse=False),
        ):
            if tensor.dim():
                yield Axis(owner, attribute, 0)


def fit_units(model: nn.Module, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Cut a freshly built model to the shapes of a saved one, by names of its state; loads no weights.

    >>> from recsys.models import build_model
    >>> from recsys.models.inputs import Layout
    >>> model = build_model("dnn", {"hidden": [8, 4]}, Layout({"user": 2}), seed=1)
    >>> fit_units(model, {"mlp.layers.0.weight": (5, 2), "mlp.layers.3.weight": (4, 5)})
    >>> [layer.width for layer in hidden_layers(model)]
    [5, 4]
    """
    for layer in hidden_layers(model):
        matrix = layer.axes[0]
        units = shapes.get(layer.weight, matrix.tensor.shape)[0] // matrix.per_unit
        if units < layer.width:
            layer.keep(torch.arange(units, device=matrix.tensor.device))
