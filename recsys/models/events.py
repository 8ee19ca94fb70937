"""The events of padded histories, without the padding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


@dataclass(frozen=True)
class Events:
    """Which positions of B histories, padded to H, hold an event; n do.

    >>> events = Events.of(torch.tensor([[True, False], [True, True]]))
    >>> events.take(torch.arange(4.0).view(2, 2, 1)).squeeze(1)
    tensor([0., 2., 3.])
    >>> events.spread(torch.tensor([5.0, 6.0, 7.0]), -1.0)
    tensor([[ 5., -1.],
            [ 6.,  7.]])
    """

    rows: int
    """B."""
    longest: int
    """H."""
    index: Tensor | None
    """int64 ``[n]``: row * H + position, in this order; None: every position."""

    @staticmethod
    def of(valid: Tensor) -> Events:
        """From bool ``[B, H]``."""
        index = valid.flatten().nonzero().squeeze(1)
        rows, longest = valid.shape
        return Events(rows, longest, None if len(index) == valid.numel() else index)

    @property
    def count(self) -> int:
        """n."""
        return self.rows * self.longest if self.index is None else len(self.index)

    def take(self, padded: Tensor) -> Tensor:
        """``[B, H, D]`` to ``[n, D]``."""
        flat = padded.reshape(-1, padded.shape[2])
        if self.index is None:
            return flat
        taken: Tensor = _Take.apply(flat, self.index)  # type: ignore[no-untyped-call]
        return taken

    def spread(self, values: Tensor, fill: float) -> Tensor:
        """``[n]`` or ``[n, D]`` to ``[B, H]`` or ``[B, H, D]``, ``fill`` where there is no event."""
        shape = (self.rows, self.longest, *values.shape[1:])
        if self.index is None:
            return values.view(shape)
        spread = values.new_full((self.rows * self.longest, *values.shape[1:]), fill)
        return spread.index_copy(0, self.index, values).view(shape)


class _Take(torch.autograd.Function):
    """Rows of ``[N, D]`` by an index without repeats.

    The gradient is copied to its rows; that of plain indexing is summed up, one row after another.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, index: Tensor) -> Tensor:
        ctx.save_for_backward(index)
        ctx.shape = x.shape
        return x.index_select(0, index)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (index,) = ctx.saved_tensors
        return gradient.new_zeros(ctx.shape).index_copy_(0, index, gradient), None
