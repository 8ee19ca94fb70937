"""DCNv2: full-matrix cross layers beside, or below, a multilayer perceptron."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from recsys.models.cross import CrossNetwork
from recsys.models.fields import FieldVectors
from recsys.models.initialise import initialise
from recsys.models.inputs import Inputs, Layout
from recsys.models.mlp import MLP, Head
from recsys.models.options import Activation, ModelConfig, Perceptrons, Widths


class DCNv2Config(ModelConfig):
    """Options of ``dcnv2``."""

    structure: Literal["parallel", "stacked"] = "parallel"
    """``parallel``: cross layers and perceptron read the fields, the logit reads both;
    ``stacked``: the perceptron reads the cross layers."""
    cross_layers: int = Field(default=3, ge=1)
    """Number of cross layers."""
    hidden: Widths = (400, 400, 400)
    """Width of each hidden layer of the perceptron."""
    activation: Activation = "relu"
    """``relu`` or ``dice``."""
    batch_norm: bool = True
    """Batch normalisation before each activation."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Probability of dropping an activation in training."""
    numeric_dim: int | None = Field(default=None, ge=1)
    """Width of embedded numbers; default: the commonest width of the other features."""


class DCNv2(nn.Module):
    """Cross network version 2 (Wang et al. 2021, eq. 1) with a multilayer perceptron.

    Args:
        config: options.
        layout: shape of the inputs.
        generator: first values are drawn from it.
    """

    Config = DCNv2Config
    PERCEPTRONS: ClassVar[Perceptrons] = {"mlp": "head.linear"}

    def __init__(self, config: DCNv2Config, layout: Layout, *, generator: torch.Generator) -> None:
        super().__init__()
        self.vectors = FieldVectors(layout, numeric_dim=config.numeric_dim)
        width = sum(self.vectors.widths)
        self.cross = CrossNetwork(width, config.cross_layers)
        self.mlp = MLP.of(width, config)
        self.parallel = config.structure == "parallel"
        self.head = Head(self.mlp.outputs + (width if self.parallel else 0))
        initialise(self, generator)

    def forward(self, inputs: Inputs) -> Tensor:
        """Logits ``[B]``."""
        x = self.vectors(inputs)
        crossed = self.cross(x)
        logits: Tensor
        if self.parallel:
            logits = self.head(torch.cat([crossed, self.mlp(x)], 1))
        else:
            logits = self.head(self.mlp(crossed))
        return logits
