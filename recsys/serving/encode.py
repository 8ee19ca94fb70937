"""From raw values to table rows and standardised numbers, as ``prepare`` did on the train rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.data.dataset import NumericEncoder
from recsys.embeddings.keys import MISSING_KEY, keys_of
from recsys.embeddings.methods.method import hashed
from recsys.errors import SchemaError
from recsys.serving.dense import EncodedRows, Ragged
from recsys.serving.manifest import BundleFeature


@dataclass(frozen=True)
class Vocabulary:
    """Keys of listed values and the table rows they lead to, and where other values are hashed to."""

    keys: NDArray[np.uint64]
    """``[N]``, strictly rising."""
    rows: NDArray[np.int64]
    """``[N]``; with K > 1 lookups ``[N, K]``."""
    missing_row: int | NDArray[np.int64]
    """One row, or ``[K]``."""
    unseen_row: int | NDArray[np.int64]
    name: str = ""
    """Salts the hash."""
    hashed: tuple[range, ...] = ()
    """Rows that values which are not listed are hashed to, by lookup; empty: they have ``unseen_row``."""

    def lookup(self, keys: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Table rows ``[M]`` or ``[M, K]`` of keys ``[M]``; missing and unseen values have their own."""
        shape = (len(keys), *self.rows.shape[1:])
        if self.hashed:
            rows = hashed(keys, self.hashed, self.name).reshape(shape)
        else:
            rows = np.empty(shape, np.int64)
            rows[:] = self.unseen_row
        if len(self.keys):
            at = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
            known = self.keys[at] == keys
            rows[known] = self.rows[at[known]]
        rows[keys == MISSING_KEY] = self.missing_row
        return rows


def encode(
    frame: pl.DataFrame,
    features: Sequence[BundleFeature],
    numerics: Mapping[str, NumericEncoder],
    vocabularies: Mapping[str, Vocabulary],
) -> EncodedRows:
    """Encode rows whose columns are of the schema's types.

    Raises SchemaError where sequences declared aligned differ in length, as ``prepare`` does.
    """
    single: dict[str, NDArray[np.int64]] = {}
    ragged: dict[str, Ragged] = {}
    numbers: dict[str, NDArray[np.float32]] = {}
    for feature in features:
        name, values = feature.name, frame[feature.name]
        if feature.kind == "numeric":
            numbers[name] = standardise(values, numerics[name])
            continue
        vocabulary = vocabularies[str(feature.vocabulary)]
        if feature.kind == "categorical":
            single[name] = vocabulary.lookup(keys_of(values, feature.type))
        else:
            elements, offsets = flatten(values, feature)
            ragged[name] = Ragged(vocabulary.lookup(keys_of(elements, feature.type)), offsets)
    _require_aligned(features, ragged)
    return EncodedRows(frame.height, single, ragged, numbers)


def standardise(values: pl.Series, encoder: NumericEncoder) -> NDArray[np.float32]:
    """``clip((t(x) - mean) / std)`` ``[N]``; NaN where the number is missing or not finite."""
    values = values.to_physical() if values.dtype.is_temporal() else values
    numbers = values.cast(pl.Float64).fill_null(np.nan).to_numpy()
    numbers = np.where(np.isfinite(numbers), numbers, np.nan)
    if encoder.transform == "log":
        numbers = np.copysign(np.log1p(np.abs(numbers)), numbers)
    with np.errstate(over="ignore"):  # far outside the clip either way
        standard = (numbers - encoder.mean) / encoder.std
    return np.clip(standard, -encoder.clip, encoder.clip).astype(np.float32)


def flatten(lists: pl.Series, feature: BundleFeature) -> tuple[pl.Series, NDArray[np.int64]]:
    """Elements of all lists one after the other, and offsets ``[N + 1]``; a null list is an empty one.

    A sequence keeps its newest ``max_length`` elements, a multi its first ones.
    """
    if feature.max_length is not None:
        cut = lists.list.tail if feature.kind == "sequence" else lists.list.head
        lists = cut(feature.max_length)
    lengths = lists.list.len().fill_null(0)
    offsets = np.zeros(len(lists) + 1, np.int64)
    np.cumsum(lengths.to_numpy(), out=offsets[1:])
    # An empty list would explode into a null of its own.
    return lists.filter(lengths > 0).explode(), offsets


def _require_aligned(features: Sequence[BundleFeature], ragged: Mapping[str, Ragged]) -> None:
    for feature in features:
        name, other = feature.name, feature.aligned_with
        if other is None or other not in ragged:
            continue
        unequal = ragged[name].lengths != ragged[other].lengths
        if unequal.any():
            row = int(np.argmax(unequal))
            raise SchemaError(
                f"column {name!r}: {unequal.sum()} rows to score hold a list of another length than "
                f"{other!r}, with which it is declared aligned; the first has {ragged[name].lengths[row]} "
                f"and {ragged[other].lengths[row]} elements (cut to max_length). Mend the rows"
            )
