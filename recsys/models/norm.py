"""Batch normalisation over one process or many.

It standardises with :class:`~recsys.models.statistics.BatchStatistics`, so that a batch spread over
ranks is normalised, and differentiated, as if one process held it. ``SyncBatchNorm`` refuses CPU.

Forward and backward work on tiles of rows that stay in the cache, and keep nothing but their input.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from recsys.models.statistics import BatchStatistics, set_process_group, through_moments, tiles

__all__ = ["BatchNorm", "set_process_group"]


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
        offset, slope = through_moments(total, projected, inverse, count, ctx.group)
        scale = weight * inverse
        result = torch.empty_like(x)
        for part in tiles(x):
            inner = torch.addcmul(gradient[part] - offset, x[part] - mean, slope)
            torch.mul(inner, scale, out=result[part])
        return result, projected, total, None, None, None, None
