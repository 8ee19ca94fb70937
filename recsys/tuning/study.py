"""optuna, as a search uses it: one trial at a time, every one of them written down at once.

What the sampler draws for a trial follows from the seed, the trial's number and the trials before, so
that a search that was interrupted draws what it would have drawn.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from recsys.errors import InstallationError
from recsys.settings.tune import TuneSettings
from recsys.tuning.space import Space
from recsys.tuning.trial import Trial

if TYPE_CHECKING:
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler

JOURNAL_FILE = "journal.log"
_NOTE = "recsys"
"""Attribute of optuna's trials that holds ours."""


def require_optuna() -> None:
    """Raise InstallationError that names the extra where optuna is absent."""
    if importlib.util.find_spec("optuna") is None:
        raise InstallationError(
            "recsys tune needs optuna, which is not installed; install the extra 'tune': "
            "pip install 'recsys[tune]' (it is part of requirements/cpu.txt and cuda.txt)"
        )


class Asked:
    """Settings to try next."""

    def __init__(self, number: int, values: dict[str, Any], drawing: Any) -> None:
        self.number, self.values = number, values
        self.drawing = drawing
        self._reported = 0

    def report(self, reached: Sequence[float]) -> bool:
        """Note the best score by each evaluation so far; whether it should end there."""
        for at in range(self._reported, len(reached)):
            self.drawing.report(reached[at], at + 1)
        self._reported = max(self._reported, len(reached))
        return bool(self.drawing.should_prune())


class Study:
    """The trials of a search, in a journal of their own."""

    def __init__(self, folder: Path, space: Space, settings: TuneSettings) -> None:
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        folder.mkdir(parents=True, exist_ok=True)
        self._space, self._settings = space, settings
        self._states = optuna.trial.TrialState
        self._study = optuna.create_study(
            storage=JournalStorage(JournalFileBackend(str(folder / JOURNAL_FILE))),
            study_name="tune",
            direction="maximize",
            sampler=_sampler(settings, 0),
            pruner=_pruner(settings),
            load_if_exists=True,
        )
        for begun in self._study.get_trials(states=(self._states.RUNNING,)):
            self._study.tell(begun.number, state=self._states.FAIL)  # it begins again where it stood

    @property
    def trials(self) -> list[Trial]:
        """Trials that have ended."""
        ended = (self._states.COMPLETE, self._states.PRUNED)
        return [
            Trial(**found.user_attrs[_NOTE])
            for found in self._study.get_trials(states=ended)
            if _NOTE in found.user_attrs
        ]

    def ask(self, trials: int) -> Asked:
        """Draw the settings of the next trial, of a search of so many."""
        earlier = self.trials
        number = len(earlier) + 1
        every = self._space.combinations(trials)
        if every is not None and not self._study.get_trials(states=(self._states.WAITING,)):
            tried = [trial.values for trial in earlier]
            chosen = next((values for values in every if values not in tried), every[0])
            self._study.enqueue_trial(
                {axis.path: axis.drawn(chosen[axis.path]) for axis in self._space.axes}
            )
        self._study.sampler = _sampler(self._settings, number)
        drawing = self._study.ask()
        values = {axis.path: axis.draw(drawing) for axis in self._space.axes}
        return Asked(number, values, drawing)

    def tell(self, asked: Asked, trial: Trial) -> None:
        """Write a trial down. One that failed counts as the worst, so that its like is not tried again."""
        drawing = asked.drawing
        drawing.set_user_attr(_NOTE, trial.to_dict())
        if trial.state == "finished":
            self._study.tell(drawing, trial.score)
        else:
            self._study.tell(drawing, state=self._states.PRUNED)


def _sampler(settings: TuneSettings, number: int) -> BaseSampler:
    from optuna.samplers import RandomSampler, TPESampler

    seed = int(np.random.SeedSequence([settings.seed, number]).generate_state(1)[0])
    if settings.sampler == "random":
        return RandomSampler(seed=seed)
    return TPESampler(seed=seed, n_startup_trials=settings.startup)


def _pruner(settings: TuneSettings) -> BasePruner:
    from optuna.pruners import MedianPruner, NopPruner

    if settings.pruner == "none":
        return NopPruner()
    return MedianPruner(n_startup_trials=settings.startup, n_warmup_steps=settings.warmup + 1)
