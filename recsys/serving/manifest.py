"""``manifest.json`` of a bundle: everything a reader must know before it opens another file."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from recsys.data.dataset import NumericEncoder, Part
from recsys.embeddings.combine import Combine
from recsys.embeddings.plan import Plan, PlannedMode, ServeDtype
from recsys.errors import BundleError
from recsys.schema import Kind, Schema, Side, ValueType

MANIFEST_FILE = "manifest.json"
FORMAT: Literal["recsys-bundle"] = "recsys-bundle"
VERSION = 7
VERSIONS = (1, 2, 3, 4, 5, 6, 7)
"""Versions that this reader knows. Since 2 values may have several rows and vocabularies share a table;
since 3 gates may close values; since 4 there may be a query tower and items; since 5 row maps are int32,
values that are not listed may be hashed, and rows be multiplied or added; since 6 lookups may be hashed to
different rows of a table; since 7 a query may have several vectors."""
PRUNING, UNPRUNED = "pruning", "unpruned"
"""Keys of a pruned bundle's ``metrics``: what pruning cost, and what the model was like before it."""
TOLERANCE = 1e-5
"""Largest difference of a probability that the self-test accepts. Matrix products of two processors
differ by about 1e-6; a wrong row, code or encoder moves scores by far more."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class FileRecord(_Part):
    """What one file of the bundle must look like."""

    bytes: int
    sha256: str


class BundleFeature(_Part):
    """One model input, in feature order."""

    name: str
    kind: Kind
    type: ValueType
    """Type that raw values (of lists: the elements) are cast to."""
    side: Side | None = None
    vocabulary: str | None = None
    """None for numeric features."""
    table: str | None = None
    """None for numeric features."""
    width: int = 1
    """Length of the vector that the dense part takes."""
    combine: Combine = "concat"
    """How the rows of a value's lookups make it."""
    max_length: int | None = None
    """Longest list kept: the newest elements of a sequence, the first ones of a multi."""
    aligned_with: str | None = None


class HashedRows(_Part):
    """Rows of a table that values are hashed to."""

    first: int
    end: int
    """First row behind them."""


class BundleVocabulary(_Part):
    """How raw values become rows of a table."""

    type: ValueType
    table: str
    mode: PlannedMode
    size: int
    """Number of ids, the missing and the unseen value included."""
    missing_row: int | tuple[int, ...]
    """Row of a missing value; with several lookups a list, a row for each."""
    unseen_row: int | tuple[int, ...]
    """Row of every value whose key is not in ``keys``, where such values are not hashed; with several
    lookups a list, a row for each."""
    hashed: HashedRows | tuple[HashedRows, ...] | None = None
    """Where values whose keys are not in ``keys`` are hashed to, a list where lookups differ; None: they
    have ``unseen_row``."""
    keys: str | None
    """File of sorted ``keys`` uint64 ``[N]`` and their ``rows`` int32: ``[N]``, or with several lookups
    ``[N, lookups]``. None where no value is listed."""
    values: str
    """Parquet of id, value, count, for people and exports; never read to score."""

    def hashed_by_lookup(self, lookups: int) -> tuple[range, ...]:
        """Rows that each lookup of a value which is not listed is hashed to; empty: there are none."""
        if self.hashed is None:
            return ()
        each = (self.hashed,) * lookups if isinstance(self.hashed, HashedRows) else self.hashed
        return tuple(range(rows.first, rows.end) for rows in each)


class BundleTable(_Part):
    """One stored embedding table."""

    file: str
    rows: int
    dim: int
    dtype: ServeDtype
    bytes: int
    max_error: float
    """Largest absolute difference of a stored weight from the trained one."""


class ClosedValues(_Part):
    """What gates closed in one vocabulary."""

    values: int
    """All of its values, the missing and the unseen one included."""
    closed: int
    """Those that are closed: their vectors are zeros."""


class BundleGates(_Part):
    """What gates closed, where the model was trained with them."""

    vocabularies: dict[str, ClosedValues]
    rows: int
    """Table rows that the plan has and the bundle does not, as no open value has them."""
    bytes: int
    """Bytes of those rows as they would be stored, and of the keys and row maps of closed values, less
    those of open values that are listed only because others are closed; below 0 where the bundle grew."""

    @property
    def kept_share(self) -> float:
        """Open values as a share of all values."""
        values = sum(each.values for each in self.vocabularies.values())
        return 1.0 - sum(each.closed for each in self.vocabularies.values()) / max(values, 1)


class Quantisation(_Part):
    """What storing the tables in fewer bits cost, measured on labelled rows when the bundle was made."""

    part: Part
    """``test``, or ``valid`` or ``train`` where the parts before it hold no rows."""
    rows: int
    """Rows measured, the first ones of the part."""
    auc_float: float
    auc_quantised: float
    cost: float
    """``auc_float - auc_quantised``."""


class Pruning(_Part):
    """What leaving out values cost, measured like quantisation, with float32 tables."""

    part: Part
    """``test``, or ``valid`` or ``train`` where the parts before it hold no rows."""
    rows: int
    """Rows measured, the first ones of the part."""
    auc_unpruned: float
    auc_pruned: float
    cost: float
    """``auc_unpruned - auc_pruned``."""


class SelfTest(_Part):
    """Rows that every reader scores again when it loads the bundle."""

    file: str
    rows: int
    tolerance: float = TOLERANCE
    model_difference: float
    """Largest difference of these rows' scores, with float32 tables, from the trained model's own."""


class Towers(_Part):
    """How a retrieval model's queries and items become vectors."""

    query: str
    """File of the query tower, an ONNX graph with one output, ``vector`` float32 ``[B, dim]``, or
    ``[B, interests, dim]`` where there are several."""
    features: tuple[str, ...]
    """Features that it reads."""
    dim: int
    interests: int = 1
    """Vectors of a query; an item counts with the one that it fits best."""
    item: str
    """Feature that tells items apart."""
    items: str
    """Parquet of the catalogue: ``id`` (raw value of ``item``), the items' other features as raw values,
    ``train_rows``, and ``vector`` float32 ``[dim]``."""
    count: int
    """Items of the catalogue."""
    model_difference: float
    """Largest difference of an element of the self-test's query vectors, with float32 tables, from the
    trained model's own."""
    cosine: float
    """Mean cosine of those vectors with stored and with float32 tables."""


class BundleManifest(_Part):
    """What ``manifest.json`` holds."""

    format: Literal["recsys-bundle"] = FORMAT
    version: int = VERSION
    packages: dict[str, str]
    """Version of each package that took part in writing."""
    model: dict[str, Any] = {}
    """Name and options of the model, for people."""
    plan: Plan
    plan_fingerprint: str
    schema_: Schema = Field(alias="schema")
    features: tuple[BundleFeature, ...]
    numerics: dict[str, NumericEncoder]
    vocabularies: dict[str, BundleVocabulary]
    tables: dict[str, BundleTable]
    dense: str
    """File of the dense part, an ONNX graph with one output, ``logit``."""
    selftest: SelfTest
    embeddings: dict[str, str] = {}
    """Feature → Parquet of its vectors with raw ids, where exported."""
    metrics: dict[str, Any] = {}
    """Of the validation rows, by their names in ``metrics.jsonl``. Of a pruned bundle: ``pruning``, and
    ``unpruned``, those of the model with all its values."""
    quantisation: Quantisation | None = None
    gates: BundleGates | None = None
    towers: Towers | None = None
    """Of retrieval models."""
    bytes: dict[str, int]
    """Bytes per part: tables, vocabularies, dense, self-test, embeddings."""
    files: dict[str, FileRecord]
    """Every file but the manifest itself and ``stage.json``, by path within the bundle."""

    @model_validator(mode="after")
    def _consistent(self) -> BundleManifest:
        for path in self.files:
            if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts or "\\" in path:
                raise ValueError(f"files: {path!r} does not lie within the bundle")
        if self.plan.fingerprint() != self.plan_fingerprint:
            raise ValueError(f"plan: its fingerprint is {self.plan.fingerprint()}, not plan_fingerprint's")
        for feature in self.features:
            if feature.kind == "numeric":
                known = feature.name in self.numerics
            else:
                known = feature.vocabulary in self.vocabularies and feature.table in self.tables
            if not known:
                raise ValueError(f"features: {feature.name!r} has no encoder, vocabulary or table here")
        named = [table.file for table in self.tables.values()]
        named += [v.keys for v in self.vocabularies.values() if v.keys is not None]
        named += [] if self.towers is None else [self.towers.query, self.towers.items]
        for path in (*named, self.dense, self.selftest.file):
            if path not in self.files:
                raise ValueError(f"files: {path!r} is not listed")
        return self

    @property
    def pruning(self) -> Pruning | None:
        """What leaving out values cost; None where none were cut, or it was not measured."""
        found = None if self.gates is None else self.metrics.get(PRUNING)
        return None if found is None else Pruning.model_validate(found)

    def save(self, folder: Path) -> None:
        """Write ``manifest.json``, its own checksum included."""
        content = self.model_dump(mode="json", by_alias=True)
        content["checksum"] = _checksum(content)
        text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
        (folder / MANIFEST_FILE).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> BundleManifest:
        """Read ``manifest.json``; raises BundleError that names the file and the key."""
        path = folder / MANIFEST_FILE
        content = read_json(path)
        if content.get("format") != FORMAT:
            raise BundleError(f"{path}: expected format {FORMAT!r}, found {content.get('format')!r}")
        if content.get("version") not in VERSIONS:
            raise BundleError(
                f"{path}: version {content.get('version')!r} of the bundle format, this reader knows "
                f"{VERSIONS[0]} to {VERSIONS[-1]}; export again with this version of recsys, or install "
                "the one that wrote it"
            )
        stated = content.pop("checksum", None)
        if stated != _checksum(content):
            raise BundleError(
                f"{path}: damaged or edited by hand (its checksum does not hold); "
                f"copy the bundle again or export it anew"
            )
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            faults = [
                f"  {'.'.join(str(part) for part in fault['loc']) or 'manifest'}: {fault['msg']}"
                for fault in error.errors()
            ]
            raise BundleError(f"{path}: not a valid manifest:\n" + "\n".join(faults)) from error


def read_json(path: Path) -> dict[str, Any]:
    """The manifest as plain values; raises BundleError that names the file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise BundleError(
            f"{path.parent}: not a bundle (no {path.name}); write one with 'recsys export'"
        ) from error
    except OSError as error:
        raise BundleError(f"{path}: cannot be read: {error.strerror or error}") from error
    except ValueError as error:  # broken UTF-8 as much as broken JSON
        raise BundleError(f"{path}: damaged: {error}; copy the bundle again or export it anew") from error
    if not isinstance(content, dict):
        raise BundleError(f"{path}: damaged: expected a JSON object, found {type(content).__name__}")
    return content


def _checksum(content: dict[str, Any]) -> str:
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
