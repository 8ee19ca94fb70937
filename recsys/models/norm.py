"""Batch normalisation and Dice, over one process or many.

Both standardise with :class:`~recsys.models.statistics.BatchStatistics`, so that a batch spread over
ranks is normalised, and differentiated, as if one process held it. ``SyncBatchNorm`` refuses CPU.

Forward and backward work on tiles of rows that stay in the cache, and keep nothing but their input.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from recsys.models.statistics import BatchStatistics, set_process_group, sum_over_ranks, tiles

__all__ = ["BatchNorm", "Dice", "set_process_group"]


class BatchNorm(nn.Module):
    """Batch normalisation with scale and shift (Ioffe and Szegedy 2015, algorithm 1).

    Args:
        channels: C.
        eps: added to the variance.
    """

    def __init__(self, channels: int, *, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.statistics = BatchStatistics(channels)
        self.weight = nn.Parameter(torch.empty(channels))
        self.bias = nn.Parameter(torch.empty(channels))

    def initialise(self, generator: torch.Generator) -> None:
        """Start as plain standardisation."""
        self.weight.fill_(1.0)
        self.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C]`` to ``[N, C]``."""
        statistics = self.statistics
        if not self.training:
            scale = self.weight * torch.rsqrt(statistics.variance + self.eps)
            return torch.addcmul(self.bias, x - statistics.mean, scale)
        moments = statistics.update(x)
        inverse = torch.rsqrt(moments.variance + self.eps)
        standardised: Tensor = _Normalise.apply(  # type: ignore[no-untyped-call]
            x, self.weight, self.bias, moments.mean, inverse, moments.count, statistics.process_group
        )
        return standardised


class Dice(nn.Module):
    """``f(s) = p s + (1 - p) alpha s`` with ``p = sigmoid(standardised s)`` (DIN, Zhou et al. 2018, eq. 3).

    ``alpha`` is learned per channel and starts at 0.

    Args:
        channels: C.
        eps: added to the variance; the paper's 1e-8. Pre-activations of fresh embeddings are small,
            so a larger one would flatten ``p``.
    """

    def __init__(self, channels: int, *, eps: float = 1e-8) -> None:
        super().__init__()
        self.eps = eps
        self.statistics = BatchStatistics(channels)
        self.alpha = nn.Parameter(torch.empty(channels))

    def initialise(self, generator: torch.Generator) -> None:
        """Start as ``p s``."""
        self.alpha.zero_()

    def forward(self, x: Tensor) -> Tensor:
        """``[..., C]`` to ``[..., C]``; in training ``[N, C]``, and every row counts."""
        statistics = self.statistics
        if not self.training:
            inverse = torch.rsqrt(statistics.variance + self.eps)
            p = torch.sigmoid((x - statistics.mean) * inverse)
            return x * torch.lerp(self.alpha, torch.ones_like(self.alpha), p)
        moments = statistics.update(x)
        inverse = torch.rsqrt(moments.variance + self.eps)
        activated: Tensor = _Dice.apply(  # type: ignore[no-untyped-call]
            x, self.alpha, moments.mean, inverse, moments.count, statistics.process_group
        )
        return activated


class _Normalise(torch.autograd.Function):
    """``(x - mean) * inverse * weight + bias``, differentiated through mean and variance."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        mean: Tensor,
        inverse: Tensor,
        count: Tensor,
        group: dist.ProcessGroup | None,
    ) -> Tensor:
        ctx.save_for_backward(x, weight, mean, inverse, count)
        ctx.group = group
        scale = weight * inverse
        result = torch.empty_like(x)
        for part in tiles(x):
            torch.addcmul(bias, x[part] - mean, scale, out=result[part])
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, inverse, count = ctx.saved_tensors
        total, projected = torch.zeros_like(mean), torch.zeros_like(mean)
        for part in tiles(x):
            total += gradient[part].sum(0)
            projected += (x[part] - mean).mul_(gradient[part]).sum(0)
        projected *= inverse
        offset, slope = _through_moments(total, projected, inverse, count, ctx.group)
        scale = weight * inverse
        result = torch.empty_like(x)
        for part in tiles(x):
            inner = torch.addcmul(gradient[part] - offset, x[part] - mean, slope)
            torch.mul(inner, scale, out=result[part])
        return result, projected, total, None, None, None, None


def _through_moments(
    total: Tensor,
    projected: Tensor,
    inverse: Tensor,
    count: Tensor,
    group: dist.ProcessGroup | None,
) -> tuple[Tensor, Tensor]:
    """``offset, slope``: a gradient g of x' = (x - mean) inverse is that of x through
    ``(g - offset + slope (x - mean)) inverse``, which is ``(g - mean(g) - x' mean(g x')) inverse``.

    From this rank's sums ``total`` of g and ``projected`` of g x'; the means are over all ranks' rows.
    """
    sums = sum_over_ranks(torch.stack([total, projected]), group) / count.clamp(min=1)
    return sums[0], -sums[1] * inverse


class _Dice(torch.autograd.Function):
    """Dice, differentiated through mean and variance."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        alpha: Tensor,
        mean: Tensor,
        inverse: Tensor,
        count: Tensor,
        group: dist.ProcessGroup | None,
    ) -> Tensor:
        ctx.save_for_backward(x, alpha, mean, inverse, count)
        ctx.group = group
        shift, rest = -mean * inverse, 1 - alpha
        result = torch.empty_like(x)
        for part in tiles(x):
            p = torch.addcmul(shift, x[part], inverse).sigmoid_()
            torch.mul(torch.addcmul(alpha, p, rest), x[part], out=result[part])
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, alpha, mean, inverse, count = ctx.saved_tensors
        shift, rest = -mean * inverse, 1 - alpha
        total, projected, by_alpha = (torch.zeros_like(mean) for _ in range(3))
        result, inner = torch.empty_like(x), torch.empty_like(x)
        for part in tiles(x):
            standard = torch.addcmul(shift, x[part], inverse)
            p = torch.sigmoid(standard)
            weighted = gradient[part] * x[part]
            torch.mul(torch.addcmul(alpha, p, rest), gradient[part], out=result[part])
            torch.ops.aten.sigmoid_backward.grad_input(weighted, p, grad_input=inner[part])
            by_alpha += weighted.addcmul_(weighted, p, value=-1).sum(0)
            total += inner[part].sum(0)
            projected += standard.mul_(inner[part]).sum(0)
        offset, slope = _through_moments(total * rest, projected * rest, inverse, count, ctx.group)
        scale = rest * inverse
        slope, offset = slope * inverse, -(offset + slope * mean) * inverse
        for part in tiles(x):
            result[part].addcmul_(inner[part], scale).addcmul_(x[part], slope).add_(offset)
        return result, by_alpha, None, None, None, None
