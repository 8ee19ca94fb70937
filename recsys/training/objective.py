"""What training minimises and is judged by. The loop knows no model by name, and no loss either."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from recsys.data.batch import Batch
from recsys.embeddings.tables import DeviceBatch, Tables
from recsys.models.inputs import Inputs


class Objective(Protocol):
    """The loss of a step, the rows that it looks up for it, and the metrics of the validation rows."""

    def begin(self, epoch: int, model: nn.Module, tables: Tables) -> None:
        """Called before the first step of an epoch, and before its batches are made ready; not where a
        resumed run goes on within one. All processes call this together."""

    def order(self, epoch: int) -> NDArray[np.int64] | None:
        """Numbers of the train rows in the order in which an epoch takes them, the same on all processes;
        None: shuffled. Called after ``begin``, or after ``tensors`` have been filled."""

    def tensors(self) -> dict[str, Tensor]:
        """What a resumed run has to know besides weights, the same on all processes; filled in place."""

    def widen(self, batch: Batch) -> tuple[Batch, Any]:
        """A batch with the rows that the loss needs besides its own behind them, and what ``loss`` has to
        know of them; may run in another thread."""

    def loss(self, model: nn.Module, inputs: Inputs, batch: DeviceBatch, known: Any) -> Tensor:
        """Sum over this process's rows of the global batch. All processes call this together."""

    def validate(self, model: nn.Module, tables: Tables) -> dict[str, float]:
        """Metrics of the validation rows, the monitored one among them, the same on all processes; empty
        where there are no such rows."""
