"""Vectors of queries and of items by a retrieval model, and how well they find what they should."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.data.batches import gather, rank_slice
from recsys.data.columns import Columns
from recsys.data.dataset import GROUP, LABEL, Dataset, Part
from recsys.embeddings.tables import DeviceBatch, Tables
from recsys.evaluation.retrieval import ItemLists, Ranked, best_items, rank_metrics
from recsys.models.inputs import Inputs
from recsys.models.two_tower import TwoTower
from recsys.training.catalogue import Catalogue
from recsys.training.distributed import Distributed
from recsys.training.scoring import gather_slices

_ROWS = 4096
"""Rows looked up at a time, by all processes together."""


@torch.no_grad()
def vectors_of(
    tower: Callable[[Inputs], Tensor], tables: Tables, columns: Columns, ranks: Distributed
) -> NDArray[np.float32] | None:
    """Vectors by a tower in evaluation mode on rank 0, ``[rows, D]`` or of several interests
    ``[rows, interests, D]``; None on the others."""
    slices, sizes = [], []
    for batch in device_batches(tables, columns, ranks):
        slices.append(tower(tables(batch)).float())
        sizes.append(batch.global_rows)
    if ranks.world == 1:
        return torch.cat(slices).cpu().numpy()
    return gather_slices(slices, sizes, ranks.world)


def device_batches(tables: Tables, columns: Columns, ranks: Distributed) -> Iterator[DeviceBatch]:
    """Rows in order, some at a time, of which each process gets its slice."""
    for start in range(0, columns.rows, _ROWS):
        rows = np.arange(start, min(start + _ROWS, columns.rows))
        mine = rows[rank_slice(len(rows), ranks.rank, ranks.world)]
        yield tables.prepare(gather([(columns, mine)], 0, len(rows)))


@dataclass(frozen=True)
class Queries:
    """Queries of a part of a dataset: one per group, or where no group is declared one per row."""

    columns: Columns
    """Encoded features of each query, those of its group's first row."""
    relevant: ItemLists
    """Places in the catalogue of the items that the rows of the query hold; none that it has seen."""
    unknown: NDArray[np.int64]
    """Rows of each query whose item is not in the catalogue, ``[Q]``."""
    seen: ItemLists | None
    """Items that earlier parts hold for the group, which are no answers; None without groups."""

    @classmethod
    def of(cls, dataset: Dataset, part: Part, catalogue: Catalogue, earlier: Sequence[Part]) -> Queries:
        """Queries of a part that has rows; ``earlier`` names the parts whose items they have seen."""
        features = [feature.name for feature in dataset.features]
        grouped = dataset.has_group
        rows = pl.read_parquet(dataset.part(part), glob=False, columns=None).with_row_index("__row__")
        key = GROUP if grouped else "__row__"
        first = rows.unique(key, keep="first", maintain_order=True).select(*features, LABEL, key)
        numbered = first.select(key, pl.int_range(pl.len(), dtype=pl.Int64).alias("__query__"))
        queries = rows.select(key).join(numbered, on=key, how="left", maintain_order="left")["__query__"]
        places = catalogue.positions(rows[catalogue.feature].to_numpy())
        asked, known = queries.to_numpy(), places >= 0
        relevant = ItemLists.of(asked[known], places[known], first.height)
        seen = _seen(dataset, catalogue, earlier, numbered) if grouped else None
        return cls(
            columns=Columns.of(first.drop(key).to_arrow(), dataset.features),
            relevant=relevant if seen is None else relevant.minus(seen),
            unknown=np.bincount(asked[~known], minlength=first.height),
            seen=seen,
        )


def _seen(
    dataset: Dataset, catalogue: Catalogue, parts: Sequence[Part], numbered: pl.DataFrame
) -> ItemLists:
    """Items of catalogue that some parts hold, by query; ``numbered`` is the query of each group."""
    frames = [
        pl.scan_parquet(dataset.part(part), glob=False).select(GROUP, catalogue.feature) for part in parts
    ]
    pairs = pl.concat(frames).join(numbered.lazy(), on=GROUP, how="inner").collect()
    places = catalogue.positions(pairs[catalogue.feature].to_numpy())
    known = places >= 0
    return ItemLists.of(pairs["__query__"].to_numpy()[known], places[known], numbered.height)


@dataclass(frozen=True)
class Found:
    """Vectors of queries and of the whole catalogue, on one process."""

    queries: Queries
    query_vectors: NDArray[np.float32]
    """``[Q, D]``, or of several interests ``[Q, interests, D]``."""
    item_vectors: NDArray[np.float32]
    """``[I, D]``."""

    def best(self, k: int) -> NDArray[np.int64]:
        """Places of the k items that fit each query best, seen ones left out: ``[Q, k]``."""
        return best_items(self.query_vectors, self.item_vectors, k, self.queries.seen)

    def metrics(
        self, best: NDArray[np.int64], k: Sequence[int], *, among: NDArray[np.bool_] | None = None
    ) -> Ranked:
        """Recall and NDCG of ranked items; ``among`` ``[I]``: of these items of the catalogue alone."""
        if among is not None:
            return rank_metrics(best, self.queries.relevant.among(among), k)
        return rank_metrics(best, self.queries.relevant, k, self.queries.unknown)


def ranked(
    model: TwoTower, tables: Tables, queries: Queries, catalogue: Catalogue, ranks: Distributed
) -> Found | None:
    """Vectors by the model in evaluation mode, on rank 0; None on the others."""
    was_training = model.training
    model.eval()
    asked = vectors_of(model.query, tables, queries.columns, ranks)
    items = vectors_of(model.item, tables, catalogue.columns, ranks)
    model.train(was_training)
    return None if asked is None or items is None else Found(queries, asked, items)
