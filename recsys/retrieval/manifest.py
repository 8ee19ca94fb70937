"""What one version of an index says of itself: ``manifest.json``, its fingerprint over every file."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

import recsys
from recsys.errors import RetrievalError
from recsys.retrieval.dense import DenseDtype, Metric
from recsys.retrieval.given_ids import IdType
from recsys.stage import content

MANIFEST_FILE = "manifest.json"
DELTA_FILE = "delta.json"
FORMAT: Literal["recsys-index"] = "recsys-index"
VERSION: Literal[2] = 2
_PACKAGES = ("faiss-cpu", "numpy", "polars", "pyarrow")
_ADVICE = "build the index again, or copy it again"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FileRecord(_Part):
    """What one file must look like."""

    bytes: int
    xxh3: str
    """xxh3_128 of the content."""


class VectorsRecord(_Part):
    """One file of dense vectors. A version has one today; the list leaves room for those of two towers."""

    file: str
    dim: int
    dtype: DenseDtype
    tower: str | None = None
    """Fingerprint of the query tower that these vectors are for; None: not known."""


class CoarseRecord(_Part):
    """The codes in memory and how they are searched."""

    lists: int
    segments: int
    """Parts that a code has."""
    bits: Literal[4, 8]
    """Bits of each part."""
    code_bytes: int
    by_residual: bool
    probes: int
    """Lists searched per query."""
    candidates: int
    """Rows that codes hand to the dense vectors, per query."""
    k: int
    """Answers that probes and candidates were chosen for."""
    bytes_per_item: float | None = None
    """Memory that was asked for; None: as little as reached the recall."""
    routing: Literal["centroids", "learned"]
    """What chooses the lists: the centroids, or weights learned from queries."""
    codebooks: str
    """How the codebooks were made."""
    tried: dict[str, float]
    """Recall of the candidates that each kind of codebooks gave on a sample of the items."""
    learned: dict[str, float]
    """The same on all items, with as many candidates as are used, of codebooks that were not and were
    learned from queries."""


class Measured(_Part):
    """What the finished index answers, against an exact search of the vectors as they were given."""

    k: int
    recall: float
    wanted_recall: float | None
    queries: int
    queries_from: Literal["given", "items"]
    """``items``: item vectors stood in for queries, each without itself among its answers."""
    milliseconds: float
    """Median of one query at a time."""
    exact_milliseconds: float
    memory_bytes_per_item: float
    """Codes, row numbers and tables held in memory; 0 for an exact index. Mapped files are not in it."""


class IndexManifest(_Part):
    """What ``manifest.json`` holds."""

    format: Literal["recsys-index"] = FORMAT
    version: Literal[2] = VERSION
    packages: dict[str, str]
    metric: Metric
    rows: int
    id_type: IdType
    id_column: str
    attributes: dict[str, str]
    """Type of each, by name."""
    vectors: tuple[VectorsRecord, ...] = Field(min_length=1, max_length=1)
    coarse: CoarseRecord | None
    """None: every search is exact."""
    measured: Measured | None
    files: dict[str, FileRecord]
    """Every file but the manifest itself, by name."""
    fingerprint: str = ""
    """Hash of all of the above, set when it is saved: towers, codebooks, codes, vectors and ids in one."""

    @property
    def dense(self) -> VectorsRecord:
        return self.vectors[0]

    @model_validator(mode="after")
    def _files_lie_inside(self) -> IndexManifest:
        for name in (*self.files, self.dense.file):
            if "/" in name or "\\" in name or name in ("", ".", ".."):
                raise ValueError(f"files: {name!r} does not lie in the folder")
        if self.dense.file not in self.files:
            raise ValueError(f"files: {self.dense.file!r} is not listed")
        return self


class DeltaManifest(_Part):
    """What ``delta.json`` holds: rows that came and went since a base version was built."""

    format: Literal["recsys-index-delta"] = "recsys-index-delta"
    base: str
    """Fingerprint of the base version."""
    rows: int
    dead: int
    """Base rows that were deleted or replaced."""
    dtype: DenseDtype
    files: dict[str, FileRecord]
    fingerprint: str = ""


def packages() -> dict[str, str]:
    """Versions of what takes part in writing an index."""
    return {"recsys": recsys.__version__} | {name: importlib.metadata.version(name) for name in _PACKAGES}


Manifest = TypeVar("Manifest", IndexManifest, DeltaManifest)


def file_records(folder: Path) -> dict[str, FileRecord]:
    """Size and hash of every file in a folder that is being written."""
    found = {}
    for path in sorted(folder.iterdir()):
        seen = content(path)
        found[path.name] = FileRecord(bytes=seen.size, xxh3=seen.tail)
    return found


def save(manifest: Manifest, path: Path) -> Manifest:
    """Write a manifest with its fingerprint; returns it as written."""
    values = manifest.model_dump(mode="json")
    values["fingerprint"] = _fingerprint(values)
    path.write_text(
        json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8"
    )
    return manifest.model_copy(update={"fingerprint": values["fingerprint"]})


def load(kind: type[Manifest], path: Path) -> Manifest:
    """Read a manifest; raises RetrievalError that names the file and the key."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RetrievalError(f"{path}: cannot be read: {error.strerror or error}; {_ADVICE}") from error
    except ValueError as error:  # broken UTF-8 as much as broken JSON
        raise RetrievalError(f"{path}: damaged: {error}; {_ADVICE}") from error
    if not isinstance(values, dict) or values.get("fingerprint") != _fingerprint(values):
        raise RetrievalError(
            f"{path}: damaged or edited by hand (its fingerprint does not hold); {_ADVICE}"
        )
    if kind is IndexManifest and values.get("version") != VERSION:
        raise RetrievalError(
            f"{path}: version {values.get('version')!r} of the index format, this reader knows {VERSION}; "
            "build the index with this version of recsys, or install the one that wrote it"
        )
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()
        )
        raise RetrievalError(f"{path}: not a valid manifest: {faults}") from error


def check_files(folder: Path, files: dict[str, FileRecord], *, contents: bool) -> None:
    """Raise RetrievalError for a file that is missing, of another size or, if asked, of other content."""
    for name, record in files.items():
        path = folder / name
        try:
            size = path.stat().st_size
        except OSError as error:
            raise RetrievalError(f"{path}: missing from the index; {_ADVICE}") from error
        if size != record.bytes:
            raise RetrievalError(f"{path}: damaged: expected {record.bytes} bytes, found {size}; {_ADVICE}")
        if contents and (found := content(path).tail) != record.xxh3:
            raise RetrievalError(f"{path}: damaged: expected hash {record.xxh3}, found {found}; {_ADVICE}")


def _fingerprint(values: dict[str, Any]) -> str:
    plain = {key: value for key, value in values.items() if key != "fingerprint"}
    canonical = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
