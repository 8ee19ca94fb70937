"""How learning rates change over a training."""

from __future__ import annotations

import math

from recsys.config import TrainSettings
from recsys.settings.train import Plateau


class Rates:
    """Learning rates by step, as multiples of the initial ones.

    Args:
        settings: the run file's ``train`` block.
        steps_per_epoch: batches of an epoch.
    """

    def __init__(self, settings: TrainSettings, steps_per_epoch: int) -> None:
        planned = min(settings.epochs * steps_per_epoch, settings.max_steps or math.inf)
        self._steps = planned if settings.decay == "linear" else math.inf

    @property
    def falls(self) -> bool:
        """Whether every step has a rate of its own."""
        return self._steps < math.inf

    def scale(self, step: int, cut: float) -> float:
        """What rates are multiplied by at a step, counted from 0; ``cut`` is what the plateau rule left."""
        return cut * max(0.0, 1.0 - step / self._steps)


def cut_after(plateau: Plateau, stale: int, cut: float) -> float:
    """What rates are multiplied by after so many evaluations in a row without improvement; ``cut`` before.

    >>> from recsys.settings.train import Plateau
    >>> [cut_after(Plateau(factor=0.5, patience=1, stop_after=9), stale, 1.0) for stale in (1, 2, 3, 4)]
    [1.0, 0.5, 1.0, 0.5]
    """
    if stale % (plateau.patience + 1):
        return cut
    return max(cut * plateau.factor, plateau.min_lr_scale)
