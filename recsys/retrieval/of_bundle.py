"""The index of a bundle's items: of any bundle, and as the last stage of a retrieval model's run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.retrieval.build import IndexSettings, index
from recsys.retrieval.index import Index
from recsys.serving.bundle import Bundle
from recsys.serving.manifest import FORMAT, MANIFEST_FILE, read_json

VERSION = 1
"""Raised by hand when the same bundle and rows give another index."""

ID, VECTOR = "id", "vector"
"""Columns of the items' file that are no attributes."""
MOST_QUERIES = 10_000
_LOOKED_AT = 1_000_000


def is_bundle(folder: str | Path) -> bool:
    """Whether a folder holds the manifest of a bundle; raises BundleError where that cannot be read."""
    path = Path(folder) / MANIFEST_FILE
    return path.is_file() and read_json(path).get("format") == FORMAT


def index_bundle(
    bundle: str | Path,
    output: str | Path,
    rows: pl.LazyFrame | None = None,
    *,
    queries: str | Path | None = None,
    settings: IndexSettings | None = None,
) -> Index:
    """Build the index that a bundle's query tower searches: its items, with their single-valued attributes.

    Args:
        bundle: of a retrieval model.
        output: folder of the index.
        rows: raw rows of the log; the queries of up to 10,000 different ones choose how an index of codes
            is searched, and measure it. Default: item vectors stand in.
        queries: a file of the query tower's vectors, in place of rows.
        settings: as in ``index``; the metric stays the inner product, which the towers learned by.

    Raises:
        BundleError: the bundle is damaged, or its model has no query tower.
        DataError: the disk is full.
        RetrievalError: another process writes the same index.
    """
    opened = Bundle.load(bundle)
    encoder = opened.query_encoder()
    towers = opened.manifest.towers
    assert towers is not None
    items = opened.folder / towers.items
    attributes = [
        name
        for name, dtype in pl.read_parquet_schema(items).items()
        if name not in (ID, VECTOR) and not dtype.is_nested()
    ]
    vectors: str | Path | NDArray[np.float32] | None = queries
    if rows is not None:
        asked = rows.select(towers.features).head(_LOOKED_AT).unique(maintain_order=True).collect()
        vectors = encoder.encode(asked.sample(min(MOST_QUERIES // encoder.interests, asked.height), seed=0))
        vectors = vectors.reshape(-1, encoder.dim)  # each interest of a query asks for itself
    return index(
        items,
        output,
        settings=settings,
        vector_column=VECTOR,
        id_column=ID,
        attributes=attributes,
        queries=vectors,
        tower=opened.folder,
    )
