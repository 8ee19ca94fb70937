"""What a bundle's smaller tables cost: AUC of held-out rows before and after, by its own reader."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys.data.dataset import Dataset, Part
from recsys.evaluation.metrics import auc
from recsys.progress import progress
from recsys.serving.manifest import Pruning, Quantisation
from recsys.serving.quantise import Table
from recsys.serving.scorer import Scorer
from recsys.training.raw_rows import encoded_rows

MEASURED_ROWS = 2_000_000
"""Held-out rows at most that costs are measured on."""
HELD_OUT: tuple[Part, ...] = ("test", "valid", "train")


def held_out(dataset: Dataset) -> Part:
    """The part whose rows a bundle is tried on: test, or what there is in its place."""
    rows = dataset.manifest.rows
    return next((part for part in HELD_OUT if rows.get(part, 0)), "train")


@dataclass(frozen=True)
class Exact:
    """Tables in float32, and rows of every id where they are not the ids themselves."""

    tables: Mapping[str, Table]
    maps: Mapping[str, NDArray[np.int64]]


@dataclass(frozen=True)
class HeldOut:
    """The rows that costs are measured on: the first held-out ones, ``limit`` at most."""

    dataset: Dataset
    scorer: Scorer
    """With the tables as the bundle stores them."""
    limit: int

    def costs(
        self, bundle: Exact, unpruned: Exact | None, *, lossy: bool
    ) -> tuple[Quantisation | None, Pruning | None]:
        """What the stored type costs, and what pruning does.

        Args:
            bundle: what the bundle holds.
            unpruned: the same with all values; None where none were cut.
            lossy: whether the tables are stored in fewer bits than these.

        None where nothing was lost, or AUC is not defined.
        """
        if not (lossy or unpruned):
            return None, None
        stored = [self.scorer.tables] if lossy else []
        name = "cost of quantisation" if lossy else "cost of pruning"
        rows, (full, *quantised) = self._aucs(name, bundle.maps, [bundle.tables, *stored])
        if full is None:
            return None, None
        part = held_out(self.dataset)
        quantisation, pruning = None, None
        if lossy and (found := quantised[0]) is not None:
            quantisation = Quantisation(
                part=part, rows=rows, auc_float=full, auc_quantised=found, cost=full - found
            )
        if unpruned is not None:
            _, (whole,) = self._aucs("cost of pruning", unpruned.maps, [unpruned.tables])
            if whole is not None:
                pruning = Pruning(
                    part=part, rows=rows, auc_unpruned=whole, auc_pruned=full, cost=whole - full
                )
        return quantisation, pruning

    def _aucs(
        self, name: str, maps: Mapping[str, NDArray[np.int64]], variants: Sequence[Mapping[str, Table]]
    ) -> tuple[int, list[float | None]]:
        """Number of rows, and their AUC with each of several variants of the tables."""
        part = held_out(self.dataset)
        labels: list[NDArray[np.float32]] = []
        scores: list[list[NDArray[np.float32]]] = [[] for _ in variants]
        total = min(self.limit, self.dataset.manifest.rows.get(part, 0))
        with progress(name, total=total) as bar:
            for rows, label in encoded_rows(self.dataset, part, maps, self.limit):
                labels.append(label)
                for each, tables in zip(scores, variants, strict=True):
                    each.append(self.scorer.score_encoded(rows, tables))
                bar.advance(rows.count)
        if not labels:
            return 0, [None for _ in variants]
        label = np.concatenate(labels)
        return len(label), [auc(label, np.concatenate(each)) for each in scores]
