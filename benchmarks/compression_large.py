"""Compressed tables on the large synthetic log (``data/synth_large.yaml``): what 2.5 % of the bytes cost.

Five plans of one DCNv2, all on the fused update path: a row per value; the table that ``recsys plan --mode
unified`` makes of 2.5 % of those float32 bytes, with two lookups; per-feature hashing of as many, of all
columns but those of five values, and with rows of their own for small vocabularies, as ``--mode hash`` does
it; and what ``recsys plan --bytes`` makes of 2.5 % of what a bundle of the full plan would ship, told by
``recsys rank`` what each column tells. Each training is a kept cell, and so is the comparison of speeds,
for which short trainings of both plans take turns in one process. The log, its ranking and the encoded rows
are made once per number of rows and kept.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from cells import CELLS, cell
from compression_cells import STUDY, planned
from harness import PACKAGES, versions

import recsys
from recsys.config import ColumnSettings, RankSettings, TimeSplit, TrainSettings
from recsys.data.dataset import Dataset
from recsys.data.synth import synth
from recsys.embeddings.accounting import counted_bytes
from recsys.embeddings.plan import Plan
from recsys.evaluation.metrics import auc
from recsys.ranking.ranking import Ranking
from recsys.training.loaded import score_dataset
from recsys.training.scoring import labels_of
from recsys.training.train import train

LOG = Path(__file__).resolve().parents[1] / "data" / "synth_large.yaml"
ROWS = 20_000_000
SHARE = 0.025
COMMON: dict[str, Any] = {"embedding_dim": 16, "dense_below": 1}
VERSION = 1
"""Raised where the code under a cell changes what comes out."""
SPLIT = TimeSplit(by="time", column="day", valid_from="2026-01-19", test_from="2026-01-20")
"""Of twenty days from the first of January: eighteen to learn from, one to choose by, one to measure on."""
MODEL: dict[str, Any] = {"name": "dcnv2", "cross_layers": 2, "hidden": [256, 128]}
TRAIN: dict[str, Any] = {
    "epochs": 1,  # ids that are seen few times are learnt by heart in a second
    "batch_size": 4096,
    "tables": {"fused_lr": 0.05, "init_std": 0.03, "lr": 1e-3},
    "dense": {"lr": 1e-3},
    "log_every": 200,
    "seed": 1,
}
SPEED_STEPS, SPEED_ROUNDS, WARM_UP = 60, 5, 10

Figures = dict[str, Any]


def _folder(rows: int, of: str = "") -> Path:
    return CELLS.parent / "datasets" / f"synth_large-{rows}{of}"


def prepared(rows: int) -> tuple[Dataset, Ranking]:
    """The log of so many rows, encoded, and what its columns tell; made once and kept."""
    folder, ranking = _folder(rows), _folder(rows, "-ranking")
    if not (folder / "dataset.json").exists():
        log = synth(LOG, _folder(rows, "-log"), rows=rows) / "log.parquet"
        shared = {"history": ColumnSettings(vocabulary="item_id")}
        schema = recsys.infer(log, label="clicked", split=SPLIT, columns=shared)
        recsys.rank(log, schema, split=SPLIT, settings=RankSettings(report=False), output=ranking)
        recsys.prepare(log, schema, folder, split=SPLIT)
    return Dataset.load(folder), Ranking.load(ranking)


def plans(dataset: Dataset, ranking: Ranking) -> dict[str, Plan]:
    """Plans by name, ``full`` first."""
    full = planned(dataset, mode="full", **COMMON)
    budget = int(SHARE * full.train_bytes)
    shipped = int(SHARE * counted_bytes(full, "bundle"))
    common = COMMON | {"bytes": budget, "unseen": "hash"}
    return {
        "full": full,
        "unified": planned(dataset, mode="unified", lookups=2, **common),
        "hash": planned(dataset, mode="hash", exact=5, **common),
        "hash_small_exact": planned(dataset, mode="hash", **common),
        "chosen": planned(dataset, ranking, mode="best", bytes=shipped, **COMMON),
    }


def large(rows: int, *, only_kept: bool) -> Figures:
    """AUC that 2.5 % of the bytes cost, and how fast they train beside all of them.

    ``large_cost``: AUC of the full plan less that of the unified one; ``large_hash_costs_more`` and
    ``large_hash_small_exact_costs_more``: what per-feature hashing loses beyond that, of nearly all columns
    and with small vocabularies exact; ``large_chosen_cost``: of what ``plan --bytes`` chooses;
    ``large_speed``: rows per second of the unified plan over those of the full one; and likewise
    ``large_chosen_speed``.
    """
    if only_kept and not (_folder(rows) / "dataset.json").exists():
        return {}
    dataset, ranking = prepared(rows)
    made = plans(dataset, ranking)
    found: dict[str, Figures] = {}
    for name, plan in made.items():
        kept = _trained(dataset, rows, name, plan, only_kept)
        if kept is not None:
            found[name] = kept
            print(f"{name}: test AUC {kept['auc']:.4f}, {plan.train_bytes:,} bytes", flush=True)
    figures: Figures = {"large_rows": rows, "large_full_bytes": made["full"].train_bytes}
    aucs = {name: kept["auc"] for name, kept in found.items()}
    figures |= {f"large_auc_{name}": value for name, value in aucs.items()}
    if {"full", "unified"} <= set(aucs):
        figures["large_cost"] = aucs["full"] - aucs["unified"]
    for hashing in ("hash", "hash_small_exact"):
        if {"unified", hashing} <= set(aucs):
            figures[f"large_{hashing}_costs_more"] = aucs["unified"] - aucs[hashing]
    if {"full", "chosen"} <= set(aucs):
        figures["large_chosen_cost"] = aucs["full"] - aucs["chosen"]
    speeds = _speeds(dataset, rows, made, only_kept)
    if speeds is not None:
        figures |= {"large_speed": speeds["unified"], "large_chosen_speed": speeds["chosen"]}
    return figures


def _stated(rows: int, what: str, plan: Mapping[str, Any]) -> dict[str, Any]:
    """What decides a cell."""
    stated = {"version": VERSION, "data": f"synth_large-{rows}", "what": what, "plan": dict(plan)}
    return stated | {"model": MODEL, "train": TRAIN, "torch": versions(PACKAGES)["torch"]}


def _trained(dataset: Dataset, rows: int, name: str, plan: Plan, only_kept: bool) -> Figures | None:
    def compute() -> Figures:
        with tempfile.TemporaryDirectory() as work:
            folder = Path(work) / "run"
            run = train(dataset, folder, model=MODEL, plan=plan, settings=_settings())
            label, _ = labels_of(dataset, "test")
            return {
                "auc": auc(label, score_dataset(folder, "test")),
                "valid_auc": run.result.best_value,
                "steps": run.result.best_step,
                "train_bytes": plan.train_bytes,
                "shipped_bytes": counted_bytes(plan, "bundle"),
            }

    return cell(STUDY, _stated(rows, name, plan.model_dump(mode="json")), compute, only_kept=only_kept)


def _speeds(dataset: Dataset, rows: int, made: Mapping[str, Plan], only_kept: bool) -> Figures | None:
    """Rows per second of three plans in rounds, and the median of the rounds' ratios to the full one."""
    timed = ("full", "unified", "chosen")

    def compute() -> Figures:
        speeds: dict[str, list[float]] = {name: [] for name in timed}
        for _ in range(SPEED_ROUNDS):
            for name in timed:
                speeds[name].append(_speed(dataset, made[name]))
        figures: Figures = {"speeds": speeds}
        for name in timed[1:]:
            ratios = [ours / full for full, ours in zip(speeds["full"], speeds[name], strict=True)]
            print(f"{name} over full: {', '.join(f'{ratio:.2f}' for ratio in ratios)}", flush=True)
            figures[name] = statistics.median(ratios)
        return figures

    compared = {name: made[name].model_dump(mode="json") for name in timed}
    return cell(STUDY, _stated(rows, "speed", compared), compute, only_kept=only_kept)


def _speed(dataset: Dataset, plan: Plan) -> float:
    """Rows per second of a short training after its first steps."""
    settings = _settings(max_steps=WARM_UP + SPEED_STEPS, log_every=WARM_UP)
    with tempfile.TemporaryDirectory() as work:
        run = train(dataset, Path(work) / "run", model=MODEL, plan=plan, settings=settings)
        speeds = run.metrics["rows_per_second"].drop_nulls().to_numpy()[1:]
    return float(1 / np.mean(1 / speeds))


def _settings(**update: Any) -> TrainSettings:
    return TrainSettings.parse(device="cpu", **(TRAIN | update))
