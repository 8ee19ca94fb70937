"""What is learned from the train rows before any row is encoded: values, lengths, numbers, labels."""

from __future__ import annotations

import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import polars as pl

from recsys.data.dataset import Feature
from recsys.data.source import Source
from recsys.errors import SchemaError
from recsys.features.encoder import Encoder
from recsys.features.numeric import NumericSample, fit
from recsys.features.rows import Reader
from recsys.features.vocabulary import ValueCounts, Vocabulary
from recsys.schema import Column, Schema, ValueType


class Learner:
    """Takes train rows in chunks, then makes the encoder."""

    def __init__(self, schema: Schema, source: Source) -> None:
        self.schema = schema
        self.treated: Counter[str] = Counter()
        self.rows = 0
        self.positives = 0
        self._reader = Reader(schema, source)
        self._counts = {name: ValueCounts(type) for name, type in _vocabulary_types(schema).items()}
        self._numbers = {n: NumericSample() for n, c in schema.features.items() if c.kind == "numeric"}
        self._longest = {n: 1 for n, c in schema.features.items() if c.is_ragged}
        self._present = dict.fromkeys(schema.features, 0)
        """Values that are not missing, by feature."""

    def add(self, frame: pl.DataFrame) -> None:
        """Learn from some train rows."""
        self.rows += frame.height
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(lambda name: self._read(frame, name), self.schema.features))

    def _read(self, frame: pl.DataFrame, name: str) -> None:
        if name in self._numbers:
            numbers = self._reader.numbers(frame, name).drop_nulls()
            self._numbers[name].add(numbers.to_numpy())
            self._present[name] += len(numbers)
            return
        values = self._reader.values(frame, name)
        self._present[name] += len(values.flat) - values.flat.null_count()
        if values.lengths is not None:
            self._longest[name] = max(self._longest[name], int(values.lengths.max(initial=0)))
        self._counts[self.schema.vocabulary_of(name)].add(values.flat)

    def encoder(self, min_count: int) -> Encoder:
        """Number the values, fit the numbers, and resolve the schema.

        Features without any value in train rows are dropped. Raises SchemaError where none is left,
        DataError where two values of a vocabulary have one key.
        """
        kept = [name for name, present in self._present.items() if present]
        for name in self._present.keys() - set(kept):
            self.treated[f"{name}: no value in any train row → feature dropped"] += self.rows
        if not kept:
            raise SchemaError(
                "no feature has any value in the train rows: look at the schema and the split"
            )
        schema = _resolved(self.schema.keep(kept), self._longest)
        used = {schema.vocabulary_of(n) for n, c in schema.features.items() if c.kind != "numeric"}
        vocabularies = {
            name: self._vocabulary(name, counts, min_count)
            for name, counts in self._counts.items()
            if name in used
        }
        numerics = {
            name: fit(sample.values(), schema.columns[name].transform)
            for name, sample in self._numbers.items()
            if name in kept
        }
        features = tuple(_feature(name, column, schema) for name, column in schema.features.items())
        return Encoder(schema, features, vocabularies, numerics)

    def _vocabulary(self, name: str, counts: ValueCounts, min_count: int) -> Vocabulary:
        counted = counts.frame()
        made = Vocabulary.build(name, counts.type, counted, min_count)
        rare = counted.height - len(made.values)
        if rare:
            self.treated[f"{name}: value seen fewer than {min_count} times in train → unseen value"] += rare
        return made


def _vocabulary_types(schema: Schema) -> dict[str, ValueType]:
    """Type of each vocabulary; raises SchemaError where columns that share one differ in type."""
    first: dict[str, str] = {}
    for name, column in schema.features.items():
        if column.kind == "numeric":
            continue
        other = first.setdefault(schema.vocabulary_of(name), name)
        if schema.columns[other].type != column.type:
            raise SchemaError(
                f"columns {other!r} ({schema.columns[other].type}) and {name!r} ({column.type}) share the "
                f"vocabulary {schema.vocabulary_of(name)!r} and so must have one type; correct the schema"
            )
    return {vocabulary: schema.columns[name].type for vocabulary, name in first.items()}


def _resolved(schema: Schema, longest: dict[str, int]) -> Schema:
    """The schema with every vocabulary and max_length filled in."""
    columns = dict(schema.columns)
    for name, column in schema.features.items():
        if column.kind != "numeric":
            found: dict[str, object] = {"vocabulary": schema.vocabulary_of(name)}
            if column.is_ragged:
                found["max_length"] = column.max_length or longest[name]
            columns[name] = column.model_copy(update=found)
    return Schema(columns=columns, rows=schema.rows)


def _feature(name: str, column: Column, schema: Schema) -> Feature:
    aligned = column.aligned_with
    return Feature(
        name=name,
        kind=column.kind,
        side=column.side,
        vocabulary=column.vocabulary,
        max_length=column.max_length,
        aligned_with=aligned if aligned in schema.features else None,
    )


def share_lengths(schema: Schema) -> Schema:
    """Give aligned sequences one max_length, so that they are cut alike.

    Raises SchemaError where they declare different ones.
    """
    columns = dict(schema.columns)
    changed = True
    while changed:
        changed = False
        for name, column in list(columns.items()):
            if column.aligned_with is None:
                continue
            other = columns[column.aligned_with]
            if column.max_length == other.max_length:
                continue
            if column.max_length is not None and other.max_length is not None:
                raise SchemaError(
                    f"columns {name!r} (max_length {column.max_length}) and {column.aligned_with!r} "
                    f"(max_length {other.max_length}) are aligned and so must be cut to one length"
                )
            length = {"max_length": column.max_length or other.max_length}
            columns[name] = column.model_copy(update=length)
            columns[column.aligned_with] = other.model_copy(update=length)
            changed = True
    return Schema(columns=columns, rows=schema.rows)
