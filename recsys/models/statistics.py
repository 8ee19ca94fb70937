"""Mean and variance of a batch, over all processes that share it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

_TILE = 1 << 17
"""Elements worked on at a time, so that what one pass reads is still in the cache for the next."""


@dataclass(frozen=True)
class Moments:
    """Per-channel statistics that a batch is standardised with."""

    mean: Tensor
    """``[C]``."""
    variance: Tensor
    """``[C]``, divided by the count."""
    count: Tensor
    """Rows behind them, on all ranks; 0-dimensional, in the type of the mean."""


class BatchStatistics(nn.Module):
    """Mean and variance per channel: of the global batch in training, running averages otherwise.

    With a process group (:func:`set_process_group`) the ranks exchange count, mean and sum of centred
    squares, so that every rank standardises with the statistics of the global batch. A rank without
    rows takes part.

    The running averages start as plain averages over the first ``1 / momentum`` batches: weights
    1, 1/2, 1/3, ... and then ``momentum``. So they hold nothing of their initial values, which would
    swamp the small variances that fresh embeddings give.

    Args:
        channels: C.
        momentum: weight of the newest batch in the running averages.
    """

    mean: Tensor
    variance: Tensor
    batches: Tensor

    def __init__(self, channels: int, *, momentum: float = 0.1) -> None:
        super().__init__()
        self.momentum = momentum
        self.process_group: dist.ProcessGroup | None = None
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("variance", torch.ones(channels))
        self.register_buffer("batches", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def update(self, x: Tensor) -> Moments:
        """Moments of the global batch of which ``x [N, C]`` is this rank's part; moves the averages."""
        moments = global_moments(x, self.process_group)
        counts = moments.count > 0  # a batch without any event tells nothing
        self.batches += counts
        weight = (1.0 / self.batches.clamp(min=1)).clamp(min=self.momentum).to(self.mean.dtype) * counts
        unbiased = moments.count / (moments.count - 1).clamp(min=1)
        self.mean.lerp_(moments.mean, weight)
        self.variance.lerp_(moments.variance * unbiased, weight)
        return moments

    def extra_repr(self) -> str:
        """What ``print`` shows."""
        return f"{self.mean.shape[0]}, momentum={self.momentum}"


def set_process_group(model: nn.Module, group: dist.ProcessGroup | None) -> None:
    """Make all batch statistics of a model those of the batch that the group's ranks share."""
    for part in model.modules():
        if isinstance(part, BatchStatistics):
            part.process_group = group


def global_moments(x: Tensor, group: dist.ProcessGroup | None) -> Moments:
    """Count, mean and variance over the rows of all ranks' ``x [N, C]``.

    Each rank centres on its own mean before it squares; the parts are then combined exactly
    (Chan, Golub and LeVeque 1983), so that no digits cancel. Nothing is differentiated here.
    """
    mean, squares = _centred(x)
    if group is None:
        count = torch.full((), x.shape[0], dtype=x.dtype, device=x.device)
        return Moments(mean, squares / count.clamp(min=1), count)
    local = torch.cat([mean.new_full((1,), x.shape[0]), mean, squares]).double()
    gathered = [torch.empty_like(local) for _ in range(dist.get_world_size(group))]
    dist.all_gather(gathered, local, group=group)
    parts = torch.stack(gathered)
    counts = parts[:, :1]
    means, sums = parts[:, 1:].chunk(2, 1)
    count = counts.sum()
    mean = (counts * means).sum(0) / count.clamp(min=1)
    squares = (sums + counts * (means - mean).square()).sum(0)
    variance = squares / count.clamp(min=1)
    return Moments(mean.to(x.dtype), variance.to(x.dtype), count.to(x.dtype))


def _centred(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and sum of centred squares per column; zeros for no rows."""
    channels = x.shape[1]
    if x.shape[0] == 0:
        return x.new_zeros(channels), x.new_zeros(channels)
    near = x[: max(1, _TILE // channels)].mean(0)
    total, squares = torch.zeros_like(near), torch.zeros_like(near)
    for part in tiles(x):
        shifted = x[part] - near
        total += shifted.sum(0)
        squares += shifted.square_().sum(0)
    offset = total / x.shape[0]
    return near + offset, (squares - total * offset).clamp_(min=0)


def tiles(x: Tensor) -> Iterator[slice]:
    """Slices of the rows of ``x [N, C]`` that fit the cache; one slice for all where there is a GPU."""
    rows, channels = x.shape
    step = max(1, _TILE // max(channels, 1)) if x.device.type == "cpu" else max(rows, 1)
    for start in range(0, rows, step):
        yield slice(start, min(rows, start + step))


def sum_over_ranks(x: Tensor, group: dist.ProcessGroup | None) -> Tensor:
    """All-reduce in place where there is a group."""
    if group is not None:
        dist.all_reduce(x, group=group)
    return x
