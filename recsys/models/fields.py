"""Every input as one vector per row: what all models but DIN's attention start from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

import torch
from torch import Tensor, nn

from recsys.models.inputs import Inputs, Layout
from recsys.models.linear import Linear
from recsys.models.numeric import NumericVectors

_NUMERIC_DIM = 16


class FieldVectors(nn.Module):
    """Categorical and multi-valued fields, embedded numbers, and sequences pooled to their mean.

    Args:
        layout: shape of the inputs.
        sequences: which sequences to pool; default: all.
        numeric_dim: width of embedded numbers; default: the commonest width of the others, or 16.
    """

    def __init__(
        self, layout: Layout, *, sequences: tuple[str, ...] | None = None, numeric_dim: int | None = None
    ) -> None:
        super().__init__()
        self._fields = tuple(layout.fields)
        self._sequences = tuple(layout.sequences) if sequences is None else sequences
        widths = [*layout.fields.values(), *(sequence.dim for sequence in layout.sequences.values())]
        dim = numeric_dim or (commonest(widths) if widths else _NUMERIC_DIM)
        self.numerics = NumericVectors(layout.numerics, dim) if layout.numerics else None
        self.widths: tuple[int, ...] = (
            *layout.fields.values(),
            *(dim for _ in layout.numerics),
            *(layout.sequences[name].dim for name in self._sequences),
        )
        """Width of each vector, in the order of ``forward``."""
        self.names: tuple[str, ...] = (*layout.fields, *layout.numerics, *self._sequences)
        """Name of each vector."""

    def forward(self, inputs: Inputs, masked: Collection[str] = ()) -> Tensor:
        """``[B, sum of widths]``: fields, numbers and pooled sequences side by side, in this order; zeros
        in the place of those that are ``masked``."""
        vectors = inputs.fields_beside(self._fields)
        if self.numerics is not None:
            vectors.append(self.numerics(inputs).flatten(1))
        vectors.extend(
            mean_pooled(inputs.sequences[name], inputs.lengths[name]) for name in self._sequences
        )
        found = beside(vectors)
        if not masked:
            return found
        named = zip(self.names, self.widths, strict=True)
        kept = [float(name not in masked) for name, width in named for _ in range(width)]
        return found * found.new_tensor(kept)


class EvenWidths(nn.Module):
    """Brings M vectors to one width; base of what combines fields with each other.

    Args:
        widths: of the vectors; those unlike the commonest one are projected to it.
        bias: whether the projections have one.
    """

    def __init__(self, widths: tuple[int, ...], *, bias: bool = True) -> None:
        super().__init__()
        self._widths = widths
        self.common = common = commonest(widths)
        self.projections = nn.ModuleDict(
            {
                str(index): Linear(width, common, bias=bias)
                for index, width in enumerate(widths)
                if width != common
            }
        )

    def evened(self, vectors: Tensor) -> Tensor:
        """M vectors side by side, ``[B, sum of widths]``, to ``[B, M, common]``."""
        if not self.projections:
            return vectors.view(-1, len(self._widths), self.common)
        apart = torch.split(vectors, list(self._widths), 1)
        return torch.stack(
            [
                self.projections[str(index)](vector) if str(index) in self.projections else vector
                for index, vector in enumerate(apart)
            ],
            1,
        )


def commonest(widths: Sequence[int]) -> int:
    """The width that most vectors have; the first of several such."""
    return Counter(widths).most_common(1)[0][0]


def mean_pooled(sequence: Tensor, lengths: Tensor) -> Tensor:
    """Mean ``[B, D]`` over the first ``lengths [B]`` elements of ``[B, H, D]``; zeros for none.

    Relies on padding being zeros.
    """
    return sequence.sum(1) / lengths.clamp(min=1).to(sequence.dtype).unsqueeze(1)


def beside(vectors: list[Tensor]) -> Tensor:
    """``[..., sum of widths]`` of one or more tensors."""
    return torch.cat(vectors, -1) if len(vectors) > 1 else vectors[0]
