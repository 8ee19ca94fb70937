"""What dynamic sparse learning costs in AUC and saves in bytes and time, beside what saves as much.

Trains ``pipelines/frappe_x1.yaml`` dense, with half and with a fifth of the weights, and at a fifth beside
it: the published method, a dense model of narrower vectors and layers, and the dense model pruned by
magnitude after training. Every run selects its epoch on validation rows; AUCs are those of test rows.
Memory and bundle bytes are those of a plan of 200,000 values, 16 wide, in int8.

    python benchmarks/sparsity.py DATA [--quick] [--seeds 3] [--kept] [--case NAME]

DATA holds Frappe_x1's train.parquet, valid.parquet and test.parquet. Trainings are cells: a study that was
cut off goes on where it stopped. ``--quick`` trains nothing; ``--kept`` neither, but writes a result of the
trainings there are.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from cells import CELLS, cell
from harness import RESULTS, Spread, finish, interleaved, parser
from sparsity_pictures import draw

from recsys import run as run_chain
from recsys.config import PlanSettings, RunConfig, TrainSettings, load_config
from recsys.data.batches import Batches
from recsys.data.dataset import Dataset, DatasetManifest, Feature, VocabularyInfo
from recsys.embeddings.keys import keys_of
from recsys.embeddings.plan import Plan
from recsys.embeddings.planner import plan as make_plan
from recsys.evaluation.metrics import auc
from recsys.models import build_model
from recsys.models.inputs import Layout
from recsys.models.onnx_graph import export_onnx
from recsys.models.units import hidden_layers
from recsys.schema import Column, Schema
from recsys.serving.dense import DensePart
from recsys.settings.sparsity import SparsitySettings
from recsys.strict_yaml import read_yaml
from recsys.training.distributed import distributed
from recsys.training.export import export
from recsys.training.layout import layout_of
from recsys.training.loaded import opened_run
from recsys.training.optimisers import Optimisers
from recsys.training.run_folder import Run
from recsys.training.scoring import labels_of, score_part
from recsys.training.sparsity.sparsity import build_sparsity
from recsys.training.sparsity.units import Units
from recsys.training.tables_of import build_tables
from recsys.training.train import train

VERSIONS = {"whole": 1, "structured": 4, "dsl": 2}
"""Raised by hand when code under a cell changes what comes out: without sparsity, and of each method."""
ROOT = Path(__file__).resolve().parents[1]
RUN_FILE = "pipelines/frappe_x1.yaml"
OURS = {"pieces": 5, "interval": 25, "updates": 12}
DENSE = {"interval": 25, "updates": 8}
DSL = {"method": "dsl", "interval": 25, "updates": 28, "drop": 0.5}
CASES: dict[str, dict[str, Any]] = {
    "dense": {},
    "ours_20": {"train.sparsity": {"budget": 0.2, **OURS}},
    "ours_each_20": {"train.sparsity": {"budget": 0.2, "dense": 0.2, "tables": 0.2, **OURS}},
    "ours_whole_tables_20": {"train.sparsity": {"budget": 0.2, "dense": 0.083, "tables": 1.0, **DENSE}},
    "narrow_20": {"plan.embedding_dim": 2, "model.hidden": [180, 180, 180]},
    "narrow_layers_20": {"model.hidden": [92, 92, 92]},
    "dsl_20": {"train.sparsity": {"budget": 0.2, **DSL}},
    "ours_50": {"train.sparsity": {"budget": 0.5, **OURS}},
}
"""All ``_20`` keep a fifth of all weights; ``narrow``: of tables and layers alike, or of layers alone."""
SEEDS = (2024, 2025, 2026)
LATENCY_BATCH, ROUNDS, CALLS = 512, 40, 20
VALUES, WIDTH = 200_000, 16
"""Of the plan whose memory and bytes are measured."""
MODEL = {"name": "dnn", "hidden": [64, 32]}


def trained(case: str, seed: int, data: Path, *, only_kept: bool) -> dict[str, Any] | None:
    """Figures of one training on Frappe_x1, kept."""
    changes = {**CASES[case], "train.seed": seed}
    settings = {"run_file": read_yaml(ROOT / RUN_FILE), "changes": changes}
    settings |= {"data": "frappe_x1", "version": _version(changes)}
    return cell("sparsity", settings, lambda: _train(case, changes, data), only_kept=only_kept)


def _version(changes: Mapping[str, Any]) -> int:
    sparsity = changes.get("train.sparsity")
    return VERSIONS["whole" if sparsity is None else sparsity.get("method", "structured")]


def _train(case: str, changes: Mapping[str, Any], data: Path) -> dict[str, Any]:
    """Train, or go on with a training that was cut off; then measure."""
    work = CELLS.parent / "sparsity"
    overrides = [f"{key}={_yaml(value)}" for key, value in changes.items()]
    config = load_config(ROOT / RUN_FILE, data=data, output=work / "frappe", overrides=overrides)
    run_chain(ROOT / RUN_FILE, data=data, output=work / "frappe", until="prepare")
    dataset = Dataset.load(work / "frappe" / "dataset")
    folder = work / f"{case}-{changes['train.seed']}-v{_version(changes)}"
    train(
        dataset,
        folder,
        model=config.model,
        plan=make_plan(dataset, settings=config.plan),
        settings=config.train.model_copy(update={"device": "cpu"}),
        resume=True,
    )
    found = _figures(Run.load(folder), config)
    if case == "dense":
        found["magnitude_20"] = _magnitude(Run.load(folder), 0.2)
    return found


def _yaml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {inner}" for key, inner in value.items()) + "}"
    return str(value)


def _figures(run: Run, config: RunConfig) -> dict[str, Any]:
    with opened_run(run) as (dataset, _, model, tables):
        widths = {layer.weight: list(layer.axes[0].tensor.shape) for layer in hidden_layers(model)}
        score = score_part(model, tables, _batches(dataset, config.train), 1)
    return {
        "test_auc": auc(labels_of(dataset, "test")[0], score),
        "valid_auc": run.result.best_value,
        "dense_parameters": run.result.parameters,
        "table_parameters": sum(table.rows * table.dim for table in run.plan.tables.values()),
        "steps": run.result.steps,
        "train_seconds": run.result.seconds,
        "widths": widths,
        "densities": _densities(run),
        "bundle": _bundle_bytes(run),
    }


def _densities(run: Run) -> dict[str, list[float]]:
    """Shares that were kept after every update, by part, layer and vocabulary; empty without sparsity."""
    kept = run.metrics.select("step", pl.selectors.starts_with("density/"))
    return kept.drop_nulls().to_dict(as_series=False) if kept.width > 1 else {}


def _batches(dataset: Dataset, settings: TrainSettings) -> Batches:
    return Batches(dataset, "test", settings.batch_size, shuffle_rows=settings.shuffle_rows, shuffle=False)


def _bundle_bytes(run: Run) -> dict[str, int]:
    with tempfile.TemporaryDirectory() as folder:
        return dict(export(run, Path(folder) / "bundle", dtype="int8").manifest.bytes)


def _magnitude(run: Run, density: float) -> float:
    """Test AUC of a trained model whose smallest weights are zeros: of its matrices, and of its tables."""
    with opened_run(run) as (dataset, _, model, tables):
        matrices = [p.data for p in model.parameters() if p.dim() == 2]
        stored = [value.to_local() for value in tables.state().values()]
        for group in (matrices, stored):
            flat = torch.cat([weights.abs().flatten() for weights in group])
            least = flat.kthvalue(len(flat) - int(density * len(flat))).values
            for weights in group:
                weights.mul_(weights.abs() > least)
        score = score_part(model, tables, _batches(dataset, run.file.train), 1)
        found = auc(labels_of(dataset, "test")[0], score)
    assert found is not None
    return found


def latency_share(*, alone: bool = False) -> Spread:
    """Seconds of a dense part cut to a fifth over those of the whole one: one core, a batch of 512.

    ``alone``: of the perceptron, without the attention beside it. Layers are narrowed alike, and keep one
    head of two, as widths do not have to be learnt to be timed.
    """
    config = load_config(ROOT / RUN_FILE)
    name, options = config.model.name, config.model.options
    if alone:
        name, options = "dnn", {key: options[key] for key in ("hidden", "batch_norm", "dropout")}
    settings = SparsitySettings(budget=0.2, dense=0.2, tables=1.0, allocation="uniform")
    fields = [f"field_{number}" for number in range(10)]
    layout = Layout(dict.fromkeys(fields, config.plan.embedding_dim))
    generator = np.random.default_rng(1)
    shape = (LATENCY_BATCH, config.plan.embedding_dim)
    inputs = {name: generator.normal(size=shape).astype(np.float32) for name in fields}
    parts = {}
    with tempfile.TemporaryDirectory() as folder:
        for part in ("whole", "cut"):
            model = build_model(name, options, layout, seed=1)
            if part == "cut":
                Units(model, settings, None).update(settings.last_step)
            path = Path(folder) / f"{part}.onnx"
            export_onnx(model, layout, path)
            parts[part] = DensePart(path, threads=1)
        cases = {part: partial(_repeat, dense, inputs) for part, dense in parts.items()}
        measured = interleaved(cases, ROUNDS)
    return Spread.of([cut / whole for whole, cut in zip(measured["whole"], measured["cut"], strict=True)])


def _repeat(part: DensePart, inputs: Mapping[str, Any]) -> None:
    for _ in range(CALLS):
        part.logit(inputs)


def made_dataset(folder: Path) -> Dataset:
    """Two columns of many values by a Zipf-like law, and a label that has nothing to learn."""
    folder.mkdir()
    (folder / "vocab").mkdir()
    generator = np.random.default_rng(7)
    sizes = {"user": VALUES * 3 // 5, "item": VALUES * 2 // 5}
    rows = 1 << 17
    columns: dict[str, Any] = {
        name: 2 + ((size - 2) * generator.random(rows) ** 3).astype(np.int64)
        for name, size in sizes.items()
    }
    columns["__label__"] = (generator.random(rows) < 0.2).astype(np.float32)
    frame = pl.DataFrame(columns)
    for part, count in (("train", rows), ("valid", 4096), ("test", 4096)):
        frame.head(count).write_parquet(folder / f"{part}.parquet")
    info = {name: VocabularyInfo(size=size, type="int64", columns=(name,)) for name, size in sizes.items()}
    schema = {name: Column(kind="categorical", type="int64") for name in sizes}
    schema["label"] = Column(kind="numeric", type="int64", roles=("label",))
    manifest = DatasetManifest(
        schema_=Schema(columns=schema),
        features=tuple(Feature(name=name, kind="categorical", vocabulary=name) for name in sizes),
        vocabularies=info,
        numerics={},
        rows={"train": rows, "valid": 4096, "test": 4096},
        positives={"train": int(frame["__label__"].sum()), "valid": 800, "test": 800},
    )
    (folder / "dataset.json").write_text(manifest.model_dump_json())
    dataset = Dataset.load(folder)
    for name, size in sizes.items():
        values = pl.Series(range(10**6, 10**6 + size - 2), dtype=pl.Int64)
        counts = frame[name].to_numpy()
        found = np.bincount(counts, minlength=size)[2:]
        known = {"id": range(2, size), "value": values, "key": keys_of(values, "int64"), "count": found}
        pl.DataFrame(known).write_parquet(dataset.vocabulary(name))
    return dataset


def sizes(work: Path) -> dict[str, float]:
    """Shares of the dense run's memory and bundle at a fifth of the weights, of 200,000 values 16 wide."""
    dataset = made_dataset(work / "dataset")
    base = {"max_steps": 6, "device": "cpu", "monitor": "logloss"}
    sparse = {"sparsity": {"budget": 0.2, "dense": 0.2, "tables": 0.2, "interval": 2, "updates": 2}}
    memory: list[int] = []
    bundles: list[dict[str, int]] = []
    for name, more, dtype in (("dense", {}, "float32"), ("sparse", sparse, "int8")):
        settings = TrainSettings.model_validate(base | more)
        run = train(dataset, work / name, model=MODEL, plan=_plan(dataset), settings=settings)
        memory.append(_table_memory(run, dataset))
        bundles.append(
            dict(export(run, work / f"{name}-bundle", dtype=dtype, measured_rows=1).manifest.bytes)
        )
    served = [bundle["tables"] + bundle["dense"] for bundle in bundles]
    known = [size + bundle["vocabularies"] for size, bundle in zip(served, bundles, strict=True)]
    return {
        "memory_share_20": memory[1] / memory[0],
        "bundle_share_20": served[1] / served[0],
        "bundle_share_20_with_vocabularies": known[1] / known[0],
    }


def _plan(dataset: Dataset) -> Plan:
    return make_plan(dataset, settings=PlanSettings(embedding_dim=WIDTH))


def _table_memory(run: Run, dataset: Dataset) -> int:
    """Bytes that the tables take in training: weights, the optimiser's state, pointers and sums."""
    settings = run.file.train
    with distributed("cpu") as ranks:
        tables = build_tables(dataset, run.plan, settings, ranks)
        model = build_model(run.file.model, run.file.options, layout_of(dataset.features, run.plan), seed=1)
        optimisers = Optimisers(model, tables, settings.dense, settings.tables, settings.clip_norm)
        optimisers.materialise()
        sparsity = build_sparsity(settings, model, tables, optimisers, dataset, ranks)
        held = [value.to_local() for value in tables.state().values()]
        held += [value for state in optimisers.table_state().values() for value in state.values()]
        held += [pool.slots for pool in tables.pools.values()]
        sums = {} if sparsity is None else sparsity.tensors()
        held += [value for key, value in sums.items() if key.startswith("rows.")]
        return sum(tensor.nbytes for tensor in held)


def main() -> None:
    arguments = parser("sparsity", str(__doc__))
    arguments.add_argument("--seeds", type=int, default=len(SEEDS), help="trainings of each case")
    arguments.add_argument("data", type=Path, metavar="DATA", help="folder of Frappe_x1's three files")
    arguments.add_argument("--kept", action="store_true", help="sum up what has been trained")
    arguments.add_argument("--case", choices=list(CASES), help="train this case alone, and write no result")
    chosen = arguments.parse_args()
    found: dict[str, list[dict[str, Any]]] = {}
    for seed in SEEDS[: chosen.seeds]:
        for case in [chosen.case] if chosen.case else CASES:
            figures = trained(case, seed, chosen.data, only_kept=chosen.quick or chosen.kept)
            if figures is not None:
                found.setdefault(case, []).append(figures)
                print(f"{case}, seed {seed}: test AUC {figures['test_auc']:.5f}", flush=True)
    if chosen.case:
        return
    with tempfile.TemporaryDirectory() as work:
        shares = sizes(Path(work))
    figures, spread = _summary(found)
    if not chosen.quick and "dense" in found:
        _draw(found)
    finish("sparsity", shares | figures, quick=chosen.quick, spread=spread)


def _draw(found: Mapping[str, list[dict[str, Any]]]) -> None:
    """The pictures: each training's share of the dense run's weights against its AUC, and one over time."""
    whole = _weights(found["dense"][0])
    points: dict[str, list[tuple[float, float]]] = {}
    for case, runs in found.items():
        method = "dense" if case == "dense" else case.rpartition("_")[0]
        sparse = CASES[case].get("train.sparsity", {})
        for run in runs:
            share = sparse["budget"] if sparse.get("method") == "dsl" else _weights(run) / whole
            points.setdefault(method, []).append((share, run["test_auc"]))
    points["magnitude"] = [(0.2, run["magnitude_20"]) for run in found["dense"]]
    points.get("ours", []).extend(points["dense"])  # its curve ends in the whole model
    ours = found.get("ours_20", [{}])[0]
    draw(points, ours.get("densities", {}), RESULTS)


def _weights(run: Mapping[str, Any]) -> int:
    return int(run["dense_parameters"] + run["table_parameters"])


def _summary(found: Mapping[str, list[dict[str, Any]]]) -> tuple[dict[str, Any], dict[str, Spread]]:
    """Differences of test AUC, medians over seeds; what was not trained is missing."""
    aucs = {case: [each["test_auc"] for each in runs] for case, runs in found.items()}
    if "dense" in found:
        aucs["magnitude_20"] = [each["magnitude_20"] for each in found["dense"]]
    spread = {f"auc_{case}": Spread.of(values) for case, values in aucs.items()}
    middle = {case: spread[f"auc_{case}"].median for case in aucs}
    figures: dict[str, Any] = {f"auc_{case}": value for case, value in middle.items()}
    pairs = {
        "auc_cost_50": ("dense", "ours_50"),
        "auc_cost_20": ("dense", "ours_20"),
        "auc_cost_20_each": ("dense", "ours_each_20"),
        "auc_cost_20_whole_tables": ("dense", "ours_whole_tables_20"),
        "over_magnitude_20": ("ours_20", "magnitude_20"),
        "over_dsl_20": ("ours_20", "dsl_20"),
        "over_narrow_20": ("ours_20", "narrow_20"),
        "over_narrow_layers_20": ("ours_20", "narrow_layers_20"),
    }
    for name, (first, second) in pairs.items():
        if first in middle and second in middle:
            figures[name] = middle[first] - middle[second]
    for name, alone in (("latency_share_20", False), ("latency_share_20_perceptron", True)):
        spread[name] = latency_share(alone=alone)
        figures[name] = spread[name].median
    figures["seeds"] = min((len(runs) for runs in found.values()), default=0)
    return figures, spread


if __name__ == "__main__":
    main()
