"""AutoInt's interacting layers over blocks of rows, forward and backward.

In one piece, [4096, 39, 16] through three layers streams gigabytes through memory. A block of rows
that fits the cache runs through all layers at once. Of each layer only the output is kept; backward
computes projections and attention weights of a block again while it is in the cache.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from recsys.models.linear import Precision, product, weight_gradient

_BLOCK_BYTES = 16 << 20
"""Working set of a block in backward; the fastest on a processor with 32 MiB of shared cache."""
_NORM_EPS = 1e-5
"""As in ``nn.LayerNorm``."""
_SMALL_SOFTMAX = 16
"""Fields below which torch's softmax, and its backward, are five times slower than written out."""


@dataclass(frozen=True)
class LayerTensors:
    """What one layer computes with; H heads, M fields, width W = H * head_dim."""

    projection: Tensor
    """``[3W, inputs]`` to queries, keys, values, or ``[4W, inputs]`` with the residual."""
    bias: Tensor | None
    """``[3W]`` or ``[4W]``, where projections have a bias and a ReLU."""
    norm_weight: Tensor | None
    """``[W]`` of the layer norm."""
    norm_bias: Tensor | None
    """``[W]``."""
    keep: Tensor | None
    """bool ``[B, H, M, M]``: attention weights that dropout leaves."""
    mask: Tensor | None
    """``[W]``: what the output is multiplied by, where heads are out."""
    heads: int
    """H."""
    width: int
    """W."""
    rescale: float
    """What those are multiplied by."""
    identity: bool
    """Whether the layer adds its input."""
    norm_last: bool
    """Whether there is a layer norm, and it comes after the ReLU."""

    def rows(self, block: slice) -> LayerTensors:
        """The same for some rows."""
        return self if self.keep is None else replace(self, keep=self.keep[block])

    @property
    def columns(self) -> list[slice]:
        """Columns of each head."""
        step = self.width // self.heads
        return [slice(start, start + step) for start in range(0, self.width, step)]


@dataclass(frozen=True)
class _Settings:
    fields: int
    precision: Precision
    heads: tuple[int, ...]
    widths: tuple[int, ...]
    rescale: tuple[float, ...]
    identity: tuple[bool, ...]
    norm_last: tuple[bool, ...]
    differentiated: bool

    def layers(self, tensors: Sequence[Any]) -> list[LayerTensors]:
        """Undo the flattening of ``interact_in_blocks``."""
        sixes = (tensors[start : start + 6] for start in range(0, len(tensors), 6))
        plain = zip(self.heads, self.widths, self.rescale, self.identity, self.norm_last, strict=True)
        return [LayerTensors(*six, *more) for six, more in zip(sixes, plain, strict=True)]  # type: ignore[call-arg]

    @property
    def padded(self) -> int:
        """Fields with padding: MKL multiplies matrices of 39 rows a third slower than of 40."""
        return self.fields if self.fields < _SMALL_SOFTMAX else -(-self.fields // 4) * 4

    @property
    def dtype(self) -> torch.dtype | None:
        """Type of the operands of matrix products; None: as they come."""
        return torch.bfloat16 if self.precision == "bf16" else None


def interact_in_blocks(x: Tensor, layers: Sequence[LayerTensors], precision: Precision) -> Tensor:
    """Interacting layers on ``x [B, M, inputs]``, to the last one's ``[B, M, W]``. Differentiable once."""
    tensors: list[Tensor | None] = []
    for layer in layers:
        tensors += [layer.projection, layer.bias, layer.norm_weight, layer.norm_bias]
        tensors += [layer.keep, layer.mask]
    settings = _settings(x, layers, precision)
    result: Tensor = _Interact.apply(settings, x.contiguous(), *tensors)  # type: ignore[no-untyped-call]
    return result


@torch.no_grad()
def attention_in_blocks(x: Tensor, layers: Sequence[LayerTensors], precision: Precision) -> Tensor:
    """The weights that ``interact_in_blocks`` mixes values with, before dropout: ``[B, L, H, M, M]``.

    They sum to 1 over the last dimension. H is that of the layer with most heads; others end in zeros.
    """
    settings = _settings(x, layers, precision)
    rows, fields = x.shape[:2]
    maps = x.new_zeros(rows, len(layers), max(settings.heads), fields, fields)
    for block in _blocks(rows, settings):
        value = _padded(x[block], settings)
        for index, layer in enumerate(layers):
            value = _forward(value, layer.rows(block), settings, None, maps[block, index, : layer.heads])
    return maps


def _settings(x: Tensor, layers: Sequence[LayerTensors], precision: Precision) -> _Settings:
    return _Settings(
        fields=x.shape[1],
        precision=precision,
        heads=tuple(layer.heads for layer in layers),
        widths=tuple(layer.width for layer in layers),
        rescale=tuple(layer.rescale for layer in layers),
        identity=tuple(layer.identity for layer in layers),
        norm_last=tuple(layer.norm_last for layer in layers),
        differentiated=torch.is_grad_enabled(),
    )


class _Interact(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, settings: _Settings, x: Tensor, *tensors: Tensor | None) -> Tensor:
        layers = settings.layers(tensors)
        rows = x.shape[0]
        inner = [
            x.new_empty(rows, settings.padded, layer.width)
            for layer in layers[:-1]
            if settings.differentiated
        ]
        result = x.new_empty(rows, settings.fields, layers[-1].width)
        for block in _blocks(rows, settings):
            value = _padded(x[block], settings)
            for index, layer in enumerate(layers):
                out = inner[index][block] if index < len(inner) else None
                value = _forward(value, layer.rows(block), settings, out)
            result[block] = value[:, : settings.fields]
        if settings.differentiated:
            ctx.settings = settings
            ctx.save_for_backward(x, *inner, result, *tensors)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        settings: _Settings = ctx.settings
        depth = len(settings.heads)
        values, tensors = ctx.saved_tensors[: depth + 1], ctx.saved_tensors[depth + 1 :]
        layers = settings.layers(tensors)
        flat = [None if t is None or t.dtype == torch.bool else torch.zeros_like(t) for t in tensors]
        sums = settings.layers(flat)
        turned = [layer.projection.t().contiguous() for layer in layers]
        result = torch.empty_like(values[0])
        for block in _blocks(len(result), settings):
            flow = _padded(gradient[block], settings)
            y = _padded(values[-1][block], settings)
            for index in reversed(range(depth)):
                x = _padded(values[index][block], settings)
                layer = layers[index].rows(block)
                flow = _backward(flow, x, y, layer, turned[index], sums[index], settings)
                y = x
            result[block] = flow[:, : settings.fields]
        return None, result, *flat


def _padded(block: Tensor, settings: _Settings) -> Tensor:
    """``[b, M, D]`` with zero fields added; they get no attention, and no gradient comes from them."""
    return functional.pad(block, (0, 0, 0, settings.padded - block.shape[1]))


def _forward(
    x: Tensor,
    layer: LayerTensors,
    settings: _Settings,
    out: Tensor | None,
    maps: Tensor | None = None,
) -> Tensor:
    """One layer on a block ``[b, M, inputs]``, into ``out [b, M, W]`` where one is given.

    Its attention weights are copied to ``maps [b, heads, M, M]`` where that is given.
    """
    parts = _project(x, layer.projection, layer.bias, settings)
    weights = _attention(parts, layer, settings)
    if maps is not None:
        maps.copy_(torch.stack(weights, 1)[..., : settings.fields, : settings.fields])
    if out is None:
        out = x.new_empty(*x.shape[:2], layer.width)
    _mix(x, parts, weights, layer, out)
    if layer.mask is not None:
        return out.copy_(
            masked_output(out, layer.mask, layer.norm_weight, layer.norm_bias, norm_last=layer.norm_last)
        )
    if layer.norm_last:
        out.relu_()
    if layer.norm_weight is not None:
        shape = [layer.width]
        out.copy_(functional.layer_norm(out, shape, layer.norm_weight, layer.norm_bias, _NORM_EPS))
    return out if layer.norm_last else out.relu_()


def _backward(
    flow: Tensor,
    x: Tensor,
    y: Tensor,
    layer: LayerTensors,
    turned: Tensor,
    sums: LayerTensors,
    settings: _Settings,
) -> Tensor:
    """Gradient of a layer's input from that of its output ``y``; its tensors' are added to ``sums``."""
    masked = layer.mask is not None
    if not layer.norm_last and not masked:
        flow = torch.ops.aten.threshold_backward(flow, y, 0)
    normed = layer.norm_weight is not None
    all_needed = masked or normed or layer.bias is not None
    needed = layer.projection if all_needed else layer.projection[: 3 * layer.width]
    parts = _project(x, needed, layer.bias, settings)
    weights = _attention(parts, layer, settings)
    if masked or normed:
        before = torch.empty_like(y)
        _mix(x, parts, weights, layer, before)
        if masked:
            flow = _through_mask(flow, before, layer, sums)
        else:
            flow = _through_norm(flow, before, layer, sums)
    by_parts = _through_attention(flow, parts, weights, layer)
    if sums.bias is not None:
        by_parts = torch.ops.aten.threshold_backward(by_parts, parts, 0)
        sums.bias.add_(by_parts.sum((0, 1), dtype=sums.bias.dtype))
    by_parts = by_parts.flatten(0, 1)
    sums.projection.add_(weight_gradient(by_parts, x.flatten(0, 1).to(by_parts.dtype)))
    result = product(by_parts, turned, None, settings.precision).view(x.shape)
    return result.add_(flow) if layer.identity else result


def _project(x: Tensor, projection: Tensor, bias: Tensor | None, settings: _Settings) -> Tensor:
    """Queries, keys, values and perhaps residual, side by side: ``[b, M, 3W or 4W]``; ReLU with a bias."""
    if settings.dtype is not None:
        narrow = None if bias is None else bias.to(settings.dtype)
        parts = functional.linear(x.to(settings.dtype), projection.to(settings.dtype), narrow)
        return parts if bias is None else parts.relu_()
    return product(x, projection, bias, relu=bias is not None)


def _attention(parts: Tensor, layer: LayerTensors, settings: _Settings) -> list[Tensor]:
    """Attention weights ``[b, M, M]`` of each head, before dropout.

    Products are per head, on slices: as one batch over heads, the slices would have to be copied.
    """
    query, key, _ = _thirds(parts, layer.width)
    weights = []
    for columns in layer.columns:
        scores = torch.bmm(query[..., columns], key[..., columns].transpose(1, 2))
        if settings.padded > settings.fields:
            scores[..., settings.fields :] = -torch.inf
        weights.append(_softmax(scores))
    return weights


def _softmax(scores: Tensor) -> Tensor:
    """Softmax over the last dimension; never below float32. Torch's own is slow on short rows."""
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
    if scores.shape[-1] >= _SMALL_SOFTMAX:
        return torch.softmax(scores, -1)
    scores = (scores - scores.amax(-1, keepdim=True)).exp_()
    return scores.div_(scores.sum(-1, keepdim=True))


def _through_softmax(by_weights: Tensor, weights: Tensor) -> Tensor:
    """Gradient of the scores."""
    if weights.shape[-1] >= _SMALL_SOFTMAX:
        by_scores: Tensor = torch.ops.aten._softmax_backward_data(by_weights, weights, -1, weights.dtype)
        return by_scores
    by_weights = by_weights * weights
    return by_weights.sub_(weights * by_weights.sum(-1, keepdim=True))


def _thirds(parts: Tensor, width: int) -> tuple[Tensor, Tensor, Tensor]:
    return parts[..., :width], parts[..., width : 2 * width], parts[..., 2 * width : 3 * width]


def _mix(x: Tensor, parts: Tensor, weights: list[Tensor], layer: LayerTensors, out: Tensor) -> None:
    """Values weighted by attention, plus the residual, into ``out [b, M, W]``."""
    value = _thirds(parts, layer.width)[2]
    residual = None
    if parts.shape[-1] > 3 * layer.width:
        residual = parts[..., 3 * layer.width :]
    elif layer.identity:
        residual = x
    mixed = []
    for head, columns in enumerate(layer.columns):
        left, right = _dropped(weights[head], layer, head).to(parts.dtype), value[..., columns]
        if residual is not None and residual.dtype == parts.dtype:
            mixed.append(torch.baddbmm(residual[..., columns], left, right))
        else:
            mixed.append(torch.bmm(left, right))
    torch.cat(mixed, -1, out=out)
    if residual is not None and residual.dtype != parts.dtype:
        out.add_(residual)


def _dropped(weights: Tensor, layer: LayerTensors, head: int) -> Tensor:
    if layer.keep is None:
        return weights
    more = weights.shape[-1] - layer.keep.shape[-1]
    keep = functional.pad(layer.keep[:, head], (0, more, 0, more))
    kept: Tensor = torch.ops.aten.native_dropout_backward(weights, keep, layer.rescale)
    return kept


def _through_attention(flow: Tensor, parts: Tensor, weights: list[Tensor], layer: LayerTensors) -> Tensor:
    """Gradient of queries, keys, values and perhaps residual: ``[b, M, 3W or 4W]``."""
    query, key, value = _thirds(parts, layer.width)
    flow = flow.to(parts.dtype)
    by_query, by_key, by_value = [], [], []
    for head, columns in enumerate(layer.columns):
        mine = flow[..., columns]
        kept = _dropped(weights[head], layer, head).to(parts.dtype)
        by_value.append(torch.bmm(kept.transpose(1, 2), mine))
        by_weights = torch.bmm(mine, value[..., columns].transpose(1, 2)).to(weights[head].dtype)
        by_scores = _through_softmax(_dropped(by_weights, layer, head), weights[head]).to(parts.dtype)
        by_query.append(torch.bmm(by_scores, key[..., columns]))
        by_key.append(torch.bmm(by_scores.transpose(1, 2), query[..., columns]))
    residual = [flow] if layer.projection.shape[0] > 3 * layer.width else []
    return torch.cat([*by_query, *by_key, *by_value, *residual], -1)


def _through_norm(flow: Tensor, before: Tensor, layer: LayerTensors, sums: LayerTensors) -> Tensor:
    """Gradient of what the layer norm, and a ReLU before it, started from; adds to ``sums``."""
    if layer.norm_last:
        before.relu_()
    shape = [before.shape[-1]]
    weight, bias = layer.norm_weight, layer.norm_bias
    _, mean, inverse = torch.ops.aten.native_layer_norm(before, shape, weight, bias, _NORM_EPS)
    result, by_weight, by_bias = torch.ops.aten.native_layer_norm_backward(
        flow, before, shape, mean, inverse, weight, bias, [True, True, True]
    )
    assert sums.norm_weight is not None
    assert sums.norm_bias is not None
    sums.norm_weight.add_(by_weight)
    sums.norm_bias.add_(by_bias)
    if layer.norm_last:
        result = torch.ops.aten.threshold_backward(result, before, 0)
    return result  # type: ignore[no-any-return]


def masked_output(
    before: Tensor, mask: Tensor, weight: Tensor | None, bias: Tensor | None, *, norm_last: bool
) -> Tensor:
    """Norm, ReLU and mask ``[W]`` of a layer's mixed values plus residual ``[..., W]``.

    The norm's mean and variance are those of the columns that are held, as when the others are cut.
    """
    result = functional.relu(before) if norm_last else before
    if weight is not None and bias is not None:
        held = (mask.detach() > 0.5).to(before.dtype)
        result = result - (result @ held / held.sum()).unsqueeze(-1)
        variance = (result.square() @ held / held.sum()).unsqueeze(-1)
        result = result * torch.rsqrt(variance + _NORM_EPS) * weight + bias
    return (result if norm_last else functional.relu(result)) * mask


def _through_mask(flow: Tensor, before: Tensor, layer: LayerTensors, sums: LayerTensors) -> Tensor:
    """Gradient of what ``masked_output`` starts from; adds its parameters' gradients to ``sums``."""
    given = [layer.mask, layer.norm_weight, layer.norm_bias]
    leaves = [None if t is None else t.detach().requires_grad_() for t in (before, *given)]
    with torch.enable_grad():
        result = masked_output(*leaves, norm_last=layer.norm_last)  # type: ignore[arg-type]
    needed = [leaf for leaf in leaves if leaf is not None]
    found, *others = torch.autograd.grad(result, needed, flow)
    into = [total for total in (sums.mask, sums.norm_weight, sums.norm_bias) if total is not None]
    for total, more in zip(into, others, strict=True):
        total.add_(more)
    return found


def _blocks(rows: int, settings: _Settings) -> Iterator[slice]:
    """Slices of rows whose working set fits the cache; their sizes are multiples of 16."""
    bytes_per_row = 4 * settings.fields * (10 * max(settings.widths) + 3 * settings.fields)
    step = min(512, max(16, _BLOCK_BYTES // bytes_per_row // 16 * 16))
    for start in range(0, rows, step):
        yield slice(start, min(rows, start + step))
