"""What compressed embedding tables cost in AUC, at equal bytes: MovieLens-1M, Frappe_x1, a synthetic log.

``--part paper``: the protocol of Unified Embedding (Coleman et al., NeurIPS 2023; MovieLens-1M, ratings 1
and 2 against 4 and 5; DCNv2, one cross layer and a hidden layer of 192, embeddings of 30, Adam 2e-4, the
six columns of ids and user attributes): per-feature hashing and one multiplexed table (with one and with
two lookups) at 1.64 MB, 791 kB and 158 kB of float32, beside a table without collisions.

``--part ladder``: every method at three budgets of shipped bytes (tables as served, keys and row maps;
batch 2048, early stopping), beside what ``recsys plan --bytes`` chooses (``best``), on all three logs, with
one seed, and with three for that and the four best; AUC is drawn against bytes.

The cost of int8 and int4 tables is measured from bundles, on the test rows.

Every training is a cell that is kept (``benchmarks/.cache/cells``); an interrupted run goes on where it
stopped. DATA holds the folders ml1m_ctr and frappe_x1 with their train.parquet, valid.parquet and
test.parquet; the synthetic log is made.

``--part large``: 2.5 % of the bytes on the large synthetic log (``compression_large``), of as many of its
rows as asked for; computed only where it is named.

    python benchmarks/compression.py DATA [--quick] [--kept] [--part paper | ladder | large] [--log NAME]
        [--rows N]
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from compression_cells import Cell, planned, prepared, trained
from compression_ladder import LADDERS, ML1M_CODES, draw, ladder_figures, points_of
from compression_large import ROWS, large
from harness import RESULTS, finish, newest_of, parser

from recsys.data.dataset import Dataset
from recsys.embeddings.plan import Plan

Figures = dict[str, Any]

NAME = "compression"
PARTS = ("paper", "ladder", "large")
PAPER_DIM = 30
PAPER_BUDGETS = {"1640kb": 1_640_000, "791kb": 791_000, "158kb": 158_000}
PAPER_MODEL = {
    "name": "dcnv2",
    "structure": "stacked",
    "cross_layers": 1,
    "hidden": [192],
    "batch_norm": False,
}
PAPER_TRAIN: dict[str, Any] = {
    "epochs": 65,  # of 1,155 steps; early stopping comes first
    "batch_size": 512,
    "tables": {"lr": 2e-4, "l2": 1e-5, "init_std": 0.0289},  # as wide as uniform in ±0.05
    "dense": {"lr": 2e-4, "weight_decay": 1e-5},
    "plateau": {"factor": 0.999, "stop_after": 2},
    "clip_norm": None,
    "log_every": 1000,
    "seed": 1,
}
LOOKUPS = (1, 2)
"""Of a value in the shared table; validation rows choose. With two, rows are half as wide."""
EXACT = 7
"""Vocabularies of so many values at most have rows of their own in every plan: gender and age."""


def paper_plans(dataset: Dataset) -> dict[str, Plan]:
    """Plans by name; a budget counts float32 rows, exact tables included."""
    common: dict[str, Any] = {"embedding_dim": PAPER_DIM, "exact": EXACT, "unseen": "hash"}
    plans = {"collision_free": planned(dataset, mode="full", **common)}
    sizes = {name: info.size for name, info in dataset.manifest.vocabularies.items()}
    large = {name: size for name, size in sizes.items() if size - 2 > EXACT}
    for name, budget in PAPER_BUDGETS.items():
        rows = budget // (4 * PAPER_DIM) - (sum(sizes.values()) - sum(large.values()))
        shares = {
            one: {"rows": max(3, int(rows * size / sum(large.values())))} for one, size in large.items()
        }
        plans[f"hash_{name}"] = planned(dataset, mode="hash", tables=shares, **common)
        for lookups in LOOKUPS:
            tables = {"unified": {"rows": lookups * rows}}
            several = {} if lookups == 1 else {"lookups": lookups}
            plan = planned(dataset, mode="unified", tables=tables, **several, **common)
            plans[f"multiplexed_{name}_by_{lookups}"] = plan
    return plans


def paper_figures(data: Path, *, only_kept: bool) -> tuple[Figures, dict[str, Cell]]:
    """AUC points that multiplexing gains over per-feature hashing, by budget."""
    dataset = prepared(data / "ml1m_ctr", ML1M_CODES, ("year", "genres", "position"))
    cells: dict[str, Cell] = {}
    for name, plan in paper_plans(dataset).items():
        found = trained(dataset, plan, PAPER_MODEL, PAPER_TRAIN, only_kept=only_kept)
        if found is not None:
            cells[name] = found
            print(f"{name}: test AUC {found['auc']:.4f}, {plan.train_bytes:,} bytes", flush=True)
    figures: Figures = {}
    for name in PAPER_BUDGETS:
        hashed = cells.get(f"hash_{name}")
        tried = {lookups: cells.get(f"multiplexed_{name}_by_{lookups}") for lookups in LOOKUPS}
        shared = {lookups: cell for lookups, cell in tried.items() if cell is not None}
        if hashed is not None and shared:
            chosen = max(shared, key=lambda lookups: shared[lookups]["valid_auc"])
            figures[f"multiplexed_gain_{name}"] = 100 * (shared[chosen]["auc"] - hashed["auc"])
            figures[f"multiplexed_lookups_{name}"] = chosen
    if "collision_free" in cells:
        figures["collision_free_auc"] = cells["collision_free"]["auc"]
    return figures, cells


def precision_figures(cells: Mapping[str, Cell]) -> Figures:
    """AUC that fewer bits cost, from bundles on the test rows: without collisions, and at worst."""
    found: Figures = {}
    for dtype in ("int8", "int4"):
        costs = {name: cell[f"{dtype}_cost"] for name, cell in cells.items()}
        if "collision_free" in costs:
            found[f"{dtype}_auc_cost"] = costs["collision_free"]
            found[f"{dtype}_auc_cost_worst"] = max(costs.values())
    return found


def main() -> None:
    arguments = parser("compression", str(__doc__))
    arguments.add_argument("data", type=Path, metavar="DATA", help="folder with ml1m_ctr and frappe_x1")
    arguments.add_argument("--part", choices=PARTS, help="compute only this part, into a result of its own")
    arguments.add_argument(
        "--log", choices=[each.name for each in LADDERS], help="of the ladders, into a result of its own"
    )
    arguments.add_argument("--rows", type=int, default=ROWS, help="rows of the large log (default: all)")
    arguments.add_argument("--kept", action="store_true", help="sum up what has been trained")
    chosen = arguments.parse_args()
    if chosen.log:
        chosen.part = "ladder"
    parts = (chosen.part,) if chosen.part else PARTS
    only_kept = chosen.quick or chosen.kept
    figures: Figures = {}
    points = {}
    if "paper" in parts:
        of_paper, cells = paper_figures(chosen.data, only_kept=only_kept)
        figures |= of_paper | precision_figures(cells)
    if "ladder" in parts:
        ladders = [each for each in LADDERS if chosen.log in (None, each.name)]
        if chosen.quick:
            ladders = [each for each in ladders if each.name != "synth"]  # its log would have to be made
        points = {each: points_of(each, chosen.data, only_kept=only_kept) for each in ladders}
        for each, found in points.items():
            figures |= ladder_figures(each, found)
    if "large" in parts and not chosen.quick:
        figures |= large(chosen.rows, only_kept=chosen.kept or chosen.part is None)
    name = "_".join(filter(None, (NAME, chosen.part, chosen.log)))
    if chosen.quick:
        figures = newest_of(NAME, [*PARTS, *(f"ladder_{each.name}" for each in LADDERS)]) | figures
    elif any(points.values()):
        draw(points, RESULTS / f"{name}-{datetime.date.today().isoformat()}.png")
    finish(name, figures, quick=chosen.quick)


if __name__ == "__main__":
    main()
