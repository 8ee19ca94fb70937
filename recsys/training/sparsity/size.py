"""How large a dense part is: parameters, and multiplications of the layers that can lose units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from recsys.models.axes import HiddenLayer


class Size:
    """Sizes of a model's dense part by the widths of its layers.

    In a perceptron every weight is one multiplication per row. Attention uses each weight once per field
    and multiplies fields with each other: few parameters, much time. So both are counted.

    Args:
        model: whole.
        layers: those that can lose units.
    """

    def __init__(self, model: nn.Module, layers: Sequence[HiddenLayer]) -> None:
        self._layers, self._full = layers, [layer.width for layer in layers]
        self._shapes = _shapes(model, layers)
        matrices = {id(axis.tensor): 1 for layer in layers for axis in (layer.axes[0], layer.axes[-1])}
        matrices |= {id(layer.axes[0].tensor): layer.uses for layer in layers}
        self._uses = [matrices.get(id(parameter), 0) for parameter in model.parameters()]
        self.whole = self.parameters(self._full)

    def parameters(self, widths: Sequence[int]) -> int:
        """Parameters of the whole dense part with layers of these widths."""
        return sum(self._numel(number, widths) for number in range(len(self._shapes)))

    def fits(self, widths: Sequence[int], density: float) -> bool:
        """Whether no more than a share of the parameters is kept, and of the multiplications.

        Heads are few: attention may always keep one per layer, and the perceptrons their share.
        """
        if self.parameters(widths) > density * self.whole:
            return False
        attention, others = self._multiplied(self._full)
        one_each = self._multiplied([1] * len(widths))[0]
        return sum(self._multiplied(widths)) <= max(density * attention, one_each) + density * others

    def costs(self, widths: Sequence[int]) -> list[float]:
        """What a unit of each layer holds now, as a share of all parameters plus one of multiplications."""
        parameters, multiplied = self.parameters(widths), sum(self._multiplied(widths))
        everything = sum(self._multiplied(self._full))
        found = []
        for number in range(len(widths)):
            less = [width - (other == number) for other, width in enumerate(widths)]
            saved = (parameters - self.parameters(less)) / self.whole
            found.append(saved + (multiplied - sum(self._multiplied(less))) / everything)
        return found

    def _multiplied(self, widths: Sequence[int]) -> tuple[int, int]:
        """Multiplications per row of attention, and of the other layers that can lose units."""
        attention = sum(layer.further * width for layer, width in zip(self._layers, widths, strict=True))
        others = 0
        for number, uses in enumerate(self._uses):
            if uses > 1:
                attention += uses * self._numel(number, widths)
            elif uses:
                others += self._numel(number, widths)
        return attention, others

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


def _shapes(
    model: nn.Module, layers: Sequence[HiddenLayer]
) -> list[tuple[torch.Size, Mapping[int, tuple[int, int]]]]:
    """Shape of every parameter, and of which of its dimensions which layer's units make up how much."""
    places: dict[int, dict[int, tuple[int, int]]] = {}
    for number, layer in enumerate(layers):
        for axis in layer.axes:
            places.setdefault(id(axis.tensor), {})[axis.dim] = (number, axis.per_unit)
    return [(parameter.shape, places.get(id(parameter), {})) for parameter in model.parameters()]
