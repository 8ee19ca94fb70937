"""Ids as callers give them: lists, arrays, columns; made one column, or refused in words that say why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.errors import ConfigError, DataError, RetrievalError, SchemaError

IdType = Literal["int64", "string"]
_TEXT = (pl.String, pl.Categorical, pl.Enum)


def id_series(ids: Any, name: str) -> pl.Series:
    """Ids that stand in one list as a column of that name; raises DataError for what is no list of ids."""
    if isinstance(ids, str | bytes | Mapping) or ids is None:
        raise DataError(f"{name}: expected a list of ids, found {ids!r}")
    try:
        series = pl.Series(name, ids)
    except (TypeError, ValueError, OverflowError, pl.exceptions.PolarsError) as error:
        raise DataError(f"{name}: expected a list of integers or of text, found {_shown(ids)}") from error
    mixed = isinstance(ids, list | tuple) and series.dtype.is_integer() and bool in set(map(type, ids))
    if series.dtype.is_nested() or series.dtype == pl.Object or mixed:
        raise DataError(f"{name}: expected a list of integers or of text, found {_shown(ids)}")
    return series


def ids_by_query(exclude: Any, name: str) -> tuple[pl.Series, NDArray[np.int64] | None]:
    """Ids in one column, and how many each query has; None where they are for all queries.

    Args:
        exclude: ids, or a list of ids (None: none) for each query: lists, arrays or a column of lists.
        name: of the column, for messages.

    Raises:
        ConfigError: neither of these. DataError: ids that are neither integers nor text.
    """
    if isinstance(exclude, np.ndarray) and exclude.ndim == 2:
        return id_series(exclude.ravel(), name), np.full(len(exclude), exclude.shape[1], np.int64)
    if isinstance(exclude, pl.Series) and isinstance(exclude.dtype, pl.List | pl.Array):
        lists = exclude.arr.to_list() if isinstance(exclude.dtype, pl.Array) else exclude
        lengths = lists.list.len().fill_null(0)
        return id_series(lists.filter(lengths > 0).explode(), name), lengths.to_numpy()
    if not isinstance(exclude, Sequence) or isinstance(exclude, str | bytes) or not _any_list(exclude):
        return id_series(exclude, name), None
    if not all(each is None or _is_list(each) for each in exclude):
        raise ConfigError(f"{name}: expected ids, or a list of ids for each query, found {_shown(exclude)}")
    parts = [() if each is None else each for each in exclude]
    if all(isinstance(part, np.ndarray) for part in parts):
        flat: Any = np.concatenate([part for part in parts if len(part)] or [[]])  # empty ones are floats
    else:
        flat = list(chain.from_iterable(parts))
    return id_series(flat, name), np.array([len(part) for part in parts], np.int64)


def of_index(ids: pl.Series, id_type: IdType) -> pl.Series:
    """Ids in the type of an index's; null for a number beyond 64 bits.

    Raises RetrievalError, which names the column and the first id, for ids of another type: floats and
    booleans are no integers, and nothing is rounded.
    """
    wanted = pl.String if id_type == "string" else pl.Int64
    found = ids.dtype
    fits = found in _TEXT if id_type == "string" else found.is_integer()
    if not fits and ids.null_count() < len(ids):
        first = ids.drop_nulls()[0]
        raise RetrievalError(
            f"{ids.name or 'ids'}: expected {id_type}, as the index's ids are, found {first!r} ({found})"
        )
    return ids.cast(wanted, strict=False)


def in_file(name: str, first_row: int, items: pl.DataFrame) -> pl.DataFrame:
    """Rows of a file with the ids of their first column as Int64 or String.

    Raises SchemaError where they are neither integers nor text, DataError where one is missing.
    """
    ids = items.to_series(0)
    if not (ids.dtype.is_integer() or ids.dtype in _TEXT):
        raise SchemaError(f"{name}: ids in column {ids.name!r} are {ids.dtype}; expected integers or text")
    plain = ids.cast(pl.Int64 if ids.dtype.is_integer() else pl.String, strict=False)
    if plain.null_count():
        row = first_row + int(plain.is_null().arg_true()[0])
        raise DataError(f"{name}, row {row}: the id in column {ids.name!r} is missing or beyond 64 bits")
    return items.with_columns(plain)


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple | np.ndarray | pl.Series)


def _any_list(values: Sequence[Any]) -> bool:
    return any(_is_list(value) for value in values)


def _shown(values: Any) -> str:
    """A value for a message, cut where it is long."""
    text = repr(values)
    return text if len(text) <= 80 else f"{text[:77]}..."
