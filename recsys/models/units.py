"""Hidden units of a model's perceptrons: where their weights stand, and cutting units out for good.

A model that names its perceptrons and what reads them in ``PERCEPTRONS`` can lose hidden units. A unit is
a row of its layer's matrix, its entries of the layer's bias, batch norm and activation, and a column of
the matrix that reads it. Nothing of a unit that is cut stays behind: the matrices are smaller.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from recsys.models.dropout import Dropout
from recsys.models.linear import Linear
from recsys.models.mlp import MLP
from recsys.models.options import Perceptrons

Cut = Callable[[Tensor], Tensor]
OnCut = Callable[[nn.Parameter, torch.Size, Cut], object]
"""Called with a parameter that was cut, its shape before, and what cuts another tensor of that shape."""


@dataclass(frozen=True)
class Axis:
    """A tensor with an entry, row or column per unit of a layer."""

    owner: nn.Module
    attribute: str
    dim: int

    @property
    def tensor(self) -> Tensor:
        """The tensor as it is now."""
        found: Tensor = getattr(self.owner, self.attribute)
        return found

    def cut(self, width: int, kept: Tensor, on_cut: OnCut) -> None:
        """Keep these of the layer's ``width`` units; entries before those of the units stay."""
        tensor, before = self.tensor, self.tensor.shape[self.dim] - width
        index = torch.cat([torch.arange(before, device=kept.device), before + kept])

        def cut(other: Tensor) -> Tensor:
            return other.index_select(self.dim, index)

        if isinstance(tensor, nn.Parameter):
            shape = tensor.shape
            tensor.data, tensor.grad = cut(tensor.data), None
            on_cut(tensor, shape, cut)
        else:
            setattr(self.owner, self.attribute, cut(tensor))


@dataclass(frozen=True)
class HiddenLayer:
    """The units of one layer of a perceptron."""

    name: str
    """``PERCEPTRON.NUMBER``."""
    weight: str
    """Name of the layer's matrix ``[units, inputs]`` in the model's state."""
    output: nn.Module
    """Module that gives the units' activations ``[N, units]``."""
    axes: tuple[Axis, ...]
    """Everything that belongs to the units; the layer's own matrix first, the one that reads it last."""

    @property
    def width(self) -> int:
        """Units there are now."""
        return self.axes[0].tensor.shape[0]

    @property
    def inputs(self) -> int:
        """Width of what the layer reads."""
        return self.axes[0].tensor.shape[1]

    @torch.no_grad()
    def keep(self, kept: Tensor, on_cut: OnCut = lambda *_: None) -> None:
        """Cut all units but these, int64 ``[units to keep]``."""
        width = self.width
        for axis in self.axes:
            axis.cut(width, kept, on_cut)


def hidden_layers(model: nn.Module) -> list[HiddenLayer]:
    """Hidden layers of a model's perceptrons that can lose units, in order; empty where it has none."""
    readers: Perceptrons = getattr(model, "PERCEPTRONS", {})
    return [layer for name, reader in readers.items() for layer in _layers_of(model, name, reader)]


def _layers_of(model: nn.Module, name: str, reader: str | None) -> Iterator[HiddenLayer]:
    perceptron = model.get_submodule(name)
    assert isinstance(perceptron, MLP)
    groups: list[list[tuple[str, nn.Module]]] = []
    for number, part in perceptron.layers.named_children():
        if isinstance(part, Linear):
            groups.append([])
        groups[-1].append((number, part))
    matrices = [group[0][1] for group in groups[1:]]
    if reader is not None:
        matrices.append(model.get_submodule(reader))
    for index, (group, matrix) in enumerate(zip(groups, matrices, strict=False)):
        own = [axis for _, part in group for axis in _axes_of(part)]
        yield HiddenLayer(
            name=f"{name}.{index}",
            weight=f"{name}.layers.{group[0][0]}.weight",
            output=group[-1][1],
            axes=(*own, Axis(matrix, "weight", 1)),
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
        units = shapes.get(layer.weight, (layer.width,))[0]
        if units < layer.width:
            layer.keep(torch.arange(units, device=layer.axes[0].tensor.device))
