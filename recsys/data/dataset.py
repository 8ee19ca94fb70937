"""A prepared dataset: a folder of encoded rows and of what encoded them.

    dataset/
      train.parquet valid.parquet test.parquet     encoded rows, in the order of the source
      dataset.json                                 the manifest below
      vocab/V.parquet                              id, value, key (uint64), count: a row per seen value

Columns of the row files: one per feature (``int64`` id, ``list<int64>`` ids for multi and sequence,
``float32`` with null for a missing number), then ``__label__`` (float32 0 or 1), and where declared
``__weight__`` (float32) and ``__group__`` (int64, the xxh3 key of the group's value).

Id 0 is the missing value, id 1 the unseen one, ids from 2 on are values by falling train count. Only
those from 2 on stand in the vocabulary's file: its row i is the value of id i + 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import polars as pl
from pydantic import BaseModel, ConfigDict, ValidationError

from recsys.errors import DataError, did_you_mean
from recsys.schema import Kind, Schema, Side, ValueType

MISSING_ID = 0
UNSEEN_ID = 1
FIRST_ID = 2
VOCABULARY_FOLDER = "vocab"
LABEL, WEIGHT, GROUP = "__label__", "__weight__", "__group__"
Part = Literal["train", "valid", "test"]
PARTS: tuple[Part, ...] = ("train", "valid", "test")


class NumericEncoder(BaseModel):
    """``(t(x) - mean) / std`` clipped to ``[-clip, clip]``, t the identity or signed log1p."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    transform: Literal["linear", "log"]
    mean: float
    std: float
    clip: float = 10.0


class VocabularyInfo(BaseModel):
    """Size and type of one vocabulary."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    size: int
    """Number of ids, the missing (0) and the unseen value (1) included."""
    type: ValueType
    """Canonical type of the values."""
    columns: tuple[str, ...]
    """Features that use it."""


class Feature(BaseModel):
    """One model input."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    kind: Kind
    side: Side | None = None
    vocabulary: str | None = None
    """None for numeric features."""
    max_length: int | None = None
    """Longest list kept; None for features that are no lists."""
    aligned_with: str | None = None


class DatasetManifest(BaseModel):
    """What ``dataset.json`` holds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: int = 1
    schema_: Schema
    """The schema that the rows were encoded by, with every vocabulary and max_length resolved."""
    features: tuple[Feature, ...]
    """Model inputs in order; features that share a vocabulary need not be adjacent here."""
    vocabularies: dict[str, VocabularyInfo]
    numerics: dict[str, NumericEncoder]
    rows: dict[str, int]
    """Number of rows per part."""
    positives: dict[str, int]
    """Number of rows with label 1 per part."""
    treatments: dict[str, int] = {}
    """Counted treatments of odd values, e.g. ``price: infinity → missing``; for people to read."""


def vocabulary_file(name: str) -> str:
    """File name of a vocabulary; a slash in its name becomes ``%2F``."""
    return name.replace("%", "%25").replace("/", "%2F") + ".parquet"


@dataclass(frozen=True)
class Dataset:
    """A prepared dataset on disk."""

    folder: Path
    manifest: DatasetManifest

    @classmethod
    def load(cls, folder: Path) -> Dataset:
        """Open a dataset folder; raises DataError that names the folder."""
        path = Path(folder) / "dataset.json"
        try:
            manifest = DatasetManifest.model_validate_json(path.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError) as error:
            raise DataError(
                f"{folder}: not a prepared dataset (no dataset.json); write one with 'recsys prepare'"
            ) from error
        except ValidationError as error:
            raise DataError(f"{path}: not a valid dataset manifest: {error}") from error
        return cls(Path(folder), manifest)

    def part(self, part: Part) -> Path:
        """Path of the encoded rows of one part."""
        return self.folder / f"{part}.parquet"

    def vocabulary(self, name: str) -> Path:
        """Path of a vocabulary: id int64, value, key uint64, count int64; sorted by id, from 2 on."""
        return self.folder / VOCABULARY_FOLDER / vocabulary_file(name)

    def vocabulary_info(self, name: str) -> VocabularyInfo:
        """Size and type of a vocabulary; raises DataError with the nearest name otherwise."""
        if name not in self.manifest.vocabularies:
            known = did_you_mean(name, self.manifest.vocabularies)
            raise DataError(f"{self.folder}: no vocabulary {name!r}: {known}")
        return self.manifest.vocabularies[name]

    def values(self, name: str, columns: tuple[str, ...] = ("id", "value", "key", "count")) -> pl.DataFrame:
        """The values of a vocabulary, ``size - 2`` rows sorted by id; raises DataError."""
        size = self.vocabulary_info(name).size
        path = self.vocabulary(name)
        try:
            frame = pl.read_parquet(path, columns=list(columns))
        except (OSError, pl.exceptions.PolarsError) as error:
            raise DataError(f"{path}: not a readable vocabulary: {error}; redo 'recsys prepare'") from error
        if frame.height != size - FIRST_ID:
            raise DataError(
                f"{path}: expected {size - FIRST_ID} values, found {frame.height}; redo 'recsys prepare'"
            )
        return frame

    @property
    def features(self) -> tuple[Feature, ...]:
        """Model inputs in order."""
        return self.manifest.features

    @property
    def has_group(self) -> bool:
        return self.manifest.schema_.group is not None

    @property
    def has_weight(self) -> bool:
        return self.manifest.schema_.weight is not None
