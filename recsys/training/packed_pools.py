"""Pools as a bundle ships them: no row that nobody has, and vectors put together where that is smaller.

While a pool is trained, a value has a row per piece of its vector, so that pieces can come and go. In a
bundle each piece costs a pointer and a scale. Where most values of a vocabulary have all their pieces,
whole vectors take fewer bytes, the zeros of missing pieces included.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys.data.dataset import FIRST_ID
from recsys.embeddings.budget import ROW_BYTES
from recsys.embeddings.plan import Plan, ServeDtype, free_name
from recsys.serving.quantise import row_bytes, worthwhile

Weights = Mapping[str, NDArray[np.float32]]
Rows = Mapping[str, NDArray[np.int64]]


@dataclass(frozen=True)
class Packed:
    """A plan whose pools are as they are shipped, its tables, and the rows of ids."""

    plan: Plan
    tables: dict[str, NDArray[np.float32]]
    """Weights ``[rows, dim]``."""
    maps: dict[str, NDArray[np.int64]]
    """Rows of every id of the pooled vocabularies, ``[size]`` or ``[size, lookups]``; row 0 is nobody's."""


def packed(plan: Plan, tables: Weights, maps: Rows, dtype: ServeDtype | None = None) -> Packed:
    """Leave out the spare rows of pools, and put the pieces of vocabularies together where that is smaller.

    Args:
        plan: as it was trained.
        tables: weights ``[rows, dim]``.
        maps: rows of every id of the pooled vocabularies, ``[size]`` or ``[size, pieces]``; row 0, zeros,
            is nobody's, and every other row one piece's at most.
        dtype: that tables are served in; default: as the plan says per table.

    Returns:
        Pools under their names, whole vectors in tables beside them; other tables as they are.
    """
    pieces = {name: rows.reshape(len(rows), -1) for name, rows in maps.items()}
    homes: dict[str, list[str]] = {}
    for name, rows in pieces.items():
        pool = plan.vocabularies[name].table
        like = plan.tables[pool]
        whole = _smaller_whole(rows, like.dim, dtype or like.serve_dtype)
        homes.setdefault(free_name(f"{pool}_whole", plan.tables) if whole else pool, []).append(name)
    pools = {plan.vocabularies[name].table for name in maps}
    planned = {name: table for name, table in plan.tables.items() if name not in pools}
    shipped = {name: tables[name] for name in planned}
    vocabularies = dict(plan.vocabularies)
    found: dict[str, NDArray[np.int64]] = {}
    for home, names in homes.items():
        pool = plan.vocabularies[names[0]].table
        joined = 1 if home == pool else plan.vocabularies[names[0]].lookups
        here = {name: pieces[name] for name in names}
        shipped[home], of_home = _gathered(tables[pool], here, joined)
        found |= of_home
        rows, dim = shipped[home].shape
        planned[home] = plan.tables[pool].model_copy(update={"rows": rows, "dim": dim})
        for name in names:
            lookups = vocabularies[name].lookups // joined
            vocabularies[name] = vocabularies[name].model_copy(update={"table": home, "lookups": lookups})
    changed = Plan(tables=planned, vocabularies=vocabularies, features=plan.features)
    return Packed(changed, shipped, found)


def _smaller_whole(rows: NDArray[np.int64], dim: int, dtype: ServeDtype) -> bool:
    """Whether vectors of pieces ``dim`` wide, rows ``[size, pieces]``, ship fewer bytes put together."""
    pieces = rows.shape[1]
    further = int(rows[FIRST_ID:].any(axis=1).sum()) * ROW_BYTES * (pieces - 1)
    apart = np.count_nonzero(rows) * row_bytes(worthwhile(dtype, dim), dim)
    together = int(rows.any(axis=1).sum()) * row_bytes(worthwhile(dtype, pieces * dim), pieces * dim)
    return bool(together < apart + further)


def _gathered(
    weights: NDArray[np.float32], pieces: Rows, joined: int
) -> tuple[NDArray[np.float32], dict[str, NDArray[np.int64]]]:
    """A table of rows made of ``joined`` pieces each, and where ids find theirs; row 0 is zeros.

    Args:
        weights: of the pool, ``[rows, dim]``; row 0 is zeros.
        pieces: its rows by vocabulary, ``[size, pieces]``.
        joined: pieces of a row; a row of none is left out.
    """
    vectors = [np.zeros((1, joined * weights.shape[1]), np.float32)]
    maps, start = {}, 1
    for name, rows in pieces.items():
        groups = rows.reshape(-1, joined)
        held = groups.any(axis=1)
        count = int(held.sum())
        numbers = np.zeros(len(groups), np.int64)
        numbers[held] = np.arange(start, start + count)
        start += count
        vectors.append(weights[groups[held]].reshape(count, joined * weights.shape[1]))
        lookups = rows.shape[1] // joined
        maps[name] = numbers if lookups == 1 else numbers.reshape(-1, lookups)
    return np.concatenate(vectors), maps
