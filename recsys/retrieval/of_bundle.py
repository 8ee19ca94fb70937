"""The index of a bundle's items, as the last stage of a retrieval model's run."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from recsys.retrieval.build import index
from recsys.retrieval.index import Index
from recsys.serving.bundle import Bundle

VERSION = 1
"""Raised by hand when the same bundle and rows give another index."""

ID, VECTOR = "id", "vector"
"""Columns of the items' file that are no attributes."""
MOST_QUERIES = 10_000
_LOOKED_AT = 1_000_000


def index_bundle(bundle: str | Path, output: str | Path, rows: pl.LazyFrame | None = None) -> Index:
    """Build the index that a bundle's query tower searches: its items, with their single-valued attributes.

    Args:
        bundle: of a retrieval model.
        output: folder of the index.
        rows: raw rows of the log; the queries of up to 10,000 different ones choose how an index of codes
            is searched, and measure it. Default: item vectors stand in.

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
    queries = None
    if rows is not None:
        asked = rows.select(towers.features).head(_LOOKED_AT).unique(maintain_order=True).collect()
        queries = encoder.encode(asked.sample(min(MOST_QUERIES, asked.height), seed=0))
    return index(
        items,
        output,
        vector_column=VECTOR,
        id_column=ID,
        attributes=attributes,
        queries=queries,
        tower=opened.folder,
    )
