"""The objective of ranking models: each row's label, 0 or 1."""

from __future__ import annotations

import math

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional

from recsys.config import TrainSettings
from recsys.data.batch import Batch
from recsys.data.batches import Batches
from recsys.data.dataset import Dataset
from recsys.embeddings.tables import DeviceBatch, Tables
from recsys.errors import DataError
from recsys.evaluation.doubt import doubtful_auc
from recsys.evaluation.metrics import auc, gauc, logloss
from recsys.models.inputs import Inputs
from recsys.progress import say
from recsys.training.distributed import Distributed
from recsys.training.scoring import labels_of, score_part

MONITORED = ("auc", "gauc", "logloss")


class Clicks:
    """Binary cross-entropy; AUC, GAUC and logloss of the validation rows."""

    def __init__(self, dataset: Dataset, settings: TrainSettings, ranks: Distributed) -> None:
        self._dataset, self._settings, self._ranks = dataset, settings, ranks
        self._batches: Batches | None = None
        self._said: set[str] = set()
        if dataset.manifest.rows.get("valid", 0):
            self._batches = Batches(
                dataset,
                "valid",
                settings.batch_size,
                shuffle_rows=settings.shuffle_rows,
                rank=ranks.rank,
                world=ranks.world,
                shuffle=False,
            )
            self._label, self._group = labels_of(dataset, "valid")

    def begin(self, epoch: int, model: nn.Module, tables: Tables) -> None:
        """Nothing changes from one epoch to the next."""

    def order(self, epoch: int) -> None:
        """Shuffled."""

    def tensors(self) -> dict[str, Tensor]:
        """Nothing has to be known."""
        return {}

    def widen(self, batch: Batch) -> tuple[Batch, None]:
        """The batch as it is."""
        return batch, None

    def loss(self, model: nn.Module, inputs: Inputs, batch: DeviceBatch, known: None) -> Tensor:
        """Weighted sum over rows."""
        return functional.binary_cross_entropy_with_logits(
            model(inputs), batch.label, weight=batch.weight, reduction="sum"
        )

    def validate(self, model: nn.Module, tables: Tables) -> dict[str, float]:
        """``auc``, ``gauc`` where groups are declared, ``logloss``."""
        if self._batches is None:
            return {}
        score = score_part(model, tables, self._batches, self._ranks.world)
        values = [0.0] * len(MONITORED)
        if score is not None:
            label, group = self._label, self._group
            by_group = None if group is None else gauc(label, score, group).value
            values = [_or_nan(auc(label, score)), _or_nan(by_group), logloss(label, score)]
        shared = torch.tensor(values, dtype=torch.float64, device=self._ranks.device)
        dist.broadcast(shared, src=0)
        named = dict(zip(MONITORED, shared.tolist(), strict=True))
        if math.isnan(named[self._settings.monitor]):
            raise DataError(_no_metric(self._dataset, self._settings, "one class only in every group"))
        self._doubt(named["auc"])
        return {name: value for name, value in named.items() if not math.isnan(value)}

    def _doubt(self, value: float) -> None:
        """Warn once of an AUC that is too round to be true."""
        doubt = doubtful_auc(value, f"{len(self._label):,} validation rows")
        if doubt is not None and doubt not in self._said and self._ranks.rank == 0:
            self._said.add(doubt)
            say(f"warning: {doubt}")


def require_monitored(dataset: Dataset, settings: TrainSettings) -> None:
    """Raise DataError before training where the monitored metric cannot be had of the validation rows."""
    rows, clicks = (found.get("valid", 0) for found in (dataset.manifest.rows, dataset.manifest.positives))
    if not rows or settings.monitor == "logloss":
        return
    if clicks in (0, rows):
        raise DataError(_no_metric(dataset, settings, f"every label is {int(clicks > 0)}"))
    if settings.monitor == "gauc" and not dataset.has_group:
        raise DataError(_no_metric(dataset, settings, "the dataset has no group column"))


def _no_metric(dataset: Dataset, settings: TrainSettings, reason: str) -> str:
    rows = dataset.manifest.rows["valid"]
    return (
        f"{dataset.part('valid')}: {settings.monitor} of the {rows} validation rows "
        f"cannot be computed, as {reason}; choose another train.monitor (logloss) or another split"
    )


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value
