"""Two towers: a vector of the query and one of the item, whose product says how well they fit."""

from __future__ import annotations

from collections.abc import Collection
from typing import ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from recsys.models.fields import EvenWidths, FieldVectors, beside, commonest
from recsys.models.initialise import initialise
from recsys.models.inputs import Inputs, Layout
from recsys.models.linear import Linear
from recsys.models.mlp import MLP
from recsys.models.options import Activation, ModelConfig, Perceptrons, Widths
from recsys.models.pooling import Pooled, WeightedHistories
from recsys.schema import Side

_SHORTEST = 1e-12
"""Length up to which a vector counts as zeros."""
QUERY_SIDES: tuple[Side, ...] = ("user", "context")
"""Sides whose features the query tower reads."""


class TwoTowerConfig(ModelConfig):
    """Options of ``two_tower``: which layers, and how it learns from positive rows."""

    item: str | None = None
    """Feature that tells items apart; default: the one categorical feature of side ``item``."""
    dim: int | None = Field(default=None, ge=1)
    """Width of the vectors; default: the width that the item tower's features have in common."""
    query_hidden: Widths = ()
    """Width of each hidden layer of the query tower. Without one its features' vectors are added up."""
    item_hidden: Widths = ()
    """The same of the item tower."""
    pooling: Pooled = "mean"
    """How the query tower pools a history: ``mean``; ``attention``, a learned weight per event; ``din``,
    DIN's activation unit with the newest event in the place of the candidate."""
    pooling_hidden: Widths = Field(default=(32,), min_length=1)
    """Width of each hidden layer of what weighs an event; ``attention`` has one."""
    interests: int = Field(default=1, ge=1)
    """Vectors of a query: so many weighted sums of each history (``pooling: attention``), each of them with
    the query's other features. An item counts with the one that it fits best."""
    activation: Activation = "relu"
    """``relu`` or ``dice``, in hidden layers."""
    batch_norm: bool = False
    """Batch normalisation before each activation."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Probability of dropping an activation in training."""
    numeric_dim: int | None = Field(default=None, ge=1)
    """Width of embedded numbers; default: the commonest width of the tower's other features."""
    normalise: bool = True
    """Vectors of length 1, so that their product is a cosine."""
    item_bias: bool = False
    """The first number of an item's vector is a logit that it has for every query, and not part of what is
    normalised: popularity needs no direction then."""
    temperature: float = Field(default=0.1, gt=0)
    """Products are divided by it before the softmax."""
    in_batch: bool = True
    """The items of a batch's other rows are negatives of a row."""
    negatives: int = Field(default=0, ge=0)
    """Further negatives of every row of a batch, drawn from the catalogue with equal chances."""
    hard_negatives: int = Field(default=0, ge=0)
    """Further negatives of each row alone, drawn from a pool of items that the towers themselves rank high
    for its query; items that its group's train rows hold are never among them. 0: none."""
    hard_pool: int = Field(default=200, ge=1)
    """Items of a pool."""
    hard_skip: int = Field(default=0, ge=0)
    """So many of the very first items stay out of a pool: they are the likeliest not to be negatives."""
    hard_weight: float = Field(default=1.0, gt=0)
    """How often a pool counts in the loss, on top of the whole catalogue."""
    hard_from: int = Field(default=1, ge=0)
    """Epochs before the first hard negative: towers that know nothing yet rank nothing."""
    hard_every: int = Field(default=1, ge=1)
    """Epochs from one mining to the next."""
    hard_from_codes: int | None = Field(default=None, ge=1)
    """Pools hold what codes of so many bytes per item rank high, made anew for each mining, instead of what
    the items' vectors do: what the coarse stage of an index would return."""
    batches: Literal["random", "walk", "snowball"] = "random"
    """How rows come together in batches, from the first hard negative on: ``random``; ``walk``, from a
    query to another one with an item of its pool; ``snowball``, to all of those. In-batch negatives are
    hard then too."""
    correction: Literal["logq", "none"] = "logq"
    """``logq``: the logit of a negative is lowered by the logarithm of how often it is to be expected among
    the negatives, so that frequent items are not held down for coming up more often. A hard negative is to
    be expected ``hard_negatives / hard_pool`` times, and counts among these alone."""
    cross_rank: bool = True
    """The items of all processes are negatives of a row; else those of its own process."""
    ssl_weight: float = Field(default=0.0, ge=0)
    """Weight of self-supervision: two views of an item, each with a part of its features, shall be alike,
    and unlike those of other items. 0: without."""
    ssl_items: int = Field(default=1024, ge=2)
    """Items of a step for it, drawn from the catalogue with equal chances."""
    ssl_temperature: float = Field(default=0.1, gt=0)
    """Cosines of views are divided by it before the softmax."""
    ssl_masking: Literal["correlated", "random"] = "correlated"
    """What a view is without: ``correlated``, a drawn feature and those that tell most of it; ``random``,
    as many that are drawn. The other view is without the rest."""
    ssl_dropout: float = Field(default=0.1, ge=0, lt=1)
    """Probability of leaving out an element of a list in a view."""

    @model_validator(mode="after")
    def _pool_holds_what_is_drawn(self) -> Self:
        if self.hard_negatives > self.hard_pool:
            raise ValueError(
                f"hard_pool: {self.hard_pool} items, fewer than the {self.hard_negatives} to draw; make "
                "it hard_negatives or more"
            )
        return self

    @model_validator(mode="after")
    def _pools_for_what_needs_them(self) -> Self:
        if self.batches != "random" and not (self.hard_negatives and self.in_batch):
            missing = "in_batch" if self.hard_negatives else "hard_negatives: 1 or more"
            raise ValueError(
                f"batches: {self.batches} makes in-batch negatives hard by the pools of hard ones; set "
                f"{missing}, or leave batches out"
            )
        if self.hard_from_codes is not None and not self.hard_negatives:
            raise ValueError(
                "hard_from_codes: there are no pools; set hard_negatives to 1 or more, or leave it out"
            )
        return self

    @model_validator(mode="after")
    def _one_layer_of_attention(self) -> Self:
        if self.pooling == "attention" and len(self.pooling_hidden) > 1:
            raise ValueError("pooling: attention has one hidden layer; give pooling_hidden one width")
        if self.interests > 1 and self.pooling != "attention":
            raise ValueError("interests: several are weighted sums of a history; set pooling to attention")
        return self


class TwoTower(nn.Module):
    """Query and item towers over the features of their sides (Yi et al., RecSys 2019).

    The query tower reads the features of sides ``user`` and ``context``; the item tower those of side
    ``item``, sequences pooled to their mean. Tables are shared where vocabularies are.

    Args:
        config: options.
        layout: shape of the inputs, with the side of every feature.
        generator: first values are drawn from it.

    Raises ValueError where a feature has no side, or a side no feature.
    """

    Config = TwoTowerConfig
    PERCEPTRONS: ClassVar[Perceptrons] = {
        "query_tower.mlp": "query_tower.last",
        "item_tower.mlp": "item_tower.last",
    }

    def __init__(self, config: TwoTowerConfig, layout: Layout, *, generator: torch.Generator) -> None:
        super().__init__()
        sideless = [name for name in layout.names if name not in layout.sides]
        if sideless:
            raise ValueError(
                f"feature {sideless[0]!r} has no side; say in data.columns (or the schema) whether each of "
                f"{', '.join(sideless)} describes the user, the item or the context"
            )
        query, item = layout.of_sides(QUERY_SIDES), layout.of_sides({"item"})
        for side, part in (("user", query), ("item", item)):
            if not part.names:
                raise ValueError(
                    f"no feature describes the {side}, and each tower needs one: set side: {side} in "
                    "data.columns (or the schema)"
                )
        self.item_tower = Tower(item, config.item_hidden, config.dim, config)
        self.dim = self.item_tower.dim
        self.query_tower = Tower(query, config.query_hidden, self.dim, config, is_query=True)
        if config.interests > 1 and not query.sequences:
            raise ValueError("interests: several are sums of a history, and no sequence describes the user")
        if config.item_bias and self.dim < 2:
            raise ValueError(f"item_bias takes one number of a vector, and vectors are {self.dim} wide")
        self.temperature = config.temperature
        initialise(self, generator)

    def query(self, inputs: Inputs) -> Tensor:
        """Vectors of queries ``[B, dim]``, or of their several interests ``[B, interests, dim]``; reads
        features of sides user and context alone."""
        vectors: Tensor = self.query_tower(inputs)
        return vectors

    def item(self, inputs: Inputs) -> Tensor:
        """Vectors of items ``[B, dim]``; reads features of side item alone."""
        vectors: Tensor = self.item_tower(inputs)
        return vectors

    def view(self, inputs: Inputs, masked: Collection[str]) -> Tensor:
        """Vectors of items as seen without some features, ``[B, dim]``, of length 1 in any case; without
        the bias of items."""
        return self.item_tower.view(inputs, masked)

    def forward(self, inputs: Inputs) -> Tensor:
        """Logits ``[B]``: how well the query and the item of each row fit."""
        items = self.item(inputs)
        return (nearest_interest(self.query(inputs), items) * items).sum(1) / self.temperature


def nearest_interest(queries: Tensor, items: Tensor) -> Tensor:
    """Of several interests ``[B, I, D]`` the one whose product with its row's item ``[B, D]`` is largest,
    ``[B, D]`` (Cen et al., KDD 2020, eq. 9); single vectors ``[B, D]`` as they are."""
    if queries.ndim == 2:
        return queries
    best = torch.bmm(queries, items.unsqueeze(2)).argmax(1, keepdim=True)
    return queries.gather(1, best.expand(-1, 1, queries.shape[2])).squeeze(1)


class Tower(nn.Module):
    """Features of one side to one vector, or to one for each of several interests.

    Args:
        layout: the features.
        hidden: width of each hidden layer; none: vectors are added up, those of uncommon width projected.
        dim: width of the result; default: as wide as the last layer, or as the vectors added up.
        config: options of layers, and what becomes of the vectors in the end.
        is_query: whether the features are those of queries.
    """

    def __init__(
        self,
        layout: Layout,
        hidden: Widths,
        dim: int | None,
        config: TwoTowerConfig,
        *,
        is_query: bool = False,
    ) -> None:
        super().__init__()
        weighted = is_query and config.pooling != "mean" and bool(layout.sequences)
        self.vectors = FieldVectors(
            layout, sequences=() if weighted else None, numeric_dim=config.numeric_dim
        )
        self.interests = config.interests if weighted else 1
        self.histories = None
        if weighted:
            self.histories = WeightedHistories(
                layout, config.pooling, config.pooling_hidden, interests=self.interests
            )
        widths = (*self.vectors.widths, *(self.histories.widths if self.histories is not None else ()))
        self.even = None if hidden else EvenWidths(widths)
        self.mlp = None
        if hidden:
            self.mlp = MLP(
                sum(widths),
                hidden,
                activation=config.activation,
                batch_norm=config.batch_norm,
                dropout=config.dropout,
            )
        width = hidden[-1] if hidden else commonest(widths)
        self.dim = dim or width
        # the last of several layers is linear, or vectors would have no negative element
        self.last = Linear(width, self.dim) if hidden or width != self.dim else None
        self.normalise = config.normalise
        self.bias_scale = config.temperature if config.item_bias else None
        self.is_query = is_query

    def forward(self, inputs: Inputs) -> Tensor:
        """``[B, dim]``, or where a query has several interests ``[B, interests, dim]``."""
        vectors = self._finished(self._layers(inputs))
        if self.interests == 1:
            return vectors
        return vectors.view(vectors.shape[0] // self.interests, self.interests, self.dim)

    def _finished(self, vectors: Tensor) -> Tensor:
        """Normalised, with the bias in its place."""
        if self.bias_scale is None:
            return _of_length_one(vectors) if self.normalise else vectors
        first = torch.ones_like(vectors[:, :1]) if self.is_query else vectors[:, :1] * self.bias_scale
        rest = vectors[:, 1:]
        return torch.cat([first, _of_length_one(rest) if self.normalise else rest], 1)

    def view(self, inputs: Inputs, masked: Collection[str]) -> Tensor:
        """``[B, dim]``, less 1 where the first number is a bias: of length 1, with zeros in the place of
        some features' vectors."""
        vectors = self._layers(inputs, masked)
        return _of_length_one(vectors if self.bias_scale is None else vectors[:, 1:])

    def _layers(self, inputs: Inputs, masked: Collection[str] = ()) -> Tensor:
        """What the features make, not yet normalised: a row's interests one below the other."""
        parts: list[Tensor] = [self.vectors(inputs, masked)] if self.vectors.widths else []
        if self.histories is not None:
            pooled = self.histories(inputs)
            if self.interests > 1:
                parts = [x.unsqueeze(1).expand(-1, self.interests, -1).flatten(0, 1) for x in parts]
                pooled = pooled.flatten(0, 1)
            parts.append(pooled)
        vectors = beside(parts)
        if self.mlp is not None:
            vectors = self.mlp(vectors)
        elif self.even is not None:
            vectors = self.even.evened(vectors).sum(1)
        return vectors if self.last is None else self.last(vectors)


def _of_length_one(vectors: Tensor) -> Tensor:
    lengths = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
    # zeros, of a value without a vector, have no direction: they stay, and so do their gradients
    return vectors / torch.where(lengths > _SHORTEST, lengths, 1.0)
