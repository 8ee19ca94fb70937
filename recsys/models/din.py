"""DIN: the history pooled by how much each event matters for the candidate."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from recsys.models.activation_unit import ActivationUnit
from recsys.models.fields import FieldVectors, beside
from recsys.models.initialise import initialise
from recsys.models.inputs import Inputs, Layout
from recsys.models.interest_evolution import InterestEvolution
from recsys.models.mlp import MLP, Head
from recsys.models.options import Activation, ModelConfig, Perceptrons, Widths


class DINConfig(ModelConfig):
    """Options of ``din``."""

    pooling: Literal["attention", "mean"] = "attention"
    """``mean`` pools histories to their mean instead: the same model with its attention off."""
    attention_hidden: Widths = Field(default=(64, 32), min_length=1)
    """Width of each hidden layer of the activation unit."""
    attention_activation: Activation = "dice"
    """``dice`` or ``relu``, in the activation unit."""
    attention_dropout: float = Field(default=0.0, ge=0, lt=1)
    """Probability of dropping an activation of the activation unit in training."""
    softmax: bool = False
    """Normalise the weights of a history to sum to 1. Off as in the paper, where their sum tells
    how strong the interest is."""
    hidden: Widths = (200, 80)
    """Width of each hidden layer of the perceptron."""
    activation: Activation = "dice"
    """``dice`` or ``relu``, in the perceptron."""
    batch_norm: bool = False
    """Batch normalisation before each activation of the perceptron."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Probability of dropping an activation of the perceptron in training."""
    numeric_dim: int | None = Field(default=None, ge=1)
    """Width of embedded numbers; default: the commonest width of the other features."""


class DIN(nn.Module):
    """Deep interest network (Zhou et al. 2018, section 4).

    Attention is paid to a sequence's candidate, the field that shares its vocabulary. Aligned sequences
    of which one has a candidate (items, their categories, how long each was watched) are one history,
    their vectors side by side: those without a candidate help to weigh an event and are pooled with it.
    Sequences of which none has a candidate are pooled to their mean.

    Args:
        config: options.
        layout: shape of the inputs.
        generator: first values are drawn from it.
        interest: width of DIEN's states of interest, read beside every pooled history; None: without.
    """

    Config: ClassVar[type[DINConfig]] = DINConfig
    PERCEPTRONS: ClassVar[Perceptrons] = {"mlp": "head.linear"}

    def __init__(
        self,
        config: DINConfig,
        layout: Layout,
        *,
        generator: torch.Generator,
        interest: int | None = None,
    ) -> None:
        super().__init__()
        self.histories = histories(layout) if config.pooling == "attention" else ()
        attended = {name for history in self.histories for name in history}
        self.candidates = {name: sequence.candidate for name, sequence in layout.sequences.items()}
        self.vectors = FieldVectors(
            layout,
            sequences=tuple(name for name in layout.sequences if name not in attended),
            numeric_dim=config.numeric_dim,
        )
        widths = [sum(layout.sequences[name].dim for name in history) for history in self.histories]
        beside_candidates = [self._candidate_width(history, layout) for history in self.histories]
        self.units = nn.ModuleList(
            ActivationUnit(
                width,
                config.attention_hidden,
                activation=config.attention_activation,
                dropout=config.attention_dropout,
                softmax=config.softmax,
                more=whole - width,
            )
            for width, whole in zip(beside_candidates, widths, strict=True)
        )
        self.evolutions = nn.ModuleList(
            InterestEvolution(width, whole, interest)
            for width, whole in zip(beside_candidates, widths, strict=True)
            if interest is not None
        )
        states = len(self.evolutions) * (interest or 0)
        self.mlp = MLP.of(sum(self.vectors.widths) + sum(widths) + states, config)
        self.head = Head(self.mlp.outputs)
        initialise(self, generator)

    def forward(self, inputs: Inputs) -> Tensor:
        """Logits ``[B]``."""
        vectors = [self.vectors(inputs)] if self.vectors.widths else []
        attended = [self._attended(history, inputs) for history in self.histories]
        vectors += [unit(*history) for unit, history in zip(self.units, attended, strict=True)]
        if self.evolutions:
            evolve = zip(self.evolutions, attended, strict=True)
            vectors += [evolution(*history) for evolution, history in evolve]
        logits: Tensor = self.head(self.mlp(beside(vectors)))
        return logits

    def event_weights(self, inputs: Inputs) -> list[Tensor]:
        """Weight of every event ``[B, H]``, 0 for padding, of each of ``histories``."""
        found: list[Tensor] = []
        for history, unit in zip(self.histories, self.units, strict=True):
            assert isinstance(unit, ActivationUnit)
            found.append(unit.weights(*self._attended(history, inputs)))
        return found

    def _attended(self, history: tuple[str, ...], inputs: Inputs) -> tuple[Tensor, Tensor, Tensor]:
        """Candidates ``[B, D]``, events ``[B, H, K]`` and lengths ``[B]`` of a history."""
        keys = beside([inputs.sequences[name] for name in history])
        candidates = [self.candidates[name] for name in history]
        query = [inputs.fields[candidate] for candidate in candidates if candidate is not None]
        return beside(query), keys, inputs.lengths[history[0]]

    def _candidate_width(self, history: tuple[str, ...], layout: Layout) -> int:
        return sum(layout.sequences[name].dim for name in history if self.candidates[name] is not None)


def histories(layout: Layout) -> tuple[tuple[str, ...], ...]:
    """Sequences aligned with each other, of which one at least has a candidate; those with one first.

    Raises ValueError where a sequence and its candidate differ in width.
    """
    groups: dict[str, list[str]] = {}
    for name, sequence in layout.sequences.items():
        if sequence.candidate is not None:
            width = layout.fields[sequence.candidate]
            if width != sequence.dim:
                raise ValueError(
                    f"{name!r} is {sequence.dim} wide, its candidate {sequence.candidate!r} {width}; "
                    "they must have the same width"
                )
            groups.setdefault(layout.aligned_root(name), []).append(name)
    for name, sequence in layout.sequences.items():
        if sequence.candidate is None and layout.aligned_root(name) in groups:
            groups[layout.aligned_root(name)].append(name)
    return tuple(tuple(group) for group in groups.values())
