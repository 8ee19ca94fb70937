"""Dynamic sparse learning as the training loop sees it: parts that are measured, kept small, updated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor, nn

from recsys.config import TrainSettings
from recsys.data.dataset import Dataset
from recsys.embeddings.tables import Tables
from recsys.settings.sparsity import SparsitySettings
from recsys.training.distributed import Distributed
from recsys.training.optimisers import Optimisers
from recsys.training.sparsity.masks import Masks
from recsys.training.sparsity.rows import Rows
from recsys.training.sparsity.schedule import is_due
from recsys.training.sparsity.split import Split
from recsys.training.sparsity.units import Units


class SparsePart(Protocol):
    """Something of which a share is kept."""

    @property
    def measured(self) -> list[Tensor]:
        """Tensors whose gradients are to be summed over processes."""

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint has to hold, by key."""

    def densities(self) -> dict[str, float]:
        """Shares that are kept, by name."""

    def observe(self) -> None:
        """Take up the gradients of a step, before the optimisers move a weight."""

    def restrain(self) -> None:
        """Undo what the optimisers did to weights that are out."""

    def update(self, step: int) -> None:
        """Change what is kept, after a step."""

    def skip(self) -> None:
        """Go on after the last update, in a run that is resumed."""


class Sparsity:
    """All parts of a model that are kept small, on one schedule. All processes call it together."""

    def __init__(self, settings: SparsitySettings, parts: Sequence[SparsePart]) -> None:
        self._settings, self._parts = settings, parts

    @property
    def measured(self) -> list[Tensor]:
        """Tensors whose gradients are to be summed over processes, with those of the dense part."""
        return [tensor for part in self._parts for tensor in part.measured]

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint has to hold, by key."""
        return {key: tensor for part in self._parts for key, tensor in part.tensors().items()}

    def observe(self) -> None:
        """To be called between backward and the optimisers' step."""
        for part in self._parts:
            part.observe()

    def restrain(self) -> None:
        """To be called after the optimisers' step."""
        for part in self._parts:
            part.restrain()

    def update(self, step: int) -> dict[str, float] | None:
        """Change what is kept where that is due; then the new densities, for the record."""
        if not is_due(self._settings, step):
            return None
        for part in self._parts:
            part.update(step)
        return {f"density/{k}": share for part in self._parts for k, share in part.densities().items()}

    def resume(self, step: int) -> None:
        """Make ready for the state of a run that stood at this step."""
        if step >= self._settings.last_step:
            for part in self._parts:
                part.skip()


def build_sparsity(
    train: TrainSettings,
    model: nn.Module,
    tables: Tables,
    optimisers: Optimisers,
    dataset: Dataset,
    ranks: Distributed,
) -> Sparsity | None:
    """The parts that the settings ask for; raises ConfigError where the budget cannot be met."""
    settings = train.sparsity
    if settings is None:
        return None
    if settings.method == "dsl":
        return Sparsity(settings, [Masks(model, tables, settings, ranks, train.seed)])
    units = rows = None
    if settings.dense_density < 1:
        units = Units(model, settings, optimisers.dense)
    if tables.pools:
        moments = optimisers.table_state
        rows = Rows(tables, moments, dataset, settings, ranks, train.seed, train.batch_size)
    split = None
    if units and rows and settings.splits:
        split = Split(units, rows, settings, ranks, train.batch_size)
    return Sparsity(settings, [part for part in (split, units, rows) if part is not None])
