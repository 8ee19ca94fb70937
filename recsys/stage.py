"""Stages: what a folder of outputs was made from, whether that still holds, and how it is written.

Every output folder that the command line writes carries ``stage.json``: the fingerprints of its
inputs, its settings, the stage's hand-raised version, and the hashes of what it wrote. A stage is
stale when one of the first three changes. Files from outside are told apart by size, time and tail;
what one stage hands to the next by its content, so that a stage redone with the same result makes
nothing after it stale. A folder is written aside and renamed when it is whole, so that a reader never
sees half of one; its record is written last, so that a folder without one is simply made again.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl
import xxhash
from pydantic import BaseModel, ConfigDict, ValidationError

from recsys.errors import DataError

STAGE_FILE = "stage.json"
STARTED_FILE = "started.json"
"""The record of a training that has begun; an interrupted run with the same one is resumed."""
_OS_ERROR = re.compile(r"([^:]+) \(os error \d+\)")
"""How polars passes on what the operating system says, in an error of its own rather than an OSError."""
_FOOTER_TAIL = 64 * 1024


class Fingerprint(BaseModel):
    """What tells one state of an input file from another."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    size: int
    mtime_ns: int
    tail: str
    """Hash of the file's last 64 KiB, which hold a Parquet file's footer; of all of it, for what a
    stage wrote."""


class StageRecord(BaseModel):
    """The one schema of every ``stage.json``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    stage: str
    version: int
    inputs: dict[str, Fingerprint]
    """By path."""
    settings: dict[str, Any]
    """By dotted key."""
    outputs: dict[str, Fingerprint] = {}
    """By path inside the folder; not part of the comparison."""
    seconds: float = 0.0
    """How long the stage took; not part of the comparison."""
    rows: int | None = None
    """Rows that the stage read; not part of the comparison."""

    def reason_stale(self, earlier: StageRecord) -> str | None:
        """Why an earlier record does not serve for this one; None when it does."""
        if self.version != earlier.version:
            return f"stage version {earlier.version} → {self.version}"
        for path in sorted(set(self.inputs) | set(earlier.inputs)):
            if path not in earlier.inputs:
                return f"new input {path}"
            if path not in self.inputs:
                return f"input {path} is gone"
            if self.inputs[path] != earlier.inputs[path]:
                return f"input {path} changed"
        for key in sorted(set(self.settings) | set(earlier.settings)):
            mine, theirs = self.settings.get(key), earlier.settings.get(key)
            if mine != theirs:
                return f"setting {key}: {theirs!r} → {mine!r}"
        return None

    def save(self, folder: Path, name: str = STAGE_FILE) -> None:
        """Write ``stage.json`` into a folder."""
        with file_aside(folder / name) as aside:
            aside.write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")


def fingerprint(path: Path) -> Fingerprint:
    """Fingerprint one file; raises DataError that names it when it cannot be read."""
    try:
        status = path.stat()
        with path.open("rb") as file:
            file.seek(max(0, status.st_size - _FOOTER_TAIL))
            tail = hashlib.sha256(file.read()).hexdigest()[:16]
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    return Fingerprint(size=status.st_size, mtime_ns=status.st_mtime_ns, tail=tail)


def fingerprints(paths: Sequence[Path]) -> dict[str, Fingerprint]:
    """Fingerprints of files, keyed by path as given."""
    return {str(path): fingerprint(path) for path in paths}


def content(path: Path, recorded: Fingerprint | None = None) -> Fingerprint:
    """Fingerprint a file by all of its content; the time in it is the file's own.

    The hash is taken from ``recorded`` where size and time say that the file is still the same.
    Raises DataError that names the file when it cannot be read.
    """
    try:
        status = path.stat()
        same = recorded is not None and (status.st_size, status.st_mtime_ns) == (
            recorded.size,
            recorded.mtime_ns,
        )
        if recorded is not None and same:
            return recorded
        digest = xxhash.xxh3_128()
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    return Fingerprint(size=status.st_size, mtime_ns=status.st_mtime_ns, tail=digest.hexdigest())


def outputs_of(folder: Path, patterns: Sequence[str]) -> dict[str, Fingerprint]:
    """Content of the files in a folder that match, by path inside the folder."""
    paths = {path for pattern in patterns for path in folder.glob(pattern) if path.is_file()}
    return {path.relative_to(folder).as_posix(): content(path) for path in sorted(paths)}


def handed_on(folder: Path, patterns: Sequence[str]) -> dict[str, Fingerprint]:
    """What a finished stage hands to the next: content without times, by ``FOLDER/path``.

    A file that a person edited since has its new content. Raises DataError where nothing matches.
    """
    record = load_record(folder)
    recorded = record.outputs if record is not None else {}
    found = {}
    for path in sorted({path for pattern in patterns for path in folder.glob(pattern) if path.is_file()}):
        name = path.relative_to(folder).as_posix()
        now = content(path, recorded.get(name))
        found[f"{folder.name}/{name}"] = now.model_copy(update={"mtime_ns": 0})
    if not found:
        raise DataError(f"{folder}: holds no {' or '.join(patterns)}; that stage is not made yet")
    return found


def is_edited(folder: Path, name: str) -> bool:
    """True when a file is no longer what its stage wrote; False where that cannot be told."""
    record = load_record(folder)
    if record is None or name not in record.outputs or not (folder / name).is_file():
        return False
    earlier = record.outputs[name]
    return content(folder / name, earlier).tail != earlier.tail


def load_record(folder: Path, name: str = STAGE_FILE) -> StageRecord | None:
    """The record of a finished stage; None where there is none that can be read."""
    try:
        return StageRecord.model_validate_json((folder / name).read_text(encoding="utf-8"))
    except (OSError, ValidationError):
        return None


def why_redo(folder: Path, wanted: StageRecord) -> str | None:
    """Why the stage in a folder must be redone; None when it is up to date."""
    earlier = load_record(folder)
    if earlier is None:
        return "not made yet"
    reason = wanted.reason_stale(earlier)
    if reason is not None:
        return f"stale: {reason}"
    for name in earlier.outputs:
        if not (folder / name).is_file():
            return f"stale: {folder.name}/{name} is gone"
        if content(folder / name, earlier.outputs[name]).tail != earlier.outputs[name].tail:
            return f"stale: {folder.name}/{name} was changed since"
    return None


def require_ours(folder: Path, marker: str) -> None:
    """Raise DataError rather than let a folder be replaced that holds other things than ``marker``'s stage.

    A folder that is not there, is empty, or holds the file ``marker`` may be replaced.
    """
    if folder.is_file():
        raise DataError(f"{folder}: expected a folder to write, found a file; name a new folder")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / marker).is_file():
        raise DataError(
            f"{folder}: holds files but no {marker}, so recsys did not write it and does not replace it; "
            "name a new folder"
        )


@contextmanager
def written_aside(target: Path, marker: str | None = None) -> Iterator[Path]:
    """Yield an empty folder beside ``target`` that replaces it when the block ends well.

    On any error the folder is removed and ``target`` stays as it was. A full disk becomes a
    DataError that names the target. ``marker``, a file that the stage always writes, keeps a folder
    of other things from being replaced (see ``require_ours``).
    """
    target = Path(target)
    if marker is not None:
        require_ours(target, marker)
    aside = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        with writing(target):
            aside.mkdir(parents=True)
            yield aside
            _replace(aside, target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


@contextmanager
def file_aside(path: Path) -> Iterator[Path]:
    """Yield a path beside a file that takes its place when the block ends well; see ``written_aside``."""
    if path.is_dir():
        raise DataError(f"{path}: expected a file to write, found a folder; name a file in it")
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.partial")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield aside
            aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)


@contextmanager
def writing(target: Path) -> Iterator[None]:
    """Turn what the operating system or polars says of a full disk into a DataError naming ``target``."""
    try:
        yield
    except OSError as error:
        raise DataError(f"{target}: cannot be written: {error.strerror or error}") from error
    except pl.exceptions.PolarsError as error:
        reason = os_error_in(error)
        if reason is None:
            raise
        raise DataError(f"{target}: cannot be written: {reason}") from error


def os_error_in(error: pl.exceptions.PolarsError) -> str | None:
    """What the operating system said, such as "No space left on device", where polars passes it on.

    >>> os_error_in(pl.exceptions.ComputeError("IO error: File too large (os error 27)"))
    'File too large'
    """
    found = _OS_ERROR.search(str(error))
    return None if found is None else found[1].strip()


def _replace(aside: Path, target: Path) -> None:
    """Move a finished folder into place; the old one is kept until the new one is there."""
    old = target.with_name(f"{aside.name}.old")
    if target.exists():
        target.rename(old)
    try:
        aside.rename(target)
    except OSError:
        if old.exists():
            old.rename(target)
        raise
    if old.is_dir():
        shutil.rmtree(old, ignore_errors=True)
    elif old.exists():
        old.unlink()


def settings_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as plain JSON values by dotted key, so that a difference names one of them.

    >>> settings_of({"train": {"epochs": 2, "dense": {"lr": 0.1}}, "keep": None})
    {'train.epochs': 2, 'train.dense.lr': 0.1, 'keep': None}
    """
    found: dict[str, Any] = {}
    for key, value in values.items():
        plain = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
        if isinstance(plain, Mapping) and plain:
            found.update({f"{key}.{inner}": item for inner, item in settings_of(plain).items()})
        else:
            found[key] = _plain(plain)
    return found


def _plain(value: Any) -> Any:
    """A value as JSON would give it back."""
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
