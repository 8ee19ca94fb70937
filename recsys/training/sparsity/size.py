"""How large a dense part is: its parameters, and the multiplications of its attention."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import nn

from recsys.models.axes import HiddenLayer

Measure = Callable[[Sequence[int]], int]
"""A size, given the widths of the layers."""


class Size:
    """Sizes of a model's dense part by the widths of its layers.

    In a perceptron every weight is one multiplication per row. Attention uses each weight once per field
    and multiplies fields with each other, or uses it once per event: few parameters, much time. So it has a
    bound of its own.

    Args:
        model: whole.
        layers: those that can lose units.
    """

    def __init__(self, model: nn.Module, layers: Sequence[HiddenLayer]) -> None:
        self._layers, self._full = layers, [layer.width for layer in layers]
        self._shapes = _shapes(model, layers)
        uses = {id(layer.axes[0].tensor): layer.uses for layer in layers if layer.uses > 1}
        self._uses = [uses.get(id(parameter), 0) for parameter in model.parameters()]
        self.whole = self.parameters(self._full)

    def parameters(self, widths: Sequence[int]) -> int:
        """Parameters of the whole dense part with layers of these widths."""
        return sum(self._numel(number, widths) for number in range(len(self._shapes)))

    def attention(self, widths: Sequence[int]) -> int:
        """Multiplications per row of the layers that can lose heads."""
        between = sum(layer.further * width for layer, width in zip(self._layers, widths, strict=True))
        return between + sum(
            uses * self._numel(number, widths) for number, uses in enumerate(self._uses) if uses
        )

    def bounds(self, density: float) -> list[tuple[Measure, float]]:
        """What is measured, and how much of it may be kept, in the order to be met.

        Heads are few: attention may always keep one per layer.
        """
        attention = max(density * self.attention(self._full), self.attention([1] * len(self._full)))
        return [(self.attention, attention), (self.parameters, density * self.whole)]

    def _numel(self, number: int, widths: Sequence[int]) -> int:
        """Elements of a parameter with layers of these widths."""
        shape, places = self._shapes[number]
        size = 1
        for dim, length in enumerate(shape):
            if dim in places:
                layer, per_unit = places[dim]
                length -= per_unit * (self._full[layer] - widths[layer])
            size *= length
        return size


def unit_costs(measure: Measure, widths: Sequence[int]) -> list[int]:
    """What a unit of each layer adds to a measure, with layers of these widths."""
    less = [
        [width - (other == number) for other, width in enumerate(widths)] for number in range(len(widths))
    ]
    return [measure(widths) - measure(each) for each in less]


def _shapes(
    model: nn.Module, layers: Sequence[HiddenLayer]
) -> list[tuple[torch.Size, Mapping[int, tuple[int, int]]]]:
    """Shape of every parameter, and of which of its dimensions which layer's units make up how much."""
    places: dict[int, dict[int, tuple[int, int]]] = {}
    for number, layer in enumerate(layers):
        for axis in layer.axes:
            places.setdefault(id(axis.tensor), {})[axis.dim] = (number, axis.per_unit)
    return [(parameter.shape, places.get(id(parameter), {})) for parameter in model.parameters()]
