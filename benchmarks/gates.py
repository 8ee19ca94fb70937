"""Gates (OptFS) beside their backbone: AUC, values kept and bytes shipped, on Frappe_x1 and MovieLens-1M.

The backbones are the pipelines' own, AutoInt+ as it stands there. Every strength of the L1 in a ladder is
tried with the first seed. Validation chooses two of them: the best AUC among those that keep at most half
of the values, and the fewest values among those that cost less than 0.001. Those two and the backbone get
three seeds, and only then is the test AUC looked at. Cells are kept, so that a study goes on where it was.

    python benchmarks/gates.py DATA [--quick] [--cells N]

One study at a time: its prepared data and its run lie in ``benchmarks/.cache/gates``.
DATA holds ``frappe_x1`` and ``ml1m_ctr`` with their Parquet files. ``--quick`` trains one small DNN with
and without gates on Frappe_x1. ``--cells N`` computes N cells that are missing, and says what is left.
"""

from __future__ import annotations

import shutil
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cells import cell
from harness import Spread, finish, parser

from recsys.chain import run
from recsys.config import load_config
from recsys.place import Place
from recsys.results import load_bundle, load_evaluation
from recsys.training.run_folder import Run

NAME = "gates"
VERSION = 1
"""Raised when the code under the cells changes what comes out."""
HERE = Path(__file__).resolve().parent
SEEDS = (2024, 2025, 2026)
MOST_KEPT, MOST_LOST = 0.5, 1e-3
SEARCH = {"epochs": 10, "lr": 2e-3, "final_temp": 1000.0}
LADDERS: dict[str, tuple[float, ...]] = {
    "frappe_x1": (4e-5, 5e-5, 6e-5, 8e-5, 1e-4),
    "ml1m_ctr": (1e-6, 3e-6, 4e-6, 1e-5),
}
QUICK = {
    "model": "{name: dnn, hidden: [64]}",
    "rank.order": "1",
    "train.epochs": "1",
    "train.batch_size": "8192",
    "train.tables.lr": "0.005",
    "train.tables.l2": "0.0",
    "train.tables.init_std": "0.01",
}
QUICK_GATES = {"epochs": 2, "lr": 2e-2, "l1": 3e-5, "final_temp": 100.0}

Cell = dict[str, Any]


@dataclass
class Left:
    """How many missing cells may still be computed."""

    cells: int | None
    missing: int = 0

    def take(self) -> bool:
        """Whether one more may be; counts it as missing otherwise."""
        if self.cells == 0:
            self.missing += 1
            return False
        if self.cells is not None:
            self.cells -= 1
        return True


def trained(study: str, data: Path, seed: int, gates: Mapping[str, Any], more: Mapping[str, str]) -> Cell:
    """One training from Parquet to bundle: AUC on validation and test rows, values kept, bytes."""
    settings = {"train.seed": seed, "rank.report": "false", "train.average": "null", **more}
    settings |= {f"train.gates.{key}": value for key, value in gates.items()}
    pipeline = HERE.parent / "pipelines" / f"{study}.yaml"
    config = load_config(
        pipeline,
        data=data / study,
        output=HERE / ".cache" / NAME / (f"{study}-quick" if more else study),
        overrides=[f"{key}={value}" for key, value in settings.items()],
    )
    shutil.rmtree(config.folder / "run", ignore_errors=True)
    run(config)
    place = Place(config)
    result = Run.load(place.folder("train")).result
    evaluation, bundle = load_evaluation(place), load_bundle(place)
    if evaluation is None or bundle is None:
        raise SystemExit(f"{study}: the chain ended without an evaluation and a bundle")
    kept = result.kept_values.values()
    return {
        "valid_auc": result.best_value,
        "test_auc": evaluation.overall["auc"],
        "kept_share": sum(part for part, _ in kept) / sum(size for _, size in kept) if kept else 1.0,
        "kept": {name: list(each) for name, each in result.kept_values.items()},
        "embedding_bytes": bundle.bytes["tables"] + bundle.bytes["vocabularies"],
        "bundle_bytes": bundle.bytes["total"],
    }


def of_cell(study: str, data: Path, seed: int, l1: float | None, left: Left) -> Cell | None:
    """The figures of a cell; None where it is missing and must not be computed now."""
    gates = {} if l1 is None else SEARCH | {"l1": l1}
    pipeline = (HERE.parent / "pipelines" / f"{study}.yaml").read_text(encoding="utf-8")
    settings = {"version": VERSION, "pipeline": pipeline, "data": study, "seed": seed, "gates": gates}
    found = cell(NAME, settings, dict, only_kept=True)
    if found is None and left.take():
        found = cell(NAME, settings, lambda: trained(study, data, seed, gates, {}))
        if found is not None:
            said = {key: found[key] for key in ("valid_auc", "kept_share", "seconds")}
            print(f"{study} seed {seed} l1 {l1}: {said}", flush=True)
    return found


def chosen(study: str, data: Path, left: Left) -> dict[str, float]:
    """The strengths that validation chooses with the first seed; empty while cells are missing."""
    plain = of_cell(study, data, SEEDS[0], None, left)
    tried = {l1: of_cell(study, data, SEEDS[0], l1, left) for l1 in LADDERS[study]}
    known = {l1: found for l1, found in tried.items() if found is not None}
    if plain is None or len(known) < len(tried):
        return {}
    half = {l1: found for l1, found in known.items() if found["kept_share"] <= MOST_KEPT}
    enough = plain["valid_auc"] - MOST_LOST
    cheap = {l1: found for l1, found in known.items() if found["valid_auc"] > enough}
    best: dict[str, float] = {}
    if half:
        best["half"] = max(half, key=lambda l1: half[l1]["valid_auc"])
    if cheap:
        best["fewest"] = min(cheap, key=lambda l1: cheap[l1]["kept_share"])
    return best


def measured(study: str, data: Path, left: Left) -> dict[str, float | int | str | None]:
    """Figures of one data set; empty while cells are missing."""
    choices = chosen(study, data, left)
    plain = [of_cell(study, data, seed, None, left) for seed in SEEDS]
    figures: dict[str, float | int | str | None] = {}
    for purpose, l1 in choices.items():
        gated = [of_cell(study, data, seed, l1, left) for seed in SEEDS]
        ours = [each for each in gated if each is not None]
        theirs = [each for each in plain if each is not None]
        if len(ours) < len(SEEDS) or len(theirs) < len(SEEDS):
            continue
        backbone = [each["test_auc"] for each in theirs]
        found = {
            "l1": l1,
            "auc": statistics.fmean(each["test_auc"] for each in ours),
            "auc_gain": statistics.fmean(each["test_auc"] for each in ours) - statistics.fmean(backbone),
            "kept_share": statistics.fmean(each["kept_share"] for each in ours),
            "bundle_share": _share(ours, theirs, "embedding_bytes"),
            "whole_bundle_share": _share(ours, theirs, "bundle_bytes"),
        }
        figures |= {f"{study}_{purpose}_{key}": value for key, value in found.items()}
        figures |= {
            f"{study}_auc": statistics.fmean(backbone),
            f"{study}_auc_sd": statistics.stdev(backbone),
        }
    return figures


def _share(ours: list[Cell], theirs: list[Cell], key: str) -> float:
    return statistics.fmean(each[key] for each in ours) / statistics.fmean(each[key] for each in theirs)


def overall(figures: Mapping[str, float | int | str | None]) -> dict[str, float]:
    """The three keys: the worst data set's, with at most half of the values; empty while one is missing."""
    keys = {"auc_gain": min, "kept_share": max, "bundle_share": max}
    each = {key: [figures.get(f"{study}_half_{key}") for study in LADDERS] for key in keys}
    if any(value is None for values in each.values() for value in values):
        return {}
    return {key: worst(float(value or 0.0) for value in each[key]) for key, worst in keys.items()}


def quick(data: Path) -> dict[str, float | int | str | None]:
    """One small DNN with and without gates; its figures stand for nothing but that all of it works."""
    plain = trained("frappe_x1", data, SEEDS[0], {}, QUICK)
    gated = trained("frappe_x1", data, SEEDS[0], QUICK_GATES, QUICK)
    return {
        "auc_gain": gated["test_auc"] - plain["test_auc"],
        "kept_share": gated["kept_share"],
        "bundle_share": gated["embedding_bytes"] / plain["embedding_bytes"],
        "auc": plain["test_auc"],
        "of": "a DNN of 64, one epoch, one seed",
    }


def main() -> None:
    arguments = parser(NAME, __doc__ or "")
    arguments.add_argument("data", type=Path, help="folder with frappe_x1 and ml1m_ctr")
    arguments.add_argument("--cells", type=int, help="missing cells to compute at most; default: all")
    options = arguments.parse_args()
    if options.quick:
        finish(NAME, quick(options.data), quick=True)
        return
    left = Left(options.cells)
    figures: dict[str, float | int | str | None] = {}
    for study in LADDERS:
        figures |= measured(study, options.data, left)
    if left.missing:
        print(f"{left.missing} cells or more are missing; run it again", flush=True)
        finish(NAME, figures, quick=True)
        return
    spread = {
        f"{study}_auc": Spread.of(
            [float((of_cell(study, options.data, seed, None, left) or {})["test_auc"]) for seed in SEEDS]
        )
        for study in LADDERS
    }
    finish(NAME, overall(figures) | figures, quick=False, spread=spread)


if __name__ == "__main__":
    main()
