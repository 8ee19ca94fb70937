"""The same training with other seeds: what each reached, and how far chance alone moves a metric."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from recsys.stage import file_aside

SEEDS_FILE = "seeds.json"
METRICS = ("auc", "gauc", "logloss", "ne", "calibration", "recall", "ndcg")
"""Metrics of a table of seeds, in its order; retrieval models have the last two, at ``monitor_k``."""
Part = Literal["valid", "test"]
PARTS: tuple[Part, ...] = ("valid", "test")


@dataclass(frozen=True)
class SeedRun:
    """One training."""

    seed: int
    folder: Path
    """Its run folder."""
    valid: dict[str, float]
    """Metric → value on the validation rows, at the evaluation whose weights count."""
    test: dict[str, float]
    """Metric → value on the test rows; empty where they were not measured."""


@dataclass(frozen=True)
class Spread:
    """Mean and spread of one metric over seeds.

    >>> Spread.of([1.0, 2.0, 3.0])
    Spread(mean=2.0, sd=1.0, seeds=3)
    """

    mean: float
    sd: float | None
    """Standard deviation of a sample (n - 1 in the denominator); None for one seed."""
    seeds: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Spread of at least one value."""
        sd = statistics.stdev(values) if len(values) > 1 else None
        return cls(statistics.fmean(values), sd, len(values))


@dataclass(frozen=True)
class SeedRuns:
    """Trainings that differ in nothing but their seed; the first is the one that is used."""

    runs: tuple[SeedRun, ...]

    def spread(self, part: Part, metric: str) -> Spread | None:
        """Mean and standard deviation of a metric; None unless every run has it."""
        values = [getattr(run, part).get(metric) for run in self.runs]
        return Spread.of(values) if values and None not in values else None

    @property
    def measured(self) -> list[tuple[Part, str]]:
        """Parts and metrics that any run has, in the order of a table's columns."""
        return [
            (part, metric)
            for part in PARTS
            for metric in METRICS
            if any(metric in getattr(run, part) for run in self.runs)
        ]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON: every run, then mean and sd by part and metric."""
        spreads: dict[str, dict[str, Any]] = {part: {} for part in PARTS}
        for part, metric in self.measured:
            found = self.spread(part, metric)
            spreads[part][metric] = None if found is None else asdict(found)
        runs = [{**asdict(run), "folder": str(run.folder)} for run in self.runs]
        return {"runs": runs, **spreads}

    def save(self, folder: Path) -> None:
        """Write ``seeds.json`` into a folder."""
        with file_aside(folder / SEEDS_FILE) as aside:
            aside.write_text(json.dumps(self.to_dict(), indent=2) + "\n", encoding="utf-8")


def valid_metrics(folder: Path) -> dict[str, float]:
    """Validation metrics of a finished run's best evaluation; empty without validation rows."""
    from recsys.training.record import read_lines
    from recsys.training.run_folder import Run

    best = Run.load(folder).result.best_step
    found: dict[str, float] = {}
    for line in read_lines(folder):
        if line["step"] == best:
            measured = {key.removeprefix("valid/"): line[key] for key in line if key.startswith("valid/")}
            found = measured or found
    return found
