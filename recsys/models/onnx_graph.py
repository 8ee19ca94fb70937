"""A model as an ONNX graph: plain named tensors in, ``logit`` out, any number of rows and events."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from recsys.models.inputs import Inputs, Layout

OUTPUT = "logit"
_OPSET = 20
_ROWS, _EVENTS = 3, 5
"""Sizes of the example that is traced; neither 0 nor 1, which torch.export takes for constants."""


def input_names(layout: Layout) -> list[str]:
    """Names of the graph's inputs, in order.

    Field: ``NAME`` float32 ``[B, width]``. Number: ``NAME`` float32 ``[B]``, 0 where missing, and
    ``NAME.missing`` float32 ``[B]``, 1 there. Sequence: ``NAME`` float32 ``[B, H, width]``, zeros after
    the newest event, and ``NAME.lengths`` int64 ``[B]``.

    >>> input_names(Layout({"user": 4}, ("age",)))
    ['user', 'age', 'age.missing']
    """
    names = list(layout.fields)
    for name in layout.numerics:
        names += [name, f"{name}.missing"]
    for name in layout.sequences:
        names += [name, f"{name}.lengths"]
    return names


def flat_inputs(inputs: Inputs, layout: Layout) -> list[Tensor]:
    """The tensors of a batch, in the order of ``input_names``."""
    tensors = [inputs.fields[name] for name in layout.fields]
    for name in layout.numerics:
        tensors += [inputs.numerics[name], inputs.missing[name]]
    for name in layout.sequences:
        tensors += [inputs.sequences[name], inputs.lengths[name]]
    return tensors


def export_onnx(model: nn.Module, layout: Layout, path: Path, *, output: str = OUTPUT) -> None:
    """Write a model as an ONNX graph that scores as the model does in evaluation, in float32.

    B and each sequence's H are dynamic and may be 0; aligned sequences share H. The model itself is
    left as it was found. ``output`` names what the model gives.
    """
    names = input_names(layout)
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    with _in_evaluation(model), _quietly(), torch.no_grad():
        program: Any = torch.onnx.export(
            _Flat(model, layout),
            tuple(flat_inputs(_example(layout, device), layout)),
            dynamo=True,
            dynamic_shapes={"tensors": _dynamic_shapes(layout)},
            input_names=names,
            output_names=[output],
            opset_version=_OPSET,
            verbose=False,
        )
    _forget_origin(program.model)
    program.save(str(path), external_data=False)


class _Flat(nn.Module):
    """The model behind positional tensors."""

    def __init__(self, model: nn.Module, layout: Layout) -> None:
        super().__init__()
        self.model, self.layout = model, layout

    def forward(self, *tensors: Tensor) -> Tensor:
        given = dict(zip(input_names(self.layout), tensors, strict=True))
        layout = self.layout
        inputs = Inputs(
            fields={name: given[name] for name in layout.fields},
            numerics={name: given[name] for name in layout.numerics},
            missing={name: given[f"{name}.missing"] for name in layout.numerics},
            sequences={name: given[name] for name in layout.sequences},
            lengths={name: given[f"{name}.lengths"] for name in layout.sequences},
        )
        logits: Tensor = self.model(inputs)
        return logits


def _example(layout: Layout, device: torch.device) -> Inputs:
    rows = (_ROWS,)
    numbers = {name: torch.zeros(rows, device=device) for name in layout.numerics}
    roots = list(layout.sequences)
    events = {name: _EVENTS + roots.index(layout.aligned_root(name)) for name in layout.sequences}
    return Inputs(
        fields={name: torch.zeros(_ROWS, dim, device=device) for name, dim in layout.fields.items()},
        numerics=numbers,
        missing={name: torch.zeros(rows, device=device) for name in numbers},
        sequences={
            name: torch.zeros(_ROWS, events[name], sequence.dim, device=device)
            for name, sequence in layout.sequences.items()
        },
        lengths={name: torch.full(rows, 2, dtype=torch.int64, device=device) for name in layout.sequences},
    )


def _dynamic_shapes(layout: Layout) -> tuple[dict[int, Any], ...]:
    """Which sizes vary, by input: rows everywhere, events of each sequence."""
    rows = torch.export.Dim("rows")
    roots = {layout.aligned_root(name) for name in layout.sequences}
    events = {root: torch.export.Dim(f"events_{number}") for number, root in enumerate(sorted(roots))}
    shapes: list[dict[int, Any]] = [{0: rows} for _ in layout.fields]
    shapes += [{0: rows} for _ in range(2 * len(layout.numerics))]
    for name in layout.sequences:
        shapes += [{0: rows, 1: events[layout.aligned_root(name)]}, {0: rows}]
    return tuple(shapes)


def _forget_origin(model: Any) -> None:
    """Drop source paths and module names that the exporter notes down beside every node."""
    for node in model.graph.all_nodes():
        node.metadata_props.clear()
    for function in model.functions.values():
        for node in function.all_nodes():
            node.metadata_props.clear()
    model.metadata_props.clear()


@contextmanager
def _quietly() -> Iterator[None]:
    """Without the exporter's remarks on its own future and on packages that are not needed."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def _in_evaluation(model: nn.Module) -> Iterator[None]:
    """Evaluation mode for the time being."""
    training = [part for part in model.modules() if part.training]
    model.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True
