"""Commands as processes of their own: seconds from start to exit, and the memory of all they start."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

_MEBIBYTE = 2**20


@dataclass
class Run:
    """A process from start to exit, with the processes it starts."""

    seconds: float
    peak_mib: float
    """Largest sum over the processes of their proportional set size, or of their high-water marks."""
    output: str


def run(
    command: Sequence[str | Path], *, memory: Callable[[int], int] | None = None, every: float = 0
) -> Run:
    """Run a command; where memory is asked for, look at its processes ``every`` so many seconds."""
    words = [str(word) for word in command]
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        started = time.perf_counter()
        process = subprocess.Popen(words, stdout=output, stderr=errors)
        peak = [0]
        done = threading.Event()
        if memory is not None:
            watch = threading.Thread(target=_watch, args=(process.pid, memory, every, peak, done))
            watch.start()
        code = process.wait()
        seconds = time.perf_counter() - started
        done.set()
        if memory is not None:
            watch.join()
        output.seek(0)
        errors.seek(0)
        if code:
            sys.exit(f"{' '.join(words)} failed:\n{output.read()}\n{errors.read()}")
        return Run(seconds, peak[0] / _MEBIBYTE, output.read())


def _watch(
    root: int, memory: Callable[[int], int], every: float, peak: list[int], done: threading.Event
) -> None:
    while not done.wait(every):
        peak[0] = max(peak[0], sum(memory(process) for process in _tree(root)))


def _tree(root: int) -> list[int]:
    """A process and all that descend from it."""
    found = [root]
    for process in found:
        for children in Path(f"/proc/{process}/task").glob("*/children"):
            try:
                found += [int(child) for child in children.read_text().split()]
            except OSError:
                continue
    return found


def proportional(process: int) -> int:
    """Bytes of a process with what it shares counted in part."""
    return _kibibytes(Path(f"/proc/{process}/smaps_rollup"), "Pss:")


def high_water(process: int) -> int:
    """Most bytes that a process has had resident, shared libraries counted in full."""
    return _kibibytes(Path(f"/proc/{process}/status"), "VmHWM:")


def _kibibytes(path: Path, field_name: str) -> int:
    try:
        lines = path.read_text().splitlines()
    except OSError:  # it has ended
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(field_name)), 0)
