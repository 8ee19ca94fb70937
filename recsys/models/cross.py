"""Cross layers (DCNv2), whole or with the outputs that training kept."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from recsys.models.axes import Axis, HiddenLayer, mask_output
from recsys.models.linear import Linear


class CrossLayer(Linear):
    """``W x + b`` for some entries of ``x_0`` alone: ``[B, width]`` to ``[B, units]``.

    ``columns``, int64 ``[units]``, says which; they stand in the state once some are out.
    """

    columns: Tensor

    def __init__(self, width: int) -> None:
        super().__init__(width, width)
        self.register_buffer("columns", torch.arange(width), persistent=False)

    @property
    def is_whole(self) -> bool:
        """Whether every entry has an output."""
        return len(self.columns) == self.weight.shape[1]

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if not self.is_whole:
            destination[f"{prefix}columns"] = self.columns

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *more: Any) -> None:
        columns = state_dict.pop(f"{prefix}columns", None)
        if columns is not None:
            self.columns.copy_(columns)
        super()._load_from_state_dict(state_dict, prefix, *more)


class CrossNetwork(nn.Module):
    """``x_(l+1) = x_0 * (W_l x_l + b_l) + x_l``, elementwise product (Wang et al. 2021, eq. 1).

    An entry whose output is out stays what it was in the layer before.
    """

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(CrossLayer(width) for _ in range(layers))

    def forward(self, x: Tensor) -> Tensor:
        """``[B, width]`` to ``[B, width]``."""
        first = x
        for layer in self.layers:
            assert isinstance(layer, CrossLayer)
            if layer.is_whole:
                x = torch.addcmul(x, first, layer(x))
            else:
                x = x.index_add(1, layer.columns, first.index_select(1, layer.columns) * layer(x))
        return x


def cross_layers_of(name: str, network: CrossNetwork) -> Iterator[HiddenLayer]:
    """The network's layers, whose units are their outputs; ``name`` is its own in the model."""
    for number, layer in enumerate(network.layers):
        assert isinstance(layer, CrossLayer)
        yield HiddenLayer(
            name=f"{name}.{number}",
            weight=f"{name}.layers.{number}.weight",
            mask=partial(mask_output, layer),
            axes=(Axis(layer, "weight", 0), Axis(layer, "bias", 0), Axis(layer, "columns", 0)),
        )
