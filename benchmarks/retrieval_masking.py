"""Self-supervision on items (Yao et al., CIKM 2021): Amazon Beauty, the tail of the catalogue apart.

    python benchmarks/retrieval_masking.py DATA [--quick] [--kept]

DATA holds ``amazon_beauty`` with interactions.parquet and items.parquet. The last item of each user is
asked for in test rows, the last but one in validation rows (``pipelines/amazon_beauty_retrieval.yaml``).
Towers are trained without self-supervision, with correlated masking, and with random masking at the same
settings. Weight and temperature are chosen for correlated masking by recall@10 of validation rows, with a
seed of its own; then every case runs with five others. Trainings are cells, kept; ``--kept`` reports those
that there are. ``--quick`` trains a few steps of each case, which shows that everything fits together, and
takes its figures from the newest full result (``figures_from``).
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
from cells import cell
from harness import Spread, finish, newest, parser

from recsys.chain import run as run_chain
from recsys.config import ModelSettings, TrainSettings, load_config
from recsys.data.dataset import Dataset, Part
from recsys.embeddings.plan import Plan
from recsys.place import PLAN_FILE, Place
from recsys.strict_yaml import read_yaml
from recsys.training.retrieval_evaluation import evaluate_retrieval
from recsys.training.train import train

NAME = "retrieval_masking"
VERSION = 1
"""Raised by hand when the code under a cell changes what comes out."""
ROOT = Path(__file__).resolve().parents[1]
RUN_FILE = "pipelines/amazon_beauty_retrieval.yaml"
LONGEST = 20
"""Events of a history, the newest."""
K = 10
CHOOSING_SEED, SEEDS = 2023, (2024, 2025, 2026, 2027, 2028)
ITEMS = {"ssl_items": 512}
WEIGHTS, FIRST_TEMPERATURE, TEMPERATURES = (0.1, 0.3), 0.1, (0.3,)
"""Weights at the first temperature; then the other temperatures at the best weight."""
PAIRS = (
    ("gain", "correlated", "without"),
    ("gain_random", "random", "without"),
    ("over_random", "correlated", "random"),
)
"""Name of a difference, of which case, from which other."""
Values = Mapping[int, float]
"""Seed → a metric."""
KEYS = ("tail_recall10_gain", "tail_recall10_gain_error", "recall10_gain")


@dataclass(frozen=True)
class Prepared:
    """What all trainings have in common."""

    dataset: Dataset
    plan: Plan
    model: ModelSettings
    train: TrainSettings
    steps: int | None = None
    """Steps of a training; None: all epochs."""
    only_kept: bool = False
    """Whether nothing is trained."""

    def figures(self, options: Mapping[str, Any], seed: int, part: Part) -> dict[str, float]:
        """Train, and rank the catalogue for the queries of one part."""
        settings = self.train.model_copy(
            # judged once, at the end: every training has the same steps
            update={"seed": seed, "evaluate_every": 1_000_000, "max_steps": self.steps}
        )
        model = {"name": self.model.name, **self.model.options, **options}
        with tempfile.TemporaryDirectory() as folder:
            run = Path(folder) / "run"
            train(self.dataset, run, model=model, plan=self.plan, settings=settings)
            found = evaluate_retrieval(run, part, k=(K,))
        lines = {line["items"]: line for line in found.slices.iter_rows(named=True)}
        return {
            "recall10": lines["all"]["recall"],
            "ndcg10": lines["all"]["ndcg"],
            "head_recall10": lines["head"]["recall"],
            "tail_recall10": lines["tail"]["recall"],
        }

    def kept(self, options: Mapping[str, Any], seed: int, part: Part) -> dict[str, float] | None:
        """The same as a cell; None for one that is not there and is not to be computed."""
        settings = {"run_file": read_yaml(ROOT / RUN_FILE), "options": dict(options), "seed": seed}
        settings |= {"part": part, "data": "amazon_beauty", "longest": LONGEST, "version": VERSION}
        run = partial(self.figures, options, seed, part)
        found = cell(NAME, settings, run, only_kept=self.only_kept)
        if found is None:
            return None
        shown = ", ".join(f"{key} {value}" for key, value in options.items()) or "without"
        print(f"{shown}, seed {seed}, {part}: recall@{K} {found['recall10']:.4f}, ", end="")
        print(f"head {found['head_recall10']:.4f}, tail {found['tail_recall10']:.4f}", flush=True)
        return found


def write_rows(data: Path, folder: Path) -> None:
    """Train, valid and test rows: an item of a user, and the items before it."""
    items = pl.read_parquet(data / "items.parquet")
    log = pl.read_parquet(data / "interactions.parquet").sort("user_id", "position")
    lists = log.group_by("user_id", maintain_order=True).agg(pl.col("item_id").alias("history"))
    rows = log.join(lists, on="user_id", maintain_order="left")
    ahead = pl.col("history").list.len().cast(pl.Int64) - 1 - pl.col("position")
    first = (pl.col("position") - LONGEST).clip(0)
    past = pl.col("history").list.slice(first, pl.col("position") - first)
    rows = rows.with_columns(ahead=ahead).with_columns(history=past)
    rows = rows.join(items, on="item_id", maintain_order="left")
    columns = ("user_id", "history", "item_id", "brand", "category", "attributes")
    folder.mkdir(parents=True, exist_ok=True)
    for part, chosen in {"train": pl.col("ahead") >= 2, "valid": pl.col("ahead") == 1}.items():
        rows.filter(chosen).select(columns).write_parquet(folder / f"{part}.parquet")
    rows.filter(pl.col("ahead") == 0).select(columns).write_parquet(folder / "test.parquet")


def prepared(data: Path, work: Path, *, steps: int | None = None, only_kept: bool = False) -> Prepared:
    """Rows, dataset and plan, in an empty folder."""
    write_rows(data / "amazon_beauty", work / "rows")
    config = load_config(ROOT / RUN_FILE, data=work / "rows", output=work / "run")
    place = Place(run_chain(config, until="plan").config)
    dataset = Dataset.load(place.folder("prepare"))
    plan = Plan.load(place.folder("plan") / PLAN_FILE)
    plain = {key: value for key, value in config.model.options.items() if not key.startswith("ssl_")}
    model = ModelSettings.model_validate({"name": config.model.name, **plain})
    return Prepared(dataset, plan, model, config.train, steps, only_kept)


def chosen_options(task: Prepared) -> dict[str, float]:
    """Weight and temperature with the best recall of validation rows."""
    found: dict[tuple[float, float], float] = {}
    grid = [(weight, FIRST_TEMPERATURE) for weight in WEIGHTS]
    for weight, temperature in grid:
        options = {"ssl_weight": weight, "ssl_temperature": temperature, **ITEMS}
        measured = task.kept(options, CHOOSING_SEED, "valid")
        if measured is None:
            raise SystemExit("the settings are not chosen yet; run without --kept")
        found[weight, temperature] = measured["recall10"]
        if len(found) == len(WEIGHTS):
            best = max(found, key=lambda each: found[each])[0]
            grid.extend((best, other) for other in TEMPERATURES)
    weight, temperature = max(found, key=lambda each: found[each])
    return {"ssl_weight": weight, "ssl_temperature": temperature, **ITEMS}


def gains(with_it: Values, without: Values) -> tuple[float, float]:
    """Mean and standard error of the differences of trainings with one seed."""
    differences = [value - without[seed] for seed, value in with_it.items() if seed in without]
    return statistics.fmean(differences), statistics.stdev(differences) / len(differences) ** 0.5


def full(task: Prepared) -> None:
    """Choose, train every case with every seed, and write the result."""
    options = chosen_options(task)
    cases: dict[str, dict[str, Any]] = {
        "without": {},
        "correlated": options,
        "random": {**options, "ssl_masking": "random"},
    }
    runs: dict[str, dict[int, dict[str, float]]] = {case: {} for case in cases}
    for case, changes in cases.items():
        for seed in SEEDS:
            found = task.kept(changes, seed, "test")
            if found is not None:
                runs[case][seed] = found
    figures: dict[str, float | int | str | None] = dict(options)
    figures |= {f"seeds_{case}": len(found) for case, found in runs.items()}
    runs = {case: found for case, found in runs.items() if len(found) > 1}
    spread = {}
    for metric in ("tail_recall10", "recall10", "head_recall10", "ndcg10"):
        values = {case: {seed: one[metric] for seed, one in found.items()} for case, found in runs.items()}
        for case, by_seed in values.items():
            figures[f"{metric}_{case}"] = statistics.fmean(by_seed.values())
            figures[f"{metric}_{case}_sd"] = statistics.stdev(by_seed.values())
            spread[f"{metric}_{case}"] = Spread.of(list(by_seed.values()))
        for name, case, other in PAIRS:
            if case in values and other in values:
                gain, error = gains(values[case], values[other])
                figures |= {f"{metric}_{name}": gain, f"{metric}_{name}_error": error}
    finish(NAME, figures, quick=False, spread=spread)


def quick(task: Prepared) -> None:
    """A few steps of each case; figures of the newest full result."""
    for options in ({}, {"ssl_weight": 0.1}, {"ssl_weight": 0.1, "ssl_masking": "random"}):
        found = task.figures(options, SEEDS[0], "test")
        print(f"{options or 'without'}: recall@{K} {found['recall10']:.4f} after {task.steps} steps")
    earlier = newest(NAME)
    figures = dict.fromkeys(KEYS, None) if earlier is None else dict(earlier[1]["figures"])
    finish(NAME, {**figures, "figures_from": None if earlier is None else earlier[0]}, quick=True)


def main() -> None:
    arguments = parser(NAME, "Self-supervision on items, head and tail apart.")
    arguments.add_argument("data", type=Path, help="folder that holds amazon_beauty")
    arguments.add_argument("--kept", action="store_true", help="train nothing; report the cells there are")
    options = arguments.parse_args()
    if not options.quick:
        with tempfile.TemporaryDirectory() as folder:
            full(prepared(options.data, Path(folder), only_kept=options.kept))
        return
    with tempfile.TemporaryDirectory() as folder:
        quick(prepared(options.data, Path(folder), steps=10))


if __name__ == "__main__":
    main()
