"""How a retrieval model learns: each row's item against the batch's other items and drawn ones."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn

from recsys.config import TrainSettings
from recsys.data.batch import Batch
from recsys.data.batches import rank_slice
from recsys.data.dataset import Dataset
from recsys.embeddings.lookup import to_device
from recsys.embeddings.tables import DeviceBatch, Tables
from recsys.errors import ConfigError, DataError
from recsys.models.inputs import Inputs
from recsys.models.options import ModelConfig
from recsys.models.two_tower import TwoTower, TwoTowerConfig, nearest_interest
from recsys.training.catalogue import Catalogue, joined
from recsys.training.distributed import Distributed
from recsys.training.hard_negatives import Drawn, HardNegatives
from recsys.training.self_supervision import SelfSupervision, Views
from recsys.training.softmax import Negatives, OwnNegatives, all_rows, gathered, softmax_loss
from recsys.training.vectors import Queries, ranked

_NEGATIVES_STREAM = 0x4E45_4741


@dataclass(frozen=True)
class Candidates:
    """What the loss knows of the rows looked up: first pairs of a query and its item, then drawn items."""

    pairs: int
    """Pairs of this process, B."""
    items: Tensor
    """Ids of their items and of the drawn ones, int64 ``[B + drawn]``."""
    counts: tuple[int, ...]
    """Negatives that each process has to offer; empty where they are not shared."""
    others: int
    """Other pairs whose items are negatives of a pair."""
    drawn: int
    """Drawn negatives of a pair."""
    hard: Hard | None = None
    """Further negatives of each pair alone, behind those; None before there are any."""
    views: Views | None = None
    """Of the items behind all others; None without self-supervision."""

    @property
    def rows(self) -> int:
        """Rows looked up, without those of ``views``."""
        return len(self.items) + (0 if self.hard is None else self.hard.rows)


@dataclass(frozen=True)
class Hard:
    """Where the hard negatives of each pair stand among the rows that were looked up for them."""

    rows: int
    at: Tensor
    """int64 ``[B * N]``."""
    lift: Tensor
    """``[B, N]``, see ``OwnNegatives``."""


class Retrieval:
    """Sampled softmax over in-batch and drawn negatives; recall and NDCG of a full ranking.

    Which items are drawn at a step follows from seed and step alone; with ``cross_rank`` all processes
    share them and the batch's items, so that any number of processes follows the same curve.

    Args:
        dataset: prepared rows, positives alone.
        config: the model's options.
        settings: the run file's ``train`` block.
        ranks: the processes that train together.

    Raises:
        ConfigError: options that leave no negatives, or no feature that tells items apart.
        DataError: the train rows hold no item.
    """

    def __init__(
        self, dataset: Dataset, config: ModelConfig, settings: TrainSettings, ranks: Distributed
    ) -> None:
        assert isinstance(config, TwoTowerConfig)
        if not (config.in_batch or config.negatives):
            raise ConfigError("model: without in_batch, negatives must be 1 or more; nothing is told apart")
        self._config, self._settings, self._ranks = config, settings, ranks
        self._catalogue = catalogue = Catalogue.of(dataset, config.item)
        self._shared = config.cross_rank and ranks.world > 1
        share = catalogue.counts / catalogue.counts.sum()
        chance = np.zeros(len(share))
        chance[catalogue.ids] = 1 / len(catalogue)
        self._share = to_device(share.astype(np.float32), ranks.device)
        self._chance = to_device(chance.astype(np.float32), ranks.device)
        self._hard: HardNegatives | None = None
        if config.hard_negatives:
            self._hard = HardNegatives(dataset, catalogue, config, settings, ranks)
        self._supervision: SelfSupervision | None = None
        if config.ssl_weight:
            features = tuple(feature.name for feature in dataset.features if feature.side == "item")
            self._supervision = SelfSupervision(catalogue, features, config, settings.seed, ranks)
        self._queries: Queries | None = None
        if dataset.manifest.rows.get("valid", 0):
            self._queries = Queries.of(dataset, "valid", catalogue, ("train",))

    def begin(self, epoch: int, model: nn.Module, tables: Tables) -> None:
        """Mine hard negatives where that is due."""
        assert isinstance(model, TwoTower)
        if self._hard is not None:
            self._hard.begin(epoch, model, tables)

    def order(self, epoch: int) -> NDArray[np.int64] | None:
        """Rows that share hard candidates together, where batches are local."""
        return None if self._hard is None else self._hard.order(epoch)

    def tensors(self) -> dict[str, Tensor]:
        """The pools of hard negatives."""
        return {} if self._hard is None else self._hard.tensors()

    def widen(self, batch: Batch) -> tuple[Batch, Candidates]:
        """The batch, behind its rows drawn negatives, hard ones, and the items that are seen in two views,
        and what the loss has to know of them."""
        wide, known = self._with_negatives(batch)
        drawn = None if self._hard is None else self._hard.draw(batch)
        if drawn is not None:
            wide, known = self._with_hard(wide, known, drawn)
        if self._supervision is None:
            return wide, known
        items, views = self._supervision.items(batch.index)
        return joined(wide, items), replace(known, views=views)

    def _with_negatives(self, batch: Batch) -> tuple[Batch, Candidates]:
        """The batch, the drawn items behind its rows, and whose negatives they are."""
        catalogue, ranks = self._catalogue, self._ranks
        draw = np.random.default_rng([_NEGATIVES_STREAM, self._settings.seed, batch.index])
        drawn = draw.integers(0, len(catalogue), self._config.negatives)
        mine = drawn[rank_slice(len(drawn), ranks.rank, ranks.world)]
        wide = joined(batch, catalogue.batch(mine)) if len(mine) else batch
        items = to_device(np.ascontiguousarray(wide.ids[catalogue.feature]), ranks.device)
        if not self._shared:
            pairs = max(batch.rows - 1, 0) if self._config.in_batch else 0
            return wide, Candidates(batch.rows, items, (), pairs, len(mine))
        pairs = batch.global_rows - 1 if self._config.in_batch else 0
        offered = (batch.global_rows if self._config.in_batch else 0, len(drawn))
        counts = tuple(
            sum(_length(rank_slice(rows, rank, ranks.world)) for rows in offered)
            for rank in range(ranks.world)
        )
        return wide, Candidates(batch.rows, items, counts, pairs, len(drawn))

    def _with_hard(self, wide: Batch, known: Candidates, drawn: Drawn) -> tuple[Batch, Candidates]:
        """The rows with hard negatives behind them, each item once: what many rows draw is costly."""
        places, at = np.unique(drawn.places, return_inverse=True)
        if self._config.batch_norm:  # statistics count each, whatever process it is on
            places, at = drawn.places.ravel(), np.arange(drawn.places.size)
        if len(places):
            wide = joined(wide, self._catalogue.batch(places))
        device = self._ranks.device
        hard = Hard(len(places), to_device(at.ravel(), device), to_device(drawn.lift, device))
        return wide, replace(known, hard=hard)

    def loss(self, model: nn.Module, inputs: Inputs, batch: DeviceBatch, known: Candidates) -> Tensor:
        """Sum over this process's pairs, see ``softmax_loss``, and its part of the self-supervision."""
        assert isinstance(model, TwoTower)
        if self._supervision is None or known.views is None:
            return self._told_apart(model, inputs, batch, known)
        told = self._told_apart(model, inputs, batch, known)
        seen = inputs.part(slice(known.rows, None))
        views = self._supervision.loss(model, seen, known.views, self._settings.precision)
        return told + batch.global_rows * views

    def _told_apart(self, model: TwoTower, inputs: Inputs, batch: DeviceBatch, known: Candidates) -> Tensor:
        """Sum over this process's pairs."""
        pairs = known.pairs
        vectors = model.item(inputs if known.views is None else inputs.part(slice(known.rows)))
        start = 0 if self._config.in_batch else pairs
        offered, items = vectors[start : len(known.items)], known.items[start:]
        if known.counts:
            offered = all_rows(offered, known.counts, self._ranks.group)
            items = gathered(items, known.counts, self._ranks.group)
        return softmax_loss(
            nearest_interest(model.query(inputs.part(slice(pairs))), vectors[:pairs]),
            vectors[:pairs],
            known.items[:pairs],
            Negatives(offered, items, self._lift(items, known)),
            model.temperature,
            own=_own(vectors[len(known.items) :], known.hard),
            weight=batch.weight,
            precision=self._settings.precision,
        )

    def validate(self, model: nn.Module, tables: Tables) -> dict[str, float]:
        """``recall`` and ``ndcg`` over the whole catalogue at ``monitor_k``, means over queries."""
        if self._queries is None:
            return {}
        assert isinstance(model, TwoTower)
        found = ranked(model, tables, self._queries, self._catalogue, self._ranks)
        values = [0.0, 0.0]
        if found is not None:
            best = found.best(self._settings.monitor_k)
            means = found.metrics(best, (self._settings.monitor_k,)).means()
            values = list(means.values())
        shared = torch.tensor(values, dtype=torch.float64, device=self._ranks.device)
        dist.broadcast(shared, src=0)
        return dict(zip(("recall", "ndcg"), shared.tolist(), strict=True))

    def _lift(self, items: Tensor, known: Candidates) -> Tensor:
        """Minus the logarithm of how often each item is to be expected among the negatives of a pair."""
        if self._config.correction == "none":
            return torch.zeros(len(items), device=items.device)
        return -torch.log(known.others * self._share[items] + known.drawn * self._chance[items])


def _own(vectors: Tensor, hard: Hard | None) -> OwnNegatives | None:
    """Hard negatives of each pair, from the vectors of the rows that were looked up for them."""
    if hard is None:
        return None
    own = vectors.index_select(0, hard.at).view(*hard.lift.shape, vectors.shape[1])
    return OwnNegatives(own, hard.lift)


def require_positives(dataset: Dataset) -> None:
    """Raise DataError for rows that are no positives: the loss would take them for such."""
    for part, rows in dataset.manifest.rows.items():
        zeros = rows - dataset.manifest.positives.get(part, 0)
        if zeros:
            raise DataError(
                f"{dataset.folder}: {zeros} of {rows} {part} rows have label 0, and a retrieval model "
                "learns from positive rows alone; leave the others out of the log, and prepare it with "
                "positives_only=True"
            )


def _length(rows: slice) -> int:
    return int(rows.stop - rows.start)
