"""What dynamic sparse learning costs in AUC and saves in bytes and time, beside what saves as much.

Trains the run files that are tuned for Frappe_x1, the small synthetic log and MovieLens-1M dense, with
half and with a fifth of the weights, and at a fifth beside it: the published method, a dense model of
narrower vectors and layers, and the dense model pruned by magnitude after training. Every run selects its
epoch on validation rows; AUCs are those of test rows. Memory and bundle bytes are those of a plan of
200,000 values, 16 wide, in int8.

    python benchmarks/sparsity.py DATA [--quick] [--seeds 3] [--kept] [--study NAME] [--case NAME]

DATA holds the folders frappe_x1 and ml1m_ctr with their train.parquet, valid.parquet and test.parquet; the
synthetic log is made. Trainings are cells: a study that was cut off goes on where it stopped. ``--study``
trains on one log, and writes a result of its own. ``--kept`` trains nothing, but writes a result of the
trainings there are; ``--quick`` neither, and takes what was not trained here from the newest full result
(``earlier_from``).
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness import RESULTS, Spread, finish, newest_of
from sparsity_cells import STUDIES, Study, trained
from sparsity_pictures import draw_shares, draw_time
from sparsity_sizes import latency_share, sizes
from trainings import Figures, study_parser, trainings

Trained = Mapping[str, Sequence[Figures]]
"""Figures of each seed, by case."""
COSTS = {
    "auc_cost_50": "ours_50",
    "auc_cost_20": "ours_20",
    "auc_cost_20_whole_tables": "ours_whole_tables_20",
    "auc_cost_20_layers": "ours_layers_20",
}
"""Dense less these."""
OVER = {
    "over_magnitude_20": "magnitude_20",
    "over_dsl_20": "dsl_20",
    "over_narrow_20": "narrow_20",
    "over_narrow_layers_20": "narrow_layers_20",
}
"""``ours_20`` less these."""
ASKED = ("auc_cost_50", "auc_cost_20", "over_magnitude_20", "over_dsl_20", "over_narrow_20")
"""Given without a study's name too: as they are in the worst of the studies."""


def _summary(found: Trained) -> tuple[dict[str, float], dict[str, Spread]]:
    """Differences of test AUC, medians over seeds; what was not trained is missing."""
    aucs = {case: [each["test_auc"] for each in runs] for case, runs in found.items()}
    if "dense" in found:
        aucs["magnitude_20"] = [each["magnitude_20"] for each in found["dense"]]
    spread = {f"auc_{case}": Spread.of(values) for case, values in aucs.items()}
    middle = {case: spread[f"auc_{case}"].median for case in aucs}
    figures = {f"auc_{case}": value for case, value in middle.items()}
    pairs = {name: ("dense", case) for name, case in COSTS.items()}
    pairs |= {name: ("ours_20", case) for name, case in OVER.items()}
    for name, (first, second) in pairs.items():
        if first in middle and second in middle:
            figures[name] = middle[first] - middle[second]
    return figures, spread


def _overall(figures: Mapping[str, float]) -> dict[str, float]:
    """The figures that were asked for, as they are in the worst study; missing where none has them."""
    found: dict[str, float] = {}
    for name in ASKED:
        each = [figures[f"{study}_{name}"] for study in STUDIES if f"{study}_{name}" in figures]
        if each:
            found[name] = max(each) if name.startswith("auc_cost") else min(each)
    return found


def _points(study: Study, found: Trained) -> dict[str, list[tuple[float, float]]]:
    """Each training's share of the dense run's weights and its AUC, by method."""
    whole = _weights(found["dense"][0])
    points: dict[str, list[tuple[float, float]]] = {}
    for case, runs in found.items():
        method = "dense" if case == "dense" else case.rpartition("_")[0]
        sparse: Mapping[str, Any] = study.cases[case].get("train.sparsity", {})
        for run in runs:
            share = sparse["budget"] if sparse.get("method") == "dsl" else _weights(run) / whole
            points.setdefault(method, []).append((share, run["test_auc"]))
    points["magnitude"] = [(0.2, run["magnitude_20"]) for run in found["dense"]]
    return points


def _weights(run: Mapping[str, Any]) -> int:
    return int(run["dense_parameters"] + run["table_parameters"])


def main() -> None:
    chosen = study_parser("sparsity", str(__doc__), STUDIES, "frappe_x1 and ml1m_ctr").parse_args()
    studies = [STUDIES[chosen.study]] if chosen.study else list(STUDIES.values())
    found: dict[str, dict[str, list[Figures]]] = {}
    for study in studies:

        def train(case: str, seed: int, only_kept: bool, study: Study = study) -> Figures | None:
            return trained(study, case, seed, chosen.data, only_kept=only_kept)

        runs = trainings(study.name, study.cases, chosen, train, "test_auc")
        if runs:
            found[study.name] = runs
    if chosen.case:
        return
    figures: dict[str, Any] = {}
    spread: dict[str, Spread] = {}
    for name, runs in found.items():
        of_study, spreads = _summary(runs)
        figures |= {f"{name}_{key}": value for key, value in of_study.items()}
        figures[f"{name}_seeds"] = min(len(each) for each in runs.values())
        spread |= {f"{name}_{key}": each for key, each in spreads.items()}
    name = f"sparsity_{chosen.study}" if chosen.study else "sparsity"
    if chosen.quick:
        figures = newest_of(name, [] if chosen.study else list(STUDIES)) | figures
    if chosen.study:
        finish(name, figures, quick=chosen.quick, spread=spread)
        return
    measured, rounds = _measured_now()
    figures |= _overall(figures) | measured
    spread |= rounds
    drawn = {name: runs for name, runs in found.items() if "dense" in runs}
    if drawn and not chosen.quick:
        draw_shares({name: _points(STUDIES[name], runs) for name, runs in drawn.items()}, RESULTS)
        densities = {
            name: runs["ours_20"][0]["densities"] for name, runs in drawn.items() if "ours_20" in runs
        }
        draw_time(densities, RESULTS)
    finish(name, figures, quick=chosen.quick, spread=spread)


def _measured_now() -> tuple[dict[str, float], dict[str, Spread]]:
    """Bytes and latency of models of a fifth, and the spread of what is timed."""
    with tempfile.TemporaryDirectory() as work:
        figures = sizes(Path(work))
    cases = {"latency_share_20": False, "latency_share_20_perceptron": True}
    spread = {key: latency_share(alone=alone) for key, alone in cases.items()}
    return figures | {key: each.median for key, each in spread.items()}, spread


if __name__ == "__main__":
    main()
