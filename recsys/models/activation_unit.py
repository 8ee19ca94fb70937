"""DIN's activation unit: one weight per event of a history, from the event and the candidate."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from recsys.models.dice import Dice
from recsys.models.dropout import Dropout
from recsys.models.events import Events
from recsys.models.initialise import xavier_normal
from recsys.models.linear import Linear, Precision, product
from recsys.models.options import Activation
from recsys.models.row_loops import arrays, is_looped, over_rows, pair, pair_gradient

FLOOR = -1e30
"""Score of padding before a softmax."""
_TILE = 4096
"""Events scored at a time in evaluation, so that they stay in the cache."""


class ActivationUnit(nn.Module):
    """Sum of a history's vectors, each times its weight (DIN, Zhou et al. 2018, eq. 3).

    The weight of event k for candidate q is a perceptron of ``[q, k, q - k, q * k]``. An event may have
    more elements than the candidate (how long it lasted, say): the perceptron reads them too, and they are
    weighted and summed with the others.

    Only events are computed, not padding: faster, and Dice's statistics are those of events. An
    exported graph computes padding too, and drops it.

    Args:
        width: D of the candidate, and of the elements of an event that stand beside it.
        hidden: width of each hidden layer, at least one.
        activation: ``dice`` or ``relu``.
        dropout: probability, after each activation.
        softmax: normalise weights over the history.
        more: further elements of an event; K is ``width + more``.
    """

    def __init__(
        self,
        width: int,
        hidden: Sequence[int],
        *,
        activation: Activation,
        dropout: float,
        softmax: bool,
        more: int = 0,
    ) -> None:
        super().__init__()
        first = PairLinear(width, hidden[0], more=more)
        others = [Linear(inputs, outputs) for inputs, outputs in itertools.pairwise(hidden)]
        self.linears = nn.ModuleList([first, *others])
        self.activations = nn.ModuleList(Dice(c) if activation == "dice" else nn.ReLU() for c in hidden)
        self.dropout = Dropout(dropout) if dropout else None
        self.score = Linear(hidden[-1], 1)
        self.softmax = softmax

    def forward(self, query: Tensor, keys: Tensor, lengths: Tensor) -> Tensor:
        """Candidates ``[B, D]``, histories ``[B, H, K]``, lengths ``[B]`` to pooled ``[B, K]``."""
        return torch.bmm(self.weights(query, keys, lengths).unsqueeze(1), keys).squeeze(1)

    def weights(self, query: Tensor, keys: Tensor, lengths: Tensor) -> Tensor:
        """Weight of every event, ``[B, H]``, of the same; 0 for padding."""
        valid = torch.arange(keys.shape[1], device=keys.device) < lengths.unsqueeze(1)
        padding = FLOOR if self.softmax else 0.0
        if torch.compiler.is_exporting():
            pairs = _paired(query.unsqueeze(1).expand(-1, keys.shape[1], -1), keys)
            weights = torch.where(valid, self._scores(pairs), padding)
        else:
            events = Events.of(valid)
            pairs = _pairs_of_events(query, keys, lengths, events)
            weights = events.spread(self._scores_of_events(pairs), padding)
        if self.softmax:
            weights = torch.softmax(weights, 1) * valid
        return weights

    def _scores_of_events(self, pairs: Tensor) -> Tensor:
        """Scores ``[n]`` of ``[n, K + 2D]``."""
        if self.training or pairs.device.type != "cpu":
            return self._scores(pairs)
        return torch.cat([self._scores(tile) for tile in torch.split(pairs, _TILE)])

    def _scores(self, pairs: Tensor) -> Tensor:
        """Scores ``[...]`` of ``[..., K + 2D]``."""
        x = pairs
        for linear, activation in zip(self.linears, self.activations, strict=True):
            x = activation(linear(x))
            if self.dropout is not None:
                x = self.dropout(x)
        scores: Tensor = self.score(x)
        return scores.squeeze(-1)


class PairLinear(nn.Module):
    """``W [q, k, q - k, q * k, m] + b``, given ``[k, m, q * k, q]``: the difference needs no columns of its
    own; m are elements of an event that the candidate has not.

    Args:
        width: D of q and k.
        outputs: rows of W.
        more: elements of m.
    """

    precision: Precision = "fp32"

    def __init__(self, width: int, outputs: int, *, more: int = 0) -> None:
        super().__init__()
        self.width = width
        self.weight = nn.Parameter(torch.empty(outputs, 4 * width + more))
        self.bias = nn.Parameter(torch.empty(outputs))

    def initialise(self, generator: torch.Generator) -> None:
        """Draw the weights."""
        xavier_normal(self.weight, generator)
        self.bias.zero_()

    def folded(self) -> Tensor:
        """The weight for ``[k, m, q * k, q]``: ``[outputs, K + 2D]``."""
        query, key, difference, both, more = self.weight.tensor_split(
            [at * self.width for at in range(1, 5)], 1
        )
        return torch.cat([key - difference, more, both, query + difference], 1)

    def forward(self, pairs: Tensor) -> Tensor:
        """``[..., K + 2D]`` to ``[..., outputs]``."""
        return product(pairs, self.folded(), self.bias, self.precision)


def _paired(query: Tensor, key: Tensor) -> Tensor:
    """``[k, q * k, q]``, side by side; the product is with the first elements of a longer k."""
    return torch.cat([key, query * key[..., : query.shape[-1]], query], -1)


def _pairs_of_events(query: Tensor, keys: Tensor, lengths: Tensor, events: Events) -> Tensor:
    """``[n, K + 2D]`` of queries ``[B, D]`` and their first events of ``[B, H, K]``."""
    if is_looped(keys):
        # What is read in a compiled loop must be there.
        within = lengths.clamp(0, keys.shape[1])
        paired: Tensor = _PairsOfEvents.apply(query, keys, within)  # type: ignore[no-untyped-call]
        return paired
    return _paired(events.take(query.unsqueeze(1).expand(-1, keys.shape[1], -1)), events.take(keys))


class _PairsOfEvents(torch.autograd.Function):
    """``_paired`` of every event in one pass, and one for its gradients."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, keys: Tensor, lengths: Tensor) -> Tensor:
        ctx.save_for_backward(query, keys, lengths)
        lines = int(lengths.sum())
        result = query.new_empty(lines, keys.shape[2] + 2 * query.shape[1])
        over_rows(pair, len(query), [*arrays(query, keys), *_places(lengths), result.numpy()])
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        query, keys, lengths = ctx.saved_tensors
        by_query, by_keys = (torch.zeros(x.shape) for x in (query, keys))
        arguments = [*arrays(query, keys), *_places(lengths), *arrays(gradient, by_query, by_keys)]
        over_rows(pair_gradient, len(query), arguments)
        return by_query, by_keys, None


def _places(lengths: Tensor) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Events of each row, and the line that its first event has."""
    counts = lengths.to(torch.int64).numpy()
    return counts, np.cumsum(counts) - counts
