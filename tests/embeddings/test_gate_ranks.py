"""Gates over two gloo processes, against one: losses, gradients of the gates, and what is learnt."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch.multiprocessing as processes

from recsys.data.dataset import Dataset
from tests.embeddings.gate_job import CASES, WORLD, job, learn
from tests.training.made import made_dataset


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes found."""
    folder = tmp_path_factory.mktemp("gates")
    made_dataset(folder / "dataset", rows=100)
    processes.spawn(job, (folder,), nprocs=WORLD)
    return folder


@pytest.mark.distributed
@pytest.mark.parametrize("case", CASES)
def test_two_processes_find_the_losses_and_gate_gradients_of_one(folder: Path, case: str) -> None:
    expected = learn(Dataset.load(folder / "dataset"), case)
    with np.load(folder / f"{case}.npz") as found:
        assert set(found.files) == set(expected)
        for key, value in expected.items():
            np.testing.assert_allclose(found[key], value, rtol=1e-5, atol=1e-6, err_msg=key)
    assert (np.abs(expected["gradients"]).max(axis=1) > 1e-3).all()
    assert np.ptp(expected["theta"]) > 0.1
