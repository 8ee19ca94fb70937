"""Which process this is among how many: one process and many run the same code.

``torchrun`` says so through its environment. Without it, a group of one is made in memory, so that
collectives, sharded tables and checkpoints need no second code path.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
import torch.distributed as dist
from torch.distributed import HashStore, PrefixStore, rendezvous  # type: ignore[attr-defined]

from recsys.errors import ConfigError

DeviceName = Literal["auto", "cpu", "cuda"]
_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
_ENTERED = itertools.count()
_INTERFACE = "GLOO_SOCKET_IFNAME"


@dataclass(frozen=True)
class Distributed:
    """This process and its group, which is torch's default group."""

    rank: int
    world: int
    device: torch.device
    group: dist.ProcessGroup


@contextmanager
def distributed(device: DeviceName = "auto") -> Iterator[Distributed]:
    """Join the processes that ``torchrun`` started, or be a group of one; leaves it at the end.

    A group that is up already is used and left up. The CPU talks over gloo, GPUs over NCCL.

    Args:
        device: ``auto`` takes a GPU where there is one.

    Raises:
        ConfigError: ``cuda`` without a GPU for this process.

    >>> with distributed("cpu") as ranks:
    ...     ranks.rank, ranks.world
    (0, 1)
    """
    chosen = _choose(device)
    if dist.is_initialized():
        yield _context(chosen)
        return
    backend = "gloo"
    if chosen.type == "cuda":
        backend = "cpu:gloo,cuda:nccl"
        torch.cuda.set_device(chosen)
    bound = chosen if chosen.type == "cuda" else None
    if all(name in os.environ for name in _TORCHRUN):
        store, rank, world = next(rendezvous("env://"))
        # A prefix of its own for every group: keys of one that has been left would misdirect the next.
        fresh = PrefixStore(f"recsys/{next(_ENTERED)}", store)
        dist.init_process_group(backend, store=fresh, rank=rank, world_size=world, device_id=bound)
    else:
        with _loopback():
            dist.init_process_group(backend, store=HashStore(), rank=0, world_size=1, device_id=bound)
    try:
        yield _context(chosen)
    finally:
        dist.destroy_process_group()


def _context(device: torch.device) -> Distributed:
    group = dist.group.WORLD
    assert group is not None
    return Distributed(dist.get_rank(), dist.get_world_size(), device, group)


def _choose(device: DeviceName) -> torch.device:
    """The device of this process; each process of one machine takes its own GPU."""
    if device == "cpu" or (device == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    local_rank, found = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if local_rank >= found:
        raise ConfigError(
            f"train.device is {device!r}, but process {local_rank} of this machine finds {found} GPU(s); "
            "start at most one process per GPU, or set train.device to cpu"
        )
    return torch.device("cuda", local_rank)


@contextmanager
def _loopback() -> Iterator[None]:
    """Let a group of one bind to no outside interface: its name may not even resolve."""
    before = os.environ.get(_INTERFACE)
    os.environ.setdefault(_INTERFACE, "lo")
    try:
        yield
    finally:
        if before is None:
            del os.environ[_INTERFACE]
