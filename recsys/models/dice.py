"""Dice, the activation of DIN, over one process or many."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from recsys.models.row_loops import (
    arrays,
    dice,
    dice_gradient,
    dice_sums,
    is_looped,
    over_rows,
    summed_over_rows,
)
from recsys.models.statistics import BatchStatistics, through_moments, tiles


class Dice(nn.Module):
    """``f(s) = p s + (1 - p) alpha s`` with ``p = sigmoid(standardised s)`` (DIN, Zhou et al. 2018, eq. 3).

    ``alpha`` is learned per channel and starts at 0. Statistics are those of
    :class:`~recsys.models.statistics.BatchStatistics`.

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
            x.contiguous(), self.alpha, moments.mean, inverse, moments.count, statistics.process_group
        )
        return activated


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
        if is_looped(x):
            over_rows(dice, len(x), arrays(x, alpha, shift, inverse, result))
            return result
        for part in tiles(x):
            p = torch.addcmul(shift, x[part], inverse).sigmoid_()
            torch.mul(torch.addcmul(alpha, p, rest), x[part], out=result[part])
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, alpha, mean, inverse, count = ctx.saved_tensors
        if is_looped(x):
            return (*_looped_gradients(ctx.group, gradient.contiguous(), *ctx.saved_tensors), *[None] * 4)
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
        offset, slope = through_moments(total * rest, projected * rest, inverse, count, ctx.group)
        slope, scale = slope * inverse, rest * inverse
        constant = -offset * inverse - slope * mean
        for part in tiles(x):
            result[part].addcmul_(inner[part], scale).addcmul_(x[part], slope).add_(constant)
        return result, by_alpha, None, None, None, None


def _looped_gradients(
    group: dist.ProcessGroup | None,
    gradient: Tensor,
    x: Tensor,
    alpha: Tensor,
    mean: Tensor,
    inverse: Tensor,
    count: Tensor,
) -> tuple[Tensor, Tensor]:
    """Gradients of x and alpha, in two passes of compiled loops."""
    shift, rest = -mean * inverse, 1 - alpha
    arguments = arrays(x, gradient, shift, inverse)
    found = summed_over_rows(dice_sums, len(x), arguments, sums=3, channels=x.shape[1])
    total, projected, by_alpha = torch.from_numpy(found).to(x.dtype)
    offset, slope = through_moments(total * rest, projected * rest, inverse, count, group)
    slope = slope * inverse
    constant = -offset * inverse - slope * mean
    result = torch.empty_like(x)
    over_rows(
        dice_gradient,
        len(x),
        arrays(x, gradient, alpha, shift, inverse, rest * inverse, slope, constant, result),
    )
    return result, by_alpha
