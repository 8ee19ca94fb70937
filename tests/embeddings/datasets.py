"""Datasets without rows: vocabularies of given sizes, with files or without."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from recsys.data.dataset import Dataset, DatasetManifest, Feature, VocabularyInfo
from recsys.embeddings.keys import keys_of
from recsys.schema import Column, Schema


def made_dataset(
    folder: Path, sizes: dict[str, int], numerics: tuple[str, ...] = (), rows: int | None = None
) -> Dataset:
    """A dataset of vocabularies of the given sizes (both special ids counted), without rows.

    Value n of a vocabulary is counted once, or, with ``rows``, in proportion to ``1 / (n + 10)``.
    """
    columns = {name: Column(kind="categorical", type="int64") for name in sizes}
    columns |= {name: Column(kind="numeric", type="float64") for name in numerics}
    features = [Feature(name=name, kind="categorical", vocabulary=name) for name in sizes]
    features += [Feature(name=name, kind="numeric") for name in numerics]
    manifest = DatasetManifest(
        schema_=Schema(columns=columns),
        features=tuple(features),
        vocabularies={
            name: VocabularyInfo(size=size, type="int64", columns=(name,)) for name, size in sizes.items()
        },
        numerics={},
        rows={},
        positives={},
    )
    (folder / "vocab").mkdir(parents=True)
    (folder / "dataset.json").write_text(manifest.model_dump_json())
    dataset = Dataset.load(folder)
    for name, size in sizes.items():
        values = pl.Series(range(1000, 1000 + size - 2), dtype=pl.Int64)
        frame = pl.DataFrame({"id": range(2, size), "value": values, "key": keys_of(values, "int64")})
        shares = 1 / (np.arange(size - 2) + 10)
        counts = np.ones(size - 2) if rows is None else np.ceil(rows * shares / shares.sum())
        frame.with_columns(count=pl.Series(counts, dtype=pl.Int64)).write_parquet(dataset.vocabulary(name))
    return dataset


def manifest_only(sizes: dict[str, int]) -> Dataset:
    manifest = DatasetManifest(
        schema_=Schema(columns={}),
        features=tuple(Feature(name=name, kind="categorical", vocabulary=name) for name in sizes),
        vocabularies={
            name: VocabularyInfo(size=size, type="int64", columns=(name,)) for name, size in sizes.items()
        },
        numerics={},
        rows={},
        positives={},
    )
    return Dataset(Path("nowhere"), manifest)
