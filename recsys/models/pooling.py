"""Histories pooled without a candidate, as a query tower has to: every event with a weight of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from recsys.models.activation_unit import FLOOR, ActivationUnit
from recsys.models.fields import beside
from recsys.models.inputs import Inputs, Layout
from recsys.models.linear import Linear

Pooled = Literal["mean", "attention", "din"]


class WeightedHistories(nn.Module):
    """Sequences to the sums of their events, weighted; aligned ones are one history with one weight each.

    ``attention``: softmax of a learned score of the event alone. ``din``: DIN's activation unit, in which
    the newest event takes the place of the candidate.

    Args:
        layout: whose sequences to pool.
        kind: how events are weighted.
        hidden: width of each hidden layer of what weighs an event; of ``attention`` the first alone.
        interests: sums of each history, which ``attention`` weighs each for itself.
    """

    def __init__(self, layout: Layout, kind: Pooled, hidden: Sequence[int], *, interests: int = 1) -> None:
        super().__init__()
        groups: dict[str, list[str]] = {}
        for name in layout.sequences:
            groups.setdefault(layout.aligned_root(name), []).append(name)
        self._groups = tuple(groups.values())
        self._widths = tuple([layout.sequences[name].dim for name in group] for group in self._groups)
        self.names: tuple[str, ...] = tuple(name for group in self._groups for name in group)
        """Sequences, in the order of ``forward``."""
        self.widths: tuple[int, ...] = tuple(layout.sequences[name].dim for name in self.names)
        """Width of each."""
        self.units = nn.ModuleList(
            EventAttention(sum(widths), hidden[0], interests)
            if kind == "attention"
            else NewestEvent(sum(widths), hidden)
            for widths in self._widths
        )

    def forward(self, inputs: Inputs) -> Tensor:
        """``[B, sum of widths]``, or of several interests ``[B, interests, sum of widths]``; zeros for a
        history without events."""
        pooled = [
            unit(beside([inputs.sequences[name] for name in group]), inputs.lengths[group[0]])
            for group, unit in zip(self._groups, self.units, strict=True)
        ]
        return beside(pooled)


class EventAttention(nn.Module):
    """Softmax over events of ``v . tanh(W e + b)`` (Yang et al., NAACL 2016, of words in a sentence).

    Several interests have a v each (ComiRec-SA, Cen et al., KDD 2020, eq. 8).

    Args:
        width: D of an event.
        hidden: rows of W.
        interests: sums to make, I.
    """

    def __init__(self, width: int, hidden: int, interests: int = 1) -> None:
        super().__init__()
        self.linear = Linear(width, hidden)
        self.score = Linear(hidden, interests)

    def forward(self, events: Tensor, lengths: Tensor) -> Tensor:
        """Events ``[B, H, D]``, lengths ``[B]`` to pooled ``[B, D]``, or where I > 1 ``[B, I, D]``."""
        valid = (torch.arange(events.shape[1], device=events.device) < lengths.unsqueeze(1)).unsqueeze(2)
        scores = self.score(torch.tanh(self.linear(events)))
        weights = torch.softmax(torch.where(valid, scores, FLOOR), 1) * valid
        pooled = torch.bmm(weights.transpose(1, 2), events)
        return pooled.squeeze(1) if self.score.weight.shape[0] == 1 else pooled


class NewestEvent(nn.Module):
    """DIN's activation unit with the newest event as what the others are compared with.

    Args:
        width: D of an event.
        hidden: width of each hidden layer of the unit.
    """

    def __init__(self, width: int, hidden: Sequence[int]) -> None:
        super().__init__()
        self.unit = ActivationUnit(width, hidden, activation="dice", dropout=0.0, softmax=True)

    def forward(self, events: Tensor, lengths: Tensor) -> Tensor:
        """Events ``[B, H, D]``, lengths ``[B]`` to pooled ``[B, D]``."""
        is_newest = torch.arange(events.shape[1], device=events.device) == (lengths - 1).unsqueeze(1)
        newest = torch.bmm(is_newest.to(events.dtype).unsqueeze(1), events).squeeze(1)
        pooled: Tensor = self.unit(newest, events, lengths)
        return pooled
