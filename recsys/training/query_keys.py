"""Which rows ask the same: a key of each row's query."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from recsys.data.batch import Batch
from recsys.embeddings.keys import splitmix64


def query_keys(batch: Batch, features: Sequence[str]) -> NDArray[np.uint64]:
    """Keys ``[B]``, equal for rows of one group that agree in these features.

    Two of n queries that differ have one key with a chance of about n² / 2⁶⁵.
    """
    group = np.zeros(batch.rows, np.int64) if batch.group is None else batch.group
    keys = splitmix64(group.astype(np.uint64))
    for name in features:
        if name in batch.numerics:
            words = batch.numerics[name].view(np.uint32).astype(np.uint64)
        elif name in batch.lengths:
            words = _list_words(batch.ids[name], batch.lengths[name])
        else:
            words = batch.ids[name].astype(np.uint64)
        keys = splitmix64(keys ^ words)  # in turn, so that two features' values cannot be exchanged
    return keys


def _list_words(values: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.uint64]:
    """A word for each list: the sum over its values, mixed with their places in it."""
    ends = np.cumsum(lengths)
    starts = ends - lengths
    places = np.arange(len(values)) - np.repeat(starts, lengths)
    mixed = splitmix64(values.astype(np.uint64) ^ splitmix64(places.astype(np.uint64)))
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(mixed, dtype=np.uint64)])
    return splitmix64(sums[ends] - sums[starts] ^ lengths.astype(np.uint64))
