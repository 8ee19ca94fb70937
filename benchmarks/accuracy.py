"""Test AUC of the shipped run files on public sets and synthetic logs, with the spread over seeds.

Settings were chosen on validation rows; the test rows of a setting are scored once per seed. FuxiCTR runs
beside ours with the settings that BARS publishes (``make bench-envs``). Every run of a setting and a seed
is a cell that is kept, so that the study can be interrupted and goes on.

    python benchmarks/accuracy.py [--quick] [--task TASK] [--data FOLDER]

A quick run trains one setting on the demo's synthetic log and takes everything else from the newest full
result (``figures_from``). ``--task`` computes the cells of one task and writes no result.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Collection
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from accuracy_peers import PEERS, peer_figures
from accuracy_settings import DEMO, ROOT, SETTINGS, Setting, data_of, run_chain
from cells import cell
from harness import Spread, finish, newest, parser

from recsys.results import load_references

SEED = 2024
SYNTHETIC = ("synth_small", "synth_large")
KEYS = ("frappe_autoint_plus", "frappe_best", "ml1m_ids_best", "din_gauc_gain", "regret_synthetic")


@dataclass
class Results:
    """Figures of the cells that there are, seed by seed."""

    runs: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """Ours, by setting."""
    peers: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def of(self, key: str, metric: str) -> list[float]:
        """One metric of every seed."""
        return [run[metric] for run in (self.runs | self.peers).get(key, ()) if run.get(metric) is not None]

    def mean(self, key: str, metric: str = "auc") -> float | None:
        """Mean over the seeds; None where none was run."""
        values = self.of(key, metric)
        return statistics.fmean(values) if values else None

    def best(self, task: str) -> float | None:
        """Mean test AUC of the setting that is best on validation rows."""
        means = {key: self.mean(key, "valid_auc") for key in self.runs if key.startswith(f"{task}_")}
        known = {key: mean for key, mean in means.items() if mean is not None}
        return self.mean(max(known, key=lambda key: known[key])) if known else None


def trained(setting: Setting, seed: int, root: Path) -> dict[str, Any]:
    """Train and evaluate in a process of its own; validation and test metrics, epochs, references.

    Args:
        setting: what to train.
        seed: of the training.
        root: folder of all data sets.
    """
    data = data_of(setting.data, root)
    with tempfile.TemporaryDirectory() as folder:
        sets = (*setting.changes, f"train.seed={seed}")
        run_chain(setting.run_file, data, Path(folder), "evaluate", sets)
        return _figures(Path(folder), data)


def _figures(run: Path, data: Path) -> dict[str, Any]:
    result = json.loads((run / "run" / "result.json").read_text(encoding="utf-8"))
    found = json.loads((run / "evaluation" / "metrics.json").read_text(encoding="utf-8"))
    lines = (run / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    valid = next(r for r in records if r["step"] == result["best_step"] and "valid/auc" in r)
    names = ("auc", "gauc", "logloss")
    figures = {f"valid_{name}": valid[f"valid/{name}"] for name in names if f"valid/{name}" in valid}
    figures |= {name: found["overall"][name] for name in names if name in found["overall"]}
    figures |= {"epochs": result["epochs"], "train_seconds": result["seconds"]}
    attainable = load_references(run / "evaluation").get("attainable")
    return figures | ({} if attainable is None else {"attainable_auc": attainable["auc"]})


def study(tasks: Collection[str], data: Path, *, only_kept: bool = False) -> Results:
    """Every seed of the tasks' settings and peers, from its cell or computed now; no tasks: of all."""
    results = Results()
    settings = [one for one in SETTINGS if not tasks or one.task in tasks]
    peers = [one for one in PEERS if not tasks or one.task in tasks]
    for setting in settings:
        for seed in range(SEED, SEED + setting.seeds):
            run = partial(trained, setting, seed, data)
            found = cell("accuracy", setting.cell_settings(seed), run, only_kept=only_kept)
            if found is None:
                continue
            results.runs.setdefault(setting.key, []).append(found)
            print(f"{setting.key} {seed}: {_shown(found)}", flush=True)
    for peer in peers:
        for seed in range(SEED, SEED + peer.seeds):
            found = peer_figures(peer, seed, data, only_kept=only_kept)
            if found is None:
                continue
            results.peers.setdefault(peer.key, []).append(found)
            print(f"{peer.key} {seed}: {_shown(found)}", flush=True)
    return results


def _shown(found: dict[str, Any]) -> str:
    names = ("valid_auc", "auc", "gauc", "logloss")
    return ", ".join(f"{name} {found[name]:.5f}" for name in names if found.get(name) is not None)


def report(results: Results) -> None:
    """Means over seeds, the spread, and what the issue asks for."""
    figures: dict[str, float | int | str | None] = {}
    spread = {}
    for key, runs in (results.runs | results.peers).items():
        for metric in ("auc", "gauc", "logloss"):
            values = results.of(key, metric)
            if values:
                spread[f"{key}_{metric}"] = Spread.of(values)
                figures[f"{key}_{metric}"] = statistics.fmean(values)
        figures[f"{key}_auc_sd"] = statistics.stdev(results.of(key, "auc")) if len(runs) > 1 else None
        figures[f"{key}_valid_auc"] = results.mean(key, "valid_auc")
        figures[f"{key}_seeds"] = len(runs)
    figures["frappe_autoint_plus"] = results.mean("frappe_autoint_plus")
    figures["frappe_best"] = results.best("frappe")
    figures["ml1m_ids_best"] = results.best("ml1m_ids")
    figures["din_gauc_gain"] = _difference(results, "beauty_din", "beauty_mean", "gauc")
    figures["regret_synthetic"] = _regret(results)
    figures["over_lr_and_fm"] = _over_yardsticks(results)
    finish("accuracy", figures, quick=False, spread=spread)


def _difference(results: Results, one: str, other: str, metric: str) -> float | None:
    """Mean of one setting less that of another; None where one was not run."""
    first, second = results.mean(one, metric), results.mean(other, metric)
    return None if first is None or second is None else first - second


def _regret(results: Results) -> float | None:
    """The largest distance of a synthetic log's best setting to its attainable AUC."""
    regrets = []
    for task in SYNTHETIC:
        best = results.best(task)
        if best is not None:
            first = next(runs for key, runs in results.runs.items() if key.startswith(f"{task}_"))
            regrets.append(first[0]["attainable_auc"] - best)
    return max(regrets, default=None)


def _over_yardsticks(results: Results) -> float | None:
    """How far DIN stands above the better of LR and FM, on the synthetic log where it is least."""
    gains = []
    for task in SYNTHETIC:
        ours, *theirs = (results.mean(f"{task}_{name}") for name in ("din", "lr", "fm"))
        known = [each for each in theirs if each is not None]
        if ours is not None and known:
            gains.append(ours - max(known))
    return min(gains, default=None)


def quick() -> None:
    """The demo's regret, trained now; the rest from the newest full result."""
    with tempfile.TemporaryDirectory() as folder:
        found = trained(DEMO, SEED, Path(folder))
    earlier = newest("accuracy")
    figures = dict.fromkeys(KEYS, None) if earlier is None else dict(earlier[1]["figures"])
    figures |= {"figures_from": None if earlier is None else earlier[0]}
    figures |= {"demo_auc": found["auc"], "regret_demo": found["attainable_auc"] - found["auc"]}
    finish("accuracy", figures, quick=True)


def main() -> None:
    arguments = parser("accuracy", str(__doc__))
    arguments.add_argument("--task", help="compute the cells of one task only; writes no result")
    arguments.add_argument("--kept", action="store_true", help="report the cells that there are")
    arguments.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    chosen = arguments.parse_args()
    if chosen.quick:
        quick()
    elif chosen.task:
        study([chosen.task], chosen.data)
    else:
        report(study([], chosen.data, only_kept=chosen.kept))


if __name__ == "__main__":
    main()
