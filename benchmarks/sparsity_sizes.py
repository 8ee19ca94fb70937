"""What a fifth of the weights saves: memory of tables in training, bundle bytes, time of a dense part."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from harness import Spread, interleaved
from sparsity_cells import ROOT

from recsys.config import PlanSettings, TrainSettings, load_config
from recsys.data.dataset import Dataset, DatasetManifest, Feature, VocabularyInfo
from recsys.embeddings.keys import keys_of
from recsys.embeddings.plan import Plan
from recsys.embeddings.planner import plan as make_plan
from recsys.models import build_model
from recsys.models.inputs import Layout
from recsys.models.onnx_graph import export_onnx
from recsys.schema import Column, Schema
from recsys.serving.dense import DensePart
from recsys.settings.sparsity import SparsitySettings
from recsys.training.distributed import distributed
from recsys.training.export import export
from recsys.training.layout import layout_of
from recsys.training.optimisers import Optimisers
from recsys.training.run_folder import Run
from recsys.training.sparsity.sparsity import build_sparsity
from recsys.training.sparsity.units import Units
from recsys.training.tables_of import build_tables
from recsys.training.train import train

RUN_FILE = "pipelines/frappe_x1.yaml"
"""Its dense part is what is timed."""
LATENCY_BATCH, ROUNDS, CALLS = 512, 40, 20
VALUES, WIDTH = 200_000, 16
"""Of the plan whose memory and bytes are measured."""
MODEL = {"name": "dnn", "hidden": [64, 32]}


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
        held += [  # how often train rows hold each value
            torch.empty(vocabulary.size)
            for pool in tables.pools.values()
            for vocabulary in pool.vocabularies.values()
        ]
        sums = {} if sparsity is None else sparsity.tensors()
        held += [value for key, value in sums.items() if key.startswith("rows.")]
        return sum(tensor.nbytes for tensor in held)
