"""Checkpoints: a torch.distributed.checkpoint folder written aside, then renamed, ``latest`` last.

    checkpoints/
      step-00001000/   tensors of model, tables and optimisers, and state.json
      latest best      each holds the name of a folder above; so does rewind, where gates are searched

Tables and their optimiser state are saved as row-sharded tensors, so that a checkpoint restores onto
any number of processes. Keys found are compared with keys expected: any difference is an error.
"""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch.distributed as dist
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor
from torch.distributed.checkpoint import state_dict_loader, state_dict_saver
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader

from recsys.errors import CheckpointError

STATE_FILE = "state.json"
ALL_DONE = "all "
"""Beginning of a reason to finish that asking for more epochs or steps undoes."""


class Position(BaseModel):
    """Where a run stands: the cursor and the schedules."""

    model_config = ConfigDict(extra="forbid")

    step: int = 0
    """Updates made."""
    epoch: int = 0
    batch: int = 0
    """Global batches of this epoch that have been used."""
    best_value: float | None = None
    """Best monitored value, higher is better."""
    best_step: int = 0
    stale: int = 0
    """Evaluations in a row without improvement."""
    lr_scale: float = 1.0
    finished: str | None = None
    """Why training ended; None while it goes on."""


class CheckpointState(BaseModel):
    """What ``state.json`` holds."""

    model_config = ConfigDict(extra="forbid")

    position: Position
    plan_fingerprint: str
    settings: str
    """Canonical JSON of the model and training settings that must not change on resume."""


class Checkpoints:
    """The checkpoints of one run.

    Args:
        folder: ``run/checkpoints``.
        keep: newest checkpoints kept beside the best one.
    """

    def __init__(self, folder: Path, keep: int = 2) -> None:
        self.folder = folder
        self._keep = keep

    def named(self, pointer: str) -> Path | None:
        """Folder that ``latest`` or ``best`` names; None where there is none."""
        try:
            name = (self.folder / pointer).read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            return None
        path = self.folder / name
        if not path.is_dir():
            raise CheckpointError(f"{self.folder / pointer} names {name!r}, which is not there")
        return path

    def save(self, tensors: Mapping[str, Tensor], state: CheckpointState, *, best: bool) -> Path:
        """Write a checkpoint on all ranks together; rank 0 renames it and moves the pointers."""
        position = state.position
        target = self.folder / _folder_name(position.step)
        aside = self.folder / f".{target.name}.partial"
        try:
            if dist.get_rank() == 0:
                shutil.rmtree(aside, ignore_errors=True)
                aside.mkdir(parents=True)
            dist.barrier()
            with _torch_notices_silenced():
                state_dict_saver.save(dict(tensors), checkpoint_id=aside)
            if dist.get_rank() == 0:
                (aside / STATE_FILE).write_text(state.model_dump_json(indent=2), encoding="utf-8")
                shutil.rmtree(target, ignore_errors=True)
                aside.rename(target)
                if best:
                    _point(self.folder / "best", target.name)
                _point(self.folder / "latest", target.name)
                self._prune()
            dist.barrier()
        except (OSError, CheckpointException) as error:
            shutil.rmtree(aside, ignore_errors=True)
            raise CheckpointError(
                f"{target}: cannot be written: {_cause(error)}; the checkpoints before it stand"
            ) from error
        return target

    def point(self, pointer: Literal["best", "rewind"], step: int) -> None:
        """Make the saved checkpoint of a step the best one, or the one that weights are rewound to."""
        if dist.get_rank() == 0:
            _point(self.folder / pointer, _folder_name(step))
        dist.barrier()

    def _prune(self) -> None:
        steps = sorted(path for path in self.folder.glob("step-*") if path.is_dir())
        kept = {self.named("best"), self.named("rewind")}
        for path in steps[: -self._keep]:
            if path not in kept:
                shutil.rmtree(path, ignore_errors=True)


def read_state(checkpoint: Path) -> CheckpointState:
    """Position and identity of a checkpoint; raises CheckpointError where it is damaged."""
    path = checkpoint / STATE_FILE
    try:
        return CheckpointState.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValidationError) as error:
        raise CheckpointError(f"{path}: not a readable checkpoint state: {error}") from error


def saved_shapes(checkpoint: Path) -> dict[str, tuple[int, ...] | None]:
    """Shape of every tensor of a checkpoint by key, None of other values; raises CheckpointError."""
    try:
        saved = FileSystemReader(checkpoint).read_metadata().state_dict_metadata
    except Exception as error:
        raise CheckpointError(f"{checkpoint}: its metadata cannot be read: {error}") from error
    sizes = {key: getattr(entry, "size", None) for key, entry in saved.items()}
    return {key: None if size is None else tuple(size) for key, size in sizes.items()}


def load_tensors(checkpoint: Path, into: Mapping[str, Tensor], *, allow_unused: bool = False) -> None:
    """Fill the given tensors in place from a checkpoint.

    Args:
        checkpoint: a ``step-*`` folder.
        into: tensors by key; sharded ones as DTensor.
        allow_unused: keys of the checkpoint that are not asked for are left aside, which serves a
            reader that wants weights without optimiser state.

    Raises:
        CheckpointError: the checkpoint is damaged, or its keys or shapes are not those asked for.
    """
    saved = saved_shapes(checkpoint)
    missing = sorted(set(into) - set(saved))
    unused = [] if allow_unused else sorted(set(saved) - set(into))
    if missing or unused:
        raise CheckpointError(
            f"{checkpoint}: keys differ; missing from it: {missing or 'none'}; "
            f"unknown here: {unused or 'none'}"
        )
    for key, tensor in into.items():
        size = saved[key]
        if size is not None and size != tuple(tensor.shape):
            raise CheckpointError(f"{checkpoint}: {key} has shape {size}, expected {tuple(tensor.shape)}")
    try:
        with _torch_notices_silenced():
            state_dict_loader.load(dict(into), checkpoint_id=checkpoint)
    except (Exception, CheckpointException) as error:
        raise CheckpointError(f"{checkpoint}: cannot be loaded: {_cause(error)}") from error


def require_same_settings(state: CheckpointState, plan: str, settings: str, origin: Path) -> None:
    """Raise CheckpointError when a checkpoint belongs to another plan or other settings."""
    if state.plan_fingerprint != plan:
        raise CheckpointError(
            f"{origin} was made with plan {state.plan_fingerprint}, this run has {plan}; "
            "train afresh (recsys run --force train), or with the plan and the sparsity it was made with"
        )
    if state.settings != settings:
        mine, theirs = json.loads(settings), json.loads(state.settings)
        changed = [
            f"{key}: {theirs.get(key)!r} → {mine.get(key)!r}"
            for key in sorted(set(mine) | set(theirs))
            if mine.get(key) != theirs.get(key)
        ]
        raise CheckpointError(f"{origin} was made with other settings: {'; '.join(changed)}")


def _cause(error: BaseException) -> str:
    """What went wrong on the first rank, without the tracebacks that DCP wraps around it."""
    if isinstance(error, CheckpointException) and error.failures:
        error = error.failures[min(error.failures)][0]
    return str(error).strip() or type(error).__name__


def _folder_name(step: int) -> str:
    return f"step-{step:08d}"


def _point(pointer: Path, name: str) -> None:
    aside = pointer.with_name(f".{pointer.name}.partial")
    aside.write_text(name + "\n", encoding="utf-8")
    aside.replace(pointer)


def _torch_notices_silenced() -> warnings.catch_warnings[None]:
    """DCP warns about its own internals; nothing in these is the user's to act on."""
    return warnings.catch_warnings(action="ignore", category=UserWarning)
