"""Several processes, one run: who prepares, who waits.

Under ``torchrun`` every process runs the same command. Rank 0 brings the stages before training up to
date and says what is going on; the others wait at the launcher's store, which is there before any
process group, until it calls them to train.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, NoReturn

_KEY = "recsys/train"
_LONGEST_WAIT = timedelta(days=7)


def rank() -> int:
    """Number of this process, 0 where there is only one."""
    return int(os.environ.get("RANK", "0"))


def world() -> int:
    """Number of processes that train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def end(code: int) -> NoReturn:
    """End this process without the interpreter's tear-down.

    torch keeps references to process groups in caches of its own, also of groups that were left. With
    them live gloo's threads, and one that the tear-down meets aborts a process that has done all its work.
    """
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def announce(message: Mapping[str, Any]) -> None:
    """Call the waiting ranks to train; does nothing where there is one process."""
    if world() > 1:
        _store().set(_KEY, json.dumps(dict(message)))


def await_call() -> dict[str, Any]:
    """Wait until rank 0 calls; returns its message. The launcher ends the wait when rank 0 fails."""
    store = _store()
    store.wait([_KEY], _LONGEST_WAIT)
    message: dict[str, Any] = json.loads(store.get(_KEY))
    return message


def _store() -> Any:
    """The store at which torchrun's processes meet."""
    from torch.distributed.rendezvous import rendezvous

    store, _, _ = next(iter(rendezvous("env://", timeout=_LONGEST_WAIT)))
    return store
