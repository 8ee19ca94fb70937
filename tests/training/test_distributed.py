"""Two gloo processes with row-wise sharded tables follow one process's loss curve."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recsys.data.dataset import Dataset
from recsys.training.loaded import score_dataset
from recsys.training.train import train
from tests.training.made import made_dataset
from tests.training.ranks_script import CASES, plan_of, settings_of
from tests.training.retrieval_cases import RETRIEVAL_CASES
from tests.training.retrieval_log import made_retrieval_dataset

ROOT = Path(__file__).parents[2]
SCRIPT = Path(__file__).with_name("ranks_script.py")
READ_BY_ONE = [
    "autoint_plus-dense",
    "din-fused",
    "shared-din-fused",
    "sparse-autoint_plus-dense",
    "sparse-dnn-dense-one_dial",
    "average-dnn-dense",
]
TORCHRUN = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]


def _launch(arguments: list[str]) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    base = tmp_path_factory.mktemp("ranks")
    made_dataset(base / "dataset", rows=500)
    positives = made_retrieval_dataset(base / "log", rows=500)
    read = [str(SCRIPT), str(base / "dataset"), str(positives.folder)]
    _launch([*read, str(base / "one")])
    _launch([*TORCHRUN, *read, str(base / "two")])
    return base / "one", base / "two"


@pytest.mark.distributed
@pytest.mark.parametrize("case", CASES)
def test_two_processes_follow_the_curve_of_one(folders: tuple[Path, Path], case: str) -> None:
    """500 rows in batches of 97: every sixth batch holds 15 rows."""
    curves = [pl.read_ndjson(folder / case / "metrics.jsonl") for folder in folders]
    losses = [curve["loss"].drop_nulls().to_numpy() for curve in curves]
    assert [len(loss) for loss in losses] == [50, 50]
    np.testing.assert_allclose(losses[0], losses[1], atol=1e-5, rtol=0)
    assert abs(losses[0][0] - losses[0][-1]) > 0.01
    valid = [curve["valid/auc"].drop_nulls().to_numpy() for curve in curves]
    np.testing.assert_allclose(valid[0], valid[1], atol=1e-4, rtol=0)


@pytest.mark.distributed
@pytest.mark.parametrize("case", READ_BY_ONE)
def test_a_run_of_two_processes_is_read_and_resumed_by_one(folders: tuple[Path, Path], case: str) -> None:
    one, two = (folder / case for folder in folders)
    np.testing.assert_allclose(score_dataset(one, "test"), score_dataset(two, "test"), atol=1e-4)
    model, _ = CASES[case]
    settings = settings_of(case).model_copy(update={"max_steps": 60})
    losses = []
    dataset = Dataset.load(one.parent.parent / "dataset")
    plan = plan_of(case, dataset)
    for folder in (one, two):
        run = train(dataset, folder, model=model, plan=plan, settings=settings, resume=True)
        losses.append(run.metrics["loss"].drop_nulls().to_numpy())
    assert len(losses[0]) == 60
    np.testing.assert_allclose(losses[0], losses[1], atol=1e-5, rtol=0)


@pytest.mark.distributed
@pytest.mark.parametrize("case", RETRIEVAL_CASES)
def test_processes_that_share_negatives_follow_one(folders: tuple[Path, Path], case: str) -> None:
    curves = [pl.read_ndjson(folder / case / "metrics.jsonl") for folder in folders]
    losses = [curve["loss"].drop_nulls().to_numpy() for curve in curves]
    assert [len(loss) for loss in losses] == [40, 40]
    np.testing.assert_allclose(losses[0], losses[1], atol=2e-5, rtol=0)
    assert losses[0][0] - losses[0][-1] > 0.05
    for metric in ("valid/recall", "valid/ndcg"):
        measured = [curve[metric].drop_nulls().to_numpy() for curve in curves]
        np.testing.assert_allclose(measured[0], measured[1], atol=2e-3, rtol=0)
