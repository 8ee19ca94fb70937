"""Stages: what a folder of outputs was made from, whether that still holds, and how it is written.

Every output folder carries ``stage.json``: the fingerprints of its inputs, its settings, and the
stage's hand-raised version. A stage is stale when one of these changes. A folder is written aside
and renamed when it is whole, so that a reader never sees half of one.
"""

from __future__ import annotations

import hashlib
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from recsys.errors import DataError

STAGE_FILE = "stage.json"
_FOOTER_TAIL = 64 * 1024


class Fingerprint(BaseModel):
    """What tells one state of an input file from another."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    size: int
    mtime_ns: int
    tail: str
    """Hash of the file's last 64 KiB, which hold a Parquet file's footer."""


class StageRecord(BaseModel):
    """The one schema of every ``stage.json``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    stage: str
    version: int
    inputs: dict[str, Fingerprint]
    """By path."""
    settings: dict[str, Any]
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

    def save(self, folder: Path) -> None:
        """Write ``stage.json`` into a folder."""
        (folder / STAGE_FILE).write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")


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


def load_record(folder: Path) -> StageRecord | None:
    """The record of a finished stage; None where there is none that can be read."""
    try:
        return StageRecord.model_validate_json((folder / STAGE_FILE).read_text(encoding="utf-8"))
    except (OSError, ValidationError):
        return None


def reason_stale(folder: Path, wanted: StageRecord) -> str | None:
    """Why the stage in a folder must be redone; None when it is up to date."""
    earlier = load_record(folder)
    if earlier is None:
        return "not made yet"
    return wanted.reason_stale(earlier)


@contextmanager
def written_aside(target: Path) -> Iterator[Path]:
    """Yield an empty folder beside ``target`` that replaces it when the block ends well.

    On any error the folder is removed and ``target`` stays as it was. A full disk becomes a
    DataError that names the target.
    """
    target = Path(target)
    aside = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        aside.mkdir(parents=True)
        yield aside
        _replace(aside, target)
    except OSError as error:
        raise DataError(f"{target}: cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


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
    """Settings as plain JSON values, so that they compare equal after a round trip through a file."""
    return {
        key: value.model_dump(mode="json") if isinstance(value, BaseModel) else value
        for key, value in values.items()
    }
