"""What a retrieval model adds to a bundle: its query tower, and the vectors of all its items."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from recsys.data.columns import Columns
from recsys.data.dataset import LABEL, Dataset
from recsys.errors import BundleError, ConfigError
from recsys.features.encoder import Encoder
from recsys.serving.manifest import TOLERANCE, Towers
from recsys.serving.quantise import Table
from recsys.serving.queries import QueryEncoder
from recsys.training.raw_rows import as_raw

if TYPE_CHECKING:
    from recsys.training.run_folder import Run

QUERY_FILE, ITEMS_FILE = "query.onnx", "items/items.parquet"
ID, TRAIN_ROWS, VECTOR = "id", "train_rows", "vector"
_ROW_GROUP = 1 << 16


@dataclass(frozen=True)
class TrainedTowers:
    """What the towers' part of a bundle is made from."""

    write_query: Callable[[Path], None]
    """Writes the query tower as ONNX."""
    features: tuple[str, ...]
    """Features that it reads, in order."""
    item: str
    """Feature that tells items apart."""
    items: pl.DataFrame
    """``id``, the items' other features, ``train_rows``: raw values."""
    vectors: NDArray[np.float32]
    """Of the items, ``[I, D]``."""
    sample_vectors: NDArray[np.float32]
    """The trained model's own vectors of the self-test's queries, ``[rows, D]``, of several interests
    ``[rows, interests, D]``."""

    @property
    def interests(self) -> int:
        """Vectors of a query."""
        return 1 if self.sample_vectors.ndim == 2 else self.sample_vectors.shape[1]


def trained_towers(
    run: Run, sample: pl.DataFrame, cleared: Mapping[str, NDArray[np.int64]] | None = None
) -> TrainedTowers | None:
    """The towers of a run's best weights; None where its model scores rows.

    Args:
        sample: raw rows of the self-test.
        cleared: rows by table that count as zeros; default: none.

    Raises ConfigError where a feature of items has a name that the catalogue's file needs for itself.
    """
    from recsys.models import parse_options
    from recsys.models.onnx_graph import export_onnx
    from recsys.models.two_tower import QUERY_SIDES, TwoTower, TwoTowerConfig
    from recsys.serving.queries import OUTPUT
    from recsys.training.catalogue import Catalogue
    from recsys.training.distributed import distributed
    from recsys.training.loaded import opened_run
    from recsys.training.vectors import vectors_of

    config = parse_options(run.file.model, run.file.options)
    if not isinstance(config, TwoTowerConfig):
        return None
    with opened_run(run, cleared) as (dataset, layout, model, tables), distributed("cpu") as ranks:
        assert isinstance(model, TwoTower)
        catalogue = Catalogue.of(dataset, config.item)
        items = vectors_of(model.item, tables, catalogue.columns, ranks)
        queries = vectors_of(model.query, tables, _encoded(sample, dataset), ranks)
    assert items is not None
    assert queries is not None
    side = layout.of_sides(QUERY_SIDES)
    return TrainedTowers(
        write_query=lambda path: export_onnx(model.query_tower, side, path, output=OUTPUT),
        features=tuple(f.name for f in dataset.features if f.name in side.names),
        item=catalogue.feature,
        items=_described(catalogue.rows, catalogue.counts[catalogue.ids], dataset, catalogue.feature),
        vectors=items,
        sample_vectors=queries,
    )


def _encoded(sample: pl.DataFrame, dataset: Dataset) -> Columns:
    frame = Encoder.load(dataset).encode(sample).with_columns(pl.lit(1.0, pl.Float32).alias(LABEL))
    return Columns.of(frame.to_arrow(), dataset.features)


def _described(rows: pl.DataFrame, counts: NDArray[np.int64], dataset: Dataset, item: str) -> pl.DataFrame:
    """Raw values of the items' features, the one that tells them apart first."""
    mine = [feature for feature in dataset.features if feature.side == "item"]
    taken = [f.name for f in mine if f.name in (ID, TRAIN_ROWS, VECTOR) and f.name != item]
    if taken:
        raise ConfigError(
            f"feature {taken[0]!r} describes items and has the name of a column that the catalogue of a "
            f"bundle has itself ({ID}, {TRAIN_ROWS}, {VECTOR}); rename it in the log"
        )
    raw = as_raw(rows.select(f.name for f in mine), mine, dataset)
    others = [f.name for f in mine if f.name != item]
    return raw.select(pl.col(item).alias(ID), *others, pl.Series(TRAIN_ROWS, counts))


def write_towers(
    towers: TrainedTowers,
    folder: Path,
    encoder: QueryEncoder,
    sample: pl.DataFrame,
    exact: Mapping[str, Table],
) -> tuple[Towers, NDArray[np.float32]]:
    """Write the items' file, and prove the query tower, whose graph is there, against the model.

    Args:
        sample: the self-test's rows.
        exact: tables as they were trained.

    Returns the manifest's part, and the query vectors of the sample as this bundle gives them.
    Raises BundleError where they are not the model's.
    """
    found, stored = encoder.encode_typed(sample, exact), encoder.encode_typed(sample)
    difference = np.abs(found - towers.sample_vectors).max(initial=0.0)
    if not difference <= TOLERANCE * max(1.0, np.abs(towers.sample_vectors).max(initial=0.0)):
        raise BundleError(
            f"with float32 tables the bundle's query vectors differ from the trained model's by "
            f"{difference:.2g}; nothing was written. Please report this with the run file"
        )
    (folder / ITEMS_FILE).parent.mkdir()
    flat = pa.array(towers.vectors.reshape(-1), pa.float32())
    vectors = pa.FixedSizeListArray.from_arrays(flat, towers.vectors.shape[1])
    table = towers.items.to_arrow().append_column(VECTOR, vectors)
    pq.write_table(table, folder / ITEMS_FILE, row_group_size=_ROW_GROUP)
    part = Towers(
        query=QUERY_FILE,
        features=towers.features,
        dim=towers.vectors.shape[1],
        interests=towers.interests,
        item=towers.item,
        items=ITEMS_FILE,
        count=len(towers.vectors),
        model_difference=float(difference),
        cosine=_cosine(found, stored),
    )
    return part, stored


def _cosine(first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
    """Mean over vectors; 1 without any, and for two of zeros."""
    lengths = np.linalg.norm(first, axis=-1) * np.linalg.norm(second, axis=-1)
    products = (first * second).sum(-1)
    each = np.divide(products, lengths, out=np.ones_like(products), where=lengths > 0)
    return float(each.mean()) if len(each) else 1.0
