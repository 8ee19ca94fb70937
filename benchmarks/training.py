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
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from harness import Spread, finish, newest, parser

from recsys.config import PlanSettings, TableOptimizer, TrainSettings
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
        "batch_norm": False,
        "dropout": 0.0,
    },
}
STEPS = {"dnn": (24, 6), "autoint": (12, 4), "din": (16, 6)}  # ours, theirs
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
        columns["history"] = pl.Series(list(ids(sizes["item"], (ROWS, HISTORY))), dtype=pl.List(pl.Int64))
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


def train_ours(model: str, folder: Path, steps: int) -> dict[str, float]:
    """Train for some steps; the first ones, which load the file, count too."""
    from recsys.embeddings.planner import plan
    from recsys.training.train import train

    dataset = Dataset.load(folder)
    settings = TrainSettings(
        max_steps=steps,
        batch_size=BATCH,
        device="cpu",
        log_every=1000,
        tables=TableOptimizer(fused_lr=0.02),
    )
    with tempfile.TemporaryDirectory() as output:
        tables = plan(dataset, settings=PlanSettings(embedding_dim=DIM, dense_below=0))
        run = train(dataset, Path(output) / "run", model=MODELS[model], plan=tables, settings=settings)
        loss = run.metrics["loss"].drop_nulls()[-1]
        result = run.result
    return {
        "samples_per_second": result.rows_per_second,
        "data_wait_share": result.data_wait_share,
        "loss": loss,
    }


def peer_spec(folder: Path, dataset: Dataset, steps: int) -> Path:
    """What FuxiCTR needs to know of a dataset, as JSON."""
    sizes = {name: info.size for name, info in dataset.manifest.vocabularies.items()}
    sequences = {f.name: (sizes["item"], HISTORY, "item") for f in dataset.features if f.kind == "sequence"}
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
    ours: dict[str, list[dict[str, float]]] = {model: [] for model in MODELS}
    theirs: dict[str, list[float]] = {model: [] for model in MODELS}
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        datasets = {"wide": wide(folder / "wide"), "history": with_history(folder / "history")}
        for _ in range(1 if quick else ROUNDS):
            for model in MODELS:
                dataset = datasets["history" if model == "din" else "wide"]
                mine, peers = STEPS[model]
                steps = max(mine // 2, 6) if quick else mine
                command = [sys.executable, __file__, "--ours", model, str(dataset.folder), str(steps)]
                ours[model].append(_last_json(command))
                line = f"{model}: ours {ours[model][-1]['samples_per_second']:,.0f} samples/s"
                if not quick:
                    spec = peer_spec(folder, dataset, peers)
                    found = _last_json([str(PEER), str(PEER_SCRIPT), model, str(spec)])
                    theirs[model].append(found["samples_per_second"])
                    line += f", FuxiCTR {theirs[model][-1]:,.0f}"
                print(line, flush=True)
    _report(quick, ours, theirs, earlier)


def _report(
    quick: bool,
    ours: dict[str, list[dict[str, float]]],
    theirs: dict[str, list[float]],
    earlier: tuple[str, dict[str, Any]] | None,
) -> None:
    figures: dict[str, float | int | str | None] = {}
    spread = {}
    for model, runs in ours.items():
        speed = Spread.of([run["samples_per_second"] for run in runs])
        spread[f"ours_{model}"] = speed
        figures[f"ours_{model}"] = speed.median
        if earlier is not None:
            figures[f"fuxictr_{model}"] = earlier[1]["figures"][f"fuxictr_{model}"]
        else:
            spread[f"fuxictr_{model}"] = Spread.of(theirs[model])
            figures[f"fuxictr_{model}"] = spread[f"fuxictr_{model}"].median
        peer = figures[f"fuxictr_{model}"]
        assert isinstance(peer, float | int)
        figures[f"speedup_{model}"] = speed.median / peer
    waits = [Spread.of([run["data_wait_share"] for run in runs]).median for runs in ours.values()]
    figures["data_wait_share"] = max(waits)
    if earlier is not None:
        figures["peer_from"] = earlier[0]
    finish("training", figures, quick=quick, spread=spread)


def main() -> None:
    arguments = parser("training", str(__doc__))
    arguments.add_argument(
        "--ours", nargs=3, metavar=("MODEL", "DATASET", "STEPS"), help="internal: one run"
    )
    chosen = arguments.parse_args()
    if chosen.ours:
        model, folder, steps = chosen.ours
        print(json.dumps(train_ours(model, Path(folder), int(steps))))
    else:
        measure(chosen.quick)


if __name__ == "__main__":
    main()
