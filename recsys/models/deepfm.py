"""DeepFM: a factorisation machine and a multilayer perceptron on the same vectors."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from recsys.models.fm import FactorPairs, Factors
from recsys.models.initialise import initialise
from recsys.models.inputs import Inputs, Layout
from recsys.models.mlp import MLP, Head
from recsys.models.options import Activation, ModelConfig, Perceptrons, Widths


class DeepFMConfig(ModelConfig):
    """Options of ``deepfm``.

    The first element of a value's vector is its first-order weight, the others are its factors:
    ``plan.embedding_dim: 17`` gives 16 factors.
    """

    hidden: Widths = (400, 400, 400)
    """Width of each hidden layer of the perceptron."""
    activation: Activation = "relu"
    """``relu`` or ``dice``."""
    batch_norm: bool = True
    """Batch normalisation before each activation."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Probability of dropping an activation in training."""
    numeric_dim: int | None = Field(default=None, ge=2)
    """Width of embedded numbers, the first-order weight included; default: the commonest width of
    the other features."""


class DeepFM(nn.Module):
    """DeepFM (Guo et al. 2017, eq. 1): the logits of FM and of a perceptron on its factors, summed.

    Both read the same factors; see :class:`~recsys.models.fm.FM` for where the first-order weights
    are. The one bias is the perceptron's.

    Args:
        config: options.
        layout: shape of the inputs; raises ValueError for a vector too narrow to hold a factor.
        generator: first values are drawn from it.
    """

    Config = DeepFMConfig
    PERCEPTRONS: ClassVar[Perceptrons] = {"mlp": "head.linear"}

    def __init__(self, config: DeepFMConfig, layout: Layout, *, generator: torch.Generator) -> None:
        super().__init__()
        self.factors = Factors(layout, numeric_dim=config.numeric_dim)
        self.pairs = FactorPairs(self.factors.widths)
        self.mlp = MLP.of(sum(self.factors.widths), config)
        self.head = Head(self.mlp.outputs)
        initialise(self, generator)

    def forward(self, inputs: Inputs) -> Tensor:
        """Logits ``[B]``."""
        weights, factors = self.factors(inputs)
        logits: Tensor = weights + self.pairs(factors) + self.head(self.mlp(factors))
        return logits
