"""Softmax of a query's item against negatives that all queries of a batch share.

For B queries and C negatives the logits are the largest thing in a step by far. They are made block by
block, small enough to stay in the processor's cache, and turned into gradients at once: nothing of the
size ``B x C`` is written to memory, and nothing is computed twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from recsys.models.linear import Precision, product, weight_gradient

_ROWS = {"cpu": 256, "cuda": 4096}
"""Queries of a block."""


@dataclass(frozen=True)
class Negatives:
    """Items that queries are told from."""

    vectors: Tensor
    """``[C, D]``."""
    items: Tensor
    """Ids, int64 ``[C]``; a negative that is the query's own item does not count."""
    lift: Tensor
    """Added to every logit of a negative, ``[C]``; minus the logarithm of how often the item is to be
    expected among the negatives makes their sum an estimate of that over the whole catalogue."""


@dataclass(frozen=True)
class OwnNegatives:
    """Items that each query is told from besides, and no other query."""

    vectors: Tensor
    """``[B, N, D]``."""
    lift: Tensor
    """Added to their logits, ``[B, N]``; minus infinity where there is none."""


def softmax_loss(
    queries: Tensor,
    positives: Tensor,
    items: Tensor,
    negatives: Negatives,
    temperature: float,
    *,
    own: OwnNegatives | None = None,
    weight: Tensor | None = None,
    precision: Precision = "fp32",
) -> Tensor:
    """Sum over queries of ``-s(q, p) + log(exp s(q, p) + sum over n of exp(s(q, n) + lift(n)))``.

    ``s(q, v) = q . v / temperature``. With ``lift(n) = -log E(n)``, E the expected number of times that n
    is among the negatives, this is the sampled softmax with logQ correction (Bengio and Senecal 2008; Yi
    et al., RecSys 2019). The positive is there in any case and is not corrected (as Klenitskiy et al.,
    RecSys 2025, have it).

    Args:
        queries, positives: vectors ``[B, D]`` of queries and of their items.
        items: ids of those items, int64 ``[B]``.
        negatives: shared by all queries.
        temperature: above 0.
        own: further negatives of each query, in the same sum; its own item must not be among them.
        weight: of the queries, ``[B]``.
        precision: of matrix products.
    """
    result: Tensor = _Softmax.apply(  # type: ignore[no-untyped-call]
        queries,
        positives,
        items,
        negatives,
        negatives.vectors,
        None if own is None else own.vectors,
        None if own is None else own.lift,
        temperature,
        weight,
        precision,
    )
    return result


class _Softmax(torch.autograd.Function):
    """The loss and, at once, its gradients; backward only scales them."""

    @staticmethod
    def forward(
        ctx: Any,
        queries: Tensor,
        positives: Tensor,
        items: Tensor,
        negatives: Negatives,
        vectors: Tensor,
        own: Tensor | None,
        own_lift: Tensor | None,
        temperature: float,
        weight: Tensor | None,
        precision: Precision,
    ) -> Tensor:
        scaled = queries / temperature
        by_query, by_positive = torch.zeros_like(queries), torch.zeros_like(positives)
        by_negative = torch.zeros_like(vectors)
        by_own = None if own is None else torch.empty_like(own)
        loss = queries.new_zeros(())
        turned = vectors.t().contiguous()
        for start in range(0, len(queries), _ROWS[queries.device.type]):
            part = slice(start, start + _ROWS[queries.device.type])
            mine, positive = scaled[part], positives[part]
            logits = product(mine, vectors, negatives.lift, precision)
            logits.masked_fill_(items[part].unsqueeze(1) == negatives.items, -torch.inf)
            right = (mine * positive).sum(1)
            highest = torch.maximum(logits.amax(1), right) if len(vectors) else right
            hard = None
            if own is not None and own_lift is not None:
                hard = (own[part] @ mine.unsqueeze(2)).squeeze(2) + own_lift[part]
                highest = torch.maximum(highest, hard.amax(1))
            chances = logits.sub_(highest.unsqueeze(1)).exp_()
            whole = chances.sum(1) + (right - highest).exp()
            if hard is not None:
                whole += hard.sub_(highest.unsqueeze(1)).exp_().sum(1)
            losses = whole.log() + highest - right
            share = 1 / whole if weight is None else weight[part] / whole
            chances.mul_(share.unsqueeze(1))
            wrong = -chances.sum(1).unsqueeze(1)
            loss += losses.sum() if weight is None else (losses * weight[part]).sum()
            pulled = product(chances, turned, None, precision)
            if own is not None and by_own is not None and hard is not None:
                hard.mul_(share.unsqueeze(1))
                wrong -= hard.sum(1, keepdim=True)
                pulled += (hard.unsqueeze(1) @ own[part]).squeeze(1)
                by_own[part] = hard.unsqueeze(2) * mine.unsqueeze(1)
            by_query[part] = (pulled + wrong * positive) / temperature
            by_positive[part] = wrong * mine
            by_negative += weight_gradient(chances, mine, precision)
        ctx.save_for_backward(by_query, by_positive, by_negative, by_own)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        by_query, by_positive, by_negative, by_own = ctx.saved_tensors
        return (
            by_query * gradient,
            by_positive * gradient,
            None,
            None,
            by_negative * gradient,
            None if by_own is None else by_own * gradient,
            None,
            None,
            None,
            None,
        )


def all_rows(rows: Tensor, counts: Sequence[int], group: dist.ProcessGroup) -> Tensor:
    """The rows ``[counts[rank], D]`` of all processes one after the other; gradients find back.

    Each process's loss may depend on all rows: backward adds up the gradients of all processes. All
    processes must call this together, and backward too.
    """
    result: Tensor = _AllRows.apply(rows, counts, group)  # type: ignore[no-untyped-call]
    return result


def gathered(rows: Tensor, counts: Sequence[int], group: dist.ProcessGroup) -> Tensor:
    """The rows ``[counts[rank], ...]`` of all processes one after the other, without gradient."""
    padded = rows.new_zeros(max(counts), *rows.shape[1:])
    padded[: len(rows)] = rows
    parts = [torch.empty_like(padded) for _ in counts]
    dist.all_gather(parts, padded, group=group)
    return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])


class _AllRows(torch.autograd.Function):
    """All-gather, whose gradient is an all-reduce."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, counts: Sequence[int], group: dist.ProcessGroup) -> Tensor:
        ctx.counts, ctx.group = list(counts), group
        return gathered(rows, counts, group)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        summed = gradient.clone()
        dist.all_reduce(summed, group=ctx.group)
        return torch.split(summed, ctx.counts)[dist.get_rank(ctx.group)], None, None
