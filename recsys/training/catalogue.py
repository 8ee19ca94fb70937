"""The catalogue: every item of the train rows with its features, and how often those rows hold it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.data.batch import Batch
from recsys.data.batches import gather
from recsys.data.columns import Columns
from recsys.data.dataset import FIRST_ID, LABEL, MISSING_ID, Dataset, Feature
from recsys.errors import ConfigError, DataError, did_you_mean

_EMPTY = {"categorical": pl.lit(MISSING_ID, pl.Int64), "numeric": pl.lit(None, pl.Float32)}
"""What stands in an item's row for features of queries."""
_NO_LIST = pl.lit([], pl.List(pl.Int64))


@dataclass(frozen=True)
class Catalogue:
    """Items by rising id."""

    feature: str
    """The feature that tells items apart."""
    ids: NDArray[np.int64]
    """Its ids ``[I]``, rising; the missing and the unseen value are no items."""
    rows: pl.DataFrame
    """Encoded features of each item, as its first train row has them; of queries' features, nothing."""
    columns: Columns
    """The same, ready for batches."""
    counts: NDArray[np.int64]
    """How often the train rows hold each id of the vocabulary, ``[size]``."""

    @classmethod
    def of(cls, dataset: Dataset, stated: str | None = None) -> Catalogue:
        """Read the items of a dataset's train rows.

        Args:
            stated: the feature that tells items apart; default: see ``item_feature``.

        Raises:
            ConfigError: it is not known which feature tells items apart.
            DataError: the train rows hold no item.
        """
        item = item_feature(dataset.features, stated)
        names = [feature.name for feature in dataset.features if feature.side == "item"]
        path = dataset.part("train")
        train = pl.scan_parquet(path, glob=False)
        counted = train.group_by(item.name).len().collect(engine="streaming")
        counts = np.zeros(dataset.vocabulary_info(str(item.vocabulary)).size, np.int64)
        counts[counted[item.name].to_numpy()] = counted["len"].to_numpy()
        first = train.select(names).unique(item.name, keep="first", maintain_order=True).collect()
        known = first.filter(pl.col(item.name) >= FIRST_ID).sort(item.name)
        if known.is_empty():
            raise DataError(f"{path}: no row holds an item ({item.name!r} is missing or rare everywhere)")
        others = [
            _EMPTY.get(feature.kind, _NO_LIST).alias(feature.name)
            for feature in dataset.features
            if feature.side != "item"
        ]
        rows = known.with_columns(*others, pl.lit(1.0, pl.Float32).alias(LABEL))
        columns = Columns.of(rows.to_arrow(), dataset.features)
        return cls(item.name, known[item.name].to_numpy(), rows, columns, counts)

    def __len__(self) -> int:
        return len(self.ids)

    def positions(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Place in the catalogue of each id ``[N]``; -1 for one that is no item."""
        at = np.minimum(np.searchsorted(self.ids, ids), len(self.ids) - 1)
        return np.where(self.ids[at] == ids, at, -1)

    def batch(self, places: NDArray[np.int64]) -> Batch:
        """The items at these places as rows to look up."""
        return gather([(self.columns, places)], 0, len(places))


def item_feature(features: tuple[Feature, ...], stated: str | None) -> Feature:
    """The feature that tells items apart: the stated one, or the one categorical feature of side item.

    Raises ConfigError where there is none, or several and none is stated.
    """
    likely = {f.name: f for f in features if f.side == "item" and f.kind == "categorical"}
    if stated is not None and stated not in likely:
        raise ConfigError(
            f"model.item: {stated!r} is no categorical feature of side item; {did_you_mean(stated, likely)}"
        )
    if not likely:
        raise ConfigError(
            "no categorical feature describes the item, and a retrieval model needs one that tells items "
            "apart: set {kind: categorical, side: item} for it in data.columns (or the schema)"
        )
    if stated is None and len(likely) > 1:
        raise ConfigError(
            f"model.item: which of {', '.join(map(repr, likely))} tells items apart? Name one of them"
        )
    return likely[stated or next(iter(likely))]


def joined(first: Batch, second: Batch) -> Batch:
    """The rows of one batch, then those of another; the rest is the first one's."""

    def both(
        mine: dict[str, NDArray[np.generic]], theirs: dict[str, NDArray[np.generic]]
    ) -> dict[str, NDArray[np.generic]]:
        return {name: np.concatenate([values, theirs[name]]) for name, values in mine.items()}

    return Batch(
        index=first.index,
        global_rows=first.global_rows,
        label=np.concatenate([first.label, second.label]),
        ids=both(first.ids, second.ids),  # type: ignore[arg-type]
        lengths=both(first.lengths, second.lengths),  # type: ignore[arg-type]
        numerics=both(first.numerics, second.numerics),  # type: ignore[arg-type]
        weight=first.weight,
    )
