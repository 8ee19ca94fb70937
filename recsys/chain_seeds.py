"""Further seeds of a run file: each trained, and measured where the chain measures, beside the first.

The first seed's run is the run itself, in ``run/``: it is what evaluation, export and everything else
use, so that asking for seeds changes no result. Taking the best of them instead would report a metric
that luck helped to choose.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from recsys import ranks
from recsys.errors import ConfigError
from recsys.place import FOLDERS, Place
from recsys.results import measured_of
from recsys.seeds import SeedRun, SeedRuns, valid_metrics
from recsys.stages import STAGES
from recsys.upkeep import Outcome, bring_up_to_date, is_up_to_date

SEEDS_FOLDER = "seeds"
_OWN = ("train", "evaluate")


def require_one_process() -> None:
    """Raise ConfigError under torchrun."""
    if ranks.world() > 1:
        raise ConfigError("seeds: several seeds are trained one after the other, on one process")


def place_of_seed(place: Place, seed: int) -> Place:
    """The same run with another seed; its training and evaluation lie in ``seeds/seed-N``."""
    train = place.config.train.model_copy(update={"seed": seed})
    folder = place.root / SEEDS_FOLDER / f"seed-{seed}"
    return replace(
        place,
        config=place.config.model_copy(update={"train": train}),
        apart={stage: folder / FOLDERS[stage] for stage in _OWN},
    )


def further_seeds(place: Place, count: int, *, force: Sequence[str], evaluated: bool) -> list[Outcome]:
    """Bring the runs of ``count`` - 1 seeds after the run's own up to date."""
    first = place.config.train.seed
    outcomes = []
    for seed in range(first + 1, first + count):
        own = place_of_seed(place, seed)
        for stage in _OWN if evaluated else _OWN[:1]:
            about, forced = f"seed {seed}", stage in force
            outcome = bring_up_to_date(STAGES[stage], own, forced=forced, about=about)
            outcomes.append(replace(outcome, stage=f"{stage} {seed}"))
    return outcomes


def finished_seeds(place: Place, count: int | None = None) -> SeedRuns | None:
    """What the run and its further seeds reached; None where there are no further seeds.

    Runs whose data or settings are no longer those of the run file are left out, and so are test
    metrics of weights that have changed since.

    Args:
        count: seeds to take; default: all that are there.
    """
    first = place.config.train.seed
    if count is None:
        seeds = sorted(seed for seed in _seeds_there(place.root / SEEDS_FOLDER) if seed > first)
    else:
        seeds = list(range(first + 1, first + count))
    places = [place, *(place_of_seed(place, seed) for seed in seeds)]
    current = [own for own in places if is_up_to_date(STAGES["train"], own)]
    if len(current) < 2 or current[0] is not place:
        return None
    return SeedRuns(tuple(_measured(own) for own in current))


def _seeds_there(folder: Path) -> list[int]:
    names = [path.name for path in folder.glob("seed-*")] if folder.is_dir() else []
    return [int(found[1]) for name in names if (found := re.fullmatch(r"seed-(\d+)", name))]


def _measured(place: Place) -> SeedRun:
    test = measured_of(place) if is_up_to_date(STAGES["evaluate"], place) else {}
    folder = place.folder("train")
    return SeedRun(place.config.train.seed, folder, valid_metrics(folder), test)
