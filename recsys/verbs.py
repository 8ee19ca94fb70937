"""``plan`` and ``train`` for whatever a caller has: a prepared dataset, its folder, or raw rows."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recsys.config import ModelSettings, PlanSettings, SplitSettings, TrainSettings
from recsys.data.dataset import Dataset
from recsys.data.source import Data
from recsys.embeddings import planner
from recsys.embeddings.plan import Plan
from recsys.features.infer import infer
from recsys.features.prepare import MANIFEST_FILE, prepare
from recsys.ranking.ranking import Ranking
from recsys.schema import Schema

if TYPE_CHECKING:
    from recsys.seeds import SeedRuns
    from recsys.training.run_folder import Run


def plan(
    data: Dataset | Data | None,
    *,
    settings: PlanSettings | None = None,
    model_name: str | None = None,
    output: str | Path | None = None,
    schema: Schema | str | Path | None = None,
    split: SplitSettings | None = None,
    label: str | None = None,
    ranking: Ranking | str | Path | None = None,
) -> Plan:
    """Decide which tables a model gets, and how many rows and bytes each.

    Args:
        data: prepared dataset or its folder; or raw rows, which are prepared aside for their counts.
        settings: the run file's ``plan`` block.
        model_name: fixes the width of tables where the model has no choice (LR: 1).
        output: folder that gets ``plan.json``.
        schema, split, label: how raw rows are read; see ``prepare``.
        ranking: what ``rank`` found, or its folder; mode ``best`` gives rows to what tells most.

    Raises:
        PlanError: an override that does not fit, or a budget below the smallest possible one.
    """
    found = Ranking.load(ranking) if isinstance(ranking, (str, Path)) else ranking
    solve = partial(
        planner.plan,
        settings=settings,
        model_name=model_name,
        output=output,
        told=None if found is None else found.told,
    )
    if _is_prepared(data):
        return solve(_opened(data))
    with tempfile.TemporaryDirectory(prefix="recsys-") as folder:
        return solve(_prepared(data, Path(folder) / "dataset", schema, split, label, None))


def train(
    data: Dataset | Data | None,
    output: str | Path,
    *,
    model: ModelSettings | Mapping[str, Any] | str,
    plan: Plan | str | Path | None = None,
    settings: TrainSettings | None = None,
    resume: bool = False,
    overwrite: bool = False,
    schema: Schema | str | Path | None = None,
    split: SplitSettings | None = None,
    label: str | None = None,
    group: str | None = None,
) -> Run:
    """Train a model; under ``torchrun`` every process calls this with the same arguments.

    Args:
        data: prepared dataset or its folder; or raw rows, which are prepared into ``output/dataset``.
        output: run folder; gets checkpoints, ``metrics.jsonl`` and TensorBoard events.
        model: name, or name and options.
        plan: tables; default: planned from the dataset with the default settings.
        settings: the run file's ``train`` block.
        resume: go on from the latest checkpoint in ``output``; starts afresh where there is none.
        overwrite: replace the run that stands in ``output``.
        schema, split, label, group: how raw rows are read; see ``prepare``.

    Returns:
        The finished run; its weights are those of the best evaluation.

    Raises:
        ConfigError: unknown model or option.
        CheckpointError: ``output`` holds another run, or its checkpoint is damaged.
        Interrupted: a signal came; everything is saved.
        TrainingError: the loss is not finite.
    """
    import torch.distributed as dist

    from recsys.training import train as training
    from recsys.training.distributed import distributed

    folder = Path(output) / "dataset"
    with distributed((settings or TrainSettings()).device) as ranks:
        if _is_prepared(data):
            dataset = _opened(data)
        else:
            if ranks.rank == 0 and not (resume and _is_prepared(folder)):
                retrieves = training.model_settings(model).retrieves
                _prepared(data, folder, schema, split, label, group, positives_only=retrieves)
            dist.barrier()
            dataset = Dataset.load(folder)
        return training.train(
            dataset,
            output,
            model=model,
            plan=plan,
            settings=settings,
            resume=resume,
            overwrite=overwrite,
        )


def train_seeds(
    data: Dataset | Data | None,
    output: str | Path,
    *,
    model: ModelSettings | Mapping[str, Any] | str,
    seeds: int | Sequence[int] = 5,
    plan: Plan | str | Path | None = None,
    settings: TrainSettings | None = None,
    overwrite: bool = False,
    schema: Schema | str | Path | None = None,
    split: SplitSettings | None = None,
    label: str | None = None,
    group: str | None = None,
) -> SeedRuns:
    """Train a model with several seeds, one after the other, each in ``output/seed-N``.

    Seeds that are finished are not repeated, and one that was interrupted goes on where it stood.

    Args:
        seeds: how many, from ``settings.seed`` on; or which.
        overwrite: replace runs of other data or settings that stand in ``output``.
        data, model, plan, settings, schema, split, label, group: as in ``train``.

    Returns:
        The validation metrics of every run, and their mean and standard deviation; also written to
        ``output/seeds.json``.

    Raises:
        ConfigError: unknown model or option, no seeds, or several processes.
        CheckpointError: a seed's folder holds another run.
        Interrupted, TrainingError: as in ``train``.
    """
    from recsys.chain_seeds import require_one_process
    from recsys.training import seed_runs
    from recsys.training import train as training

    require_one_process()
    if _is_prepared(data):
        dataset = _opened(data)
    else:
        retrieves = training.model_settings(model).retrieves
        folder = Path(output) / "dataset"
        dataset = _prepared(data, folder, schema, split, label, group, positives_only=retrieves)
    return seed_runs.train_seeds(
        dataset,
        output,
        model=model,
        seeds=seeds,
        plan=plan,
        settings=settings,
        overwrite=overwrite,
    )


def _is_prepared(data: Dataset | Data | None) -> bool:
    """Whether this is a prepared dataset or the folder of one, rather than raw rows."""
    if isinstance(data, Dataset):
        return True
    return isinstance(data, str | Path) and (Path(data) / MANIFEST_FILE).is_file()


def _opened(data: Dataset | Data | None) -> Dataset:
    return data if isinstance(data, Dataset) else Dataset.load(Path(str(data)))


def _prepared(
    data: Data | Dataset | None,
    folder: Path,
    schema: Schema | str | Path | None,
    split: SplitSettings | None,
    label: str | None,
    group: str | None,
    *,
    positives_only: bool = False,
) -> Dataset:
    """A dataset made from raw rows; the schema is inferred where none is given."""
    assert not isinstance(data, Dataset)
    if schema is None:
        schema = infer(data, label=label, group=group, split=split)
    return prepare(data, schema, folder, split=split, positives_only=positives_only)
