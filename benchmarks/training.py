"""How many samples per second we train from Parquet, beside FuxiCTR 2.3.10 on the same files.

Same rows, model, widths and batch size; every run is a process of its own, ours and theirs in turn.
Ours keeps the tables on the fused path (row-wise Adagrad), FuxiCTR updates whole tables with Adam, as
each would with a million ids. FuxiCTR's environment: ``make bench-envs``.

    python benchmarks/training.py [--quick]
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from harness import Spread, finish, newest, parser

from recsys.config import PlanSettings, TrainSettings
from recsys.data.dataset import Dataset, DatasetManifest, Feature, VocabularyInfo
from recsys.schema import Column, Schema

PEER = Path(__file__).parent / ".envs" / "fuxictr" / "bin" / "python"
PEER_SCRIPT = Path(__file__).parent / "peers" / "fuxictr_train.py"
BATCH, DIM, ROWS, HISTORY = 4096, 16, 131_072, 50
HIDDEN = [400, 400, 400]
MODELS: dict[str, dict[str, Any]] = {
    "dnn": {"name": "dnn", "hidden": HIDDEN, "batch_norm": False, "dropout": 0.0},
    "autoint": {"name": "autoint", "layers": 3, "heads": 2, "head_dim": 32},
    "din": {
        "name": "din",
        "attention_hidden": [80, 40],
        "hidden": HIDDEN,
        "activation": "relu",
        "batch_norm": False,
        "dropout": 0.0,
    },
}
STEPS = {"dnn": (24, 6), "autoint": (8, 3), "din": (8, 4)}  # ours, theirs
WARM_UP = 4
PRECISIONS = ("fp32", "bf16")
ROUNDS = 3


def wide(folder: Path) -> Dataset:
    """39 categorical columns whose vocabularies add up to a million ids."""
    shares = np.geomspace(1, 3e-5, 39)
    sizes = {f"c{i:02d}": max(int(size), 4) for i, size in enumerate(1_000_000 * shares / shares.sum())}
    return _write(folder, sizes, history=False)


def with_history(folder: Path) -> Dataset:
    """A candidate item with a history of 50, a user and a context; a million ids."""
    return _write(folder, {"user": 300_000, "item": 600_000, "shop": 99_000, "place": 1_000}, history=True)


def _write(folder: Path, sizes: dict[str, int], *, history: bool) -> Dataset:
    """An encoded dataset with ids of a Zipf-like law and a label that has nothing to learn."""
    folder.mkdir()
    generator = np.random.default_rng(7)

    def ids(size: int, shape: int | tuple[int, int]) -> np.ndarray:
        return 2 + ((size - 2) * generator.random(shape) ** 3).astype(np.int64)

    columns: dict[str, Any] = {name: ids(size, ROWS) for name, size in sizes.items()}
    features = [Feature(name=name, kind="categorical", vocabulary=name) for name in sizes]
    if history:
        columns["history"] = pl.Series(ids(sizes["item"], (ROWS, HISTORY))).arr.to_list()
        features.append(Feature(name="history", kind="sequence", vocabulary="item", max_length=HISTORY))
    columns["__label__"] = (generator.random(ROWS) < 0.2).astype(np.float32)
    frame = pl.DataFrame(columns)
    frame.write_parquet(folder / "train.parquet", compression="lz4", row_group_size=65_536)
    manifest = DatasetManifest(
        schema_=Schema(columns={"label": Column(kind="numeric", type="int64", roles=("label",))}),
        features=tuple(features),
        vocabularies={
            name: VocabularyInfo(size=size, type="int64", columns=(name,)) for name, size in sizes.items()
        },
        numerics={},
        rows={"train": ROWS, "valid": 0, "test": 0},
        positives={"train": int(frame["__label__"].sum())},
    )
    (folder / "dataset.json").write_text(manifest.model_dump_json())
    return Dataset.load(folder)


def train_ours(model: str, folder: Path, steps: int, precision: str) -> dict[str, float]:
    """Train for some steps after a warm-up of four, which loads the file; FuxiCTR warms up too."""
    from recsys.embeddings.planner import plan
    from recsys.training.train import train

    dataset = Dataset.load(folder)
    settings = TrainSettings.model_validate(
        {"max_steps": steps + WARM_UP, "batch_size": BATCH, "device": "cpu", "log_every": WARM_UP}
        | {"precision": precision}
    )
    with tempfile.TemporaryDirectory() as output:
        tables = plan(dataset, settings=PlanSettings(embedding_dim=DIM, dense_below=1))
        run = train(dataset, Path(output) / "run", model=MODELS[model], plan=tables, settings=settings)
        lines = run.metrics.drop_nulls("loss")[1:]
    speeds, waits = lines["rows_per_second"].to_numpy(), lines["data_wait_share"].to_numpy()
    return {
        "samples_per_second": float(1 / (1 / speeds).mean()),
        "data_wait_share": float((waits / speeds).sum() / (1 / speeds).sum()),
        "loss": float(lines["loss"][-1]),
    }


def peer_spec(folder: Path, dataset: Dataset, steps: int) -> Path:
    """What FuxiCTR needs to know of a dataset, as JSON."""
    sizes = {name: info.size for name, info in dataset.manifest.vocabularies.items()}
    sequences = {
        f.name: (sizes["item"], HISTORY, "item", None) for f in dataset.features if f.kind == "sequence"
    }
    spec = {
        "work": str(folder),
        "train": str(dataset.part("train")),
        "batch_size": BATCH,
        "warm_up": 1,
        "steps": steps,
        "categorical": sizes,
        "sequence": sequences,
    }
    path = folder / f"peer-{len(sizes)}-{steps}.json"
    path.write_text(json.dumps(spec))
    return path


def _last_json(command: list[str]) -> dict[str, float]:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{command[1]} failed:\n{done.stderr}")
    found: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def measure(quick: bool) -> None:
    earlier = newest("training") if quick else None
    if quick and earlier is None:
        sys.exit("no full result on this kind of machine; run it once without --quick")
    if not quick and not PEER.exists():
        sys.exit("FuxiCTR's environment is missing; make it with 'make bench-envs'")
    runs: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        datasets = {"wide": wide(folder / "wide"), "history": with_history(folder / "history")}
        for _ in range(1 if quick else ROUNDS):
            for model in MODELS:
                dataset = datasets["history" if model == "din" else "wide"]
                for name, found in _round(model, dataset, folder, quick):
                    runs.setdefault(name, []).append(found)
                    print(f"{name}: {found['samples_per_second']:,.0f} samples/s", flush=True)
    _report(quick, runs, earlier)


def _round(
    model: str, dataset: Dataset, folder: Path, quick: bool
) -> Iterator[tuple[str, dict[str, float]]]:
    """Ours in both precisions and, in a full run, theirs; each a process of its own."""
    mine, peers = STEPS[model]
    for precision in PRECISIONS[:1] if quick else PRECISIONS:
        command = [sys.executable, __file__, "--ours", model, str(dataset.folder), str(mine), precision]
        yield f"ours_{model}_{precision}", _last_json(command)
    if not quick:
        spec = peer_spec(folder, dataset, peers)
        yield f"fuxictr_{model}", _last_json([str(PEER), str(PEER_SCRIPT), model, str(spec)])


def _report(
    quick: bool, runs: dict[str, list[dict[str, float]]], earlier: tuple[str, dict[str, Any]] | None
) -> None:
    """``speedup_MODEL`` compares float32 with float32; ``speedup_MODEL_bf16`` our bf16 with theirs."""
    spread = {name: Spread.of([run["samples_per_second"] for run in found]) for name, found in runs.items()}
    figures: dict[str, float | int | str | None] = {name: each.median for name, each in spread.items()}
    for model in MODELS:
        key = f"fuxictr_{model}"
        peer = spread[key].median if earlier is None else float(earlier[1]["figures"][key])
        figures[key] = peer
        for precision in PRECISIONS:
            ours = spread.get(f"ours_{model}_{precision}")
            if ours is not None:
                suffix = "" if precision == "fp32" else f"_{precision}"
                figures[f"speedup_{model}{suffix}"] = ours.median / peer
    waits = [
        Spread.of([run["data_wait_share"] for run in found]).median
        for name, found in runs.items()
        if name.endswith("_fp32")
    ]
    figures["data_wait_share"] = max(waits)
    if earlier is not None:
        figures["peer_from"] = earlier[0]
    finish("training", figures, quick=quick, spread=spread)


def main() -> None:
    arguments = parser("training", str(__doc__))
    arguments.add_argument(
        "--ours", nargs=4, metavar=("MODEL", "DATASET", "STEPS", "PRECISION"), help="internal: one run"
    )
    chosen = arguments.parse_args()
    if chosen.ours:
        model, folder, steps, precision = chosen.ours
        print(json.dumps(train_ours(model, Path(folder), int(steps), precision)))
    else:
        measure(chosen.quick)


if __name__ == "__main__":
    main()
