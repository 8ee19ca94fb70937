"""The table rows of every id of a vocabulary: a function of its keys, its name and its table's size.

``full``: the row is the id. ``hash``: row 0 is the missing and row 1 the unseen value; lookup k of any
other value is row ``2 + hash_rows(key, rows - 2, vocabulary, k)``. ``unified``: lookup k of every value
is row ``hash_rows(key, rows, vocabulary, k)`` of a table that vocabularies share; the missing and the
unseen value have reserved keys. Nothing depends on which other vocabularies there are, or their order.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recsys.data.dataset import FIRST_ID, MISSING_ID, UNSEEN_ID, Dataset
from recsys.embeddings.keys import MISSING_KEY, UNSEEN_KEY, hash_rows
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
    of_lookup = shared_table_rows if planned.mode == "unified" else hashed_table_rows
    rows = [of_lookup(keys, table, vocabulary, lookup) for lookup in range(planned.lookups)]
    return rows[0] if planned.lookups == 1 else np.stack(rows, axis=1)


def row_maps(plan: Plan, dataset: Dataset) -> dict[str, NDArray[np.int64]]:
    """``table_rows`` of each vocabulary whose rows are hashed; the others need none."""
    maps = {name: table_rows(plan, dataset, name) for name in plan.vocabularies}
    return {name: rows for name, rows in maps.items() if rows is not None}


def hashed_table_rows(
    keys: NDArray[np.uint64], rows: int, vocabulary: str, lookup: int = 0
) -> NDArray[np.int64]:
    """Rows ``[2 + N]`` of ids in a hashed table: 0, 1, and in ``[2, rows)`` those of keys ``[N]``."""
    found = np.empty(FIRST_ID + len(keys), dtype=np.int64)
    found[MISSING_ID], found[UNSEEN_ID] = MISSING_ID, UNSEEN_ID
    found[FIRST_ID:] = FIRST_ID + hash_rows(keys, rows - FIRST_ID, vocabulary, lookup)
    return found


def shared_table_rows(
    keys: NDArray[np.uint64], rows: int, vocabulary: str, lookup: int = 0
) -> NDArray[np.int64]:
    """Rows ``[2 + N]`` in ``[0, rows)`` of ids in a table that vocabularies share; keys are ``[N]``."""
    special = np.empty(FIRST_ID, dtype=np.uint64)
    special[MISSING_ID], special[UNSEEN_ID] = MISSING_KEY, UNSEEN_KEY
    return hash_rows(np.concatenate([special, keys]), rows, vocabulary, lookup)
