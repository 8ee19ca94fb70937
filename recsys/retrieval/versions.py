"""The folder of an index: versions and deltas beside each other, and one pointer swapped atomically.

``CURRENT`` names a version and the delta on top of it. A reader reads it once and sees that pair or the
next, never parts of both. What the pointer no longer names stays until the next swap, for readers that
are just opening it; files that a reader has mapped live on for as long as it holds them.
"""

from __future__ import annotations

import fcntl
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from recsys.errors import RetrievalError
from recsys.stage import file_aside, require_ours, written_aside

CURRENT_FILE = "CURRENT"
_LOCK_FILE = ".lock"


@dataclass(frozen=True)
class Current:
    """What the pointer names: folders inside the index."""

    version: str
    delta: str | None


def read_current(folder: Path) -> Current:
    """The pointer; raises RetrievalError where there is none or it is damaged."""
    path = folder / CURRENT_FILE
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        current = Current(**values)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise RetrievalError(
            f"{folder}: not an index (no {CURRENT_FILE}); build one with "
            f"'recsys index VECTORS --output {folder}'"
        ) from error
    except OSError as error:
        raise RetrievalError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, TypeError) as error:
        raise RetrievalError(f"{path}: damaged: {error}; build the index again or copy it again") from error
    for name in (current.version, current.delta):
        if name is not None and (not isinstance(name, str) or Path(name).name != name):
            raise RetrievalError(f"{path}: damaged: names {name!r}; build the index again or copy it again")
    return current


@contextmanager
def one_writer(folder: Path) -> Iterator[None]:
    """Keep other writers out while the block runs; raises RetrievalError where one is at work."""
    if not folder.is_dir() or not all(path.name.startswith(".") for path in folder.iterdir()):
        require_ours(folder, CURRENT_FILE)
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with (folder / _LOCK_FILE).open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise RetrievalError(
                    f"{folder}: another process is writing this index; wait for it"
                ) from error
            for left in folder.glob(".*.partial"):  # of a writer that was killed
                shutil.rmtree(left, ignore_errors=True)
            yield
    finally:
        if not (folder / CURRENT_FILE).exists():
            (folder / _LOCK_FILE).unlink(missing_ok=True)
            if made:
                shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def new_folder(folder: Path, kind: str) -> Iterator[tuple[Path, str]]:
    """Yield an empty folder that joins the index when the block ends well, and the name it will have."""
    numbers = [int(path.name.rpartition("-")[2]) for path in folder.glob(f"{kind}-[0-9]*")]
    name = f"{kind}-{max(numbers, default=0) + 1:06d}"
    with written_aside(folder / name) as aside:
        yield aside, name


def publish(folder: Path, current: Current) -> None:
    """Point to a finished version and delta, and remove what neither this nor the last pointer names."""
    path = folder / CURRENT_FILE
    before = read_current(folder) if path.exists() else current
    with file_aside(path) as aside:
        aside.write_text(json.dumps({"version": current.version, "delta": current.delta}) + "\n")
    kept = {current.version, current.delta, before.version, before.delta}
    for old in (*folder.glob("version-[0-9]*"), *folder.glob("delta-[0-9]*")):
        if old.name not in kept:
            shutil.rmtree(old, ignore_errors=True)
