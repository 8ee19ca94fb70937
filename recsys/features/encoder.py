"""Raw rows to ids and numbers, by what was learned from train rows; the same for any rows to come."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

from recsys.data.check import check_columns
from recsys.data.crosses import with_crosses
from recsys.data.dataset import Dataset, Feature, NumericEncoder
from recsys.data.source import Data, open_source
from recsys.errors import DataError, did_you_mean
from recsys.features.numeric import standardise
from recsys.features.rows import Reader, Values, chunks
from recsys.features.vocabulary import Vocabulary, canonical
from recsys.progress import say
from recsys.schema import RAGGED, Schema


@dataclass(frozen=True)
class Encoder:
    """Encodes raw rows as ``prepare`` encoded a dataset.

    >>> encoder = Encoder.load("dataset")  # doctest: +SKIP
    >>> encoder.encode(pl.DataFrame({"item": [7, None]}))  # doctest: +SKIP
    """

    schema: Schema
    """With every vocabulary and max_length resolved."""
    features: tuple[Feature, ...]
    vocabularies: Mapping[str, Vocabulary]
    numerics: Mapping[str, NumericEncoder]

    @classmethod
    def load(cls, dataset: Dataset | Path | str) -> Encoder:
        """The encoder of a prepared dataset; raises DataError that names the file."""
        if not isinstance(dataset, Dataset):
            dataset = Dataset.load(Path(dataset))
        manifest = dataset.manifest
        vocabularies = {}
        for name, info in manifest.vocabularies.items():
            frame = dataset.values(name)
            vocabularies[name] = Vocabulary(
                name,
                info.type,
                canonical(frame["value"], info.type),
                frame["key"].to_numpy(),
                frame["count"].to_numpy(),
            )
        return cls(manifest.schema_, manifest.features, vocabularies, manifest.numerics)

    def encode(self, data: Data) -> pl.DataFrame:
        """Features ``[rows]`` of raw rows, which need no label, in the order of the rows.

        Int64 ids, lists of Int64 ids, Float32 numbers with null where missing. Raises SchemaError for
        a column that is missing or does not fit, DataError for what cannot be read.
        """
        return pl.concat(list(self.batches(data)))

    def batches(self, data: Data) -> Iterator[pl.DataFrame]:
        """``encode`` in pieces of a bounded size, for logs larger than memory."""
        source = with_crosses(open_source(data), self.schema)
        check_columns(source.columns, self.schema, source.name, label=False)
        reader = Reader(self.schema, source)
        for frame in chunks(source, [feature.name for feature in self.features]):
            yield self.encode_rows(frame, reader)
        for treatment, count in reader.treated.items():
            say(f"{count:,} values: {treatment}")

    def encode_rows(self, frame: pl.DataFrame, reader: Reader) -> pl.DataFrame:
        """Features of one chunk of raw rows whose columns have been checked."""
        reader.require_aligned(frame, [f.name for f in self.features if f.kind == "sequence"])
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            columns = pool.map(lambda feature: self._encode(frame, feature, reader), self.features)
            return pl.DataFrame(list(columns))

    def raw_values(self, vocabulary: str) -> pl.Series:
        """The value of every id ``[size]`` of a vocabulary; null for the missing and the unseen one."""
        if vocabulary not in self.vocabularies:
            known = did_you_mean(vocabulary, self.vocabularies)
            raise DataError(f"no vocabulary {vocabulary!r}: {known}")
        return self.vocabularies[vocabulary].raw_values()

    def _encode(self, frame: pl.DataFrame, feature: Feature, reader: Reader) -> pl.Series:
        if feature.vocabulary is None:
            return standardise(reader.numbers(frame, feature.name), self.numerics[feature.name])
        values = reader.values(frame, feature.name)
        ids = self.vocabularies[feature.vocabulary].ids(values.flat)
        if feature.kind not in RAGGED:
            return pl.Series(feature.name, ids)
        return pl.Series(feature.name, _lists(ids, values))


def _lists(ids: np.ndarray[tuple[int], np.dtype[np.int64]], values: Values) -> pa.LargeListArray:
    assert values.lengths is not None
    offsets = np.zeros(len(values.lengths) + 1, dtype=np.int64)
    np.cumsum(values.lengths, out=offsets[1:])
    return pa.LargeListArray.from_arrays(offsets, ids)
