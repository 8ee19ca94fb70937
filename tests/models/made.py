"""Layouts and embedded inputs for tests of models."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from recsys.models import table_dim
from recsys.models.inputs import Inputs, Layout, SequenceLayout


def layouts(name: str) -> dict[str, Layout]:
    """Layouts that a model must take, with table widths as the model asks for them."""

    def dim(width: int) -> int:
        return table_dim(name, {}, width)

    history = SequenceLayout(dim(8), "item")
    return {
        "mixed": Layout(
            {"user": dim(8), "item": dim(8), "shop": dim(4)},
            ("age", "price"),
            {
                "items": history,
                "shops": SequenceLayout(dim(4), "shop", aligned_with="items"),
                "words": SequenceLayout(dim(6), None),
            },
        ),
        "fields": Layout({"user": dim(4), "item": dim(4)}),
        "numbers": Layout({}, ("age", "price", "hour")),
        "history": Layout({"item": dim(8)}, (), {"items": history}),
        "sequences": Layout({}, (), {"words": SequenceLayout(dim(6), None)}),
    }


def make_inputs(layout: Layout, rows: int, longest: int, seed: int = 0) -> Inputs:
    """Random inputs; sequences have lengths from 0 to ``longest``, padded to ``longest``."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    inputs = Inputs(fields={name: normal(rows, dim) for name, dim in layout.fields.items()})
    for name in layout.numerics:
        missing = (torch.rand(rows, generator=generator) < 0.3).float()
        inputs.missing[name], inputs.numerics[name] = missing, normal(rows) * (1 - missing)
    for name, sequence in layout.sequences.items():
        drawn = torch.randint(0, longest + 1, (rows,), generator=generator)
        lengths = inputs.lengths.get(layout.aligned_root(name), drawn)
        valid = torch.arange(longest) < lengths.unsqueeze(1)
        inputs.lengths[name] = lengths
        inputs.sequences[name] = normal(rows, longest, sequence.dim) * valid.unsqueeze(2)
    return inputs


def take(inputs: Inputs, rows: Tensor) -> Inputs:
    """Some rows, in the order given."""
    return Inputs(
        **{
            part: {name: tensor[rows] for name, tensor in getattr(inputs, part).items()}
            for part in ("fields", "numerics", "missing", "sequences", "lengths")
        }
    )


def padded(inputs: Inputs, more: int) -> Inputs:
    """The same inputs with more padding."""
    longer = {
        name: torch.cat([x, x.new_zeros(len(x), more, x.shape[2])], 1)
        for name, x in inputs.sequences.items()
    }
    return Inputs(inputs.fields, inputs.numerics, inputs.missing, longer, inputs.lengths)


def doubled(inputs: Inputs) -> Inputs:
    """The same inputs in double precision."""
    parts = {
        part: {name: tensor.double() for name, tensor in getattr(inputs, part).items()}
        for part in ("fields", "numerics", "missing", "sequences")
    }
    return Inputs(**parts, lengths=inputs.lengths)


def accuracy_after_training(
    model: nn.Module, table: nn.Parameter, inputs: Callable[[slice], Inputs], label: Tensor, trained: int
) -> float:
    """Accuracy on the rows that come after the first ``trained``, from which model and table learn."""
    optimiser = torch.optim.Adam([*model.parameters(), table], lr=0.01)
    train, test = slice(0, trained), slice(trained, None)
    for _ in range(80):
        loss = nn.functional.binary_cross_entropy_with_logits(model(inputs(train)), label[train])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        return float(((model.eval()(inputs(test)) > 0).float() == label[test]).float().mean())
