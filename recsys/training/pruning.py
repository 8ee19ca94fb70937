"""Magnitude pruning of values after training: those whose vectors are smallest leave the bundle.

The yardstick of embedding compression (MagPrune in the benchmark of arXiv 2406.17335): a small vector says
little. Whole values are cut, not single weights, as only these give bytes back. A value that is cut has
zeros for a vector, as one whose gate is closed.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from recsys.data.dataset import FIRST_ID, UNSEEN_ID
from recsys.embeddings.open_values import OpenValues
from recsys.embeddings.plan import Plan
from recsys.errors import ConfigError


def pruned(
    plan: Plan, tables: Mapping[str, NDArray[np.float32]], share: float, gates: OpenValues | None = None
) -> OpenValues:
    """What stays open when a share of all values with rows of their own is cut, the smallest first.

    Args:
        plan: vocabularies and tables; values that share rows are left alone.
        tables: trained weights ``[rows, dim]``.
        share: of the values of all vocabularies of mode ``full``, in [0, 1).
        gates: of the model; what they closed stays closed, and counts as cut.

    An unseen value whose vector is zeros is closed too: it stays what it was, and values that are cut need
    no key to be told from it.
    """
    still = {name: np.ones(planned.size, np.bool_) for name, planned in plan.vocabularies.items()}
    if gates is not None:
        still = {name: each.copy() for name, each in gates.open.items()}
    own = [name for name, planned in plan.vocabularies.items() if planned.mode == "full"]
    if not own:
        raise ConfigError(
            "prune cuts values that have a row of their own, and no table of this run's plan has one per "
            "value: values share rows, or train.sparsity has chosen already; leave prune out"
        )
    vectors = {name: tables[plan.vocabularies[name].table] * still[name][:, None] for name in own}
    sizes = [np.linalg.norm(vectors[name][FIRST_ID:], axis=1) for name in own]
    everything = np.concatenate([np.empty(0, np.float32), *sizes])
    cut = np.zeros(len(everything), np.bool_)
    cut[np.argsort(everything, kind="stable")[: int(share * len(everything))]] = True
    ends = np.cumsum([len(each) for each in sizes])[:-1]
    for name, of_vocabulary in zip(own, np.split(cut, ends), strict=True):
        still[name][FIRST_ID:] &= ~of_vocabulary
        still[name][UNSEEN_ID] &= bool(vectors[name][UNSEEN_ID].any())
    return OpenValues(still, 1.0 if gates is None else gates.scale)


def closed_rows(plan: Plan, values: OpenValues) -> dict[str, NDArray[np.int64]]:
    """Rows of closed values by table, of vocabularies whose values have rows of their own."""
    return {
        planned.table: np.flatnonzero(~values.open[name])
        for name, planned in plan.vocabularies.items()
        if planned.mode == "full"
    }
