"""A trained run opened for scoring and export, on one process."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

from recsys.data.batches import Batches
from recsys.data.dataset import Dataset, Part
from recsys.embeddings.open_values import OpenValues
from recsys.embeddings.tables import Tables
from recsys.errors import CheckpointError
from recsys.models import build_model
from recsys.models.inputs import Layout
from recsys.training.checkpoint import Checkpoints, load_tensors, read_state, saved_shapes
from recsys.training.distributed import distributed
from recsys.training.layout import layout_of
from recsys.training.run_folder import Run
from recsys.training.scoring import score_part
from recsys.training.state import fit_model, weight_tensors
from recsys.training.tables_of import build_tables


@dataclass(frozen=True)
class TrainedModel:
    """The best weights of a run."""

    run: Run
    dataset: Dataset
    layout: Layout
    model: nn.Module
    """In eval mode, on the CPU."""
    tables: dict[str, NDArray[np.float32]]
    """Table name → weights ``[rows, dim]``."""
    gates: OpenValues | None = None
    """Which values are open; None without gates."""
    row_maps: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    """Pooled vocabulary → rows of every id."""


def load_trained(folder: str | Path) -> TrainedModel:
    """Open the best checkpoint of a finished run.

    Raises:
        CheckpointError: the run is not finished, damaged, or its dataset has another plan; or its
            search for gates is not.
    """
    run = Run.load(folder)
    with opened_run(run) as (dataset, layout, model, tables):
        weights = {name: tables.table(name) for name in run.plan.tables}
        if tables.gates is not None and not tables.gates.hard:
            raise CheckpointError(
                f"{run.folder}: training ended ({run.result.finished}) before its search for gates did; go "
                "on with 'recsys train --resume' and a larger train.max_steps"
            )
        gates = None if tables.gates is None else tables.gates.open_values()
        dealt = [pool.row_maps() for pool in tables.pools.values()]
    maps = {name: rows for each in dealt for name, rows in each.items()}
    return TrainedModel(run, dataset, layout, model, weights, gates, maps)


def score_dataset(
    folder: str | Path,
    part: Part,
    dataset: Dataset | None = None,
    cleared: Mapping[str, NDArray[np.int64]] | None = None,
) -> NDArray[np.float32]:
    """Probabilities ``[rows]`` of a part of a prepared dataset, by a run's best checkpoint.

    Args:
        folder: run folder.
        part: ``train``, ``valid`` or ``test``.
        dataset: another dataset with the same encoders; default: the one it was trained on.
        cleared: rows by table that count as zeros; default: none.
    """
    run = Run.load(folder)
    settings = run.file.train
    with opened_run(run, cleared) as (own, _, model, tables):
        batches = Batches(
            dataset or own, part, settings.batch_size, shuffle_rows=settings.shuffle_rows, shuffle=False
        )
        scores = score_part(model, tables, batches, world=1)
    if scores is None:
        raise CheckpointError(f"{folder}: scores stand on rank 0 only; score on one process")
    return scores


@contextmanager
def opened_run(
    run: Run, cleared: Mapping[str, NDArray[np.int64]] | None = None
) -> Iterator[tuple[Dataset, Layout, nn.Module, Tables]]:
    """The best weights of a run in a model in eval mode and its tables, on one CPU process.

    ``cleared`` are rows by table that are set to zeros.
    """
    dataset = run.dataset()
    layout = layout_of(dataset.features, run.plan)
    model = build_model(run.file.model, run.file.options, layout, seed=run.file.train.seed)
    with distributed("cpu") as ranks:
        tables = build_tables(dataset, run.plan, run.file.train, ranks)
        checkpoint = Checkpoints(run.folder / "checkpoints").named("best")
        if checkpoint is None:
            raise CheckpointError(f"{run.folder}: no best checkpoint; train it again")
        plan, saved = run.plan.fingerprint(), read_state(checkpoint).plan_fingerprint
        if saved != plan:
            raise CheckpointError(f"{checkpoint} was made with plan {saved}, run.json has {plan}")
        fit_model(model, saved_shapes(checkpoint))
        load_tensors(checkpoint, weight_tensors(model, tables), allow_unused=True)
        for table, rows in (cleared or {}).items():
            tables.clear(table, rows)
        yield dataset, layout, model.eval(), tables
