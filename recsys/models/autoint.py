"""AutoInt and AutoInt+: self-attention over the fields, alone or beside a multilayer perceptron."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from recsys.models.dropout import Dropout
from recsys.models.fields import EvenWidths, FieldVectors
from recsys.models.fm import Factors
from recsys.models.initialise import initialise
from recsys.models.inputs import Inputs, Layout
from recsys.models.interacting import InteractingLayers, Residual
from recsys.models.mlp import MLP, Head
from recsys.models.options import Activation, ModelConfig, Perceptrons, Widths


class AutoIntConfig(ModelConfig):
    """Options of ``autoint``.

    BARS's ``attention_dim`` is ``heads * head_dim`` here.
    """

    layers: int = Field(default=3, ge=1)
    """Number of interacting layers."""
    heads: int = Field(default=2, ge=1)
    """Attention heads of each layer."""
    head_dim: int = Field(default=32, ge=1)
    """Width of each head; a layer's output is ``heads * head_dim`` wide."""
    residual: Residual = "projected"
    """``projected``: each layer adds its input times a matrix (the paper); ``identity``: the input
    itself where it has the layer's width already (BARS); ``none``."""
    scale: bool = False
    """Divide attention scores by the square root of ``head_dim``."""
    layer_norm: bool = False
    """Layer normalisation in each layer."""
    norm_place: Literal["before_relu", "after_relu"] = "before_relu"
    """Where ``layer_norm`` normalises: before each layer's ReLU as BARS does, or after it as the authors'
    code does."""
    projection_relu: bool = False
    """Give queries, keys, values and the projected residual a bias and a ReLU each, as the authors' code
    does; the paper has neither."""
    attention_dropout: float = Field(default=0.0, ge=0, lt=1)
    """Probability of dropping an attention weight in training."""
    embedding_dropout: float = Field(default=0.0, ge=0, lt=1)
    """Probability of dropping an element of a field's vector in training."""
    wide: bool = False
    """Add a first-order weight of every value to the logit (BARS's ``use_wide``). It is the first element
    of the value's vector, as in FM, and the others take part in the attention: ``plan.embedding_dim: 11``
    gives 10."""
    numeric_dim: int | None = Field(default=None, ge=1)
    """Width of embedded numbers; default: the commonest width of the other features."""


class AutoIntPlusConfig(AutoIntConfig):
    """Options of ``autoint_plus``: those of ``autoint``, and of the perceptron."""

    hidden: Widths = (400, 400)
    """Width of each hidden layer of the perceptron."""
    activation: Activation = "relu"
    """``relu`` or ``dice``, in the perceptron."""
    batch_norm: bool = True
    """Batch normalisation before each activation of the perceptron."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Probability of dropping an activation of the perceptron in training."""


class AutoInt(nn.Module):
    """AutoInt (Song et al. 2019): interacting layers over the field vectors, then one logit.

    Vectors of differing widths are first projected to the commonest one.

    Args:
        config: options.
        layout: shape of the inputs; with ``wide``, raises ValueError for a vector of width 1.
        generator: first values are drawn from it.
    """

    Config: type[ModelConfig] = AutoIntConfig
    HEADS: ClassVar[Mapping[str, str]] = {"attention.layers": "attention.head.linear"}

    def __init__(self, config: AutoIntConfig, layout: Layout, *, generator: torch.Generator) -> None:
        super().__init__()
        self.vectors: Factors | FieldVectors
        made = Factors if config.wide else FieldVectors
        self.vectors = made(layout, numeric_dim=config.numeric_dim)
        self.dropout = Dropout(config.embedding_dropout) if config.embedding_dropout else None
        self.attention = FieldAttention(config, self.vectors.widths)
        self.mlp: MLP | None = None
        if isinstance(config, AutoIntPlusConfig):
            self.mlp = MLP.of(sum(self.vectors.widths), config)
            self.mlp_head = Head(self.mlp.outputs)
        initialise(self, generator)

    def forward(self, inputs: Inputs) -> Tensor:
        """Logits ``[B]``."""
        first_order, vectors = self.taken_apart(inputs)
        if self.dropout is not None:
            vectors = self.dropout(vectors)
        logits: Tensor = self.attention(vectors)
        if self.mlp is not None:
            logits = logits + self.mlp_head(self.mlp(vectors))
        return logits if first_order is None else logits + first_order

    def taken_apart(self, inputs: Inputs) -> tuple[Tensor | None, Tensor]:
        """Sum of the first-order weights ``[B]``, None without ``wide``; and the vectors that attend,
        side by side ``[B, sum of widths]``."""
        if isinstance(self.vectors, Factors):
            weights, factors = self.vectors(inputs)
            return weights, factors
        return None, self.vectors(inputs)

    @property
    def field_names(self) -> tuple[str, ...]:
        """Names of the M fields that attend to each other."""
        return self.vectors.names

    def attention_maps(self, inputs: Inputs) -> Tensor:
        """``[B, layers, heads, M, M]``: how much the first field of a pair takes of the second, softmax of
        eq. 5. From the second layer on, a field is what the layers before made of it."""
        return self.attention.maps(self.taken_apart(inputs)[1])


class AutoIntPlus(AutoInt):
    """AutoInt+ (Song et al. 2019, section 5.4): the logits of AutoInt and of a perceptron, summed."""

    Config = AutoIntPlusConfig
    PERCEPTRONS: ClassVar[Perceptrons] = {"mlp": "mlp_head.linear"}


class FieldAttention(EvenWidths):
    """Interacting layers over M vectors per row, and a logit from all their outputs."""

    def __init__(self, config: AutoIntConfig, widths: tuple[int, ...]) -> None:
        super().__init__(widths)
        self.layers = InteractingLayers(
            self.common,
            config.layers,
            config.heads,
            config.head_dim,
            residual=config.residual,
            scale=config.scale,
            layer_norm=config.layer_norm,
            norm_last=config.norm_place == "after_relu",
            projection_relu=config.projection_relu,
            dropout=config.attention_dropout,
        )
        self.head = Head(len(widths) * self.layers.outputs)

    def forward(self, vectors: Tensor) -> Tensor:
        """M vectors side by side, ``[B, sum of widths]``, to logits ``[B]``."""
        logits: Tensor = self.head(self.layers(self.evened(vectors)).flatten(1))
        return logits

    def maps(self, vectors: Tensor) -> Tensor:
        """Attention weights ``[B, layers, heads, M, M]`` of the same vectors."""
        return self.layers.attention(self.evened(vectors))
