"""Mode ``best``: the method, the widths and the serving precision for the bytes that a bundle may ship.

Tried from the dearest to the cheapest; the first that fits is taken. Rounding costs least (int8 nothing
that can be measured, int4 some 0.0003 of AUC), then narrower vectors, then values that share rows: a
shared table with a row per value loses about a point of AUC on MovieLens-1M, another for each halving
(``benchmarks/compression.py``). But a value with a row of its own needs 12 bytes more, to be found by, so
that below some 20 bytes per value sharing is all that is left; there int4 buys rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from recsys.config import PlanSettings
from recsys.embeddings.plan import Plan, ServeDtype
from recsys.errors import PlanError

Accept = Callable[[Plan], bool]


def best(settings: PlanSettings, made: Callable[[PlanSettings], Plan]) -> PlanSettings:
    """Settings of the first candidate whose plan fits ``bytes``; ``made`` plans settings.

    A stated ``serve_dtype`` stays. Raises PlanError without a budget, or where even a shared table does not
    fit it.
    """
    if settings.bytes is None:
        raise PlanError("plan.mode: best needs a budget in plan.bytes")
    for candidate, accepted in _candidates(settings):
        try:
            if accepted(made(candidate)):
                return candidate
        except PlanError:
            continue
    return _shared(settings, "int4")


def _candidates(settings: PlanSettings) -> Iterator[tuple[PlanSettings, Accept]]:
    half = settings.embedding_dim / 2
    for dtype in ("int8", "int4"):
        yield _with(settings, "full", dtype), lambda plan: True
    yield (
        _with(settings, "mixed", "int4"),
        lambda plan: all(plan.width_of(name) >= half for name in plan.features),
    )
    yield _shared(settings, "int8"), _row_per_lookup


def _shared(settings: PlanSettings, dtype: ServeDtype) -> PlanSettings:
    return _with(settings, "unified", dtype)


def _with(settings: PlanSettings, mode: str, dtype: str) -> PlanSettings:
    update = {"mode": mode, "counted": "bundle"}
    if "serve_dtype" not in settings.model_fields_set:
        update["serve_dtype"] = dtype
    return settings.model_copy(update=update)


def _row_per_lookup(plan: Plan) -> bool:
    """Whether tables have as many rows as all lookups of all values that share them."""
    asked = dict.fromkeys(plan.tables, 0)
    for planned in plan.vocabularies.values():
        asked[planned.table] += planned.lookups * planned.size
    return all(plan.tables[name].rows >= rows for name, rows in asked.items())
