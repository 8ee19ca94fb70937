"""``selftest.safetensors``: raw rows and the scores that every reader must give them.

The rows are stored before any encoding, in flat arrays that any language can read:

    NAME.values    int64 (also datetimes, in microseconds since 1970 UTC) or float64, one per value
    NAME.bytes     uint8: UTF-8 of all strings one after the other, in place of NAME.values
    NAME.ends      int64: end of each string in NAME.bytes
    NAME.valid     bool, one per value: False where it is missing
    NAME.lengths   int64 [rows]: elements of each row's list, for multi and sequence features
    score          float32 [rows]: probabilities
    query          float32 [rows, dim] or [rows, interests, dim]: vectors of the rows' queries, of retrieval
                   models
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.embeddings.keys import canonical_values
from recsys.errors import BundleError
from recsys.schema import RAGGED
from recsys.serving.encode import flatten
from recsys.serving.files import load_tensors
from recsys.serving.manifest import BundleFeature, SelfTest
from recsys.serving.queries import QueryEncoder
from recsys.serving.scorer import Scorer

SCORE, QUERY = "score", "query"


def store_rows(frame: pl.DataFrame, features: Sequence[BundleFeature]) -> dict[str, NDArray[Any]]:
    """Raw rows of a frame as flat arrays; values are in the schema's types from then on."""
    arrays: dict[str, NDArray[Any]] = {}
    for feature in features:
        name, values = feature.name, frame[feature.name]
        if feature.kind in RAGGED:
            values, offsets = flatten(values, feature.model_copy(update={"max_length": None}))
            arrays[f"{name}.lengths"] = np.diff(offsets)
        values = canonical_values(values, feature.type)
        arrays[f"{name}.valid"] = values.is_not_null().to_numpy()
        if feature.type == "string":
            texts = [text.encode() for text in values.fill_null("").to_list()]
            arrays[f"{name}.bytes"] = np.frombuffer(b"".join(texts), np.uint8)
            arrays[f"{name}.ends"] = np.cumsum([len(text) for text in texts], dtype=np.int64)
        else:
            arrays[f"{name}.values"] = values.fill_null(0).to_numpy()
    return arrays


def read_rows(arrays: dict[str, NDArray[Any]], features: Sequence[BundleFeature]) -> pl.DataFrame:
    """The frame that ``store_rows`` was given, in the schema's types; raises KeyError or ValueError."""
    columns: dict[str, pl.Series] = {}
    for feature in features:
        name, valid = feature.name, arrays[f"{feature.name}.valid"]
        if feature.type == "string":
            text = arrays[f"{name}.bytes"].tobytes()
            ends = arrays[f"{name}.ends"].tolist()
            starts = [0, *ends][: len(ends)]
            values = [text[start:end].decode() for start, end in zip(starts, ends, strict=True)]
        else:
            values = arrays[f"{name}.values"].tolist()
        marked = [value if known else None for value, known in zip(values, valid.tolist(), strict=True)]
        dtype: pl.DataType = {"string": pl.String(), "float64": pl.Float64()}.get(feature.type, pl.Int64())
        if feature.kind in RAGGED:
            ends = np.cumsum(arrays[f"{name}.lengths"]).tolist()
            lists = [marked[start:end] for start, end in zip([0, *ends][: len(ends)], ends, strict=True)]
            columns[name] = pl.Series(name, lists, dtype=pl.List(dtype))
        else:
            columns[name] = pl.Series(name, marked, dtype=dtype)
    return pl.DataFrame(columns)


def check_selftest(scorer: Scorer, queries: QueryEncoder | None, path: Path, test: SelfTest) -> None:
    """Score the stored rows, and compute their query vectors where there is a query tower.

    Raises BundleError when a score, or a number of a vector, is off by more than the tolerance.
    """
    arrays = load_tensors(path)
    try:
        expected = [arrays[SCORE], *([] if queries is None else [arrays[QUERY]])]
        frame = read_rows(arrays, scorer.features)
    except (KeyError, ValueError, TypeError, pl.exceptions.PolarsError) as error:
        raise BundleError(f"{path}: not the rows that the manifest describes: {error!r}") from error
    found = [scorer.score_typed(frame), *([] if queries is None else [queries.encode_typed(frame)])]
    for name, mine, stored in zip(("score", "query vector"), found, expected, strict=False):
        _compare(path, name, mine, stored, test)


def _compare(
    path: Path, name: str, found: NDArray[np.float32], expected: NDArray[np.float32], test: SelfTest
) -> None:
    if expected.shape != found.shape or len(found) != test.rows:
        raise BundleError(
            f"{path}: expected {test.rows} rows, found {len(found)} and {len(expected)} of {name}"
        )
    difference = np.abs(found - expected)
    if not (difference <= test.tolerance * np.maximum(1, np.abs(expected))).all():  # also where one is NaN
        odd = np.where(np.isnan(difference), np.inf, difference)
        at = np.unravel_index(int(np.argmax(odd)), odd.shape)
        raise BundleError(
            f"{path}, row {at[0]}: the self-test expects the {name} {expected[at]:.7f}, found "
            f"{found[at]:.7f} (tolerance {test.tolerance:g}); the bundle is damaged, or this version of "
            f"onnxruntime computes it otherwise. Export it anew, or install the versions in the manifest"
        )
