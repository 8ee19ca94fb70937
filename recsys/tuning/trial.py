"""What a search has found: its trials, and the best of them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

State = Literal["finished", "pruned", "failed"]
BEST_FILE, REPORT_FILE = "best.yaml", "tune.html"


@dataclass(frozen=True)
class Trial:
    """One training of a search."""

    number: int
    """From 1 on."""
    state: State
    """``pruned``: ended early, as others were ahead; ``failed``: these settings do not train."""
    values: dict[str, Any]
    """Setting → value, by dotted key."""
    score: float | None
    """The monitored metric at its best evaluation, higher is better; None where there was none."""
    evaluations: int = 0
    """Evaluations that it got."""
    seconds: float = 0.0
    """Seconds spent training."""
    reason: str = ""
    """Why it ended."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Tuning:
    """A search that went through."""

    folder: Path
    """Where ``best.yaml``, ``tune.html`` and the trials lie."""
    name: str
    """Name of the run file."""
    monitor: str
    """Validation metric that trials are judged by."""
    trials: tuple[Trial, ...]
    """In the order in which they ran."""

    @property
    def best(self) -> Trial:
        """The finished trial with the best score; the earliest of equal ones."""
        finished = [trial for trial in self.trials if trial.state == "finished"]
        return max(finished, key=lambda trial: (trial.score or 0.0, -trial.number))

    @property
    def best_file(self) -> Path:
        """The run file with the best settings."""
        return self.folder / BEST_FILE

    @property
    def ranked(self) -> list[Trial]:
        """Trials, best first; finished before pruned before failed."""
        order: list[State] = ["finished", "pruned", "failed"]
        return sorted(self.trials, key=lambda trial: (order.index(trial.state), -(trial.score or 0.0)))

    @property
    def paths(self) -> list[str]:
        """Settings that were searched."""
        return list(self.trials[0].values)

    def shown(self, score: float | None) -> float | None:
        """A score as the metric itself: logloss is lower where the score is higher."""
        return None if score is None else shown_score(self.monitor, score)


def shown_score(monitor: str, score: float) -> float:
    """The monitored metric of a score, which is higher where the metric is better."""
    return -score if monitor == "logloss" else score
