"""DNN: a multilayer perceptron on all field vectors."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from recsys.models.fields import FieldVectors
from recsys.models.initialise import initialise
from recsys.models.inputs import Inputs, Layout
from recsys.models.mlp import MLP, Head
from recsys.models.options import Activation, ModelConfig, Perceptrons, Widths


class DNNConfig(ModelConfig):
    """Options of ``dnn``."""

    hidden: Widths = (400, 400, 400)
    """Width of each hidden layer."""
    activation: Activation = "relu"
    """``relu`` or ``dice``."""
    batch_norm: bool = True
    """Batch normalisation before each activation."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Probability of dropping an activation in training."""
    numeric_dim: int | None = Field(default=None, ge=1)
    """Width of embedded numbers; default: the commonest width of the other features."""


class DNN(nn.Module):
    """Field vectors side by side, a multilayer perceptron, a logit.

    Args:
        config: options.
        layout: shape of the inputs.
        generator: first values are drawn from it.
    """

    Config = DNNConfig
    PERCEPTRONS: ClassVar[Perceptrons] = {"mlp": "head.linear"}

    def __init__(self, config: DNNConfig, layout: Layout, *, generator: torch.Generator) -> None:
        super().__init__()
        self.vectors = FieldVectors(layout, numeric_dim=config.numeric_dim)
        self.mlp = MLP.of(sum(self.vectors.widths), config)
        self.head = Head(self.mlp.outputs)
        initialise(self, generator)

    def forward(self, inputs: Inputs) -> Tensor:
        """Logits ``[B]``."""
        logits: Tensor = self.head(self.mlp(self.vectors(inputs)))
        return logits
