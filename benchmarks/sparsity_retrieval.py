"""Retrieval models with half of their weights: recall and NDCG of a full ranking, beside the whole model.

    python benchmarks/sparsity_retrieval.py DATA [--quick] [--seeds 3] [--kept] [--study NAME]

DATA holds the folders gowalla (train.parquet and test.parquet) and ml1m (ratings.parquet). Two towers
without hidden layers, so that all weights are the tables': ``pipelines/gowalla_retrieval.yaml``, plain
matrix factorisation, and ``pipelines/ml1m_retrieval.yaml``, whose users are also the mean of what they
liked. Each runs whole; with half of the weights, by rows and by pieces of rows, moving and as they were
dealt; by the published method; and as narrow as half of the weights make it. Epochs are chosen on
validation rows; figures are those of test rows. Trainings are cells, kept. Each log has a result of its
own. ``--kept`` trains nothing, but writes results of the trainings there are; ``--quick`` neither, and
takes what was not trained here from the newest full results (``earlier_from``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from cells import CELLS, cell
from harness import Spread, finish, newest_of
from retrieval_histories import write_parts
from sparsity_cells import ROOT, yaml_of
from trainings import Figures, study_parser, trainings

from recsys.chain import run as run_chain
from recsys.config import load_config
from recsys.place import Place
from recsys.results import load_retrieval
from recsys.strict_yaml import read_yaml
from recsys.training.run_folder import Run

NAME = "sparsity_retrieval"
VERSION = 2
"""Raised by hand when the code under a cell changes what comes out."""
Changes = Mapping[str, Any]
"""What is changed in a run file, by dotted key."""


@dataclass(frozen=True)
class Study:
    """A run file, its log, and its cases; those in ``_50`` keep half of the weights."""

    run_file: str
    data: Callable[[Path], Path]
    """Folder of the log, from that of all data."""
    cases: Mapping[str, Changes]


def _sparse(**settings: Any) -> Changes:
    return {"train.sparsity": {"budget": 0.5, **settings}}


def _histories(root: Path) -> Path:
    folder = CELLS.parent / NAME / "ml1m-log"
    if not (folder / "test.parquet").exists():  # written last
        write_parts(root / "ml1m" / "ratings.parquet", folder)
    return folder


_MOVING: Mapping[str, Any] = {"interval": 50, "updates": 20, "drop": 0.3}
_PUBLISHED: Mapping[str, Any] = {"method": "dsl", "interval": 100, "drop": 0.5}
STUDIES = {
    "gowalla": Study(
        "pipelines/gowalla_retrieval.yaml",
        lambda root: root / "gowalla",
        {
            "whole": {},
            "rows_50": _sparse(**_MOVING),
            "pieces_50": _sparse(**_MOVING, pieces=4),
            "dealt_50": _sparse(interval=50, updates=20, pieces=16, drop=0.0),
            "dsl_50": _sparse(**_PUBLISHED, updates=25),
            "narrow_50": {"plan.embedding_dim": 32},
        },
    ),
    "ml1m": Study(
        "pipelines/ml1m_retrieval.yaml",
        _histories,
        {
            "whole": {},
            "dealt_rows_50": _sparse(),
            "dealt_pieces_50": _sparse(pieces=8),
            "rows_50": _sparse(**_MOVING),
            "dsl_50": _sparse(**_PUBLISHED, updates=22),
            "narrow_50": {"plan.embedding_dim": 32},
            "without_histories": {"data.columns.history": {"kind": "sequence", "roles": []}},
        },
    ),
}


def trained(name: str, case: str, seed: int, root: Path, *, only_kept: bool) -> Figures | None:
    """Figures of one training, kept; ``root`` holds the logs."""
    study = STUDIES[name]
    changes = {**study.cases[case], "train.seed": seed}
    settings = {"run_file": read_yaml(ROOT / study.run_file), "changes": changes}
    settings |= {"data": name, "version": VERSION}

    def compute() -> Figures:
        work = CELLS.parent / NAME / f"{name}-{case}-{seed}-v{VERSION}"
        overrides = [f"{key}={yaml_of(value)}" for key, value in changes.items()]
        config = load_config(ROOT / study.run_file, data=study.data(root), output=work, overrides=overrides)
        return _figures(Place(run_chain(config, until="evaluate").config))

    return cell(NAME, settings, compute, only_kept=only_kept)


def _figures(place: Place) -> Figures:
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


def _summary(name: str, found: Mapping[str, list[Figures]]) -> tuple[Figures, dict[str, Spread]]:
    """Means over seeds, of smaller models as shares of the whole one's; and the spread of each metric."""
    figures: Figures = {f"{name}_seeds": min(len(runs) for runs in found.values())}
    spread = {}
    for case, runs in found.items():
        for metric in ("recall20", "ndcg20"):
            values = [each[metric] for each in runs]
            spread[f"{name}_{metric}_{case}"] = Spread.of(values)
            if case == "whole":
                figures[f"{name}_{metric}_whole"] = fmean(values)
            elif "whole" in found:
                whole = fmean(each[metric] for each in found["whole"])
                figures[f"{name}_{metric}_share_{case}"] = fmean(values) / whole
    return figures, spread


def main() -> None:
    chosen = study_parser(NAME, str(__doc__), STUDIES, "gowalla and ml1m").parse_args()
    figures = newest_of(NAME, list(STUDIES)) if chosen.quick else {}
    for name in [chosen.study] if chosen.study else STUDIES:

        def train(case: str, seed: int, only_kept: bool, name: str = name) -> Figures | None:
            return trained(name, case, seed, chosen.data, only_kept=only_kept)

        found = trainings(name, STUDIES[name].cases, chosen, train, "recall20")
        if found and not chosen.case:
            of_study, spread = _summary(name, found)
            finish(f"{NAME}_{name}", of_study, quick=chosen.quick, spread=spread)
            figures |= of_study
    if not chosen.case:
        finish(NAME, figures, quick=True)  # all in one line; each log has a result of its own


if __name__ == "__main__":
    main()
