"""FM: a weight for every value, and an inner product for every two fields."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from recsys.models.fields import EvenWidths, FieldVectors, beside
from recsys.models.initialise import initialise
from recsys.models.inputs import Inputs, Layout
from recsys.models.options import ModelConfig


class FMConfig(ModelConfig):
    """Options of ``fm``.

    The first element of a value's vector is its first-order weight, the others are its factors:
    ``plan.embedding_dim: 17`` gives 16 factors.
    """

    numeric_dim: int | None = Field(default=None, ge=2)
    """Width of embedded numbers, the first-order weight included; default: the commonest width of
    the other features."""


class FM(nn.Module):
    """Factorisation machine (Rendle 2010, eq. 1): ``b + sum_i w_i + sum_(i<j) <v_i, v_j>`` over fields.

    Weight and factors of a value lie in one table row, so that all models of a plan cost the same
    bytes; public implementations keep the weights in tables of their own, one wide. A multi-valued
    field or a sequence is the mean of its values, which are not crossed with each other. Factors of
    differing widths are first projected to the commonest one.

    Args:
        config: options.
        layout: shape of the inputs; raises ValueError for a vector too narrow to hold a factor.
        generator: first values are drawn from it.
    """

    Config = FMConfig

    def __init__(self, config: FMConfig, layout: Layout, *, generator: torch.Generator) -> None:
        super().__init__()
        self.factors = Factors(layout, numeric_dim=config.numeric_dim)
        self.pairs = FactorPairs(self.factors.widths)
        self.bias = nn.Parameter(torch.empty(1))
        initialise(self, generator)

    def initialise(self, generator: torch.Generator) -> None:
        """The bias starts at zero."""
        self.bias.zero_()

    def forward(self, inputs: Inputs) -> Tensor:
        """Logits ``[B]``."""
        weights, factors = self.factors(inputs)
        logits: Tensor = weights + self.pairs(factors) + self.bias
        return logits


class Factors(nn.Module):
    """Field vectors taken apart: the first element is a first-order weight, the others are factors.

    Args:
        layout: shape of the inputs; raises ValueError for a vector narrower than 2.
        numeric_dim: width of embedded numbers; default: see ``FieldVectors``.
    """

    def __init__(self, layout: Layout, *, numeric_dim: int | None = None) -> None:
        super().__init__()
        self.vectors = FieldVectors(layout, numeric_dim=numeric_dim)
        if min(self.vectors.widths) < 2:
            raise ValueError(
                "vectors hold a first-order weight and at least one factor, so they must be 2 wide or "
                f"wider, found {min(self.vectors.widths)}; raise plan.embedding_dim"
            )
        self.widths = tuple(width - 1 for width in self.vectors.widths)
        """Factors of each field."""
        self.names = self.vectors.names
        """Name of each field."""

    def forward(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        """Sum of the weights ``[B]``, and the factors side by side ``[B, sum of widths]``."""
        vectors = self.vectors(inputs)
        if len(set(self.widths)) == 1:
            even = vectors.view(-1, len(self.widths), self.widths[0] + 1)
            return even[:, :, 0].sum(1), even[:, :, 1:].flatten(1)
        apart = torch.split(vectors, list(self.vectors.widths), 1)
        weights = torch.stack([vector[:, 0] for vector in apart], 1).sum(1)
        return weights, beside([vector[:, 1:] for vector in apart])


class FactorPairs(EvenWidths):
    """Sum of the inner products of every two of M vectors, in linear time (Rendle 2010, lemma 3.1).

    Args:
        widths: of the vectors; those unlike the commonest one are projected to it, without a bias.
    """

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__(widths, bias=False)

    def forward(self, vectors: Tensor) -> Tensor:
        """M vectors side by side, ``[B, sum of widths]``, to ``[B]``."""
        even = self.evened(vectors)
        squared_sum = even.sum(1).square()
        sum_of_squares = even.square().sum(1)
        return 0.5 * (squared_sum - sum_of_squares).sum(1)
