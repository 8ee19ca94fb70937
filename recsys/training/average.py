"""Moving averages of weights, which are evaluated, saved and served in place of the last ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from recsys.embeddings.tables import WEIGHT, Tables

WARM_UP = 9
"""After n updates the average reaches back over n / 9 of them at most, so that first weights fade."""
UPDATES = "average.updates"


class Average:
    """Exponential moving average of all weights after each update (Polyak and Juditsky 1992).

    Averages are what a checkpoint holds under the names of weights; the weights that go on learning lie
    beside them as ``learning.NAME``. So whoever opens a run finds averages, and a resumed run both.

    Args:
        model: averaged with its buffers of floats.
        tables: all on the dense path, where every row is in reach at every step.
        decay: share of the average that stays at an update.
    """

    def __init__(self, model: nn.Module, tables: Tables, decay: float) -> None:
        self._decay = decay
        self._model, self._tables = model, tables
        self._updates = torch.zeros((), dtype=torch.int64)
        self.restart()

    def restart(self) -> None:
        """Begin anew from the weights as they are, where some have gone or come to stand for others."""
        stored = self._tables.dense_weights()
        rows = {f"tables.{name}.{WEIGHT}": weight.detach() for name, weight in stored.items()}
        dense = {f"model.{name}": value.detach() for name, value in self._model.state_dict().items()}
        self._table_of = dict(zip(rows, stored, strict=True))
        self._weights = {key: value for key, value in dense.items() if value.is_floating_point()} | rows
        self._averages = {key: value.clone() for key, value in self._weights.items()}
        self._updates.zero_()

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights after an update."""
        updates = int(self._updates)
        decay = min(self._decay, updates / (updates + WARM_UP))
        average = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        average([*self._averages.values()], [*self._weights.values()], updates)
        self._updates += 1

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The model and its tables compute with averages while it is entered."""
        kept = {key: value.clone() for key, value in self._weights.items()}
        self._set(self._averages)
        try:
            yield
        finally:
            self._set(kept)

    def tensors(self, learning: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors of a checkpoint from those without averages; loading fills all of them in place."""
        tensors = {**learning, UPDATES: self._updates}
        for key, average in self._averages.items():
            tensors[f"learning.{key}"] = learning[key]
            table = self._table_of.get(key)
            tensors[key] = average if table is None else self._tables.as_sharded(table, average)
        return tensors

    @torch.no_grad()
    def _set(self, values: Mapping[str, Tensor]) -> None:
        for key, weight in self._weights.items():
            weight.copy_(values[key])
