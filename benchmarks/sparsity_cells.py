"""The trainings of the sparsity study: run files, what is changed in them, and what is measured of each."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import torch
from accuracy_settings import data_of
from cells import CELLS, cell, key_of
from trainings import Figures

from recsys import run as run_chain
from recsys.config import RunConfig, TrainSettings, load_config
from recsys.data.batches import Batches
from recsys.data.dataset import Dataset
from recsys.embeddings.planner import plan as make_plan
from recsys.evaluation.metrics import auc
from recsys.models.units import hidden_layers
from recsys.strict_yaml import read_yaml
from recsys.training.export import export
from recsys.training.loaded import opened_run
from recsys.training.run_folder import Run
from recsys.training.scoring import labels_of, score_part
from recsys.training.train import train

Changes = Mapping[str, Any]
"""What is changed in a run file, by dotted key."""
VERSIONS = {"whole": 1, "stated": 7, "split": 9, "dsl": 2}
"""Raised by hand when code under a cell changes what comes out: without sparsity, with stated shares of the
parts or a budget that moves between them, as published."""
ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Study:
    """A log, the run file that is tuned for it, and its cases; those in ``_20`` keep a fifth of weights.

    Of the cases ``narrow`` is a dense model with narrower vectors and layers, ``narrow_layers`` one with
    narrower layers alone.
    """

    name: str
    run_file: str
    data: str
    """As ``accuracy_settings`` names it."""
    cases: Mapping[str, Changes]


def _sparse(**settings: Any) -> Changes:
    return {"train.sparsity": settings}


_OURS = {"pieces": 5, "interval": 25, "updates": 12}
_FRAPPE = Study(
    "frappe_x1",
    "pipelines/frappe_x1.yaml",
    "frappe_x1",
    {
        "dense": {},
        "ours_20": _sparse(budget=0.2, **_OURS),
        "ours_whole_tables_20": _sparse(budget=0.2, dense=0.083, tables=1.0, interval=25, updates=8),
        "narrow_20": {"plan.embedding_dim": 2, "model.hidden": [180, 180, 180]},
        "narrow_layers_20": {"model.hidden": [92, 92, 92]},
        "dsl_20": _sparse(budget=0.2, method="dsl", interval=25, updates=28, drop=0.5),
        "ours_50": _sparse(budget=0.5, **_OURS),
    },
)
_SMALL = Study(
    "synth_small",
    "pipelines/synth_small.yaml",
    "synth:small",
    {
        "dense": {},
        "ours_20": _sparse(budget=0.2, pieces=4),
        "narrow_20": {"plan.embedding_dim": 3},
        "dsl_20": _sparse(budget=0.2, method="dsl", interval=500, updates=30, drop=0.5),
        "ours_50": _sparse(budget=0.5, pieces=4),
    },
)
_ML1M = Study(
    "ml1m_ids",
    "pipelines/ml1m_ids.yaml",
    "ml1m_ctr",
    {
        "dense": {},
        "ours_layers_20": _sparse(budget=0.2, dense=0.2, tables=1.0, interval=50, updates=10),
        "ours_20": _sparse(budget=0.2, pieces=4, interval=50, updates=10),
        "ours_50": _sparse(budget=0.5, pieces=4, interval=50, updates=10),
        "narrow_20": {"plan.embedding_dim": 4, "model.hidden": [150, 150, 150]},
        "dsl_20": _sparse(budget=0.2, method="dsl", interval=50, updates=30, drop=0.5),
    },
)
STUDIES = {study.name: study for study in (_FRAPPE, _SMALL, _ML1M)}


def changes_of(study: Study, case: str, seed: int) -> Changes:
    """What is changed in the study's run file for a case."""
    return {**study.cases[case], "train.seed": seed}


def trained(study: Study, case: str, seed: int, root: Path, *, only_kept: bool) -> Figures | None:
    """Figures of one training, kept; ``root`` holds the logs that are not made."""
    changes = changes_of(study, case, seed)
    run_file = json.loads(json.dumps(read_yaml(ROOT / study.run_file), default=str))  # dates as text
    settings = {"run_file": run_file, "changes": changes}
    settings |= {"data": study.name, "version": _version(changes)}
    name = f"{case}-{key_of(settings)}"
    return cell("sparsity", settings, lambda: _train(study, name, changes, root), only_kept=only_kept)


def _version(changes: Changes) -> int:
    sparsity = changes.get("train.sparsity")
    if sparsity is None:
        return VERSIONS["whole"]
    if sparsity.get("method") == "dsl":
        return VERSIONS["dsl"]
    return VERSIONS["stated" if sparsity.keys() & {"dense", "tables"} else "split"]


def _train(study: Study, name: str, changes: Changes, root: Path) -> Figures:
    """Train in a folder of this name, or go on with a training that was cut off there; then measure."""
    work = CELLS.parent / "sparsity" / study.name
    data = data_of(study.data, root)
    overrides = [f"{key}={yaml_of(value)}" for key, value in changes.items()]
    config = load_config(ROOT / study.run_file, data=data, output=work / "data", overrides=overrides)
    run_chain(ROOT / study.run_file, data=data, output=work / "data", until="prepare")
    dataset = Dataset.load(work / "data" / "dataset")
    folder = work / name
    train(
        dataset,
        folder,
        model=config.model,
        plan=make_plan(dataset, settings=config.plan),
        settings=config.train.model_copy(update={"device": "cpu"}),
        resume=True,
    )
    found = _figures(Run.load(folder), config)
    if changes.keys() == {"train.seed"}:  # the run file as it is
        found["magnitude_20"] = _magnitude(Run.load(folder), 0.2)
    return found


def yaml_of(value: Any) -> str:
    """A setting as ``--set`` takes it; mappings one level deep."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {inner}" for key, inner in value.items()) + "}"
    return str(value)


def _figures(run: Run, config: RunConfig) -> dict[str, Any]:
    with opened_run(run) as (dataset, _, model, tables):
        widths = {layer.weight: list(layer.axes[0].tensor.shape) for layer in hidden_layers(model)}
        score = score_part(model, tables, _batches(dataset, config.train), 1)
        rows = {name: table.rows for name, table in run.plan.tables.items()}
        rows |= {name: int((pool.slots > 0).sum()) for name, pool in tables.pools.items()}
    return {
        "test_auc": auc(labels_of(dataset, "test")[0], score),
        "valid_auc": run.result.best_value,
        "dense_parameters": run.result.parameters,
        "table_parameters": sum(rows[name] * table.dim for name, table in run.plan.tables.items()),
        "steps": run.result.steps,
        "train_seconds": run.result.seconds,
        "widths": widths,
        "densities": _densities(run),
        "bundle": _bundle_bytes(run),
    }


def _densities(run: Run) -> dict[str, list[float]]:
    """Shares that were kept after every update, by part, layer and vocabulary; empty without sparsity."""
    kept = run.metrics.select("step", pl.selectors.starts_with("density/"))
    return kept.drop_nulls().to_dict(as_series=False) if kept.width > 1 else {}


def _batches(dataset: Dataset, settings: TrainSettings) -> Batches:
    return Batches(dataset, "test", settings.batch_size, shuffle_rows=settings.shuffle_rows, shuffle=False)


def _bundle_bytes(run: Run) -> dict[str, int]:
    with tempfile.TemporaryDirectory() as folder:
        return dict(export(run, Path(folder) / "bundle", dtype="int8").manifest.bytes)


def _magnitude(run: Run, density: float) -> float:
    """Test AUC of a trained model whose smallest weights are zeros: of its matrices, and of its tables."""
    with opened_run(run) as (dataset, _, model, tables):
        matrices = [p.data for p in model.parameters() if p.dim() == 2]
        stored = [value.to_local() for value in tables.state().values()]
        for group in (matrices, stored):
            flat = torch.cat([weights.abs().flatten() for weights in group])
            least = flat.kthvalue(len(flat) - int(density * len(flat))).values
            for weights in group:
                weights.mul_(weights.abs() > least)
        score = score_part(model, tables, _batches(dataset, run.file.train), 1)
        found = auc(labels_of(dataset, "test")[0], score)
    assert found is not None
    return found
