"""AutoInt's interacting layers: self-attention over the fields of a row."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from recsys.models.dropout import Dropout
from recsys.models.initialise import xavier_normal
from recsys.models.interacting_blocks import (
    LayerTensors,
    attention_in_blocks,
    interact_in_blocks,
    masked_output,
)
from recsys.models.linear import Precision, product

Residual = Literal["projected", "identity", "none"]


class InteractingLayer(nn.Module):
    """One interacting layer (AutoInt, Song et al. 2019, eq. 5 to 8).

    Per head, ``softmax(Q K^T) V`` over the fields; heads side by side, plus the residual, then ReLU, with
    a layer norm before or after it if asked for. The projections to Q, K, V and the projected residual
    are one matrix, without a bias as in the paper.

    Args:
        inputs: width of the field vectors.
        heads: number of heads.
        head_dim: width of each head.
        residual: see :class:`InteractingLayers`.
        scale: divide scores by the square root of ``head_dim``.
        layer_norm: normalise each field's vector.
        norm_last: after the ReLU (the authors' code) instead of before it (BARS).
        projection_relu: give Q, K, V and the projected residual a bias and a ReLU each, as the authors'
            code does.
        dropout: of attention weights.
    """

    precision: Precision = "fp32"
    mask: Tensor | None = None
    """``[heads]``, 0 for a head that is out, while it is tried which ones to keep."""

    def __init__(
        self,
        inputs: int,
        heads: int,
        head_dim: int,
        *,
        residual: Residual,
        scale: bool,
        layer_norm: bool,
        norm_last: bool,
        projection_relu: bool,
        dropout: float,
    ) -> None:
        super().__init__()
        width = heads * head_dim
        self.head_dim = head_dim
        projected = residual == "projected" or (residual == "identity" and inputs != width)
        self.parts = 4 if projected else 3
        """Matrices that are one: of queries, keys, values, and perhaps the residual."""
        self.identity = residual == "identity" and not projected
        self.factor = 1 / math.sqrt(head_dim) if scale else 1.0
        self.projection = nn.Parameter(torch.empty(self.parts * width, inputs))
        self.bias = nn.Parameter(torch.empty(self.parts * width)) if projection_relu else None
        self.norm = nn.LayerNorm(width) if layer_norm else None
        self.norm_last = layer_norm and norm_last
        self.dropout = Dropout(dropout) if dropout else None

    @property
    def outputs(self) -> int:
        """Width of the output."""
        return self.projection.shape[0] // self.parts

    @property
    def heads(self) -> int:
        """Heads there are; fewer than were built where some have been cut."""
        return self.outputs // self.head_dim

    def initialise(self, generator: torch.Generator) -> None:
        """Draw queries, keys, values and residual as matrices of their own."""
        for part in self.projection.chunk(self.parts):
            xavier_normal(part, generator)
        if self.bias is not None:
            self.bias.zero_()

    def tensors(self, rows: int, fields: int) -> LayerTensors:
        """What the blockwise computation needs; draws the dropout of ``rows`` rows."""
        keep, rescale = None, 1.0
        if self.dropout is not None and self.dropout.active:
            shape = (rows, self.heads, fields, fields)
            keep, rescale = self.dropout.keep(shape, self.projection.device), self.dropout.scale
        return LayerTensors(
            projection=self._scaled(self.projection),
            bias=None if self.bias is None else self._scaled(self.bias),
            norm_weight=None if self.norm is None else self.norm.weight,
            norm_bias=None if self.norm is None else self.norm.bias,
            keep=keep,
            mask=self._mask_of_columns(),
            heads=self.heads,
            width=self.outputs,
            rescale=rescale,
            identity=self.identity,
            norm_last=self.norm_last,
        )

    def mask_heads(self, mask: Tensor) -> Callable[[], None]:
        """Multiply what heads give by a mask ``[heads]``; returns what undoes that."""
        self.mask = mask
        return lambda: setattr(self, "mask", None)

    def _mask_of_columns(self) -> Tensor | None:
        return None if self.mask is None else self.mask.repeat_interleave(self.head_dim)

    def _scaled(self, parameter: Tensor) -> Tensor:
        """The projection or its bias, with the scores' scale moved into the queries."""
        if self.factor == 1.0:
            return parameter
        queries, others = parameter.tensor_split([self.outputs])
        return torch.cat([queries * self.factor, others])

    def forward(self, x: Tensor) -> Tensor:
        """``[B, M, inputs]`` to ``[B, M, outputs]``, in one piece."""
        heads = (self.heads, self.head_dim)
        bias = None if self.bias is None else self._scaled(self.bias)
        together = product(x, self._scaled(self.projection), bias, self.precision, relu=bias is not None)
        parts = torch.chunk(together, self.parts, -1)
        query, key, value = (part.reshape(*x.shape[:2], *heads).transpose(1, 2) for part in parts[:3])
        if self.precision == "bf16" and not torch.compiler.is_exporting():
            query, key, value = query.bfloat16(), key.bfloat16(), value.bfloat16()
        weights = torch.softmax((query @ key.transpose(2, 3)).to(x.dtype), -1)
        if self.dropout is not None:
            weights = self.dropout(weights)
        mixed = (weights.to(value.dtype) @ value).to(x.dtype)
        mixed = mixed.transpose(1, 2).reshape(*x.shape[:2], self.outputs)
        if self.parts == 4:
            mixed = mixed + parts[3]
        elif self.identity:
            mixed = mixed + x
        return self._finished(mixed)

    def _finished(self, mixed: Tensor) -> Tensor:
        """Norm, ReLU and mask of mixed values plus residual."""
        weight, bias = (None, None) if self.norm is None else (self.norm.weight, self.norm.bias)
        mask = self._mask_of_columns()
        if mask is not None:
            return masked_output(mixed, mask, weight, bias, norm_last=self.norm_last)
        if self.norm_last:
            mixed = functional.relu(mixed)
        if weight is not None:
            mixed = functional.layer_norm(mixed, weight.shape, weight, bias)
        return mixed if self.norm_last else functional.relu(mixed)


class InteractingLayers(nn.Module):
    """A stack of interacting layers.

    On CPU it runs over blocks of rows that stay in the cache, and backward computes each block's
    attention again; elsewhere, and when exported, layer by layer.

    Args:
        inputs: width of the field vectors.
        layers: how many.
        residual: ``projected``: each layer adds its input times a matrix, as in the paper;
            ``identity``: adds the input itself where it already has the layer's width (BARS);
            ``none``.

    The other arguments are those of :class:`InteractingLayer`.

    >>> stack = InteractingLayers(16, 3, 2, 32)
    >>> stack.outputs
    64
    """

    precision: Precision = "fp32"

    def __init__(
        self,
        inputs: int,
        layers: int,
        heads: int,
        head_dim: int,
        *,
        residual: Residual = "projected",
        scale: bool = False,
        layer_norm: bool = False,
        norm_last: bool = False,
        projection_relu: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.outputs = heads * head_dim
        """Width of the output, as built."""
        self.layers = nn.ModuleList(
            InteractingLayer(
                inputs if layer == 0 else self.outputs,
                heads,
                head_dim,
                residual=residual,
                scale=scale,
                layer_norm=layer_norm,
                norm_last=norm_last,
                projection_relu=projection_relu,
                dropout=dropout,
            )
            for layer in range(layers)
        )

    def forward(self, x: Tensor) -> Tensor:
        """``[B, M, inputs]`` to ``[B, M, outputs]``."""
        if x.device.type == "cpu" and not torch.compiler.is_exporting():
            return interact_in_blocks(x, self._tensors(x), self.precision)
        for layer in self._layers():
            x = layer(x)
        return x

    def attention(self, x: Tensor) -> Tensor:
        """Attention weights of ``x [B, M, inputs]``: ``[B, layers, heads, M, M]``, zeros for heads cut."""
        return attention_in_blocks(x, self._tensors(x), self.precision)

    def _tensors(self, x: Tensor) -> list[LayerTensors]:
        rows, fields = x.shape[:2]
        return [layer.tensors(rows, fields) for layer in self._layers()]

    def _layers(self) -> list[InteractingLayer]:
        return [layer for layer in self.layers if isinstance(layer, InteractingLayer)]
