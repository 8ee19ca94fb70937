"""What a retrieval model finds for the queries of some rows, and where that is written down."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from recsys.evaluation.metric_files import reading_metrics, save_metrics
from recsys.evaluation.retrieval import Ranked

SCHEMA = {
    "items": pl.String,
    "k": pl.Int64,
    "queries": pl.Int64,
    "recall": pl.Float64,
    "recall_error": pl.Float64,
    "ndcg": pl.Float64,
    "ndcg_error": pl.Float64,
}
HEAD_SHARE = 0.2
"""Items of the head: the most frequent fifth of the catalogue."""


@dataclass(frozen=True)
class RetrievalEvaluation:
    """Full ranking of the whole catalogue."""

    slices: pl.DataFrame
    """items (``all``, ``head``, ``tail``), k, queries, recall, ndcg (means over queries that were after at
    least one such item), and the standard error of each mean."""
    facts: dict[str, int]
    """rows, queries, items (of the catalogue), head_items, unknown (rows whose item the train rows do not
    hold; they count as not found)."""
    notes: tuple[str, ...] = ()

    @property
    def overall(self) -> dict[str, float]:
        """``recall@k`` and ``ndcg@k`` over all items."""
        rows = self.slices.filter(pl.col("items") == "all").iter_rows(named=True)
        return {f"{name}@{row['k']}": row[name] for row in rows for name in ("recall", "ndcg")}

    def save(self, folder: Path) -> None:
        """Write ``metrics.json`` and ``slices.parquet`` into a folder."""
        values = {
            "overall": {**self.facts, **self.overall},
            "notes": list(self.notes),
            "facts": self.facts,
            "slices": self.slices.to_dicts(),
        }
        save_metrics(folder, values, self.slices)

    @classmethod
    def load(cls, folder: Path) -> RetrievalEvaluation:
        """Read what ``save`` wrote; raises DataError that names the file."""
        what = "metrics of a retrieval model"
        with reading_metrics(folder, command="recsys evaluate", what=what) as values:
            slices = pl.DataFrame(values["slices"], schema=SCHEMA)
            return cls(slices, values["facts"], tuple(values["notes"]))


def lines_of(items: str, found: Ranked) -> list[dict[str, Any]]:
    """Lines of the slices for one kind of items; None where no query was after one."""
    return [
        {
            "items": items,
            "k": k,
            "queries": len(found.queries),
            **_mean("recall", found.recall[k]),
            **_mean("ndcg", found.ndcg[k]),
        }
        for k in found.recall
    ]


def _mean(name: str, values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> dict[str, float | None]:
    count = len(values)
    error = float(values.std(ddof=1) / np.sqrt(count)) if count > 1 else None
    return {name: float(values.mean()) if count else None, f"{name}_error": error}
