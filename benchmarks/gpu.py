"""The demo's AutoInt and DIN for 50 steps on a GPU: the CPU's loss curve within 1e-3, and how fast.

Without a GPU it says so and ends well.

    python benchmarks/gpu.py [--quick]
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import Spread, finish, parser
from numpy.typing import NDArray

from recsys.chain import run as run_chain
from recsys.config import ModelSettings, RunConfig, load_config
from recsys.data.dataset import Dataset
from recsys.data.synth import synth
from recsys.embeddings.plan import Plan
from recsys.training.run_folder import Run
from recsys.training.train import train

ROOT = Path(__file__).resolve().parents[1]
STEPS, TOLERANCE = 50, 1e-3
MODELS: dict[str, dict[str, Any]] = {"autoint": {"name": "autoint"}, "din": {"name": "din"}}


def prepared(work: Path, rows: int) -> tuple[RunConfig, Dataset, Plan]:
    """The demo's log, prepared and planned."""
    synth(ROOT / "data" / "synth_demo.yaml", work / "log", rows=rows)
    config = load_config(ROOT / "pipelines" / "demo.yaml", data=work / "log", output=work / "out")
    run_chain(config, until="plan")
    return config, Dataset.load(work / "out" / "dataset"), Plan.load(work / "out" / "plan" / "plan.json")


def trained(config: RunConfig, dataset: Dataset, plan: Plan, model: str, device: str, output: Path) -> Run:
    """Fifty steps on one device, every loss recorded."""
    settings = config.train.model_copy(
        update={"max_steps": STEPS, "log_every": 1, "device": device, "precision": "fp32"}
    )
    options = ModelSettings.model_validate(MODELS[model])
    return train(dataset, output, model=options, plan=plan, settings=settings)


def losses(run: Run) -> NDArray[np.float64]:
    """The loss of every step."""
    return run.metrics["loss"].drop_nulls().to_numpy()


def main() -> None:
    quick = parser("gpu", str(__doc__)).parse_args().quick
    if not torch.cuda.is_available():
        print("no GPU here: nothing measured")
        print(json.dumps({"skipped": "no GPU"}))
        return
    figures: dict[str, float | int | str | None] = {}
    spread: dict[str, Spread] = {}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        config, dataset, plan = prepared(work, 60_000 if quick else 250_000)
        for model in MODELS:
            cpu = trained(config, dataset, plan, model, "cpu", work / f"{model}-cpu")
            speeds = []
            for repeat in range(1 if quick else 3):
                gpu = trained(config, dataset, plan, model, "cuda", work / f"{model}-cuda-{repeat}")
                speeds.append(gpu.result.rows_per_second)
            difference = float(np.abs(losses(cpu) - losses(gpu)).max())
            spread[f"samples_per_second_{model}"] = Spread.of(speeds)
            figures[f"samples_per_second_{model}"] = spread[f"samples_per_second_{model}"].median
            figures[f"cpu_samples_per_second_{model}"] = cpu.result.rows_per_second
            figures[f"loss_difference_{model}"] = difference
    finish("gpu", figures, quick=quick, spread=spread, device="cuda")
    off = {
        key: value for key, value in figures.items() if key.startswith("loss_diff") and value > TOLERANCE
    }  # type: ignore[operator]
    if off:
        sys.exit(f"losses differ from the CPU's by more than {TOLERANCE}: {off}")


if __name__ == "__main__":
    main()
