"""What the checkpoints of a run hold."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from torch.distributed.checkpoint.state_dict_loader import _load_state_dict_from_keys

from recsys.training.checkpoint import Checkpoints
from recsys.training.distributed import distributed


def saved_tensors(run: Path) -> dict[str, torch.Tensor]:
    """Tensors of the newest checkpoint of a run folder, by key."""
    newest = Checkpoints(run / "checkpoints").named("latest")
    assert newest is not None
    return checkpoint_tensors(newest)


def saved_bytes(run: Path) -> dict[str, bytes]:
    """The same, to be compared to the bit."""
    return {key: value.numpy().tobytes() for key, value in saved_tensors(run).items()}


def checkpoint_tensors(checkpoint: Path) -> dict[str, torch.Tensor]:
    """Tensors of one checkpoint, by key."""
    with distributed("cpu"):
        return _flat(_load_state_dict_from_keys(checkpoint_id=checkpoint))


def stopped_at(whole: Path, folder: Path, step: int) -> Path:
    """A run folder as it was when its checkpoint of a step had been written."""
    shutil.copytree(whole, folder)
    checkpoints = folder / "checkpoints"
    for path in checkpoints.glob("step-*"):
        if int(path.name[5:]) > step:
            shutil.rmtree(path)
    (checkpoints / "latest").write_text(f"step-{step:08d}\n")
    if int((checkpoints / "best").read_text()[5:]) > step:
        (checkpoints / "best").unlink()
    (folder / "result.json").unlink()
    return folder


def _flat(state: dict[str, object], prefix: str = "") -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = {}
    for key, value in state.items():
        if isinstance(value, dict):
            tensors.update(_flat(value, f"{prefix}{key}."))
        else:
            assert isinstance(value, torch.Tensor)
            tensors[f"{prefix}{key}"] = value
    return tensors
