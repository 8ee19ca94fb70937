"""What passes between the tables and a model: embedded inputs, and their layout.

A model never sees an id. It gets one vector per field, numbers with a missing mask, and padded
sequences with lengths; the same tensors are the inputs of the exported ``dense.onnx``.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor


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


@dataclass(frozen=True)
class SequenceLayout:
    """Shape of one sequence feature."""

    dim: int
    candidate: str | None
    """Field that shares the sequence's vocabulary, the one attention is paid to; None: no such field."""


@dataclass(frozen=True)
class Layout:
    """Shape of the inputs a model is built for; order is feature order."""

    fields: dict[str, int]
    """Field name → width D."""
    numerics: tuple[str, ...] = ()
    sequences: dict[str, SequenceLayout] = field(default_factory=dict)
