"""Mode ``best``: the plan that is expected to lose least AUC for the bytes that a bundle may ship.

Every method in both serving types, with one and with two lookups, is planned and judged by one estimate
(``recsys.embeddings.estimate``). Then each vocabulary of the best few is given the other modes in turn,
most told per row first, and keeps what lowers the estimate: so come plans of mixed modes, such as items
exact and users on shared rows. One that tells next to nothing is hashed to a few rows, whatever its size,
and leaves its bytes, and the shared table, to the others.

Vectors are as wide as asked but for ``mixed``, which narrows those of large vocabularies: narrower ones
everywhere cost 0.002 to 0.005 of AUC on MovieLens-1M. More than two lookups and types below int4 are not
tried, as nothing is known of what they cost. Vocabularies of few values keep a row per value wherever that
fits: it costs next to nothing, and where one of their frequent values fell on another's row, which no
estimate of averages sees, a synthetic log lost 0.005 of AUC.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from recsys.config import PlanSettings, TableSettings
from recsys.data.dataset import FIRST_ID
from recsys.embeddings.accounting import counted_bytes
from recsys.embeddings.budget import LEAST_EXACT
from recsys.embeddings.estimate import Values, estimate
from recsys.embeddings.plan import Plan
from recsys.errors import PlanError
from recsys.progress import say

SERVED = ("int8", "int4")
LOOKUPS = (1, 2)
HOT = (0.25, 0.5, 0.75)
OTHERWISE: tuple[dict[str, Any], ...] = (
    {"mode": "hash", "rows": 64},
    {"mode": "full"},
    {"mode": "unified"},
    {"mode": "adaptive"},
    {"mode": "hash"},
)
"""What a single vocabulary is tried with."""
_FEW = 64
"""Values of a vocabulary that keeps a row for each, where that fits."""
_REFINED = 3
"""Candidates whose vocabularies are given other modes."""
_SHOWN = 5
_LEAST_GAIN = 0.03
"""Share of the loss that a change of one vocabulary has to save."""

Made = Callable[[PlanSettings], Plan]


@dataclass(frozen=True)
class Candidate:
    """A plan that fits the budget."""

    settings: PlanSettings
    plan: Plan
    loss: float
    """AUC that it is expected to lose."""
    bytes: int
    """What its bundle ships."""

    @property
    def order(self) -> tuple[float, float, int]:
        """The best first; wider vectors, then fewer bytes, where the estimate sees no difference."""
        widths = [self.plan.width_of(name) for name in self.plan.features]
        return round(self.loss, 5), -sum(widths), self.bytes

    def __str__(self) -> str:
        settings = self.settings
        mode = settings.mode if settings.mode == "mixed" else _commonest_mode(self.plan)
        several = {info.lookups for info in self.plan.vocabularies.values()} - {1}
        lookups = f", {max(several)} lookups" if several else ""
        hot = f", {settings.hot:g} of the rows hot" if mode == "adaptive" else ""
        others = [
            f"{name} {info.mode}"
            for name, info in self.plan.vocabularies.items()
            if mode != "mixed" and info.mode not in (mode, "full")
        ]
        exact = [name for name, info in self.plan.vocabularies.items() if info.mode == "full"]
        if mode not in ("mixed", "full") and exact:
            others.append(f"{', '.join(exact)} full")
        apart = f" ({'; '.join(others)})" if others else ""
        return (
            f"{mode}{lookups}{hot}{apart}, width {settings.embedding_dim}, {settings.serve_dtype}: "
            f"{self.bytes:,} bytes, {self.loss:.4f}"
        )


def best(settings: PlanSettings, made: Made, values: Mapping[str, Values]) -> PlanSettings:
    """Settings of the plan that is expected to lose least and fits ``bytes``; the next ones are told.

    Args:
        settings: what is stated stays: serving type, lookups, hot share, and whatever ``tables`` say.
        made: plans settings.
        values: how often the train rows hold the values of each vocabulary.

    Raises:
        PlanError: there is no budget, or even a shared table does not fit it.
    """
    if settings.bytes is None:
        raise PlanError("plan.mode: best needs a budget in plan.bytes")
    search = _Search(made, values, _widths(settings, made))
    for exact in _starts(settings):
        for tried in _candidates(exact):
            search.add(tried)
        if search.found:
            break
    if not search.found:
        return _with(settings, mode="unified", serve_dtype="int4")
    for start in search.in_order()[:_REFINED]:
        search.refine(start)
    for number, candidate in enumerate(search.in_order()[:_SHOWN]):
        say(f"{'plan' if number == 0 else 'next'}: {candidate} of AUC expected to be lost")
    return search.in_order()[0].settings


def _starts(settings: PlanSettings) -> Iterator[PlanSettings]:
    """Small vocabularies exact, then, where no plan is small enough, fewer; or those that settings say."""
    for exact in (_FEW, LEAST_EXACT) if settings.exact is None else (settings.exact,):
        yield settings.model_copy(update={"exact": exact})


def _widths(settings: PlanSettings, made: Made) -> dict[str, int]:
    """Width of each feature's vectors where bytes are no matter."""
    plain = settings.model_copy(update={"mode": "auto", "bytes": None, "tables": _only_dims(settings)})
    plan = made(plain)
    return {name: plan.width_of(name) for name in plan.features}


def _only_dims(settings: PlanSettings) -> dict[str, TableSettings]:
    stated = {name: each.dim for name, each in settings.tables.items() if each.dim is not None}
    return {name: TableSettings(dim=dim) for name, dim in stated.items() if name != "unified"}


def _candidates(settings: PlanSettings) -> Iterator[PlanSettings]:
    for dtype in SERVED[:1] if "serve_dtype" in settings.model_fields_set else SERVED:
        for mode, more in _methods(settings):
            yield _with(settings, mode=mode, serve_dtype=dtype, **more)


def _methods(settings: PlanSettings) -> Iterator[tuple[str, dict[str, Any]]]:
    stated = settings.model_fields_set
    lookups = (settings.lookups,) if "lookups" in stated else LOOKUPS
    yield "full", {}
    yield "mixed", {}
    for mode in ("unified", "hash"):
        for number in lookups:
            yield mode, {"lookups": number}
    for hot in (settings.hot,) if "hot" in stated else HOT:
        yield "adaptive", {"hot": hot}


def _with(settings: PlanSettings, **update: object) -> PlanSettings:
    if "serve_dtype" in settings.model_fields_set:
        update["serve_dtype"] = settings.serve_dtype
    return settings.model_copy(update=update | {"counted": "bundle"})


@dataclass
class _Search:
    """The plans that fit, as they are found."""

    made: Made
    values: Mapping[str, Values]
    widths: Mapping[str, int]
    """Width of each feature's vectors where bytes are no matter."""
    found: list[Candidate] = field(default_factory=list)

    def in_order(self) -> list[Candidate]:
        """The best first."""
        return sorted(self.found, key=lambda candidate: candidate.order)

    def add(self, tried: PlanSettings) -> Candidate | None:
        """Plan settings and add them to what was found; None where they do not fit or are known."""
        try:
            plan = self.made(tried)
        except PlanError:
            return None
        divided = "lookups" not in tried.model_fields_set or tried.lookups in LOOKUPS
        for name, width in self.widths.items():
            narrowest = plan.tables[plan.table_of(name)].dim if divided else plan.width_of(name)
            if 2 * narrowest < width:
                return None
        if any(plan == other.plan for other in self.found):
            return None
        loss, shipped = estimate(plan, self.values).loss, counted_bytes(plan, "bundle")
        candidate = Candidate(tried, plan, loss, shipped)
        self.found.append(candidate)
        return candidate

    def refine(self, start: Candidate) -> None:
        """Give each vocabulary the other modes in turn, and keep what lowers the estimate."""
        if start.settings.mode == "mixed":
            return
        small = FIRST_ID + (start.settings.exact or 0)
        free = [
            name
            for name in self.values
            if start.settings.tables.get(name, TableSettings()).mode is None
            and start.plan.vocabularies[name].size > small
        ]
        free.sort(key=lambda name: -self.values[name].weight / start.plan.vocabularies[name].size)
        current = start
        for name in free:
            stated = start.settings.tables.get(name, TableSettings())
            for update in OTHERWISE:
                if "rows" in update and stated.rows is not None:
                    continue
                tables = dict(current.settings.tables) | {name: stated.model_copy(update=update)}
                candidate = self.add(current.settings.model_copy(update={"tables": tables}))
                if candidate is not None and candidate.loss < (1 - _LEAST_GAIN) * current.loss:
                    current = candidate


def _commonest_mode(plan: Plan) -> str:
    """The mode of most values."""
    sizes: dict[str, int] = {}
    for info in plan.vocabularies.values():
        sizes[info.mode] = sizes.get(info.mode, 0) + info.size
    return max(sizes, key=lambda mode: sizes[mode])
