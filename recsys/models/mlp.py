"""The multilayer perceptron that most models end in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from recsys.models.dice import Dice
from recsys.models.dropout import Dropout
from recsys.models.linear import Linear
from recsys.models.norm import BatchNorm
from recsys.models.options import Activation


class Perceptron(Protocol):
    """Options of a model that has one perceptron."""

    @property
    def hidden(self) -> Sequence[int]:
        """Width of each layer."""

    @property
    def activation(self) -> Activation:
        """``relu`` or ``dice``."""

    @property
    def batch_norm(self) -> bool:
        """Whether to standardise before each activation."""

    @property
    def dropout(self) -> float:
        """Probability, after each activation."""


class MLP(nn.Module):
    """Layers of linear, batch norm, activation, dropout, in this order.

    Args:
        inputs: width of the input.
        hidden: width of each layer; the last is the width of the output (``outputs``).
        activation: ``relu`` or ``dice``.
        batch_norm: standardise before the activation.
        dropout: probability, after the activation.
    """

    def __init__(
        self,
        inputs: int,
        hidden: Sequence[int],
        *,
        activation: Activation = "relu",
        batch_norm: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width in hidden:
            # batch norm has a shift of its own; a bias before it would never learn
            relu = activation == "relu" and not batch_norm
            layers.append(Linear(inputs, width, bias=not batch_norm, relu=relu))
            if batch_norm:
                layers.append(BatchNorm(width))
            if not relu:
                layers.append(Dice(width) if activation == "dice" else nn.ReLU())
            if dropout:
                layers.append(Dropout(dropout))
            inputs = width
        self.layers = nn.Sequential(*layers)
        self.outputs = inputs

    @classmethod
    def of(cls, inputs: int, config: Perceptron) -> MLP:
        """The perceptron that a model's options ask for."""
        return cls(
            inputs,
            config.hidden,
            activation=config.activation,
            batch_norm=config.batch_norm,
            dropout=config.dropout,
        )

    def forward(self, x: Tensor) -> Tensor:
        """``[N, inputs]`` to ``[N, outputs]``."""
        result: Tensor = self.layers(x)
        return result


class Head(nn.Module):
    """One logit per row from a vector per row."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.linear = Linear(inputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, inputs]`` to logits ``[B]``."""
        logits: Tensor = self.linear(x)
        return torch.squeeze(logits, 1)
