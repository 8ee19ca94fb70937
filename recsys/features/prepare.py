"""``prepare``: raw rows to a dataset folder of ids and numbers.

Two passes. The first reads train rows only and learns vocabularies, lengths and numeric encoders; the
second encodes the rows of every part, a bounded number of values at a time. What is done to odd values
is counted in the manifest's ``treatments``; what would lose something is an error.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from recsys.config import SplitSettings
from recsys.data.check import (
    check_columns,
    check_label,
    check_label_type,
    check_positives,
    first_row,
    needed,
    reading,
    require_column,
    typed,
)
from recsys.data.crosses import add_crosses, parts_with_crosses
from recsys.data.dataset import (
    GROUP,
    LABEL,
    PARTS,
    UNSEEN_ID,
    VOCABULARY_FOLDER,
    WEIGHT,
    Dataset,
    DatasetManifest,
    Part,
    VocabularyInfo,
    vocabulary_file,
)
from recsys.data.source import Data
from recsys.data.split import Parts, split_source
from recsys.embeddings.keys import keys_of
from recsys.errors import ConfigError, DataError, SchemaError, did_you_mean
from recsys.features.encoder import Encoder
from recsys.features.learning import Learner, share_lengths
from recsys.features.rows import Reader, chunks
from recsys.features.vocabulary import Vocabulary, readable
from recsys.progress import Bar, progress
from recsys.schema import Column, Schema
from recsys.stage import StageRecord, require_ours, settings_of, written_aside

VERSION = 1
"""Raised by hand when the same rows and settings give another dataset."""

MANIFEST_FILE = "dataset.json"
_HEAVIEST = 1_000_000_000
"""Sample weight beyond which float32 sums of weighted losses are worth nothing."""
ROW_GROUP = 1 << 18
"""Rows of a row group at most; batches are shuffled by row group first."""


def prepare(
    data: Data | None,
    schema: Schema | Path | str,
    output: Path | str,
    *,
    split: SplitSettings | None = None,
    keep: Sequence[str] | None = None,
    combinations: Sequence[Sequence[str]] = (),
    min_count: int = 1,
    positives_only: bool = False,
    root: Path | None = None,
) -> Dataset:
    """Encode a log into the dataset folder ``output``, which is replaced when all went well.

    ``data`` is None where the split names three paths. ``keep`` names the features to keep, for
    example those that ranking chose, ``combinations`` columns that become a further feature together;
    values seen fewer than ``min_count`` times in train rows become the unseen value.
    ``positives_only``: every row is a positive, as retrieval models take them; a label is not needed
    then, and 1 everywhere where there is one.

    Raises SchemaError, DataError or ConfigError that name column, file and row.
    """
    started = time.perf_counter()
    if min_count < 1:
        raise ConfigError(f"min_count: expected at least 1, found {min_count}")
    given = schema if isinstance(schema, Schema) else Schema.load(Path(schema))
    schema = add_crosses(_wanted(given, keep, positives_only), combinations)
    parts = parts_with_crosses(split_source(split, data, root), schema)
    output = Path(output)
    require_ours(output, MANIFEST_FILE)
    _check(parts, schema, positives_only)
    total = parts.rows("train") + sum(parts.rows(part) for part in PARTS)
    with progress("prepare", total=total) as bar:
        learner = _learn(parts, schema, bar, positives_only)
        encoder = learner.encoder(min_count)
        with written_aside(output) as folder:
            writer = _Writer(parts, encoder, folder, bar)
            for part in PARTS:
                writer.write(part)
            for vocabulary in encoder.vocabularies.values():
                _write_vocabulary(vocabulary, folder)
            manifest = _manifest(encoder, writer, learner.treated + writer.reader.treated)
            text = manifest.model_dump_json(indent=2, exclude_none=True)
            (folder / MANIFEST_FILE).write_text(text + "\n", encoding="utf-8")
            StageRecord(
                stage="prepare",
                version=VERSION,
                inputs=parts.fingerprints(),
                settings=settings_of(
                    {
                        "schema": given.to_dict(),
                        "split": split,
                        "keep": keep,
                        "combinations": combinations,
                        "min_count": min_count,
                        "positives_only": positives_only,
                    }
                ),
                seconds=round(time.perf_counter() - started, 3),
                rows=sum(writer.rows.values()),
            ).save(folder)
    return Dataset(output, manifest)


def _wanted(schema: Schema, keep: Sequence[str] | None, positives_only: bool) -> Schema:
    """The schema with the kept features; raises SchemaError for one that cannot be prepared."""
    if keep is not None:
        for name in keep:
            if name not in schema.features:
                raise SchemaError(f"keep: no feature {name!r}; {did_you_mean(name, schema.features)}")
        schema = schema.keep(list(keep))
    if schema.label is None and not positives_only:
        raise SchemaError("the schema declares no label; give one column the role 'label'")
    if schema.label is not None and schema.label in schema.features:
        raise SchemaError(f"column {schema.label!r} is label and feature at once; take away one role")
    if not schema.features:
        raise SchemaError("the schema declares no features")
    for taken in (LABEL, WEIGHT, GROUP):
        if taken in schema.features:
            raise SchemaError(f"column {taken!r}: this name is taken in datasets; rename the column")
    for role in (schema.group, schema.weight):
        if role is not None and schema.columns[role].is_ragged:
            raise SchemaError(f"column {role!r} is a list; group and weight need one value per row")
    return share_lengths(schema)


def _check(parts: Parts, schema: Schema, positives_only: bool) -> None:
    """Columns, labels and weights of all parts; raises SchemaError or DataError."""
    for name in needed(schema):
        require_column(name, parts.columns, parts.name)
    check_columns(parts.columns, schema, parts.name)
    if schema.label is not None:
        check_label_type(schema.label, parts.columns[schema.label], parts.name)
    if parts.rows("train") == 0:
        raise DataError(f"{parts.source('train').name}: no rows to learn from")
    if schema.label is not None:
        check = check_positives if positives_only else check_label
        check(parts.all(), schema.label, parts.name, parts.whole)
    if schema.weight is not None:
        _check_weight(parts, schema.weight, schema.columns[schema.weight])


def _check_weight(parts: Parts, name: str, column: Column) -> None:
    weight = typed(name, parts.columns[name], column).cast(pl.Float64)
    bad = ~((weight >= 0) & (weight <= _HEAVIEST)).fill_null(False)
    with reading(parts.whole):
        wrong = parts.all().select(bad.any()).collect(engine="streaming").item()
        heaviest = parts.lazy("train").select(weight.max()).collect(engine="streaming").item()
    if wrong:
        place, value = first_row(parts.whole, name, bad)
        raise DataError(
            f"{place}: weight {name!r} must be a number from 0 to {_HEAVIEST:,} in every row; "
            f"found {value!r}"
        )
    if not heaviest:
        raise DataError(
            f"{parts.source('train').name}: weight {name!r} is 0 in every row; nothing can be learned"
        )


def _learn(parts: Parts, schema: Schema, bar: Bar, positives_only: bool) -> Learner:
    source = parts.source("train")
    learner = Learner(schema, source)
    for frame in chunks(source, [*_label_of(schema), *schema.features]):
        learner.positives += int(_labels(frame, schema).sum())
        learner.add(frame)
        bar.advance(frame.height)
    if not positives_only and schema.label is not None and learner.positives in (0, learner.rows):
        check_label(source.lazy(), schema.label, source.name)
    return learner


def _label_of(schema: Schema) -> list[str]:
    """The label's name, where the schema has one."""
    return [] if schema.label is None else [schema.label]


def _labels(frame: pl.DataFrame, schema: Schema) -> pl.Series:
    """Labels ``[rows]`` float32 of raw rows; 1 everywhere where the log has none."""
    if schema.label is None:
        return pl.repeat(1.0, frame.height, dtype=pl.Float32, eager=True).alias(LABEL)
    return frame[schema.label].cast(pl.Float32).alias(LABEL)


class _Writer:
    """Encodes the rows of each part into its file, and counts them."""

    def __init__(self, parts: Parts, encoder: Encoder, folder: Path, bar: Bar) -> None:
        self.parts, self.encoder, self.folder, self.bar = parts, encoder, folder, bar
        self.reader = Reader(encoder.schema, parts.whole)
        self.rows: dict[str, int] = dict.fromkeys(PARTS, 0)
        self.positives: dict[str, int] = dict.fromkeys(PARTS, 0)
        schema = encoder.schema
        others = (schema.label, schema.weight, schema.group)
        names = [*(feature.name for feature in encoder.features), *(name for name in others if name)]
        self._names = list(dict.fromkeys(names))
        self._target = _arrow_schema(encoder)

    def write(self, part: Part) -> None:
        path = self.folder / f"{part}.parquet"
        with pq.ParquetWriter(
            path, self._target, compression="zstd", compression_level=1, use_dictionary=False
        ) as file:
            for frame in chunks(self.parts.source(part), self._names):
                encoded = self._encode(frame)
                file.write_table(encoded.to_arrow().cast(self._target), row_group_size=ROW_GROUP)
                self._count(part, encoded)
                self.bar.advance(frame.height)

    def _encode(self, frame: pl.DataFrame) -> pl.DataFrame:
        schema = self.encoder.schema
        columns = [_labels(frame, schema)]
        if schema.weight is not None:
            weight = self.reader.values(frame, schema.weight).flat
            columns.append(weight.cast(pl.Float32).alias(WEIGHT))
        if schema.group is not None:
            group = self.reader.values(frame, schema.group).flat
            self.reader.treated[f"{group.name}: missing group → a group of their own"] += group.null_count()
            keys = keys_of(group, schema.columns[schema.group].type)
            columns.append(pl.Series(GROUP, keys.view("int64")))
        return self.encoder.encode_rows(frame, self.reader).hstack(columns)

    def _count(self, part: Part, encoded: pl.DataFrame) -> None:
        self.rows[part] += encoded.height
        self.positives[part] += int(encoded[LABEL].sum())
        if part == "train":
            return
        for feature in self.encoder.features:
            if feature.vocabulary is not None:
                ids = encoded[feature.name]
                flat = ids.explode() if ids.dtype == pl.List else ids
                unseen = int((flat == UNSEEN_ID).sum())
                self.reader.treated[f"{feature.name}: not in train rows → unseen value ({part})"] += unseen


def _arrow_schema(encoder: Encoder) -> pa.Schema:
    kinds = {"categorical": pa.int64(), "numeric": pa.float32()}
    ids = pa.list_(pa.int64())
    fields = [(feature.name, kinds.get(feature.kind, ids)) for feature in encoder.features]
    fields.append((LABEL, pa.float32()))
    if encoder.schema.weight is not None:
        fields.append((WEIGHT, pa.float32()))
    if encoder.schema.group is not None:
        fields.append((GROUP, pa.int64()))
    return pa.schema(fields)


def _write_vocabulary(vocabulary: Vocabulary, folder: Path) -> None:
    (folder / VOCABULARY_FOLDER).mkdir(exist_ok=True)
    ids = pl.int_range(2, vocabulary.size, eager=True, dtype=pl.Int64)
    frame = pl.DataFrame(
        {
            "id": ids,
            "value": readable(vocabulary.values, vocabulary.type),
            "key": vocabulary.keys,
            "count": vocabulary.counts,
        }
    )
    frame.write_parquet(folder / VOCABULARY_FOLDER / vocabulary_file(vocabulary.name))


def _manifest(encoder: Encoder, writer: _Writer, treated: Counter[str]) -> DatasetManifest:
    infos = {
        name: VocabularyInfo(
            size=vocabulary.size,
            type=vocabulary.type,
            columns=tuple(f.name for f in encoder.features if f.vocabulary == name),
        )
        for name, vocabulary in encoder.vocabularies.items()
    }
    return DatasetManifest(
        schema_=encoder.schema,
        features=encoder.features,
        vocabularies=infos,
        numerics=dict(encoder.numerics),
        rows=writer.rows,
        positives=writer.positives,
        treatments={key: treated[key] for key in sorted(treated) if treated[key]},
    )
