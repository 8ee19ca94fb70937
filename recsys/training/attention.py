"""What a trained model attends to, on raw rows, some rows at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from recsys.data.batch import Batch
from recsys.data.batches import Batches
from recsys.data.source import Data
from recsys.embeddings.tables import Tables
from recsys.errors import ConfigError
from recsys.models.explained import MapsFields, WeighsEvents
from recsys.models.inputs import Inputs
from recsys.training.loaded import opened_run
from recsys.training.raw_scores import encoded_aside
from recsys.training.run_folder import Run

History = tuple[str, ...]
_MOST_ROWS = 1024
_CELLS = 1_000_000
"""Cells of one layer's and head's maps held at a time."""
_WINDOW = 1 << 16
"""Encoded rows held at a time."""


@dataclass(frozen=True)
class EventWeights:
    """Weights of the events of B histories, oldest first."""

    values: NDArray[np.float32]
    """Those of all rows, one row after the other."""
    lengths: NDArray[np.int64]
    """``[B]``."""


@dataclass(frozen=True)
class Attended:
    """What B rows attend to."""

    first: int
    """Number of the first of them in the log."""
    rows: int
    """B."""
    fields: tuple[str, ...]
    """Names of the fields of ``maps``."""
    maps: NDArray[np.float32] | None
    """``[B, layers, heads, M, M]``, of a model whose fields attend to each other."""
    events: dict[History, EventWeights]
    """By history, of a model that weighs events."""


def attended(folder: str | Path, data: Data, rows: int) -> Iterator[Attended]:
    """What the best checkpoint of a run attends to in the first rows of a log, in pieces.

    Raises:
        ConfigError: the model computes no attention.
        CheckpointError: the run is not finished, or damaged.
        SchemaError: a feature's column is missing, or a value is not of its type.
        DataError: the rows cannot be read.
    """
    run = Run.load(folder)
    with opened_run(run) as (dataset, _, model, tables):
        fields = _fields(model, run)
        with encoded_aside(dataset, data, rows) as encoded:
            at_once = max(16, min(_MOST_ROWS, _CELLS // max(1, len(fields)) ** 2))
            batches = Batches(encoded, "test", at_once, shuffle_rows=_WINDOW, shuffle=False)
            first = 0
            for batch in batches.epoch():
                maps, events = _looked_at(model, tables, batch)
                yield Attended(first, batch.rows, fields, maps, events)
                first += batch.rows


def _fields(model: nn.Module, run: Run) -> tuple[str, ...]:
    """Fields of the maps; empty for a model that weighs events."""
    if isinstance(model, MapsFields):
        return model.field_names
    if isinstance(model, WeighsEvents):
        if model.histories:
            return ()
        reason = "weighs no events: it has no sequence with a candidate, or model.pooling is 'mean'"
    else:
        reason = "computes no attention; autoint, autoint_plus, din and dien do"
    raise ConfigError(f"{run.folder}: its model {run.file.model!r} {reason}")


@torch.no_grad()
def _looked_at(
    model: nn.Module, tables: Tables, batch: Batch
) -> tuple[NDArray[np.float32] | None, dict[History, EventWeights]]:
    inputs = tables(batch)
    if isinstance(model, MapsFields):
        return model.attention_maps(inputs).numpy(), {}
    assert isinstance(model, WeighsEvents)
    weights = zip(model.histories, model.event_weights(inputs), strict=True)
    return None, {history: _without_padding(each.numpy(), history, inputs) for history, each in weights}


def _without_padding(weights: NDArray[np.float32], history: History, inputs: Inputs) -> EventWeights:
    lengths = inputs.lengths[history[0]].numpy()
    valid = np.arange(weights.shape[1]) < lengths[:, None]
    return EventWeights(weights[valid], lengths)
