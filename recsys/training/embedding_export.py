"""Embedding vectors of a feature with their raw ids, for use outside this library."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from recsys.data.dataset import MISSING_ID, UNSEEN_ID, Dataset
from recsys.embeddings.combine import combined
from recsys.embeddings.open_values import OpenValues
from recsys.embeddings.plan import Plan
from recsys.embeddings.rows import table_rows
from recsys.errors import ConfigError, did_you_mean
from recsys.serving.files import file_name, save_tensors


def save_embeddings(
    dataset: Dataset,
    plan: Plan,
    tables: Mapping[str, NDArray[np.float32]],
    feature: str,
    folder: Path,
    gates: OpenValues | None = None,
    dealt: Mapping[str, NDArray[np.int64]] = MappingProxyType({}),
) -> Path:
    """Write the trained float32 vectors of every known value of a feature; returns the Parquet's path.

    The vectors are those that the model reads, also where several rows make one. Where there are gates,
    they are multiplied by them, and values whose gates are closed are left out. ``dealt`` holds the rows
    of every id of pooled vocabularies; a value without a row has zeros.

    ``FEATURE.parquet``: ``id`` (raw value), ``embedding`` (fixed-size list of float32). Most frequent
    train value first. ``FEATURE.safetensors``, rows in the same order: ``embedding`` ``[N, D]``,
    ``key`` uint64 ``[N]``, and the vectors ``missing`` and ``unseen`` ``[D]`` that stand for a missing
    value and for one that was not in the train rows. Raises ConfigError for a feature without vectors.
    """
    if feature not in plan.features:
        raise ConfigError(
            f"embeddings: no feature {feature!r} with vectors; {did_you_mean(feature, plan.features)}"
        )
    vocabulary = plan.features[feature]
    weights = tables[plan.table_of(feature)]
    rows = dealt[vocabulary] if vocabulary in dealt else table_rows(plan, dataset, vocabulary)
    values = dataset.values(vocabulary, ("id", "value", "key"))
    planned, width = plan.vocabularies[vocabulary], plan.width_of(feature)

    def vectors_of(ids: NDArray[np.int64]) -> NDArray[np.float32]:
        found = weights[ids if rows is None else rows[ids]]
        vectors = found if found.ndim == 2 else np.asarray(combined(found, planned.combine))
        return vectors if gates is None else vectors * gates.of(vocabulary, ids)[:, None]

    if gates is not None:
        values = values.filter(gates.open[vocabulary][values["id"].to_numpy()])
    vectors = vectors_of(values["id"].to_numpy())
    missing, unseen = vectors_of(np.array([MISSING_ID, UNSEEN_ID]))
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / file_name(feature, ".parquet")
    flat = pa.array(vectors.reshape(-1), pa.float32())
    listed = pa.FixedSizeListArray.from_arrays(flat, width)
    pq.write_table(pa.table({"id": values["value"].to_arrow(), "embedding": listed}), path)
    save_tensors(
        folder / file_name(feature, ".safetensors"),
        {
            "embedding": vectors,
            "key": values["key"].to_numpy(),
            "missing": missing,
            "unseen": unseen,
        },
    )
    return path
