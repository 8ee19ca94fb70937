"""Self-supervision on items: two views of an item, with complementary features, shall be alike.

Yao et al., "Self-supervised Learning for Large-scale Item Recommendations" (CIKM 2021). Items are drawn
from the catalogue with equal chances, not from the log, so that rare ones learn as often as others. As
each feature is in one view alone, both views are made of one lookup.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from recsys.data.batch import Batch
from recsys.data.batches import rank_slice
from recsys.embeddings.lookup import to_device
from recsys.errors import ConfigError
from recsys.models.inputs import Inputs
from recsys.models.linear import Precision
from recsys.models.statistics import averages_kept
from recsys.models.two_tower import TwoTower, TwoTowerConfig
from recsys.training.catalogue import Catalogue
from recsys.training.distributed import Distributed
from recsys.training.feature_masks import FeatureMasks, mutual_information
from recsys.training.softmax import Negatives, all_rows, gathered, softmax_loss

_VIEWS_STREAM = 0x5649_4557


@dataclass(frozen=True)
class Views:
    """What the loss knows of the items looked up for it."""

    masked: frozenset[str]
    """Features that the first view is without; the second is without the others."""
    items: Tensor
    """Ids of this process's items, int64 ``[N]``, no two alike."""
    counts: tuple[int, ...]
    """Items of each process; empty where they are told from this process's alone."""
    drawn: int
    """Items of all processes."""


class SelfSupervision:
    """InfoNCE between the views of each item, told from the second views of the other items.

    Items, masks and dropped elements of a step follow from seed and step alone.

    Args:
        catalogue: the items.
        features: names of their features.
        config: the model's options.
        seed: of what is drawn.
        ranks: the processes that train together.

    Raises ConfigError where items have one feature alone.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        features: tuple[str, ...],
        config: TwoTowerConfig,
        seed: int,
        ranks: Distributed,
    ) -> None:
        if len(features) < 2:
            raise ConfigError(
                f"model.ssl_weight: two views of an item share no feature, and items have {features[0]!r} "
                "alone; give them another feature (side: item), or set ssl_weight to 0"
            )
        self._catalogue, self._config, self._seed, self._ranks = catalogue, config, seed, ranks
        self._masks = (
            FeatureMasks.random(features)
            if config.ssl_masking == "random"
            else FeatureMasks.correlated(features, mutual_information(catalogue.columns, features))
        )
        self._features = frozenset(features)
        self._longest = {
            name: int(np.diff(ragged.offsets).max())
            for name, ragged in catalogue.columns.ragged.items()
            if name in self._features
        }

    def items(self, index: int) -> tuple[Batch, Views]:
        """This process's items of a step, and what ``loss`` has to know of them."""
        ranks, count = self._ranks, min(self._config.ssl_items, len(self._catalogue))
        draw = np.random.default_rng([_VIEWS_STREAM, self._seed, index])
        drawn = draw.choice(len(self._catalogue), count, replace=False, shuffle=False)
        masked = self._masks.draw(draw)
        mine = rank_slice(count, ranks.rank, ranks.world)
        batch = self._catalogue.batch(drawn[mine])
        for name, longest in self._longest.items():
            kept = draw.random((count, longest)) >= self._config.ssl_dropout
            batch = _with_elements(batch, name, kept[mine])
        counts = tuple(
            len(range(*rank_slice(count, rank, ranks.world).indices(count))) for rank in range(ranks.world)
        )
        shared = self._config.cross_rank and ranks.world > 1
        ids = to_device(np.ascontiguousarray(batch.ids[self._catalogue.feature]), ranks.device)
        return batch, Views(masked, ids, counts if shared else (), count)

    def loss(self, model: TwoTower, inputs: Inputs, views: Views, precision: Precision) -> Tensor:
        """The weight times this process's part of the mean over items of all processes."""
        config = self._config
        with averages_kept(model.item_tower):
            first = model.view(inputs, views.masked)
            second = model.view(inputs, self._features - views.masked)
        others, items = second, views.items
        if views.counts:
            others = all_rows(second, views.counts, self._ranks.group)
            items = gathered(items, views.counts, self._ranks.group)
        lift = others.new_zeros(len(items))
        told = Negatives(others, items, lift)
        losses = softmax_loss(first, second, views.items, told, config.ssl_temperature, precision=precision)
        return losses * (config.ssl_weight / views.drawn)


def _with_elements(batch: Batch, name: str, kept: NDArray[np.bool_]) -> Batch:
    """A batch with some elements of its lists alone; ``kept`` is ``[B, at least the longest list]``."""
    lengths = batch.lengths[name]
    ends = np.cumsum(lengths)
    rows = np.repeat(np.arange(len(lengths)), lengths)
    stays = kept[rows, np.arange(len(rows)) - (ends - lengths)[rows]]
    left = np.bincount(rows[stays], minlength=len(lengths))
    return replace(
        batch,
        ids=batch.ids | {name: batch.ids[name][stays]},
        lengths=batch.lengths | {name: left},
    )
