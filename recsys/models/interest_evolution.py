"""DIEN's interest evolution: what a history leads to, seen from the candidate."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from recsys.models.activation_unit import FLOOR
from recsys.models.events import Events
from recsys.models.linear import Linear


class InterestEvolution(nn.Module):
    """Last state of a history's interests as they evolve towards a candidate (DIEN, Zhou et al. 2019).

    A GRU reads the events, oldest first: its states h are interests (section 4.2). Their weights are the
    softmax over the history of ``h W q`` for the candidate q, and a second GRU reads the states with its
    update gate times the weight (AUGRU, section 4.3, eq. 15 and 16), so that what has nothing to do with
    the candidate leaves the state as it is. A row without events has zeros.

    Only events are computed, not padding. An exported graph loops over padding too, and drops it.

    Args:
        candidate: width D of the candidate.
        events: width K of an event.
        width: W of the states.
    """

    def __init__(self, candidate: int, events: int, width: int) -> None:
        super().__init__()
        self.extractor = GatedUnit(events, width)
        self.evolution = GatedUnit(width, width)
        self.attention = Linear(candidate, width, bias=False)

    def forward(self, query: Tensor, keys: Tensor, lengths: Tensor) -> Tensor:
        """Candidates ``[B, D]``, histories ``[B, H, K]``, lengths ``[B]`` to states ``[B, W]``."""
        if torch.compiler.is_exporting():
            return self._of_padded(query, keys, lengths)
        rows, longest, _ = keys.shape
        order = torch.argsort(lengths, descending=True, stable=True)
        valid = torch.arange(longest, device=keys.device) < lengths[order].unsqueeze(1)
        # Time after time, the rows that are that long: the first of them, as the longest come first.
        at, place = valid.t().nonzero().unbind(1)
        counts = [count for count in valid.sum(0).tolist() if count] or [0]
        events = Events(rows, longest, order[place] * longest + at)
        states = torch.cat(self.extractor(events.take(keys), counts))
        scores = (states * self.attention(query).index_select(0, order[place])).sum(1)
        weights = torch.softmax(events.spread(scores, FLOOR), 1)
        evolved = self.evolution(states, counts, events.take(weights.unsqueeze(2)))
        return keys.new_zeros(rows, states.shape[1]).index_copy(
            0, order[: counts[0]], _last_states(evolved)
        )

    def _of_padded(self, query: Tensor, keys: Tensor, lengths: Tensor) -> Tensor:
        """The same, for an exported graph."""
        keys = functional.pad(keys, (0, 0, 0, 1))  # a loop in a graph has to have a step
        valid = torch.arange(keys.shape[1], device=keys.device) < lengths.unsqueeze(1)
        states = self.extractor.scanned(keys.transpose(0, 1))
        scores = (states.transpose(0, 1) * self.attention(query).unsqueeze(1)).sum(2)
        weights = torch.softmax(torch.where(valid, scores, FLOOR), 1) * valid
        return self.evolution.scanned(states, weights.t().unsqueeze(2))[-1]


class GatedUnit(nn.Module):
    """A gated recurrent unit, the reset gate after the product as in ``torch.nn.GRU``.

    ``r, u = σ(W x + U h)``, ``c = tanh(W x + b + r * U h)``, ``h + a u (c - h)``; a is 1, or the weight of
    the event.

    Args:
        inputs: width D of x.
        width: W of the states.
    """

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.width = width
        self.of_input = Linear(inputs, 3 * width)
        self.of_state = Linear(width, 3 * width)

    def forward(self, events: Tensor, counts: list[int], weights: Tensor | None = None) -> list[Tensor]:
        """States at each time, ``[counts[t], W]``: of fewer and fewer rows, the first ones.

        Args:
            events: ``[n, D]``, those of the first time first.
            counts: rows that have an event at each time, n together; never rising.
            weights: ``[n, 1]``, or None for ones.
        """
        xs = torch.split(self.of_input(events), counts)
        factors = [None] * len(counts) if weights is None else torch.split(weights, counts)
        state = events.new_zeros(counts[0], self.width)
        states: list[Tensor] = []
        for x, factor in zip(xs, factors, strict=True):
            state = self._step(state[: len(x)], x, factor)
            states.append(state)
        return states

    def scanned(self, events: Tensor, weights: Tensor | None = None) -> Tensor:
        """States ``[H, B, W]`` of events ``[H, B, D]`` with weights ``[H, B, 1]``, as a loop in a graph."""
        from torch._higher_order_ops.scan import scan  # not public yet; what ONNX's Scan is made from

        def step(state: Tensor, xs: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
            state = self._step(state, xs[0], xs[1] if len(xs) > 1 else None)
            return state, state.clone()

        x = self.of_input(events)
        _, states = scan(
            step, torch.zeros_like(x[0, :, : self.width]), (x,) if weights is None else (x, weights)
        )
        return states  # type: ignore[no-any-return]

    def _step(self, state: Tensor, x: Tensor, weight: Tensor | None) -> Tensor:
        """State ``[B, W]`` after an event, given as ``W x + b`` ``[B, 3 W]``."""
        reset_x, update_x, new_x = x.chunk(3, 1)
        reset_h, update_h, new_h = self.of_state(state).chunk(3, 1)
        new = torch.tanh(new_x + torch.sigmoid(reset_x + reset_h) * new_h)
        update = torch.sigmoid(update_x + update_h)
        if weight is not None:
            update = update * weight
        return state + update * (new - state)


def _last_states(states: list[Tensor]) -> Tensor:
    """The last state of every row, given those at each time, of the first rows at that time."""
    following = [*[len(state) for state in states[1:]], 0]
    ended = [state[count:] for state, count in zip(states, following, strict=True)]
    return torch.cat(ended[::-1])
