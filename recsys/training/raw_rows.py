"""Raw rows that a prepared dataset could have come from, and table rows of encoded ones.

A dataset keeps ids; a bundle's self-test needs raw values. Each id stands for a known value, the
missing one for a null and the unseen one for a value that no vocabulary holds, so that rows of the
dataset can be told back as raw rows, without the log that they came from.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from recsys.data.columns import Columns
from recsys.data.dataset import LABEL, UNSEEN_ID, Dataset, Feature, NumericEncoder, Part
from recsys.embeddings.keys import CANONICAL
from recsys.schema import RAGGED, ValueType
from recsys.serving.dense import EncodedRows, Ragged

_BATCH = 1 << 16
_LARGEST_INT = np.iinfo(np.int64).max


def raw_rows(dataset: Dataset, part: Part, rows: int, *, seen: Collection[str] = ()) -> pl.DataFrame:
    """The first rows of a part as raw values in the schema's types; numbers to float precision.

    Rows with an unseen value of one of the vocabularies ``seen`` are left out: a dataset does not hold
    the value itself, which is what a reader that hashes it needs.
    """
    names = [feature.name for feature in dataset.features]
    scanned = pl.scan_parquet(dataset.part(part), glob=False).select(names)
    for feature in dataset.features:
        if feature.vocabulary in seen:
            ids = pl.col(feature.name)
            known = ~ids.list.contains(UNSEEN_ID) if feature.kind in RAGGED else ids != UNSEEN_ID
            scanned = scanned.filter(known.fill_null(True))
    return as_raw(scanned.head(rows).collect(), dataset.features, dataset)


def as_raw(encoded: pl.DataFrame, features: Sequence[Feature], dataset: Dataset) -> pl.DataFrame:
    """Encoded rows as raw values in the schema's types."""
    return pl.DataFrame([_raw_column(encoded[f.name], f, dataset) for f in features])


def _raw_column(encoded: pl.Series, feature: Feature, dataset: Dataset) -> pl.Series:
    if feature.vocabulary is None:
        kind = dataset.manifest.schema_.column(feature.name).type
        return _raw_numbers(encoded, dataset.manifest.numerics[feature.name], kind)
    values = values_by_id(dataset, feature.vocabulary)
    if feature.kind not in RAGGED:
        return values.gather(encoded).alias(feature.name)
    lengths = encoded.list.len().fill_null(0)
    offsets = np.concatenate([[0], np.cumsum(lengths.to_numpy())]).astype(np.int64)
    elements = values.gather(encoded.filter(lengths > 0).explode().cast(pl.Int64)).to_arrow()
    lists = pa.LargeListArray.from_arrays(pa.array(offsets), elements)
    return pl.Series(feature.name, pl.from_arrow(lists))


def _raw_numbers(encoded: pl.Series, encoder: NumericEncoder, kind: ValueType) -> pl.Series:
    """Undo standardisation; integers move away from the mean, so that a clipped one stays clipped."""
    numbers = encoded.cast(pl.Float64) * encoder.std + encoder.mean
    if encoder.transform == "log":
        array = numbers.fill_null(np.nan).to_numpy()
        raw = np.copysign(np.expm1(np.abs(array)), array)
        numbers = pl.Series(encoded.name, raw, nan_to_null=True)
    if kind == "float64":
        return numbers
    bound = 1.0 - 1e-6
    clipped = (encoded.abs() >= encoder.clip * bound).fill_null(False)
    outward = numbers.ceil().zip_with(encoded > 0, numbers.floor())
    whole = outward.zip_with(clipped, numbers.round())
    return whole.clip(-(2.0**62), 2.0**62).cast(pl.Int64)


def values_by_id(dataset: Dataset, vocabulary: str) -> pl.Series:
    """Raw value of each id ``[size]``: null for the missing one, a value of no row for the unseen one."""
    kind = dataset.vocabulary_info(vocabulary).type
    known = dataset.values(vocabulary, ("id", "value"))["value"]
    if known.dtype.is_temporal():
        known = known.to_physical()
    first = pl.Series("value", [None, _unknown(known, kind)], dtype=CANONICAL[kind])
    return first.append(known.cast(CANONICAL[kind]))


def _unknown(known: pl.Series, kind: ValueType) -> object:
    """A value that is not among the known ones."""
    if kind == "string":
        longest = known.str.len_bytes().max() if len(known) else 0
        return "?" * (int(str(longest)) + 1)
    highest, lowest = (known.max(), known.min()) if len(known) else (0, 0)
    if kind == "float64":
        return float(np.nextafter(float(str(highest)), np.inf))
    return int(str(highest)) + 1 if int(str(highest)) < _LARGEST_INT else int(str(lowest)) - 1


def encoded_rows(
    dataset: Dataset, part: Part, row_maps: Mapping[str, NDArray[np.int64]], limit: int
) -> Iterator[tuple[EncodedRows, NDArray[np.float32]]]:
    """The first rows of a part as table rows, with their labels, some at a time.

    Args:
        row_maps: table rows of every id, ``[size]`` or ``[size, lookups]``, of each vocabulary where it
            is not the id itself.
        limit: rows at most.
    """
    names = [feature.name for feature in dataset.features]
    left = limit
    with pq.ParquetFile(dataset.part(part)) as file:
        for batch in file.iter_batches(_BATCH, columns=[*names, LABEL]):
            if left <= 0:
                return
            table = pa.Table.from_batches([batch[:left]])
            left -= table.num_rows
            columns = Columns.of(table, dataset.features)
            yield _as_table_rows(columns, dataset.features, row_maps), columns.label


def _as_table_rows(
    columns: Columns, features: tuple[Feature, ...], row_maps: Mapping[str, NDArray[np.int64]]
) -> EncodedRows:
    def rows(name: str, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        mapped = row_maps.get(vocabulary[name])
        return ids if mapped is None else mapped[ids]

    vocabulary = {f.name: f.vocabulary for f in features if f.vocabulary is not None}
    single = {name: rows(name, columns.ids[:, i]) for i, name in enumerate(columns.single)}
    ragged = {
        name: Ragged(rows(name, lists.values), lists.offsets) for name, lists in columns.ragged.items()
    }
    numerics = {name: columns.numbers[:, i] for i, name in enumerate(columns.numeric)}
    return EncodedRows(columns.rows, single, ragged, numerics)
