"""Logistic regression: one weight per value."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from recsys.models.fields import mean_pooled
from recsys.models.initialise import xavier_normal
from recsys.models.inputs import Inputs, Layout
from recsys.models.options import ModelConfig


class LRConfig(ModelConfig):
    """LR has no options; its weights are embedding tables of width 1."""

    def table_dim(self, embedding_dim: int) -> int:
        """1, whatever is asked for."""
        return 1


class LR(nn.Module):
    """Sum of the weights of all values, of the numbers times a weight each, and a bias.

    A missing number has a weight of its own. A multi-valued field or a sequence gives the mean of its
    values' weights. Where a table is wider than 1, a value's weight is the sum of its vector.

    Args:
        config: no options.
        layout: shape of the inputs.
        generator: first values are drawn from it.
    """

    Config = LRConfig

    def __init__(self, config: LRConfig, layout: Layout, *, generator: torch.Generator) -> None:
        super().__init__()
        self.layout = layout
        self.bias = nn.Parameter(torch.empty(1))
        numbers = len(layout.numerics)
        self.numerics = nn.Parameter(torch.empty(2, numbers)) if numbers else None
        self.initialise(generator)

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Draw the numbers' weights; the bias starts at zero."""
        self.bias.zero_()
        if self.numerics is not None:
            xavier_normal(self.numerics, generator)

    def forward(self, inputs: Inputs) -> Tensor:
        """Logits ``[B]``."""
        terms = [inputs.fields[name].sum(1) for name in self.layout.fields]
        terms += [
            mean_pooled(inputs.sequences[name], inputs.lengths[name]).sum(1)
            for name in self.layout.sequences
        ]
        if self.numerics is not None:
            numbers = torch.stack([inputs.numerics[name] for name in self.layout.numerics], 1)
            missing = torch.stack([inputs.missing[name] for name in self.layout.numerics], 1)
            terms.append(numbers @ self.numerics[0] + missing @ self.numerics[1])
        return torch.stack(terms).sum(0) + self.bias
