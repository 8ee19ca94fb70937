"""Keys of values, and rows of keys: the same in prepare, training and serving.

The key of a value is xxh3_64 (seed 0) of its canonical bytes, taken after the value was cast to the
schema's type: integers, booleans and datetimes (microseconds since the epoch, UTC) as 8-byte
little-endian int64, strings as UTF-8 unnormalised, floats as 8-byte little-endian IEEE 754 with -0.0
taken as 0.0. A missing value has the reserved key ``MISSING_KEY``. Golden vectors in the tests pin
all of it: a change here makes every dataset, checkpoint and bundle unreadable.
"""

from __future__ import annotations

import numpy as np
import polars as pl
import pyarrow as pa
import xxhash
from numpy.typing import NDArray

from recsys.embeddings.xxh3 import multiply_high, xxh3_of_bytes, xxh3_of_words
from recsys.errors import DataError, SchemaError
from recsys.schema import ValueType

MISSING_KEY = 0
"""Key of a missing value. A real value that hashes to it (one in 2**64) is refused, not accepted."""

UNSEEN_KEY = 2**64 - 1
"""Stands for the unseen value where its rows are hashed, as ``MISSING_KEY`` for the missing one. A real
value with this key (one in 2**64) shares its rows."""

CANONICAL: dict[ValueType, pl.DataType] = {
    "int64": pl.Int64(),
    "string": pl.String(),
    "float64": pl.Float64(),
    "datetime": pl.Int64(),
}
"""What values of each schema type are in memory once they are cast."""

_WIDE = (pl.Int64, pl.UInt64, pl.Int128)
"""Integers that a float64 cannot hold exactly."""


def keys_of(values: pl.Series, type: ValueType) -> NDArray[np.uint64]:
    """Keys ``[N]`` of values ``[N]`` of a schema type; null and NaN get ``MISSING_KEY``.

    Raises SchemaError when the values are not of the type, DataError for a value whose key would be
    the reserved one.
    """
    values = canonical_values(values, type)
    if type == "string":
        return _string_keys(values)
    present = values.is_not_null()
    filled = values.fill_null(0)
    if type == "float64":
        present &= values.is_not_nan().fill_null(False)
        filled = filled.set(filled == 0.0, 0.0)
    keys = xxh3_of_words(filled.to_numpy().view(np.uint64))
    mask = present.to_numpy()
    _refuse_reserved(keys, mask, values)
    if not mask.all():
        keys[~mask] = MISSING_KEY
    return keys


def canonical_values(values: pl.Series, type: ValueType) -> pl.Series:
    """The values in the type that their keys are made of: Int64, String or Float64.

    Raises SchemaError for values that would lose something, such as floats taken for integers.
    """
    dtype, found = CANONICAL[type], values.dtype
    if found == dtype:
        return values
    if type == "datetime" and isinstance(found, pl.Datetime):
        return values.dt.cast_time_unit("us").to_physical()
    if type == "datetime" and found == pl.Date:
        return values.cast(pl.Datetime("us")).to_physical()
    if type == "string":
        fits = found in (pl.Categorical, pl.Enum)
    elif type == "float64":
        fits = found.is_float() or (found.is_integer() and found not in _WIDE)
    else:
        fits = found.is_integer() or (found == pl.Boolean and type == "int64")
    if not fits and found != pl.Null:
        raise SchemaError(f"column {values.name!r}: expected values of type {type}, found {found}")
    try:
        return values.cast(dtype)
    except pl.exceptions.PolarsError as error:
        raise SchemaError(f"column {values.name!r}: values do not fit {type}: {error}") from error


def _string_keys(values: pl.Series) -> NDArray[np.uint64]:
    array = values.to_arrow()
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    _, offsets, data = array.cast(pa.large_string()).buffers()
    begins = np.frombuffer(offsets, dtype=np.int64)[array.offset : array.offset + len(array) + 1]
    keys = xxh3_of_bytes(np.frombuffer(data or b"", dtype=np.uint8), begins)
    present = values.is_not_null().to_numpy()
    _refuse_reserved(keys, present, values)
    keys[~present] = MISSING_KEY
    return keys


def _refuse_reserved(keys: NDArray[np.uint64], present: NDArray[np.bool_], values: pl.Series) -> None:
    reserved = (keys == MISSING_KEY) & present
    if reserved.any():
        value = values[int(np.flatnonzero(reserved)[0])]
        raise DataError(
            f"column {values.name!r}: the value {value!r} hashes to the key that is reserved for missing "
            "values; replace that one value by another"
        )


def splitmix64(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's output for states ``[N]`` (Steele, Lea and Flood 2014): one-to-one on 64 bits."""
    mixed = words + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(mixed ^ (mixed >> np.uint64(31)), dtype=np.uint64)


def salt(vocabulary: str, lookup: int) -> int:
    """What sets one vocabulary's lookup apart from all others: xxh3_64 of the name, seed = lookup."""
    return xxhash.xxh3_64_intdigest(vocabulary.encode(), seed=lookup)


def hash_rows(keys: NDArray[np.uint64], rows: int, vocabulary: str, lookup: int = 0) -> NDArray[np.int64]:
    """Rows ``[N]`` in ``[0, rows)`` of keys ``[N]``: ``(splitmix64(key ^ salt) * rows) >> 64``."""
    if rows < 1:
        raise ValueError(f"rows must be at least 1, found {rows}")
    hashed = splitmix64(keys ^ np.uint64(salt(vocabulary, lookup)))
    return multiply_high(hashed, np.uint64(rows)).astype(np.int64)
