"""Mean and variance of a batch, over all processes that share it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from recsys.models.row_loops import add_moments, arrays, is_looped, summed_over_rows

_NEAR_ROWS = 1024
"""Rows whose mean centres the sums; any point near the mean will do."""
_TILE = 1 << 18
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

    def update(self, x: Tensor) -> Moments:
        """Moments of the global batch of which ``x [N, C]`` is this rank's part; moves the averages."""
        return self.settle(sums_of(x))

    @torch.no_grad()
    def settle(self, sums: Sums) -> Moments:
        """The same from sums over this rank's rows, when all have been added."""
        moments = _combined(sums, self.process_group)
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


@contextmanager
def averages_kept(model: nn.Module) -> Iterator[None]:
    """Leave the running averages of a model where they are, whatever it is shown meanwhile."""
    parts = [part for part in model.modules() if isinstance(part, BatchStatistics)]
    before = [(buffer, buffer.clone()) for part in parts for buffer in part.buffers()]
    yield
    for buffer, value in before:
        buffer.copy_(value)


class Sums:
    """Count, sum and sum of squares of rows, centred near their mean so that no digits cancel.

    Args:
        like: a tensor with C columns, for type and device.
    """

    def __init__(self, like: Tensor) -> None:
        self.count = 0
        self._near: Tensor | None = None
        self._total = like.new_zeros(like.shape[1])
        self._squares = torch.zeros_like(self._total)

    @torch.no_grad()
    def add(self, rows: Tensor) -> None:
        """Count ``[n, C]`` in."""
        if rows.shape[0] == 0:
            return
        if self._near is None:
            self._near = rows[:_NEAR_ROWS].mean(0)
        self.count += rows.shape[0]
        if is_looped(rows):
            arguments = arrays(rows, self._near)
            found = summed_over_rows(add_moments, len(rows), arguments, sums=2, channels=rows.shape[1])
            self._total += torch.from_numpy(found[0])
            self._squares += torch.from_numpy(found[1])
            return
        shifted = rows - self._near
        self._total += shifted.sum(0)
        self._squares += shifted.square_().sum(0)

    def centred(self) -> tuple[Tensor, Tensor]:
        """Mean, and sum of squared distances from it; zeros for no rows."""
        if self._near is None:
            return self._total, self._squares
        offset = self._total / self.count
        return self._near + offset, (self._squares - self._total * offset).clamp(min=0)


def sums_of(x: Tensor) -> Sums:
    """Sums of ``x [N, C]``."""
    sums = Sums(x)
    for part in [slice(None)] if is_looped(x) else tiles(x):
        sums.add(x[part])
    return sums


def _combined(sums: Sums, group: dist.ProcessGroup | None) -> Moments:
    """Moments over the rows of all ranks; exact combination (Chan, Golub and LeVeque 1983)."""
    mean, squares = sums.centred()
    if group is None:
        count = torch.full((), sums.count, dtype=mean.dtype, device=mean.device)
        return Moments(mean, squares / count.clamp(min=1), count)
    local = torch.cat([mean.new_full((1,), sums.count), mean, squares]).double()
    gathered = [torch.empty_like(local) for _ in range(dist.get_world_size(group))]
    dist.all_gather(gathered, local, group=group)
    parts = torch.stack(gathered)
    counts = parts[:, :1]
    means, centred = parts[:, 1:].chunk(2, 1)
    count = counts.sum()
    overall = (counts * means).sum(0) / count.clamp(min=1)
    variance = (centred + counts * (means - overall).square()).sum(0) / count.clamp(min=1)
    return Moments(overall.to(mean.dtype), variance.to(mean.dtype), count.to(mean.dtype))


def tiles(x: Tensor) -> Iterator[slice]:
    """Slices of the rows of ``x [N, C]`` that fit the cache; one slice for all where there is a GPU."""
    rows, channels = x.shape
    step = max(1, _TILE // max(channels, 1)) if x.device.type == "cpu" else max(rows, 1)
    for start in range(0, rows, step):
        yield slice(start, min(rows, start + step))


def through_moments(
    total: Tensor, projected: Tensor, inverse: Tensor, count: Tensor, group: dist.ProcessGroup | None
) -> tuple[Tensor, Tensor]:
    """``offset, slope``: a gradient g of x' = (x - mean) inverse is that of x through
    ``(g - offset + slope (x - mean)) inverse``, which is ``(g - mean(g) - x' mean(g x')) inverse``.

    From this rank's sums ``total`` of g and ``projected`` of g x'; the means are over all ranks' rows.
    """
    sums = torch.stack([total, projected])
    if group is not None:
        dist.all_reduce(sums, group=group)
    sums /= count.clamp(min=1)
    return sums[0], -sums[1] * inverse
