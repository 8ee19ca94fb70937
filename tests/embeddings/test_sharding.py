"""Tables sharded over several gloo processes, against one process."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
import torch.multiprocessing as processes

from recsys.embeddings.initial import BLOCK_ROWS, initial_rows
from recsys.embeddings.sharding import TableShard
from recsys.errors import ConfigError
from recsys.training.distributed import distributed
from tests.embeddings.rank_job import CASES, MORE, STEPS, WORLD, Case, Learner, job, quiet_dcp


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process learnt and saved, and what three did."""
    folder = tmp_path_factory.mktemp("ranks")
    with distributed("cpu"), warnings.catch_warnings():
        quiet_dcp()
        _one(folder, CASES)
    processes.spawn(job, (WORLD, folder, CASES), nprocs=WORLD)
    return folder


def _one(folder: Path, cases: Mapping[str, Case]) -> None:
    for name, case in cases.items():
        learner = Learner(case)
        learner.learn(STEPS)
        dcp.save(learner.tensors(), checkpoint_id=folder / "one" / name)
        np.savez(folder / f"{name}.one.npz", losses=learner.losses, **learner.arrays())
        learner.losses.clear()
        learner.learn(MORE, first=len(STEPS))
        np.savez(folder / f"{name}.one-more.npz", losses=learner.losses, **learner.arrays())


def _assert_same(folder: Path, one: str, many: str) -> None:
    with np.load(folder / f"{one}.npz") as expected, np.load(folder / f"{many}.npz") as found:
        assert set(expected.files) == set(found.files)
        for key in expected.files:
            np.testing.assert_allclose(found[key], expected[key], rtol=1e-6, atol=1e-6, err_msg=key)


@pytest.mark.distributed
@pytest.mark.parametrize("case", CASES)
def test_several_processes_learn_what_one_learns(folder: Path, case: str) -> None:
    _assert_same(folder, f"{case}.one", f"{case}.learnt")
    with np.load(folder / f"{case}.one.npz") as one:
        name = "shared" if CASES[case].dealt else "day"
        weights, zeros = one[f"table.{name}"], name == "day"
        first = initial_rows(name, *weights.shape, range(2), seed=3, std=0.1, zeros=zeros).numpy()
        assert np.abs(weights[:2] - first).max() > 0.01


@pytest.mark.distributed
@pytest.mark.parametrize("case", CASES)
def test_one_process_s_checkpoint_restores_onto_several(folder: Path, case: str) -> None:
    with np.load(folder / f"{case}.one.npz") as one:
        expected = {key: one[key] for key in one.files if key != "losses"}
    with np.load(folder / f"{case}.loaded.npz") as found:
        assert set(found.files) == set(expected)
        for key, value in expected.items():
            np.testing.assert_array_equal(found[key], value, err_msg=key)
    _assert_same(folder, f"{case}.one-more", f"{case}.more")


@pytest.mark.distributed
@pytest.mark.parametrize("case", CASES)
def test_several_processes_checkpoint_restores_onto_one(folder: Path, case: str) -> None:
    with distributed("cpu"), warnings.catch_warnings():
        quiet_dcp()
        learner = Learner(CASES[case], seed=9)
        learner.load(folder / "many" / case)
        found = learner.arrays()
    with np.load(folder / f"{case}.learnt.npz") as many:
        for key, value in found.items():
            np.testing.assert_array_equal(value, many[key], err_msg=key)


@pytest.mark.parametrize("world", [1, 2, 3, 7])
@pytest.mark.parametrize("rows", [1, 2, 6, 7, 23])
def test_blocks_cover_every_row_once(rows: int, world: int) -> None:
    shards = [
        TableShard.of("t", rows, 10, "fused", torch.device("cpu"), rank, world) for rank in range(world)
    ]
    assert [row for shard in shards for row in shard.part] == list(range(rows))
    sizes = [len(block) for block in torch.arange(rows).chunk(world)]
    assert [len(shard.part) for shard in shards] == sizes + [0] * (world - len(sizes))
    assert all(shard.part.start in (rank * shard.block, rows) for rank, shard in enumerate(shards))
    assert {shard.storage_dim for shard in shards} == {12}


def test_first_weights_do_not_depend_on_the_cut() -> None:
    rows = 2 * BLOCK_ROWS + 5_000
    whole = initial_rows("t", rows, 3, range(rows), seed=1, std=0.5)
    cuts = itertools.pairwise((0, 1, 70_000, BLOCK_ROWS * 2, rows))
    pieces = [initial_rows("t", rows, 3, range(*cut), seed=1, std=0.5) for cut in cuts]
    assert torch.equal(torch.cat(pieces), whole)
    assert not whole[:2].any()
    assert whole[2:].std().item() == pytest.approx(0.5, rel=0.01)
    assert not torch.equal(whole[:100], whole[BLOCK_ROWS : BLOCK_ROWS + 100])
    assert initial_rows("t", rows, 3, range(rows, rows), seed=1, std=0.5).shape == (0, 3)


@pytest.fixture
def torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0")):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "0")


def test_a_lone_process_is_a_group_of_one_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("GLOO_SOCKET_IFNAME", raising=False)
    for _ in range(2):
        with distributed("cpu") as ranks:
            assert (ranks.rank, ranks.world, ranks.device) == (0, 1, torch.device("cpu"))
            assert dist.get_world_size(ranks.group) == 1
            with distributed("cpu") as again:
                assert again.group is ranks.group
            assert dist.is_initialized()
        assert not dist.is_initialized()
    with pytest.raises(RuntimeError, match="lost"), distributed("cpu"):
        raise RuntimeError("lost")
    assert not dist.is_initialized()


def test_torchrun_s_environment_is_used(torchrun: None) -> None:
    with distributed("cpu") as ranks:
        assert (ranks.rank, ranks.world) == (0, 1)


def test_cuda_without_a_gpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(ConfigError, match="finds 0 GPU"), distributed("cuda"):
        pass
