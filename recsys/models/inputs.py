"""What passes between the tables and a model: embedded inputs, and their layout.

A model never sees an id. It gets one vector per field, numbers with a missing mask, and padded
sequences with lengths; the same tensors are the inputs of the exported ``dense.onnx``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from recsys.schema import Side


@dataclass
class Inputs:
    """Embedded inputs of one batch of B rows.

    A multi-valued feature arrives pooled (mean over its values; zeros where it has none).
    Padding of sequences is zeros, at the end; element ``lengths - 1`` is the newest.
    """

    fields: dict[str, Tensor] = field(default_factory=dict)
    """float32 ``[B, D]`` per categorical or multi-valued feature."""
    numerics: dict[str, Tensor] = field(default_factory=dict)
    """float32 ``[B]`` per numeric feature, 0 where missing."""
    missing: dict[str, Tensor] = field(default_factory=dict)
    """float32 ``[B]`` per numeric feature: 1 where the number is missing, else 0."""
    sequences: dict[str, Tensor] = field(default_factory=dict)
    """float32 ``[B, H, D]`` per sequence feature; H may be 0 and may differ between batches."""
    lengths: dict[str, Tensor] = field(default_factory=dict)
    """int64 ``[B]`` per sequence feature."""
    joined: Tensor | None = None
    """All of ``fields`` side by side, ``[B, sum of D]``, where they were looked up so: taking them apart
    and putting them together again costs a tenth of a DNN's step."""

    def fields_beside(self, names: Sequence[str]) -> list[Tensor]:
        """Vectors of these fields, or one tensor of them side by side: ``[B, ...]`` each."""
        if self.joined is not None and tuple(names) == tuple(self.fields):
            return [self.joined]
        return [self.fields[name] for name in names]

    def part(self, rows: slice) -> Inputs:
        """Some rows alone."""

        def cut(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
            return {name: tensor[rows] for name, tensor in tensors.items()}

        joined = None if self.joined is None else self.joined[rows]
        return Inputs(
            cut(self.fields),
            cut(self.numerics),
            cut(self.missing),
            cut(self.sequences),
            cut(self.lengths),
            joined,
        )


@dataclass(frozen=True)
class SequenceLayout:
    """Shape of one sequence feature."""

    dim: int
    candidate: str | None
    """Field that shares the sequence's vocabulary, the one attention is paid to; None: no such field."""
    aligned_with: str | None = None
    """Another sequence with the same lengths, element for element: they are one history."""


@dataclass(frozen=True)
class Layout:
    """Shape of the inputs a model is built for; order is feature order."""

    fields: dict[str, int]
    """Field name → width D."""
    numerics: tuple[str, ...] = ()
    sequences: dict[str, SequenceLayout] = field(default_factory=dict)
    sides: dict[str, Side] = field(default_factory=dict)
    """Whom a feature describes; a feature that is not here describes no side for certain."""

    @property
    def names(self) -> tuple[str, ...]:
        """All features: fields, numbers, sequences."""
        return (*self.fields, *self.numerics, *self.sequences)

    def of_sides(self, sides: Collection[Side]) -> Layout:
        """The features of some sides alone."""
        kept = {name for name in self.names if self.sides.get(name) in sides}
        return Layout(
            {name: dim for name, dim in self.fields.items() if name in kept},
            tuple(name for name in self.numerics if name in kept),
            {name: sequence for name, sequence in self.sequences.items() if name in kept},
            {name: side for name, side in self.sides.items() if name in kept},
        )

    def aligned_root(self, name: str) -> str:
        """The sequence that a sequence's alignment leads to; itself where it is aligned with none.

        >>> shops = SequenceLayout(4, None, aligned_with="items")
        >>> layout = Layout({}, (), {"items": SequenceLayout(8, None), "shops": shops})
        >>> layout.aligned_root("shops"), layout.aligned_root("items")
        ('items', 'items')
        """
        seen = {name}
        while (other := self.sequences[name].aligned_with) is not None and other in self.sequences:
            if other in seen:  # two that name each other
                return min(seen)
            seen.add(other)
            name = other
        return name
