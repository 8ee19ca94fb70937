"""Methods of compressing tables at equal shipped bytes, over a ladder of budgets, on three logs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from compression_cells import Cell, planned, prepared, trained
from compression_large import MODEL
from compression_large import TRAIN as TRAIN_ONCE
from compression_large import prepared as prepared_synthetic

from recsys.data.dataset import Dataset
from recsys.embeddings.plan import Plan
from recsys.errors import PlanError
from recsys.ranking.ranking import Ranking

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
_TRAIN: dict[str, Any] = {
    "epochs": 15,
    "batch_size": 2048,
    "tables": {"lr": 1e-3, "l2": 1e-5, "init_std": 0.03},
    "dense": {"lr": 1e-3},
    "plateau": {"factor": 0.2, "stop_after": 2},
    "log_every": 1000,
    "seed": 1,
}
_ONCE = TRAIN_ONCE | {"batch_size": 2048, "log_every": 1000}
SEEDS = (1, 2, 3)
"""All methods are trained with the first one."""
SEEDED_AGAIN = 4
"""So many methods by hand, the best on validation rows, are trained with the others too."""
SYNTHETIC_ROWS = 1_000_000
"""Of the large synthetic log."""


@dataclass(frozen=True, eq=False)
class Ladder:
    """A log and the budgets that methods are compared at."""

    name: str
    title: str
    budgets: tuple[int, ...]
    """Bytes shipped, the largest first."""
    dim: int
    train: Mapping[str, Any]

    @property
    def prefix(self) -> str:
        """Of the names of its figures."""
        return "" if self.name == "ml1m" else f"{self.name}_"

    def dataset(self, root: Path) -> tuple[Dataset, Ranking | None]:
        """Its encoded rows, and what a ranking told of them; ``root`` holds the logs that are not made."""
        if self.name == "synth":
            return prepared_synthetic(SYNTHETIC_ROWS)
        if self.name == "frappe":
            return prepared(root / "frappe_x1", _FRAPPE_CODES), None
        return prepared(root / "ml1m_ctr", ML1M_CODES, ("position",)), None


ML1M_CODES = ("user_id", "movie_id", "age", "occupation")
_FRAPPE_CODES = (
    "user", "item", "daytime", "weekday", "isweekend", "homework", "cost", "weather", "country", "city"
)  # fmt: skip
_FRAPPE_TRAIN = _TRAIN | {
    "tables": {"lr": 1e-3, "l2": 0.1, "init_std": 1e-4},
    "epochs": 30,
    "plateau": {"factor": 0.1, "stop_after": 2},
}
LADDERS = (
    Ladder("ml1m", "MovieLens-1M", (400_000, 200_000, 80_000), 16, _TRAIN),
    Ladder("frappe", "Frappe_x1", (100_000, 60_000, 30_000), 16, _FRAPPE_TRAIN),
    Ladder(
        "synth", "a million rows of the large synthetic log", (3_000_000, 1_000_000, 300_000), 16, _ONCE
    ),
)


@dataclass(frozen=True)
class Point:
    """One method at one budget."""

    method: str
    budget: int
    bytes: int
    """Shipped to find and hold vectors."""
    auc: float
    """Test AUC of the bundle, in the type that the plan says; the mean over seeds."""
    seeds: int


def points_of(ladder: Ladder, root: Path, *, only_kept: bool) -> list[Point]:
    """Every method at every budget that it fits, the smallest first; none where a cell is not kept.

    At each budget all methods are trained with the first seed, and with the others what ``plan --bytes``
    chooses and those of the rest that are best on validation rows.
    """
    dataset, ranking = ladder.dataset(root)
    points = []
    for budget in sorted(ladder.budgets):
        plans = _plans(ladder, dataset, ranking, budget)
        found: dict[str, list[Cell]] = {method: [] for method in plans}
        for seed in SEEDS:
            train = {**ladder.train, "seed": seed}
            for method in plans if seed == SEEDS[0] else _best(found):
                kept = trained(dataset, plans[method], MODEL, train, only_kept=only_kept)
                if kept is not None:
                    found[method].append(kept)
                    print(
                        f"{ladder.name}: {method} at {budget:,}, seed {seed}: {kept['auc']:.4f}", flush=True
                    )
        points += [_point(method, budget, plans[method], cells) for method, cells in found.items() if cells]
    return points


def _plans(ladder: Ladder, dataset: Dataset, ranking: Ranking | None, budget: int) -> dict[str, Plan]:
    """By method; those that so many bytes are too few for have none."""
    plans = {}
    for method, settings in METHODS.items():
        told = ranking if settings["mode"] == "best" else None
        settings = {"embedding_dim": ladder.dim, "bytes": budget, "counted": "bundle", **settings}
        with suppress(PlanError):
            plans[method] = planned(dataset, told, **settings)
    return plans


def _best(found: Mapping[str, Sequence[Cell]]) -> list[str]:
    """What is trained with further seeds, by validation AUC with the first one."""
    first = {method: cells[0]["valid_auc"] for method, cells in found.items() if cells}
    by_hand = sorted(first.keys() - {"best"}, key=lambda method: first[method], reverse=True)
    return [method for method in first if method in ("best", *by_hand[:SEEDED_AGAIN])]


def _point(method: str, budget: int, plan: Plan, found: Sequence[Cell]) -> Point:
    (dtype,) = {table.serve_dtype for table in plan.tables.values()}
    auc = fmean(cell["auc"] - cell[f"{dtype}_cost"] for cell in found)
    return Point(method, budget, found[0][f"{dtype}_bytes"], auc, len(found))


def ladder_figures(ladder: Ladder, points: Sequence[Point]) -> dict[str, float]:
    """AUC by method and budget, and how far what ``plan --bytes`` chooses is above the best by hand.

    That is the best of those with as many seeds.
    """
    figures: dict[str, float] = {}
    for budget in ladder.budgets:
        at_budget = {point.method: point for point in points if point.budget == budget}
        figures |= {
            f"auc_{name.replace(' ', '_')}_{budget // 1000}kb": p.auc for name, p in at_budget.items()
        }
        chosen = at_budget.pop("best", None)
        rivals = [point.auc for point in at_budget.values() if chosen and point.seeds == chosen.seeds]
        if chosen and rivals:
            figures[f"best_margin_{budget // 1000}kb"] = chosen.auc - max(rivals)
            figures[f"best_margin_{budget // 1000}kb_seeds"] = chosen.seeds
    return {ladder.prefix + name: value for name, value in figures.items()}


def draw(found: Mapping[Ladder, Sequence[Point]], path: Path) -> None:
    """AUC against shipped bytes, a panel per log and a line per method, as PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    shown = {ladder: points for ladder, points in found.items() if points}
    figure, panels = pyplot.subplots(
        len(shown), 1, figsize=(9, 4.5 * len(shown)), layout="constrained", squeeze=False
    )
    for axes, (ladder, points) in zip(panels[:, 0], shown.items(), strict=True):
        for number, method in enumerate(METHODS):
            line = sorted((point.bytes, point.auc) for point in points if point.method == method)
            if line:
                sizes, aucs = zip(*line, strict=True)
                style = "k--" if method == "best" else f"C{number}-"
                axes.plot([size / 1000 for size in sizes], aucs, style, marker="o", label=method)
        axes.set(xlabel="shipped kB: tables, keys, row maps", ylabel="test AUC")
        axes.set_title(f"{ladder.title}, DCNv2: AUC of the bundle against its bytes")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
