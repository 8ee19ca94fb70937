"""What a row of a pool is worth to a value, and what one would be worth to a value that has none."""

from __future__ import annotations

import torch
from torch import Tensor

_PRIOR = 5.0
"""Lookups that the usual worth counts as, beside those that a row has seen."""
_CALM = 4.0
"""Weight of the usual promise beside what a place's own gradients say."""


def place_scores(held: Tensor, worth: Tensor, pull: Tensor, seen: Tensor, expected: Tensor) -> Tensor:
    """What every place of a vocabulary is worth until the next update: ``[size, K]``, of K pieces a value.

    Between two updates most values of a large vocabulary are looked up a few times or never, which says
    little about them. So worth is estimated per lookup, drawn towards what rows of the same piece are worth
    on average, and multiplied by the lookups that are expected. A place without a row promises what rows of
    its piece are worth; more where its gradients pull the same way more than others' do.

    Args:
        held: bool ``[size, K]``, places whose rows have been measured.
        worth: sums over lookups of the square of vector · gradient ``[size, K]``, zero without a row.
        pull: sums over lookups of the sketched gradient ``[size, K]``.
        seen: lookups ``[size]``.
        expected: lookups that are to come ``[size]``.
    """
    scores = torch.zeros_like(worth)
    usual = worth.new_zeros(())
    for piece, has in enumerate(held.unbind(1)):
        lookups = seen[has].sum()
        # A piece that nobody has is taken to be worth half of the one before.
        usual = worth[has, piece].sum() / lookups if lookups > 0 else usual / 2
        own = (worth[:, piece] + _PRIOR * usual) / (seen + _PRIOR)
        promised = usual * (_coherence(pull[:, piece], seen, ~has) + _CALM) / (1 + _CALM)
        scores[:, piece] = expected * torch.where(has, own, promised)
    return scores


def expected_lookups(counts: Tensor, seen: Tensor, passed: float) -> Tensor:
    """Lookups of every value until the next update, by how often train rows hold it: ``[size]``.

    Args:
        counts: train rows that hold each value ``[size]``.
        seen: lookups since the last update ``[size]``.
        passed: share of an epoch between two updates.
    """
    counted = counts * passed
    others = (seen - counted).mean().clamp(min=0.0)  # such as negatives, drawn with equal chances
    return counted + others


def _coherence(pull: Tensor, seen: Tensor, among: Tensor) -> Tensor:
    """Squared pull per lookup, relative to its mean over the places ``among``; 1 where nothing was seen."""
    squared = pull.square()
    mean = squared[among].sum() / seen[among].sum().clamp(min=1.0)
    known = (seen > 0) & (mean > 0)
    return torch.where(known, squared / torch.where(known, seen * mean, 1.0), 1.0)
