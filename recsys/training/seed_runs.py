"""One prepared dataset trained with several seeds, each in a folder of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recsys.config import ModelSettings, TrainSettings
from recsys.data.dataset import Dataset
from recsys.embeddings.plan import Plan
from recsys.errors import CheckpointError, ConfigError
from recsys.progress import say
from recsys.seeds import SeedRun, SeedRuns, valid_metrics
from recsys.stage import STAGE_FILE, STARTED_FILE, StageRecord, handed_on, load_record, settings_of
from recsys.training.run_folder import VERSION
from recsys.training.train import model_settings, plan_or_default, train

_READ = ("dataset.json", "train.parquet", "valid.parquet", "vocab/*")


def train_seeds(
    dataset: Dataset,
    output: str | Path,
    *,
    model: ModelSettings | Mapping[str, Any] | str,
    seeds: int | Sequence[int],
    plan: Plan | str | Path | None = None,
    settings: TrainSettings | None = None,
    overwrite: bool = False,
) -> SeedRuns:
    """Train a model on a prepared dataset once per seed; see ``recsys.train_seeds``."""
    settings = settings or TrainSettings()
    chosen = model_settings(model)
    tables = plan_or_default(plan, dataset, chosen)
    read = handed_on(dataset.folder, _READ)
    runs = []
    for seed in _seeds(seeds, settings.seed):
        mine = settings.model_copy(update={"seed": seed})
        stated = settings_of({"model": chosen, "train": mine}) | {"plan": tables.fingerprint()}
        wanted = StageRecord(stage="train", version=VERSION, inputs=read, settings=stated)
        folder = Path(output) / f"seed-{seed}"
        if _must_train(folder, wanted, overwrite=overwrite):
            say(f"seed {seed}")
            earlier = load_record(folder, STARTED_FILE)
            same = earlier is None or wanted.reason_stale(earlier) is None
            (folder / STAGE_FILE).unlink(missing_ok=True)
            wanted.save(folder, STARTED_FILE)
            train(
                dataset, folder, model=chosen, plan=tables, settings=mine, resume=same, overwrite=not same
            )
            wanted.save(folder)
        else:
            say(f"seed {seed} is finished already")
        runs.append(SeedRun(seed, folder, valid_metrics(folder), {}))
    found = SeedRuns(tuple(runs))
    found.save(Path(output))
    return found


def _seeds(seeds: int | Sequence[int], first: int) -> list[int]:
    """The seeds to train with; raises ConfigError for none, or for one that stands twice."""
    found = list(range(first, first + seeds)) if isinstance(seeds, int) else list(seeds)
    if not found or len(set(found)) < len(found) or min(found) < 0:
        raise ConfigError(f"seeds: expected a number from 1 on, or different seeds; found {seeds!r}")
    return found


def _must_train(folder: Path, wanted: StageRecord, *, overwrite: bool) -> bool:
    """Whether a seed is not finished; raises CheckpointError over a run of something else."""
    done = load_record(folder)
    begun = done or load_record(folder, STARTED_FILE)
    reason = None if begun is None else wanted.reason_stale(begun)
    if reason is not None and not overwrite:
        raise CheckpointError(
            f"{folder} holds another run ({reason}); name another folder, or replace it (overwrite)"
        )
    return done is None or reason is not None
