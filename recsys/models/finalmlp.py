"""FinalMLP: two perceptrons on differently gated field vectors, fused by a bilinear form."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import ClassVar

import torch
from pydantic import Field, ValidationInfo, field_validator
from torch import Tensor, nn

from recsys.errors import did_you_mean
from recsys.models.fields import FieldVectors, beside
from recsys.models.initialise import initialise, xavier_normal
from recsys.models.inputs import Inputs, Layout
from recsys.models.linear import Linear, Precision, product
from recsys.models.mlp import MLP, Head
from recsys.models.options import Activation, ModelConfig, Perceptrons, Widths


class FinalMLPConfig(ModelConfig):
    """Options of ``finalmlp``."""

    hidden_1: Widths = Field(default=(400,), min_length=1)
    """Width of each hidden layer of the first stream."""
    hidden_2: Widths = Field(default=(400,), min_length=1)
    """Width of each hidden layer of the second stream."""
    activation: Activation = "relu"
    """``relu`` or ``dice``, in both streams."""
    batch_norm: bool = True
    """Batch normalisation before each activation of both streams."""
    dropout_1: float = Field(default=0.0, ge=0, lt=1)
    """Probability of dropping an activation of the first stream in training."""
    dropout_2: float = Field(default=0.0, ge=0, lt=1)
    """Probability of dropping an activation of the second stream in training."""
    heads: int = Field(default=1, ge=1)
    """Groups that the streams' last layers are cut into; only groups of one number meet. Divides
    both widths."""
    gating: bool = True
    """Whether each stream multiplies the field vectors by gates of its own."""
    context_1: tuple[str, ...] = ()
    """Features that the first stream's gates depend on, user features for example; none: the gates
    are the same for every row."""
    context_2: tuple[str, ...] = ()
    """Features that the second stream's gates depend on, item features for example."""
    gate_hidden: Widths = (64,)
    """Width of each hidden layer between a context and its gates."""
    numeric_dim: int | None = Field(default=None, ge=1)
    """Width of embedded numbers; default: the commonest width of the other features."""

    @field_validator("heads")
    @classmethod
    def _divides_both_widths(cls, heads: int, known: ValidationInfo) -> int:
        for stream in ("hidden_1", "hidden_2"):
            hidden = known.data.get(stream)
            if hidden and hidden[-1] % heads:
                raise ValueError(f"must divide the last width of {stream}, {hidden[-1]}")
        return heads


class FinalMLP(nn.Module):
    """FinalMLP (Mao et al. 2023): gates per stream, two perceptrons, bilinear fusion by heads.

    A gate is ``2 sigmoid(g)`` per element of the field vectors. With a context, g is a perceptron of
    the context's vectors; they are the field vectors themselves, where the authors' code looks
    the context up in tables of its own. Without one, g is a learned vector that starts at zero: the
    authors' code puts a vector of zeros through a ReLU perceptron, of which only the last bias
    ever gets a gradient, and that is the same.

    Args:
        config: options.
        layout: shape of the inputs; raises ValueError for a context that is no feature of it.
        generator: first values are drawn from it.
    """

    Config = FinalMLPConfig
    PERCEPTRONS: ClassVar[Perceptrons] = {"streams.0": None, "streams.1": None}

    def __init__(self, config: FinalMLPConfig, layout: Layout, *, generator: torch.Generator) -> None:
        super().__init__()
        self.vectors = FieldVectors(layout, numeric_dim=config.numeric_dim)
        width = sum(self.vectors.widths)
        columns = _columns(layout, self.vectors.widths)
        self.gates = nn.ModuleList(
            _gate(key, context, columns, config.gate_hidden, width)
            for key, context in (("context_1", config.context_1), ("context_2", config.context_2))
            if config.gating
        )
        self.streams = nn.ModuleList(
            MLP(width, hidden, activation=config.activation, batch_norm=config.batch_norm, dropout=dropout)
            for hidden, dropout in (
                (config.hidden_1, config.dropout_1),
                (config.hidden_2, config.dropout_2),
            )
        )
        self.fusion = BilinearFusion(config.hidden_1[-1], config.hidden_2[-1], config.heads)
        initialise(self, generator)

    def forward(self, inputs: Inputs) -> Tensor:
        """Logits ``[B]``."""
        vectors = self.vectors(inputs)
        gated = [vectors * gate(vectors) for gate in self.gates] or [vectors, vectors]
        left, right = (stream(x) for stream, x in zip(self.streams, gated, strict=True))
        logits: Tensor = self.fusion(left, right)
        return logits


class ConstantGate(nn.Module):
    """Gates ``2 sigmoid(g)`` that are the same for every row; 1 at the start.

    Args:
        width: elements to gate.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.empty(width))

    def initialise(self, generator: torch.Generator) -> None:
        """Start with every gate at 1."""
        self.logits.zero_()

    def forward(self, vectors: Tensor) -> Tensor:
        """``[B, width]``, of which nothing is read, to ``[width]``."""
        return 2 * torch.sigmoid(self.logits)


class ContextGate(nn.Module):
    """Gates ``2 sigmoid(g(context))`` for the vectors that the context is part of.

    Args:
        columns: where the context's vectors lie among all vectors, as (start, width).
        hidden: width of each hidden layer of g.
        width: elements to gate.
    """

    def __init__(self, columns: Sequence[tuple[int, int]], hidden: Sequence[int], width: int) -> None:
        super().__init__()
        self.columns = tuple(columns)
        self.mlp = MLP(sum(size for _, size in columns), hidden)
        self.linear = Linear(self.mlp.outputs, width)

    def forward(self, vectors: Tensor) -> Tensor:
        """``[B, width]`` to gates ``[B, width]``."""
        context = beside([vectors.narrow(1, start, size) for start, size in self.columns])
        return 2 * torch.sigmoid(self.linear(self.mlp(context)))


class BilinearFusion(nn.Module):
    """``b + w_1 x + w_2 y + sum_h x_h W_h y_h``: x and y meet within heads (Mao et al. 2023).

    The paper gives each head a bias and weights; their sums are the b, w_1 and w_2 here.

    Args:
        left, right: widths of x and y.
        heads: groups that both are cut into; divides both widths.
    """

    precision: Precision = "fp32"

    def __init__(self, left: int, right: int, heads: int) -> None:
        super().__init__()
        self.linear = Head(left + right)
        self.weight = nn.Parameter(torch.empty(heads, right // heads, left // heads))

    def initialise(self, generator: torch.Generator) -> None:
        """Draw W as the one row of weights that all products of an x and a y have."""
        xavier_normal(self.weight.view(1, -1), generator)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        """``[B, left]`` and ``[B, right]`` to logits ``[B]``."""
        left_width = self.weight.shape[2]
        heads = zip(torch.split(left, left_width, 1), self.weight, strict=True)
        met = beside([product(x, weight, None, self.precision) for x, weight in heads])
        linear: Tensor = self.linear(torch.cat([left, right], 1))
        return linear + (met * right).sum(1)


def _columns(layout: Layout, widths: Sequence[int]) -> dict[str, tuple[int, int]]:
    """Where each feature's vector lies in the output of ``FieldVectors``, as (start, width)."""
    names = [*layout.fields, *layout.numerics, *layout.sequences]
    starts = itertools.accumulate(widths, initial=0)
    return {name: (start, width) for name, start, width in zip(names, starts, widths, strict=False)}


def _gate(
    key: str, context: Sequence[str], columns: dict[str, tuple[int, int]], hidden: Sequence[int], width: int
) -> nn.Module:
    if not context:
        return ConstantGate(width)
    for name in context:
        if name not in columns:
            raise ValueError(f"{key} names {name!r}, which is no feature; {did_you_mean(name, columns)}")
    return ContextGate([columns[name] for name in context], hidden, width)
