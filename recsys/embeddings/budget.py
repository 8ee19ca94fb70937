"""Rows of tables from the bytes one can afford.

All tables are cut at one common cap, counted in whole vectors: a vocabulary with more values than that
is hashed, a shorter one keeps a row per value, so that the longest vocabularies pay first. A hashed
table whose values have K lookups holds K times as many rows of a K-th of the width. What the cap leaves
over goes to the shared table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from recsys.config import PlanSettings, parse_bytes
from recsys.data.dataset import FIRST_ID
from recsys.embeddings.plan import VocabularyMode
from recsys.errors import PlanError

SMALLEST = FIRST_ID + 1
"""Fewest rows of a hashed table: missing, unseen, and one that all values share."""
FLOAT32 = 4
KEY_BYTES, ROW_BYTES = 8, 8
"""What a bundle keeps of each known value: its key, and a row per lookup."""


def chunk(dim: int, lookups: int, key: str) -> int:
    """Width of the rows that several lookups put a vector of width ``dim`` together from.

    A vector of one number is not divided: K lookups give K numbers. Raises PlanError where the lookups
    do not divide the width; ``key`` names the setting.
    """
    if dim > 1 and dim % lookups:
        raise PlanError(
            f"{key}.lookups: {lookups} rows side by side cannot make a vector of width {dim}; "
            "take a number that divides it, or another width"
        )
    return max(dim // lookups, 1)


def value_bytes(size: int, lookups: int) -> int:
    """Bytes of a vocabulary's keys and row map in the bundle; ``size`` counts missing and unseen."""
    return (size - FIRST_ID) * (KEY_BYTES + ROW_BYTES * lookups)


@dataclass(frozen=True)
class Shape:
    """One table and how a vocabulary reads it, once the budget has spoken."""

    rows: int
    dim: int
    mode: VocabularyMode
    lookups: int

    @property
    def bytes(self) -> int:
        """Bytes of the table in training."""
        return FLOAT32 * self.rows * self.dim


@dataclass(frozen=True)
class Demand:
    """What a vocabulary with a table of its own asks for, before the budget has spoken."""

    name: str
    size: int
    dim: int
    """Width of a value's vector."""
    lookups: int
    """Of a value, where its rows are hashed."""
    rows: int | None
    """Rows of the hashed table, where they are stated."""
    mode: VocabularyMode | None
    """None: ``full`` if all rows are granted, else ``hash``."""

    def granted(self, cap: int | None) -> Shape:
        """The table under a cap on whole vectors."""
        if self.mode == "full":
            return Shape(self.size, self.dim, "full", 1)
        key = f"plan.tables.{self.name}"
        if self.rows is not None:
            return Shape(self.rows, chunk(self.dim, self.lookups, key), "hash", self.lookups)
        most = self.size if self.mode is None else max(self.size, SMALLEST)
        vectors = most if cap is None else min(most, cap)
        if self.mode is None and vectors == self.size:
            return Shape(self.size, self.dim, "full", 1)
        width = chunk(self.dim, self.lookups, key)
        return Shape(vectors * self.dim // width, width, "hash", self.lookups)


@dataclass(frozen=True)
class SharedDemand:
    """What the vocabularies of the shared table ask for together."""

    sizes: dict[str, int]
    lookups: dict[str, int]
    dim: int
    """Width of a row."""
    rows: int | None
    """Rows, where they are stated."""

    def asked(self, cap: int | None = None) -> int:
        """Rows under a cap: one per lookup of every value, as far as the cap lets."""
        if self.rows is not None:
            return self.rows
        sizes = self.sizes if cap is None else {name: min(size, cap) for name, size in self.sizes.items()}
        return sum(size * self.lookups[name] for name, size in sizes.items())

    def bytes(self, rows: int) -> int:
        """Bytes of so many rows in training."""
        return FLOAT32 * rows * self.dim

    @property
    def values_bytes(self) -> int:
        """Bytes of keys and row maps in the bundle."""
        return sum(value_bytes(size, self.lookups[name]) for name, size in self.sizes.items())


@dataclass(frozen=True)
class Granted:
    """What the budget gives."""

    own: dict[str, Shape]
    shared_rows: int
    """0 where nothing is shared."""


def solve(demands: Sequence[Demand], shared: SharedDemand | None, settings: PlanSettings) -> Granted:
    """The largest common cap that fits the budget, and the tables under it.

    Raises PlanError that names the smallest possible budget where there is no such cap.
    """
    if settings.bytes is None:
        return Granted({d.name: d.granted(None) for d in demands}, shared.asked() if shared else 0)
    budget, everything = parse_bytes(settings.bytes), settings.counted == "all"

    def total(cap: int) -> int:
        """Bytes under a cap."""
        spent = shared.bytes(shared.asked(cap)) if shared else 0
        spent += shared.values_bytes if shared and everything else 0
        for demand in demands:
            shape = demand.granted(cap)
            spent += shape.bytes + (value_bytes(demand.size, shape.lookups) if everything else 0)
        return spent

    if total(SMALLEST) > budget:
        tables = len(demands) + (shared is not None)
        counted = ", keys and row maps of all values counted" if everything else ""
        raise PlanError(
            f"plan.bytes: {settings.bytes!r} ({budget} bytes) is too small for {tables} tables; "
            f"the smallest possible here is {total(SMALLEST)} bytes{counted}. Raise it, or lower "
            "embedding_dim"
        )
    sizes = [demand.size for demand in demands] + list(shared.sizes.values() if shared else ())
    low, high = SMALLEST, max([SMALLEST, *sizes])
    while low < high:
        middle = (low + high + 1) // 2
        if total(middle) <= budget:
            low = middle
        else:
            high = middle - 1
    rows = 0
    if shared is not None:
        left = (budget - total(low)) // (FLOAT32 * shared.dim)
        rows = min(shared.asked(), shared.asked(low) + left)
    return Granted({demand.name: demand.granted(low) for demand in demands}, rows)
