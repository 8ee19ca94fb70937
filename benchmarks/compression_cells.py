"""Cells of the compression study: a dataset, a plan, a model trained on it, and what its bundle costs.

Models are chosen by validation rows; test rows are scored once, by the best checkpoint and by bundles in
several types. Bytes are those that a bundle ships to find and hold vectors: tables, keys and row maps.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cells import CELLS, cell
from harness import PACKAGES, versions

import recsys
from recsys.config import ColumnSettings, FilesSplit, PlanSettings, TrainSettings
from recsys.data.dataset import Dataset
from recsys.embeddings.plan import Plan
from recsys.evaluation.metrics import auc
from recsys.ranking.ranking import Ranking
from recsys.training.export import export
from recsys.training.loaded import score_dataset
from recsys.training.scoring import labels_of
from recsys.training.train import train

Cell = dict[str, Any]
"""Figures of one training."""
STUDY = "compression"
VERSION = 1
"""Raised where the code under a cell changes what comes out."""
SERVED = ("float32", "int8", "int4")


def prepared(folder: Path, codes: tuple[str, ...], ignore: tuple[str, ...] = ()) -> Dataset:
    """Train, validation and test rows of a folder, encoded once and kept.

    ``codes`` are columns of numbers that are names of things; ``ignore`` are left out.
    """
    name = "-".join([folder.name, "without", *ignore]) if ignore else folder.name
    kept = CELLS.parent / "datasets" / name
    if not (kept / "dataset.json").exists():
        split = FilesSplit.model_validate(
            {"by": "files"} | {part: f"{part}.parquet" for part in ("train", "valid", "test")}
        )
        columns = {name: ColumnSettings(kind="categorical") for name in codes}
        schema = recsys.infer(None, label="label", split=split, columns=columns, ignore=ignore, root=folder)
        recsys.prepare(None, schema, kept, split=split, root=folder)
    return Dataset.load(kept)


def trained(
    dataset: Dataset,
    plan: Plan,
    model: Mapping[str, Any],
    settings: Mapping[str, Any],
    *,
    only_kept: bool = False,
) -> Cell | None:
    """A cell: a model on a plan, with test AUC and bytes of the checkpoint and of each bundle.

    Plans that differ only in what bundles hold are one cell.
    """
    tables = {name: table.model_copy(update={"serve_dtype": "int8"}) for name, table in plan.tables.items()}
    plan = plan.model_copy(update={"tables": tables})
    stated = {
        "version": VERSION,
        "data": dataset.folder.name,
        "plan": plan.model_dump(mode="json"),
        "model": dict(model),
        "train": dict(settings),
        "torch": versions(PACKAGES)["torch"],
    }

    def compute() -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as work:
            folder = Path(work)
            run = train(
                dataset,
                folder / "run",
                model=model,
                plan=plan,
                settings=TrainSettings.parse(device="cpu", **settings),
            )
            label, _ = labels_of(dataset, "test")
            figures: dict[str, Any] = {
                "auc": auc(label, score_dataset(folder / "run", "test")),
                "valid_auc": run.result.best_value,
                "steps": run.result.best_step,
                "train_bytes": plan.train_bytes,
            }
            for dtype in SERVED:
                figures |= _served(folder, dtype)
            return figures

    return cell(STUDY, stated, compute, only_kept=only_kept)


def _served(folder: Path, dtype: Any) -> dict[str, Any]:
    """Bytes of the bundle in one type, and the AUC that the type costs on the test rows."""
    bundle = export(folder / "run", folder / "bundle", dtype=dtype)
    sizes = bundle.manifest.bytes
    cost = bundle.manifest.quantisation
    shutil.rmtree(folder / "bundle")
    return {
        f"{dtype}_bytes": sizes["tables"] + sizes["vocabularies"],
        f"{dtype}_cost": 0.0 if cost is None else cost.cost,
    }


def planned(dataset: Dataset, ranking: Ranking | None = None, **settings: Any) -> Plan:
    """A plan from settings as the run file has them."""
    return recsys.plan(dataset, settings=PlanSettings.parse(**settings), ranking=ranking)
