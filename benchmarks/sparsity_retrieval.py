"""Matrix factorisation with half of its weights: Gowalla, full ranking, beside the whole model.

    python benchmarks/sparsity_retrieval.py DATA [--quick] [--seeds 3]

DATA holds Gowalla's train.parquet and test.parquet. Runs ``pipelines/gowalla_retrieval.yaml``, two towers
without hidden layers: whole; with half of the rows; with half of the pieces of rows, moving and as they
were dealt; by the published method; and as narrow as half of the weights make it. Epochs are chosen on
validation rows; figures are those of test rows. Trainings are cells, kept; ``--quick`` trains nothing and
sums up those there are.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cells import CELLS, cell
from harness import Spread, finish, parser
from sparsity_cells import ROOT, SEEDS, yaml_of

from recsys.chain import run as run_chain
from recsys.config import load_config
from recsys.place import Place
from recsys.results import load_retrieval
from recsys.strict_yaml import read_yaml
from recsys.training.run_folder import Run

VERSION = 2
"""Raised by hand when the code under a cell changes what comes out."""
RUN_FILE = "pipelines/gowalla_retrieval.yaml"
HALF = {"budget": 0.5, "interval": 50, "updates": 20, "drop": 0.3}
CASES: dict[str, dict[str, Any]] = {
    "whole": {},
    "rows_50": {"train.sparsity": HALF},
    "pieces_50": {"train.sparsity": {**HALF, "pieces": 4}},
    "dealt_50": {"train.sparsity": {**HALF, "pieces": 16, "drop": 0.0}},
    "dsl_50": {
        "train.sparsity": {"budget": 0.5, "method": "dsl", "interval": 100, "updates": 25, "drop": 0.5}
    },
    "narrow_50": {"plan.embedding_dim": 32},
}


def trained(case: str, seed: int, data: Path, *, only_kept: bool) -> dict[str, Any] | None:
    """Figures of one training, kept."""
    changes = {**CASES[case], "train.seed": seed}
    settings = {"run_file": read_yaml(ROOT / RUN_FILE), "changes": changes}
    settings |= {"data": "gowalla", "version": VERSION}
    return cell("sparsity_retrieval", settings, lambda: _train(case, changes, data), only_kept=only_kept)


def _train(case: str, changes: Mapping[str, Any], data: Path) -> dict[str, Any]:
    work = CELLS.parent / "sparsity_retrieval" / f"{case}-{changes['train.seed']}-v{VERSION}"
    overrides = [f"{key}={yaml_of(value)}" for key, value in changes.items()]
    config = load_config(ROOT / RUN_FILE, data=data, output=work, overrides=overrides)
    finished = run_chain(config, until="evaluate")
    place = Place(finished.config)
    found, run = load_retrieval(place), Run.load(place.folder("train"))
    assert found is not None
    return {
        "recall20": found.overall["recall@20"],
        "ndcg20": found.overall["ndcg@20"],
        "valid_recall20": run.result.best_value,
        "table_parameters": sum(table.rows * table.dim for table in run.plan.tables.values()),
        "steps": run.result.steps,
        "train_seconds": run.result.seconds,
    }


def main() -> None:
    arguments = parser("sparsity_retrieval", str(__doc__))
    arguments.add_argument("--seeds", type=int, default=len(SEEDS), help="trainings of each case")
    arguments.add_argument("data", type=Path, metavar="DATA", help="folder of Gowalla's two files")
    chosen = arguments.parse_args()
    found: dict[str, list[dict[str, Any]]] = {}
    for seed in SEEDS[: chosen.seeds]:
        for case in CASES:
            figures = trained(case, seed, chosen.data, only_kept=chosen.quick)
            if figures is not None:
                found.setdefault(case, []).append(figures)
                print(f"{case}, seed {seed}: test recall@20 {figures['recall20']:.4f}", flush=True)
    spread = {
        f"{metric}_{case}": Spread.of([each[metric] for each in runs])
        for case, runs in found.items()
        for metric in ("recall20", "ndcg20")
    }
    shares = {
        f"{metric}_share_{case}": spread[f"{metric}_{case}"].median / spread[f"{metric}_whole"].median
        for case in found
        for metric in ("recall20", "ndcg20")
        if case != "whole" and "whole" in found
    }
    finish("sparsity_retrieval", shares, quick=chosen.quick, spread=spread)


if __name__ == "__main__":
    main()
