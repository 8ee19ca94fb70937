"""The search for gates before training: its epochs, its temperatures, and the rewinding after it.

OptFS (WWW 2023): weights and gates learn together for T epochs while the temperature grows from 1 to γ,
τ_t = γ^(t / (T - 1)); with one epoch it stays 1, as no gate would feel a gradient at γ from the start. Then
weights go back to what they were at the start of epoch T_c, gates become hard and stay, and training begins
anew with fresh optimisers, as if there had been no search: it sees the batches, and draws the dropout, of a
training without one.
"""

from __future__ import annotations

import math

import torch.distributed as dist
from torch import nn

from recsys.embeddings.gates import Gates
from recsys.embeddings.tables import Tables
from recsys.errors import CheckpointError
from recsys.progress import say
from recsys.settings.gates import GateSettings
from recsys.training.checkpoint import Checkpoints, Position, load_tensors
from recsys.training.optimisers import Optimisers
from recsys.training.state import learnt_tensors


class GateSearch:
    """The part of a training before its first epoch.

    Args:
        settings: the run file's ``train.gates`` block.
        gates: what is searched.
        steps_per_epoch: global batches per epoch.
    """

    def __init__(self, settings: GateSettings, gates: Gates, steps_per_epoch: int) -> None:
        self.gates = gates
        self._settings = settings
        self.epochs = settings.epochs
        self.steps = settings.epochs * steps_per_epoch
        """Steps that the search takes."""

    def temperature(self, epoch: int) -> float:
        """τ in an epoch of the search: from 1 in the first to ``final_temp`` in the last of several."""
        return float(self._settings.final_temp ** (epoch / max(self.epochs - 1, 1)))

    def begins_epoch(self, position: Position) -> bool:
        """Set the epoch's temperature; returns whether weights are to be rewound to what they are now."""
        self.gates.set_temperature(self.temperature(position.epoch))
        return position.epoch == self._settings.rewind_epoch and position.batch == 0

    def is_over(self, position: Position) -> bool:
        """Whether the last epoch of the search is done and weights still have to be rewound."""
        return position.epoch >= self.epochs and not self.gates.hard

    def rewind(
        self, model: nn.Module, tables: Tables, optimisers: Optimisers, checkpoints: Checkpoints
    ) -> None:
        """Make gates hard, and everything else what it was before ``rewind_epoch``.

        Says so where the search closed nothing.
        """
        if self._settings.rewind_epoch is not None:
            checkpoint = checkpoints.named("rewind")
            if checkpoint is None:
                raise CheckpointError(
                    f"{checkpoints.folder}: nothing to rewind weights to (no file 'rewind'); train it again"
                )
            load_tensors(checkpoint, learnt_tensors(model, tables), allow_unused=True)
        self.gates.set_temperature(math.inf)
        optimisers.restart()
        if self.gates.open_share() == 1 and dist.get_rank() == 0:
            say(f"gates: {self._closed_nothing()}")

    def _closed_nothing(self) -> str:
        """What to change where every value is still open."""
        settings = self._settings
        return (
            "the search closed no value. A gate moves by about train.gates.lr in each of "
            f"{self.steps:,} steps, {settings.lr * self.steps:.3g} in all, which must well exceed "
            f"train.gates.init ({settings.init:g}): raise lr or epochs if it does not, else l1 "
            f"({settings.l1:g})"
        )

    def facts(self) -> dict[str, float]:
        """What the record says of gates while they are searched."""
        return {
            "gates/open_share": self.gates.open_share(),
            "gates/temperature": float(self.gates.temperature),
        }
