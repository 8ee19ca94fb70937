"""Heads of interacting layers, as units that a model can lose.

A head is its rows of queries, keys, values and projected residual, its entries of the layer norm, and the
columns that read it: of the next layer's projection, or for the last layer, of every field in the logit's
matrix. Where a layer adds its input itself (``residual: identity``), columns of its output are those of its
input, and neither it nor the layer before can lose heads.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from recsys.models.axes import Axis, HiddenLayer
from recsys.models.interacting import InteractingLayer, InteractingLayers
from recsys.models.linear import Linear


def heads_of(model: nn.Module, name: str, reader: str) -> Iterator[HiddenLayer]:
    """Layers that can lose heads, of the stack of that name; ``reader`` reads all fields of the last."""
    stack, last = model.get_submodule(name), model.get_submodule(reader)
    assert isinstance(stack, InteractingLayers)
    assert isinstance(last, Linear)
    layers = [layer for layer in stack.layers if isinstance(layer, InteractingLayer)]
    fields = last.weight.shape[1] // layers[-1].outputs
    for number, layer in enumerate(layers):
        following = layers[number + 1] if number + 1 < len(layers) else None
        if layer.identity or (following is not None and following.identity):
            continue
        block = layer.head_dim
        axes = [Axis(layer, "projection", 0, layer.parts, block)]
        if layer.bias is not None:
            axes.append(Axis(layer, "bias", 0, layer.parts, block))
        if layer.norm is not None:
            axes += [Axis(layer.norm, "weight", 0, 1, block), Axis(layer.norm, "bias", 0, 1, block)]
        if following is None:
            axes.append(Axis(last, "weight", 1, fields, block))
        else:
            axes.append(Axis(following, "projection", 1, 1, block))
        yield HiddenLayer(
            name=f"{name}.{number}",
            weight=f"{name}.layers.{number}.projection",
            mask=layer.mask_heads,
            axes=tuple(axes),
            uses=fields,
            further=2 * fields * fields * block,
        )
