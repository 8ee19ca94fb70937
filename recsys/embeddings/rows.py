"""The table rows of every id of a vocabulary, by the method of its mode (``recsys.embeddings.methods``)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recsys.data.dataset import Dataset
from recsys.embeddings.plan import Plan
from recsys.errors import PlanError, did_you_mean


def table_rows(plan: Plan, dataset: Dataset, vocabulary: str) -> NDArray[np.int64] | None:
    """Row of every id, ``[size]``; with K > 1 lookups ``[size, K]``; None where the row is the id itself,
    or training's to deal (mode ``pool``).

    Raises PlanError when the plan was made for other values.
    """
    if vocabulary not in plan.vocabularies:
        raise PlanError(
            f"no vocabulary {vocabulary!r} in the plan: {did_you_mean(vocabulary, plan.vocabularies)}"
        )
    planned = plan.vocabularies[vocabulary]
    size = dataset.vocabulary_info(vocabulary).size
    if planned.size != size:
        raise PlanError(
            f"vocabulary {vocabulary!r}: planned for {planned.size} ids, {dataset.folder} has {size}; "
            "redo 'recsys plan'"
        )
    if planned.mode in ("full", "pool"):
        return None
    keys = dataset.values(vocabulary, ("key",))["key"].to_numpy()
    table = plan.tables[planned.table].rows
    least = planned.method.smallest(size) + planned.hot
    if table < least:
        raise PlanError(
            f"vocabulary {vocabulary!r}: mode {planned.mode} needs at least {least} rows for {size} ids, "
            f"table {planned.table!r} has {table}; redo 'recsys plan'"
        )
    rows = planned.method.rows(keys, planned, table, vocabulary)
    return rows[:, 0] if planned.lookups == 1 else rows


def row_maps(plan: Plan, dataset: Dataset) -> dict[str, NDArray[np.int64]]:
    """``table_rows`` of each vocabulary whose rows are not its ids; the others need none."""
    maps = {name: table_rows(plan, dataset, name) for name in plan.vocabularies}
    return {name: rows for name, rows in maps.items() if rows is not None}
