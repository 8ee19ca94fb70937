"""Vectors for numbers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from recsys.models.initialise import xavier_normal
from recsys.models.inputs import Inputs


class NumericVectors(nn.Module):
    """One vector per numeric feature: ``v x + b`` where there is a number, ``u`` where it is missing.

    AutoInt (Song et al. 2019, eq. 4) has ``v x`` alone, which cannot tell a missing number from 0.

    Args:
        names: the features, in order.
        dim: width D of the vectors.
    """

    def __init__(self, names: tuple[str, ...], dim: int) -> None:
        super().__init__()
        self.names = names
        self.slope = nn.Parameter(torch.empty(len(names), dim))
        self.offset = nn.Parameter(torch.empty(len(names), dim))
        self.missing = nn.Parameter(torch.empty(len(names), dim))

    def initialise(self, generator: torch.Generator) -> None:
        """Draw slopes and vectors of the missing; offsets start at zero."""
        xavier_normal(self.slope, generator)
        xavier_normal(self.missing, generator)
        self.offset.zero_()

    def forward(self, inputs: Inputs) -> Tensor:
        """Vectors ``[B, features, D]``."""
        numbers = torch.stack([inputs.numerics[name] for name in self.names], 1).unsqueeze(2)
        missing = torch.stack([inputs.missing[name] for name in self.names], 1).unsqueeze(2)
        present = torch.addcmul(self.offset, numbers, self.slope)
        return torch.addcmul(present, missing, self.missing - self.offset)
