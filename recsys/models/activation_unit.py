"""DIN's activation unit: one weight per event of a history, from the event and the candidate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from recsys.models.dropout import Dropout
from recsys.models.initialise import xavier_normal
from recsys.models.linear import Linear, Precision, product
from recsys.models.mlp import MLP
from recsys.models.norm import Dice
from recsys.models.options import Activation

_FLOOR = -1e30
"""Score of padding before a softmax."""


class ActivationUnit(nn.Module):
    """Sum of a history's vectors, each times its weight (DIN, Zhou et al. 2018, eq. 3).

    The weight of event k for candidate q is a perceptron of ``[q, k, q - k, q * k]``.

    Only events are computed, not padding: faster, and Dice's statistics are those of events. An
    exported graph computes padding too, and drops it.

    Args:
        width: D of events and candidate.
        hidden: width of each hidden layer.
        activation: ``dice`` or ``relu``.
        dropout: probability, after each activation.
        softmax: normalise weights over the history.
    """

    def __init__(
        self,
        width: int,
        hidden: Sequence[int],
        *,
        activation: Activation,
        dropout: float,
        softmax: bool,
    ) -> None:
        super().__init__()
        self.first = PairLinear(width, hidden[0])
        first: list[nn.Module] = [Dice(hidden[0]) if activation == "dice" else nn.ReLU()]
        if dropout:
            first.append(Dropout(dropout))
        self.activation = nn.Sequential(*first)
        self.rest = MLP(hidden[0], hidden[1:], activation=activation, dropout=dropout)
        self.score = Linear(self.rest.outputs, 1)
        self.softmax = softmax

    def forward(self, query: Tensor, keys: Tensor, lengths: Tensor) -> Tensor:
        """Candidates ``[B, D]``, histories ``[B, H, D]``, lengths ``[B]`` to pooled ``[B, D]``."""
        valid = torch.arange(keys.shape[1], device=keys.device) < lengths.unsqueeze(1)
        if torch.compiler.is_exporting():
            pairs = _pairs(query.unsqueeze(1).expand_as(keys), keys)
            weights = torch.where(valid, self._scores(pairs), self._padding)
        else:
            weights = self._scores_of_events(query, keys, valid)
        if self.softmax:
            weights = torch.softmax(weights, 1) * valid
        return torch.bmm(weights.unsqueeze(1), keys).squeeze(1)

    @property
    def _padding(self) -> float:
        return _FLOOR if self.softmax else 0.0

    def _scores_of_events(self, query: Tensor, keys: Tensor, valid: Tensor) -> Tensor:
        """Scores ``[B, H]``, computed where there is an event."""
        events = valid.flatten().nonzero().squeeze(1)
        full = len(events) == valid.numel()
        pairs = _EventPairs.apply(query, keys, None if full else events)  # type: ignore[no-untyped-call]
        scores = self._scores(pairs)
        if full:
            return scores.view(valid.shape)
        return (
            scores.new_full((valid.numel(),), self._padding).index_copy(0, events, scores).view(valid.shape)
        )

    def _scores(self, pairs: Tensor) -> Tensor:
        """Scores ``[...]`` of ``[..., 3D]``."""
        scores: Tensor = self.score(self.rest(self.activation(self.first(pairs))))
        return scores.squeeze(-1)


class PairLinear(nn.Module):
    """``W [q, k, q - k, q * k] + b``, given ``[k, q * k, q]``: the difference needs no columns of its own.

    Args:
        width: D of q and k.
        outputs: rows of W.
    """

    precision: Precision = "fp32"

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, 4 * width))
        self.bias = nn.Parameter(torch.empty(outputs))

    def initialise(self, generator: torch.Generator) -> None:
        """Draw the weights."""
        xavier_normal(self.weight, generator)
        self.bias.zero_()

    def forward(self, pairs: Tensor) -> Tensor:
        """``[..., 3D]`` to ``[..., outputs]``."""
        query, key, difference, both = self.weight.chunk(4, 1)
        weight = torch.cat([key - difference, both, query + difference], 1)
        return product(pairs, weight, self.bias, self.precision)


def _pairs(query: Tensor, key: Tensor) -> Tensor:
    """``[k, q * k, q]``, side by side."""
    return torch.cat([key, query * key, query], -1)


class _EventPairs(torch.autograd.Function):
    """``[k, q * k, q]`` of each event: ``[events, 3D]``.

    Its gradient is written where the events are: as plain indexing, it would be summed up one event
    after another.
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, keys: Tensor, events: Tensor | None) -> Tensor:
        ctx.save_for_backward(query, keys, events)
        return _pairs(*_of_events(query, keys, events))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        query, keys, events = ctx.saved_tensors
        q, k = _of_events(query, keys, events)
        by_key, by_both, by_query = gradient.chunk(3, 1)
        by_key = torch.addcmul(by_key, by_both, q)
        by_query = torch.addcmul(by_query, by_both, k)
        return _to_rows(by_query, keys, events).sum(1), _to_rows(by_key, keys, events), None


def _of_events(query: Tensor, keys: Tensor, events: Tensor | None) -> tuple[Tensor, Tensor]:
    """Candidate and vector of each event, ``[events, D]``; all positions where ``events`` is None."""
    longest, width = keys.shape[1:]
    if events is None:
        return query.unsqueeze(1).expand_as(keys).reshape(-1, width), keys.reshape(-1, width)
    return query.index_select(0, events // longest), keys.reshape(-1, width).index_select(0, events)


def _to_rows(gradient: Tensor, keys: Tensor, events: Tensor | None) -> Tensor:
    """``[events, D]`` to ``[B, H, D]``, zeros where there is no event."""
    if events is None:
        return gradient.view_as(keys)
    rows = gradient.new_zeros(keys.shape[0] * keys.shape[1], keys.shape[2])
    return rows.index_copy_(0, events, gradient).view_as(keys)
