"""A layer's units: where their weights stand, masking them, and cutting them out for good.

A unit is what a layer can lose as a whole. What belongs to it stands at the same places of several tensors:
rows of the layer's matrix, entries of its bias and norm, columns of the matrix that reads it. Nothing of a
unit that is cut stays behind: the matrices are smaller.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

Cut = Callable[[Tensor], Tensor]
OnCut = Callable[[nn.Parameter, torch.Size, Cut], object]
"""Called with a parameter that was cut, its shape before, and what cuts another tensor of that shape."""
Undo = Callable[[], None]


def mask_output(module: nn.Module, mask: Tensor) -> Undo:
    """Multiply a module's outputs ``[..., units]`` by a mask ``[units]`` from now on."""
    return module.register_forward_hook(lambda module, inputs, output: output * mask).remove


@dataclass(frozen=True)
class Axis:
    """A tensor with entries, rows or columns of a layer's units, at the end of one dimension."""

    owner: nn.Module
    attribute: str
    dim: int
    repeats: int = 1
    """Times that all the units follow each other."""
    block: int = 1
    """Entries of a unit that are side by side."""

    @property
    def per_unit(self) -> int:
        """Entries of a unit."""
        return self.repeats * self.block

    @property
    def tensor(self) -> Tensor:
        """The tensor as it is now."""
        found: Tensor = getattr(self.owner, self.attribute)
        return found

    def entries(self, width: int, units: Tensor) -> Tensor:
        """Indices of these of the layer's ``width`` units, int64 ``[per_unit * units]``."""
        before = self.tensor.shape[self.dim] - width * self.per_unit
        start = torch.arange(self.repeats, device=units.device).mul(width).unsqueeze(1) + units
        inner = torch.arange(self.block, device=units.device)
        return before + (start.unsqueeze(2) * self.block + inner).flatten()

    def cut(self, width: int, kept: Tensor, on_cut: OnCut) -> None:
        """Keep these of the layer's ``width`` units; entries before those of the units stay."""
        tensor = self.tensor
        before = tensor.shape[self.dim] - width * self.per_unit
        index = torch.cat([torch.arange(before, device=kept.device), self.entries(width, kept)])

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
    """The units of one layer."""

    name: str
    weight: str
    """Name of the layer's matrix ``[units * per_unit, inputs]`` in the model's state."""
    mask: Callable[[Tensor], Undo]
    """Multiplies units' activations from now on by a mask ``[units]``, differentiably."""
    axes: tuple[Axis, ...]
    """Everything that belongs to the units; the layer's own matrix first, the one that reads it last."""
    outputs: nn.Module | None = None
    """Gives the activations ``[..., units]`` that the next layer reads a linear combination of, before mask
    and dropout; None where it reads something else of them."""
    uses: int = 1
    """Vectors of a row that the layer's matrix is multiplied with."""
    further: int = 0
    """Multiplications per row and unit beside those with matrices."""

    @property
    def width(self) -> int:
        """Units there are now."""
        return self.axes[0].tensor.shape[0] // self.axes[0].per_unit

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
