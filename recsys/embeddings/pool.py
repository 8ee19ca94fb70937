"""Pools: tables with fewer rows than their values have pieces, dealt to the pieces that are worth a row.

Every value of a pooled vocabulary has K pieces, its lookups. Piece k of id i has the place
``start + i * K + k``, where ``start`` counts the places of the vocabularies before it. ``slots`` holds the
row of every place. Row 0 belongs to nobody and is zeros: a piece that is out has it, and adds exactly
nothing. So has the unseen value, which bundles cannot tell from values that are out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.data.dataset import UNSEEN_ID
from recsys.embeddings.plan import Plan, TablePlan, VocabularyPlan, free_name
from recsys.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

POOL = "pool"


def pooled(plan: Plan, density: float, pieces: int) -> Plan:
    """A plan whose tables with a row per value are put together in pools of a share of their weights.

    Tables of one width, update path and served type share a pool; hashed and shared tables stay.

    Raises:
        ConfigError: a width that ``pieces`` does not divide, or a pool of fewer rows than vocabularies.
    """
    modes = {info.table: info.mode for info in plan.vocabularies.values()}
    groups: dict[tuple[int, str, str], list[str]] = {}
    for name, table in plan.tables.items():
        if modes.get(name) == "full":
            _require_divisible(name, table.dim, pieces)
            groups.setdefault((table.dim, table.path, table.serve_dtype), []).append(name)
    shared = plan.tables.keys() - {name for names in groups.values() for name in names}
    home = {
        name: free_name(f"{POOL}{number or ''}", shared)
        for number, names in enumerate(groups.values())
        for name in names
    }
    vocabularies = {
        name: _pooled(info, home[info.table], pieces) if info.table in home else info
        for name, info in plan.vocabularies.items()
    }
    tables = {name: table for name, table in plan.tables.items() if name not in home}
    for names in groups.values():
        pool, first = home[names[0]], plan.tables[names[0]]
        sizes = [info.size for info in vocabularies.values() if info.table == pool]
        tables[pool] = _pool_table(first, sizes, density, pieces)
    return Plan(tables=tables, vocabularies=vocabularies, features=plan.features)


def _pooled(info: VocabularyPlan, pool: str, pieces: int) -> VocabularyPlan:
    return VocabularyPlan(mode="pool", table=pool, lookups=pieces, size=info.size)


def _pool_table(like: TablePlan, sizes: list[int], density: float, pieces: int) -> TablePlan:
    kept = int(density * sum(sizes) * pieces)
    if kept < len(sizes):
        raise ConfigError(
            f"train.sparsity: a share of {density:g} of {sum(sizes):,} values leaves {kept} pieces of "
            f"vectors for {len(sizes)} vocabularies; raise train.sparsity.tables or budget"
        )
    return like.model_copy(update={"rows": kept + 1, "dim": like.dim // pieces})


def _require_divisible(name: str, dim: int, pieces: int) -> None:
    if dim % pieces:
        raise ConfigError(
            f"train.sparsity.pieces: vectors of table {name!r} are {dim} wide, expected a multiple of the "
            f"{pieces} pieces; choose another number of pieces or width"
        )


def pool_starts(plan: Plan, table: str) -> dict[str, int]:
    """First place of each vocabulary of a pool."""
    starts, at = {}, 0
    for name, info in plan.vocabularies.items():
        if info.table == table:
            starts[name] = at
            at += info.size * info.lookups
    return starts


@dataclass(frozen=True)
class Pooled:
    """The places of one vocabulary."""

    start: int
    size: int
    pieces: int

    @property
    def places(self) -> slice:
        """Places of all its values' pieces, value by value."""
        return slice(self.start, self.start + self.size * self.pieces)

    def dealt(self, device: torch.device) -> Tensor:
        """Places that may have rows: all but those of the unseen value."""
        first, last = self.places.start, self.places.stop
        unseen = first + UNSEEN_ID * self.pieces
        return torch.cat(
            [
                torch.arange(first, unseen, device=device),
                torch.arange(unseen + self.pieces, last, device=device),
            ]
        )


class Pool:
    """Which place has which row of a pool's table; all processes hold the same.

    Args:
        plan: the plan with the pool.
        name: the pool's table.
        device: where its table lies.
    """

    def __init__(self, plan: Plan, name: str, device: torch.device) -> None:
        self.name, self.rows = name, plan.tables[name].rows
        starts = pool_starts(plan, name)
        self.vocabularies = {
            vocabulary: Pooled(
                start, plan.vocabularies[vocabulary].size, plan.vocabularies[vocabulary].lookups
            )
            for vocabulary, start in starts.items()
        }
        places = sum(each.size * each.pieces for each in self.vocabularies.values())
        self.slots = torch.zeros(places, dtype=torch.int32, device=device)
        """Row of every place ``[places]``; 0: out."""
        self.on_gradient: Callable[[Tensor, Tensor, Tensor], None] | None = None
        """Called in backward with places ``[n, keys]``, their vectors ``[n, keys, D]``, and the gradients
        of these."""

    def rows_of(self, places: Tensor) -> Tensor:
        """Table rows int64 of places, of the same shape."""
        return self.slots[places].long()

    def watch(self, places: Tensor, vectors: Tensor) -> None:
        """Have ``on_gradient`` called for vectors ``[n, keys * D]`` of places ``[keys * n]``."""
        listener = self.on_gradient
        if listener is None or not vectors.requires_grad:
            return
        rows = vectors.shape[0]
        keys = places.shape[0] // rows if rows else 1
        shape = (rows, keys, vectors.shape[1] // keys)
        asked = places.view(keys, rows).t()
        held = vectors.detach().view(shape)
        vectors.register_hook(  # type: ignore[no-untyped-call]
            lambda gradient: listener(asked, held, gradient.reshape(shape))
        )

    def row_maps(self) -> dict[str, NDArray[np.int64]]:
        """Table rows of every id by vocabulary: ``[size]``, of several pieces ``[size, K]``."""
        slots = self.slots.cpu().numpy().astype(np.int64)
        return {
            name: slots[each.places] if each.pieces == 1 else slots[each.places].reshape(-1, each.pieces)
            for name, each in self.vocabularies.items()
        }
