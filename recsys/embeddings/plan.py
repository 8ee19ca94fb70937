"""The plan: which tables exist, how many rows and bytes each gets, how it is updated.

Everything that trains, exports or serves reads its sizes from here. The fingerprint of a plan stands
in every checkpoint and bundle; a mismatch is refused with the difference of the two plans.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from recsys.embeddings.combine import Combine, width
from recsys.errors import PlanError

if TYPE_CHECKING:
    from recsys.embeddings.methods import Method

UpdatePath = Literal["dense", "fused"]
VocabularyMode = Literal["full", "hash", "unified", "adaptive", "quotient"]
"""What settings may ask for."""
PlannedMode = Literal["full", "hash", "unified", "adaptive", "quotient", "pool"]
"""The names of ``recsys.embeddings.methods``."""
ServeDtype = Literal["float32", "float16", "int8", "int4"]

MOST_LOOKUPS = 16
"""Rows at most that one value's vector is put together from."""
_LATER = ("combine", "hot", "unseen")
_WRITTEN_WHERE_USED = ("parts", "dealt")


class TablePlan(BaseModel):
    """One embedding table, ``[rows, dim]`` float32 in training."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rows: int = Field(ge=1)
    dim: int = Field(ge=1)
    path: UpdatePath
    """``dense``: any torch optimiser and whole-table L2. ``fused``: row-wise Adagrad in backward."""
    serve_dtype: ServeDtype = "int8"


class VocabularyPlan(BaseModel):
    """How the ids of one vocabulary become rows of a table."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    mode: PlannedMode
    """``full``: row = id. ``hash``: rows = hashes of the value's key; several values share a row.
    ``unified``: the same in a table that several vocabularies share. ``adaptive``: frequent values have
    rows of their own, the others share. ``quotient``: a row for an id's quotient, one for its remainder.
    ``pool``: a table of fewer rows than values, which training deals to those that are worth one; the
    others' vectors are zeros."""
    table: str
    lookups: int = Field(default=1, ge=1, le=MOST_LOOKUPS)
    """Rows that make a value's vector."""
    combine: Combine = "concat"
    """How they make it: side by side, or multiplied or added element by element."""
    hot: int = Field(default=0, ge=0)
    """Mode ``adaptive``: how many of the most frequent values have rows of their own."""
    unseen: Literal["own", "hash"] = "own"
    """What a value that the train rows did not hold gets: ``own``, the rows of the unseen value; ``hash``,
    those that its key is hashed to, so that a bundle needs no keys of values whose rows are hashed."""
    size: int = Field(ge=2)
    """Number of ids, the missing (0) and the unseen value (1) included."""
    parts: int = Field(default=1, ge=1)
    """Sub-tables: equal blocks of the table's rows that lookups are dealt over, so that each may lie on a
    device of its own."""
    dealt: tuple[int, ...] = ()
    """The sub-table of each lookup; empty where there is one."""

    @model_serializer(mode="wrap")
    def _as_before_there_were_sub_tables(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content: dict[str, Any] = handler(self)
        for name in _WRITTEN_WHERE_USED:
            if getattr(self, name) == type(self).model_fields[name].default:
                del content[name]
        return content

    @model_validator(mode="after")
    def _fits_its_method(self) -> VocabularyPlan:
        fault = self.method.fault(self)
        if fault is not None:
            raise ValueError(fault)
        lookups = self.lookups if self.parts > 1 else 0
        if len(self.dealt) != lookups or any(not 0 <= part < self.parts for part in self.dealt):
            raise ValueError(
                f"dealt names the sub-table of each lookup where parts is more than 1: expected {lookups} "
                f"numbers below {self.parts}, found {list(self.dealt)}"
            )
        return self

    @property
    def method(self) -> Method:
        """How ids become rows."""
        from recsys.embeddings.methods import METHODS  # settings name modes without loading what hashes

        return METHODS[self.mode]


def free_name(wanted: str, taken: Collection[str]) -> str:
    """A name for a further table: the wanted one, with underscores behind it while it is taken."""
    while wanted in taken:
        wanted += "_"
    return wanted


class Plan(BaseModel):
    """Tables, vocabularies, and which vocabulary each feature reads."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tables: dict[str, TablePlan]
    vocabularies: dict[str, VocabularyPlan]
    features: dict[str, str]
    """Feature name → vocabulary name, in feature order."""

    @model_validator(mode="after")
    def _hangs_together(self) -> Plan:
        readers: dict[str, list[str]] = {name: [] for name in self.tables}
        for name, info in self.vocabularies.items():
            if info.table not in readers:
                raise ValueError(f"vocabulary {name!r} reads table {info.table!r}, which is not in tables")
            readers[info.table].append(name)
        for feature, name in self.features.items():
            if name not in self.vocabularies:
                raise ValueError(
                    f"feature {feature!r} reads vocabulary {name!r}, which is not in vocabularies"
                )
        for table, names in readers.items():
            if not names:
                raise ValueError(f"table {table!r} has no vocabulary that reads it")
            infos = [self.vocabularies[name] for name in names]
            if len(names) > 1 and not all(info.method.shared for info in infos):
                raise ValueError(
                    f"table {table!r} is read by vocabularies {', '.join(names)}; only those of mode "
                    "unified may share a table"
                )
            rows = self.tables[table].rows
            if infos[0].mode == "full" and rows != infos[0].size:
                raise ValueError(
                    f"table {table!r} has {rows} rows for the {infos[0].size} values of {names[0]!r}, "
                    "expected a row per value in mode full"
                )
        return self

    @model_validator(mode="after")
    def _sub_tables_fit(self) -> Plan:
        cut: dict[str, int] = {}
        for name, info in self.vocabularies.items():
            table = self.tables.get(info.table)
            parts = cut.setdefault(info.table, info.parts)
            if info.parts != parts or (table is not None and table.rows % parts):
                found = parts if table is None else f"{table.rows} rows, {parts}"
                raise ValueError(
                    f"vocabulary {name!r} reads table {info.table!r} as {info.parts} equal sub-tables, "
                    f"found {found} for its other readers"
                )
        return self

    def parts_of(self, table: str) -> int:
        """Sub-tables that a table's rows are cut into."""
        return next((info.parts for info in self.vocabularies.values() if info.table == table), 1)

    def table_of(self, feature: str) -> str:
        """Name of the table that a feature's ids are looked up in."""
        return self.vocabularies[self.features[feature]].table

    def width_of(self, feature: str) -> int:
        """Length of a feature's vectors."""
        vocabulary = self.vocabularies[self.features[feature]]
        return width(vocabulary.combine, vocabulary.lookups, self.tables[vocabulary.table].dim)

    @property
    def special_tables(self) -> frozenset[str]:
        """Tables whose row 0 is the missing and whose row 1 is the unseen value, and no other."""
        mixed = {v.table for v in self.vocabularies.values() if not v.method.special}
        return frozenset(self.tables) - mixed

    @property
    def train_bytes(self) -> int:
        """Bytes of all tables in training, optimiser state not counted."""
        return sum(4 * table.rows * table.dim for table in self.tables.values())

    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits that change with anything that moves a row or its meaning.

        How a table is updated or stored for serving does not count: neither moves a row.
        """
        content = self.model_dump(mode="json")
        for table in content["tables"].values():
            del table["path"], table["serve_dtype"]
        for vocabulary in content["vocabularies"].values():
            for name in _LATER:  # plans made before there was a choice keep their fingerprint
                if vocabulary[name] == VocabularyPlan.model_fields[name].default:
                    del vocabulary[name]
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]

    def difference(self, other: Plan) -> list[str]:
        """Lines that name what differs between two plans, this one's value first."""
        lines: list[str] = []
        for part in ("tables", "vocabularies", "features"):
            mine, theirs = getattr(self, part), getattr(other, part)
            for name in sorted(set(mine) | set(theirs)):
                if mine.get(name) != theirs.get(name):
                    lines.append(f"{part}.{name}: {mine.get(name)} here, {theirs.get(name)} there")
        return lines

    def require_same(self, other: Plan, origin: str) -> None:
        """Raise PlanError with the difference when the other plan means other rows."""
        if self.fingerprint() != other.fingerprint():
            lines = "\n  ".join(self.difference(other))
            raise PlanError(f"{origin} was made with another plan:\n  {lines}")

    def save(self, path: Path) -> None:
        """Write the plan as JSON."""
        path.write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Plan:
        """Read a plan; raises PlanError that names the file and the key."""
        try:
            return cls.model_validate_json(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise PlanError(f"{path}: no such plan; write one with 'recsys plan'") from error
        except ValidationError as error:
            raise PlanError(f"{path}: not a valid plan: {error}") from error
