"""Rows of tables from the bytes one can afford.

All tables are cut at one common cap, counted in whole vectors: a vocabulary with more values than that
shares rows, a shorter one keeps a row per value, so that the longest vocabularies pay first. A hashed
table whose values have K lookups holds K times as many rows of a K-th of the width. What the cap leaves
over goes to the shared table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from recsys.config import PlanSettings, parse_bytes
from recsys.data.dataset import FIRST_ID
from recsys.embeddings.methods import METHODS
from recsys.embeddings.plan import ServeDtype, VocabularyMode, VocabularyPlan
from recsys.errors import PlanError
from recsys.serving.quantise import row_bytes, worthwhile

SMALLEST = FIRST_ID + 1
"""Fewest rows of a hashed table: missing, unseen, and one that all values share."""
FLOAT32 = 4
KEY_BYTES, ROW_BYTES = 8, 4
"""What a bundle keeps of each value that it lists: its key, and a row per lookup."""

LEAST_EXACT, EXACT_SHARE = 5, 0.05
"""Where settings do not say which vocabularies keep a row per value: those of so few values, and the
smallest ones, which take this share of the budget together at most."""

Counted = Literal["tables", "all", "bundle"]


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


def rows_bytes(rows: int, dim: int, dtype: ServeDtype, counted: Counted) -> int:
    """Bytes of a table: float32 as trained, or in the bundle's type where that is what is counted."""
    if counted == "bundle":
        return rows * row_bytes(worthwhile(dtype, dim), dim)
    return FLOAT32 * rows * dim


def listed_bytes(planned: VocabularyPlan) -> int:
    """Bytes of a vocabulary's keys and row map in the bundle."""
    return planned.method.shipped(planned) * (KEY_BYTES + ROW_BYTES * planned.lookups)


def exact_values(settings: PlanSettings, costs: Mapping[int, int]) -> int:
    """Values of the largest vocabulary that keeps a row per value where others share rows.

    Args:
        settings: what ``exact`` and ``bytes`` say.
        costs: by size, bytes of a row per value for all vocabularies of so many ids.
    """
    if settings.exact is not None:
        return settings.exact
    found = LEAST_EXACT
    left = 0.0 if settings.bytes is None else EXACT_SHARE * parse_bytes(settings.bytes)
    for size, cost in sorted(costs.items()):
        left -= cost
        if left < 0:
            break
        found = max(found, size - FIRST_ID)
    return found


class BudgetError(PlanError):
    """No rows fit the budget."""


@dataclass(frozen=True)
class Shape:
    """One table and how a vocabulary reads it, once the budget has spoken."""

    rows: int
    dim: int
    vocabulary: VocabularyPlan


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
    """Rows of a table that values share, where they are stated."""
    mode: VocabularyMode | None
    """None: ``full`` if all rows are granted, else ``hash``."""
    unseen: Literal["own", "hash"] = "own"
    """What unseen values get where values are hashed."""
    hot: float = 0.5
    """Mode ``adaptive``: share of the rows that frequent values have for themselves."""
    dtype: ServeDtype = "int8"

    def granted(self, cap: int | None) -> Shape:
        """The table under a cap on whole vectors."""
        if self.mode == "full":
            return self._full()
        mode = self.mode or "hash"
        least = METHODS[mode].smallest(self.size)
        if self.rows is not None:
            return self._sharing(mode, self.rows)
        vectors = self.size if cap is None else min(self.size, max(cap, least))
        if vectors == self.size and self.mode != "hash":
            return self._full()
        return self._sharing(mode, max(vectors, least))

    def _full(self) -> Shape:
        planned = VocabularyPlan(mode="full", table=self.name, size=self.size)
        return Shape(self.size, self.dim, planned)

    def _sharing(self, mode: VocabularyMode, vectors: int) -> Shape:
        """A table of the bytes of so many whole vectors; stated rows are taken as they are."""
        width, rows = self.dim, vectors
        if mode == "hash":
            width = chunk(self.dim, self.lookups, f"plan.tables.{self.name}")
            rows = vectors if self.rows is not None else vectors * self.dim // width
        method = METHODS[mode]
        planned = VocabularyPlan(
            mode=mode,
            table=self.name,
            lookups=method.most_lookups or self.lookups,
            combine=method.combine,
            hot=min(int(self.hot * (rows - SMALLEST)), self.size - FIRST_ID) if mode == "adaptive" else 0,
            unseen="own" if mode == "quotient" else self.unseen,
            size=self.size,
        )
        return Shape(rows, width, planned)


@dataclass(frozen=True)
class SharedDemand:
    """What the vocabularies of the shared table ask for together."""

    vocabularies: dict[str, VocabularyPlan]
    dim: int
    """Width of a row."""
    rows: int | None
    """Rows, where they are stated."""
    dtype: ServeDtype = "int8"
    parts: int = 1
    """Sub-tables, of equally many rows."""
    joined: bool = False
    """Whether the rows are there, in an earlier plan, and cost nothing."""

    def asked(self, cap: int | None = None) -> int:
        """Rows under a cap: one per lookup of every value, as far as the cap lets."""
        if self.rows is not None:
            return self.rows
        return sum(
            planned.lookups * (planned.size if cap is None else min(planned.size, cap))
            for planned in self.vocabularies.values()
        )

    def cut(self, rows: int) -> int:
        """The rows that fill sub-tables evenly."""
        return rows - rows % self.parts


@dataclass(frozen=True)
class Granted:
    """What the budget gives."""

    own: dict[str, Shape]
    shared_rows: int
    """0 where nothing is shared."""


def _spent(demand: Demand, cap: int, counted: Counted) -> int:
    """Bytes of a vocabulary with a table of its own, under a cap."""
    shape = demand.granted(cap)
    spent = rows_bytes(shape.rows, shape.dim, demand.dtype, counted)
    return spent if counted == "tables" else spent + listed_bytes(shape.vocabulary)


def own_bytes(size: int, dim: int, dtype: ServeDtype, counted: Counted) -> int:
    """Bytes of a row per value, and of what finds it where that is counted."""
    return _spent(Demand("", size, dim, lookups=1, rows=None, mode="full", dtype=dtype), size, counted)


def _starts(demands: Sequence[Demand], counted: Counted) -> list[int]:
    """Rising caps from each of which to the next one the bytes rise.

    They fall where a vocabulary gets a row per value that costs less than a few shared rows less, as one
    lookup is listed where several were, and one row has a scale where narrower ones had one each.
    """
    falls = {
        demand.size
        for demand in demands
        if demand.size > SMALLEST
        and _spent(demand, demand.size, counted) < _spent(demand, demand.size - 1, counted)
    }
    return sorted({SMALLEST} | falls)


def _or_else(settings: PlanSettings) -> str:
    """What else would make a budget do."""
    if settings.mode in ("full", "mixed"):
        return f", or take another mode than {settings.mode}"
    return ", or exact" if settings.exact else ""


def solve(demands: Sequence[Demand], shared: SharedDemand | None, settings: PlanSettings) -> Granted:
    """The largest common cap that fits the budget, and the tables under it.

    Raises BudgetError, which names the smallest possible budget, where there is no such cap.
    """
    if settings.bytes is None:
        rows = shared.cut(shared.asked()) if shared else 0
        return Granted({d.name: d.granted(None) for d in demands}, rows)
    budget, counted = parse_bytes(settings.bytes), settings.counted

    def total(cap: int) -> int:
        """Bytes under a cap."""
        spent = sum(_spent(demand, cap, counted) for demand in demands)
        if shared is not None:
            rows = 0 if shared.joined else shared.asked(cap)
            spent += rows_bytes(rows, shared.dim, shared.dtype, counted)
            if counted != "tables":
                spent += sum(map(listed_bytes, shared.vocabularies.values()))
        return spent

    starts = _starts(demands, counted)
    low = next((start for start in reversed(starts) if total(start) <= budget), None)
    if low is None:
        tables = len(demands) + (shared is not None)
        included = "" if counted == "tables" else ", keys and row maps of listed values counted"
        raise BudgetError(
            f"plan.bytes: {settings.bytes!r} ({budget} bytes) is too small for {tables} tables; "
            f"the smallest possible here is {min(map(total, starts))} bytes{included}. Raise it, or lower "
            f"embedding_dim{_or_else(settings)}"
        )
    sizes = [demand.size for demand in demands]
    sizes += [planned.size for planned in shared.vocabularies.values()] if shared else []
    high = min((start - 1 for start in starts if start > low), default=max([SMALLEST, *sizes]))
    while low < high:
        middle = (low + high + 1) // 2
        if total(middle) <= budget:
            low = middle
        else:
            high = middle - 1
    rows = 0
    if shared is not None:
        left = (budget - total(low)) // rows_bytes(1, shared.dim, shared.dtype, counted)
        rows = shared.cut(min(shared.asked(), shared.asked(low) + left))
    return Granted({demand.name: demand.granted(low) for demand in demands}, rows)
