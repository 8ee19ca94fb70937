"""What a bundle holds of a model with gates: open values, and the rows that they have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys.data.dataset import FIRST_ID, UNSEEN_ID
from recsys.embeddings.budget import KEY_BYTES, ROW_BYTES
from recsys.embeddings.open_values import OpenValues
from recsys.embeddings.plan import Plan
from recsys.serving.dense import CLOSED
from recsys.serving.manifest import BundleGates, BundleTable, ClosedValues
from recsys.serving.quantise import row_bytes

Arrays = Mapping[str, NDArray[np.int64]]


@dataclass(frozen=True)
class Kept:
    """Tables without the rows that no open value has, and where ids find theirs."""

    tables: dict[str, NDArray[np.float32]]
    """Weights ``[rows left, dim]``; gates are multiplied in."""
    maps: dict[str, NDArray[np.int64]]
    """Rows of every id, ``[size]`` or ``[size, K]``; ``CLOSED`` where its gate is closed."""


def kept(plan: Plan, tables: Mapping[str, NDArray[np.float32]], maps: Arrays, gates: OpenValues) -> Kept:
    """Leave out what gates closed.

    Args:
        plan: vocabularies and their tables.
        tables: trained weights ``[rows, dim]``.
        maps: rows of every id where they are not the id itself.
        gates: which values are open.
    """
    rows = {}
    for name, planned in plan.vocabularies.items():
        found = np.array(maps.get(name, np.arange(planned.size)))
        found[~gates.open[name]] = CLOSED
        rows[name] = found
    weights, renumbered = {}, {}
    for table, array in tables.items():
        readers = [name for name, planned in plan.vocabularies.items() if planned.table == table]
        used = np.unique(np.concatenate([rows[name].ravel() for name in readers]))
        used = np.arange(len(array)) if untouched(plan, table, gates) else used
        used = used[used != CLOSED] if used[-1] != CLOSED else np.zeros(1, np.int64)
        # What a row is multiplied by comes out of its vector: once for each row of a product.
        reader = plan.vocabularies[readers[0]]
        power = 1 / reader.lookups if reader.combine == "multiply" else 1.0
        weights[table] = np.ascontiguousarray(array[used] * np.float32(gates.scale**power))
        for name in readers:
            at = np.searchsorted(used, rows[name])
            renumbered[name] = np.where(rows[name] == CLOSED, CLOSED, at)
    return Kept(weights, renumbered)


def untouched(plan: Plan, table: str, gates: OpenValues | None) -> bool:
    """Whether a table stays whole, as unseen values are hashed into it and no reader has closed ones."""
    readers = [name for name, planned in plan.vocabularies.items() if planned.table == table]
    hashed = any(plan.vocabularies[name].unseen == "hash" for name in readers)
    return hashed and (gates is None or all(gates.open[name].all() for name in readers))


def hashes(plan: Plan, vocabulary: str, gates: OpenValues | None) -> bool:
    """Whether a bundle hashes values when they come, and does not list those."""
    planned = plan.vocabularies[vocabulary]
    return planned.unseen == "hash" and untouched(plan, planned.table, gates)


def listed(gates: OpenValues | None, vocabulary: str, ids: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which known values ``[n]`` need a key in the bundle.

    A value whose key is not there counts as unseen. So closed ones leave where the unseen value is closed
    too, and have a key without a row where it is open.
    """
    if gates is None or gates.open[vocabulary][UNSEEN_ID]:
        return np.ones(len(ids), np.bool_)
    return gates.open[vocabulary][ids]


def described(plan: Plan, stored: Mapping[str, BundleTable], gates: OpenValues) -> BundleGates:
    """What gates closed, and the bytes that this saves, or costs where values must be listed for it."""
    rows = {name: table.rows - stored[name].rows for name, table in plan.tables.items()}
    saved = sum(count * row_bytes(stored[name].dtype, stored[name].dim) for name, count in rows.items())
    vocabularies = {}
    for name, planned in plan.vocabularies.items():
        is_open = gates.open[name]
        vocabularies[name] = ClosedValues(values=planned.size, closed=int((~is_open).sum()))
        saved += _keys_left(plan, name, gates) * (KEY_BYTES + ROW_BYTES * planned.lookups)
    return BundleGates(vocabularies=vocabularies, rows=sum(rows.values()), bytes=saved)


def _keys_left(plan: Plan, vocabulary: str, gates: OpenValues) -> int:
    """Values that the bundle would list without gates and does not; below 0 where it lists more."""
    planned = plan.vocabularies[vocabulary]
    if hashes(plan, vocabulary, gates):
        return 0
    known = np.arange(FIRST_ID, planned.size)
    return planned.method.shipped(planned) - int(listed(gates, vocabulary, known).sum())
