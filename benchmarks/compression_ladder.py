"""Methods of compressing tables at equal shipped bytes, over a ladder of budgets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compression_cells import Cell, planned, trained

from recsys.data.dataset import Dataset
from recsys.embeddings.plan import Plan
from recsys.errors import PlanError

BUDGETS = (400_000, 200_000, 80_000)
DIM = 16
METHODS: dict[str, dict[str, Any]] = {
    "full": {"mode": "full"},
    "full int4": {"mode": "full", "serve_dtype": "int4"},
    "mixed": {"mode": "mixed"},
    "mixed int4": {"mode": "mixed", "serve_dtype": "int4"},
    "hash": {"mode": "hash"},
    "unified": {"mode": "unified"},
    "unified 2": {"mode": "unified", "lookups": 2},
    "unified int4": {"mode": "unified", "serve_dtype": "int4"},
    "adaptive": {"mode": "adaptive"},
    "quotient": {"mode": "quotient"},
    "best": {"mode": "best"},
}
MODEL: dict[str, Any] = {"name": "dcnv2", "cross_layers": 2, "hidden": [256, 128]}
TRAIN: dict[str, Any] = {
    "epochs": 15,
    "batch_size": 2048,
    "tables": {"lr": 1e-3, "l2": 1e-5, "init_std": 0.03},
    "dense": {"lr": 1e-3},
    "plateau": {"factor": 0.2, "stop_after": 2},
    "log_every": 1000,
    "seed": 1,
}


@dataclass(frozen=True)
class Point:
    """One method at one budget."""

    method: str
    budget: int
    bytes: int
    """Shipped to find and hold vectors."""
    auc: float
    """Test AUC of the bundle, in the type that the plan says."""


def ladder(dataset: Dataset, *, only_kept: bool) -> list[Point]:
    """Every method at every budget that it fits, the smallest first; none where a cell is not kept."""
    points = []
    for budget in sorted(BUDGETS):
        for method, settings in METHODS.items():
            try:
                plan = planned(dataset, embedding_dim=DIM, bytes=budget, counted="bundle", **settings)
            except PlanError:
                continue  # too small for the method; the picture has no point there
            found = trained(dataset, plan, MODEL, TRAIN, only_kept=only_kept)
            if found is not None:
                point = _point(method, budget, plan, found)
                points.append(point)
                print(f"{method} at {budget:,}: {point.bytes:,} bytes, AUC {point.auc:.4f}", flush=True)
    return points


def _point(method: str, budget: int, plan: Plan, found: Cell) -> Point:
    (dtype,) = {table.serve_dtype for table in plan.tables.values()}
    return Point(method, budget, found[f"{dtype}_bytes"], found["auc"] - found[f"{dtype}_cost"])


def ladder_figures(points: Sequence[Point]) -> dict[str, float]:
    """AUC by method and budget, and how far what ``plan --bytes`` chooses is above the best by hand."""
    figures = {f"auc_{p.method.replace(' ', '_')}_{p.budget // 1000}kb": p.auc for p in points}
    for budget in BUDGETS:
        aucs = {point.method: point.auc for point in points if point.budget == budget}
        chosen = aucs.pop("best", None)
        if chosen is not None and aucs:
            figures[f"best_margin_{budget // 1000}kb"] = chosen - max(aucs.values())
    return figures


def draw(points: Sequence[Point], path: Path) -> None:
    """AUC against shipped bytes, a line per method, as PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 5), layout="constrained")
    for method in METHODS:
        line = sorted((point.bytes, point.auc) for point in points if point.method == method)
        if line:
            sizes, aucs = zip(*line, strict=True)
            style = "k--" if method == "best" else "-"
            axes.plot([size / 1000 for size in sizes], aucs, style, marker="o", label=method)
    axes.set(xlabel="shipped kB: tables, keys, row maps", ylabel="test AUC")
    axes.set_title("MovieLens-1M, DCNv2: AUC of the bundle against its bytes")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
