"""How the budget is split between the dense part and the tables: by what the last weight of each is worth.

Both begin larger than they end. At every update the weights that are kept fall, along a cube, towards the
budget, and those leave that are worth least, whichever part they are of: the next unit to go is then worth
as much per weight as the next row to come. Of both, that is what the loss would rise by without them (the
empirical Fisher information of the steps since the last update); of a unit counts what others cannot stand
in for.
"""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor

from recsys.settings.sparsity import SparsitySettings
from recsys.training.distributed import Distributed
from recsys.training.sparsity.rows import Rows
from recsys.training.sparsity.schedule import falling
from recsys.training.sparsity.sums import Sums
from recsys.training.sparsity.tolerance import Watch, tolerances
from recsys.training.sparsity.units import Units

_ROWS_PER_UNIT = 8
"""Rows of the last steps before an update, for every unit of a layer, whose activations are looked at."""


class Split:
    """Tells the other parts how much to keep; it is to be updated before them.

    Args:
        units, rows: the dense part and the tables.
        settings: the budget, as a share of the weights of both, and the schedule.
        ranks: the processes that train.
        batch_size: rows of a step, over all processes.
    """

    def __init__(
        self, units: Units, rows: Rows, settings: SparsitySettings, ranks: Distributed, batch_size: int
    ) -> None:
        self._units, self._rows, self._settings = units, rows, settings
        self._first = units.weights + rows.weights
        self._last = settings.budget * (units.whole + rows.whole)
        self._steps = torch.zeros((), dtype=torch.int64)
        watched = {layer: layer.outputs for layer in units.layers if layer.outputs is not None}
        sizes = {layer.name: (layer.width + 1, layer.width + 1) for layer in watched}
        self._moments = Sums(sizes, ranks, torch.float64)
        self._watches = []
        for layer, outputs in watched.items():
            first = settings.interval - math.ceil(_ROWS_PER_UNIT * layer.width / batch_size)
            due = partial(self._has_come, first)
            self._watches.append(Watch(outputs, self._moments.mine[layer.name], due))

    def _has_come(self, step: int) -> bool:
        """Whether this many steps have passed since the last update."""
        return int(self._steps) >= step

    @property
    def measured(self) -> list[Tensor]:
        """None: each process looks at its own activations."""
        return []

    def tensors(self) -> dict[str, Tensor]:
        """State by key; empty after the last update. All processes call this together."""
        if not self._watches:
            return {}
        found = {f"split.{name}": moments for name, moments in self._moments.total().items()}
        return {**found, "split.steps": self._steps}

    def densities(self) -> dict[str, float]:
        """None beside those of the parts."""
        return {}

    def observe(self) -> None:
        """Count the step; activations are taken up as they are computed."""
        self._steps += 1

    def restrain(self) -> None:
        """Nothing."""

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Set what both keep after ``step``; all processes call it together."""
        held = self._units.held()
        alone = {name: tolerances(moments, held[name]) for name, moments in self._moments.total().items()}
        self._units.count_alone(alone)
        units, rows = self._units.prices(step), self._rows.prices()
        kept = int(falling(self._settings, step, self._first, self._last))
        room = kept - units.weights
        fitting = torch.searchsorted(rows.weights, room, right=True) - 1  # -1: units alone are too many
        next_row = torch.where(fitting < 0, torch.inf, rows.worth[fitting.clamp(min=0)])
        stays = ~(units.worth < next_row)  # all of them, where the loss is not a number
        unit = int(stays.nonzero()[0])
        self._units.aim(int(units.weights[unit]))
        self._rows.aim(max(0, int(fitting[unit])))
        self._moments.clear()
        self._steps.zero_()
        if step >= self._settings.last_step:
            self.skip()

    def skip(self) -> None:
        """Look no longer."""
        for watch in self._watches:
            watch.stop()
        self._watches = []
        self._moments.free()
