"""Mixed dimensions: every value has a row, narrower the more values its vocabulary has.

Ginart et al., *Mixed Dimension Embeddings*, ISIT 2021: width ``d_f`` in proportion to ``N_f ** -alpha``.
Every feature is seen once a row of the log, so values of large vocabularies are rare ones, about which
less can be learnt. Models that need even widths project to the commonest one; the others read vectors as
they are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from recsys.config import PlanSettings, TableSettings, parse_bytes
from recsys.embeddings.accounting import counted_bytes
from recsys.embeddings.plan import Plan
from recsys.errors import PlanError

NARROWEST = 2
"""Fewest numbers of a vector: factorisation machines need a weight and a factor."""
_STEPS = 100
_STEEPEST = 2.0


def mixed(
    settings: PlanSettings, sizes: Mapping[str, int], made: Callable[[PlanSettings], Plan]
) -> PlanSettings:
    """Settings of mode ``full`` with the widest vectors whose plan fits the budget.

    ``sizes`` are of all vocabularies, ``made`` plans settings. Widths are powers of two, that of the plan
    for the smallest vocabulary; stated ones stay. Raises PlanError without a budget; one that even the
    narrowest vectors break is left to ``made``.
    """
    if settings.bytes is None:
        raise PlanError("plan.mode: mixed needs a budget in plan.bytes")
    budget, least = parse_bytes(settings.bytes), min(sizes.values(), default=1)

    def narrowed(step: int) -> PlanSettings:
        tables = dict(settings.tables)
        for name, size in sizes.items():
            stated = tables.get(name, TableSettings())
            if stated.dim is None:
                dim = _width(size / least, settings.embedding_dim, step)
                tables[name] = stated.model_copy(update={"dim": dim})
        return settings.model_copy(update={"mode": "full", "tables": tables, "bytes": None})

    for step in range(_STEPS + 1):
        chosen = narrowed(step)
        if counted_bytes(made(chosen), settings.counted) <= budget:
            break
    return chosen.model_copy(update={"bytes": settings.bytes})


def _width(ratio: float, dim: int, step: int) -> int:
    """Width of the vectors of a vocabulary ``ratio`` times as large as the smallest."""
    if step == 0:
        return dim
    ideal = dim * ratio ** (-_STEEPEST * step / _STEPS)
    return min(dim, max(NARROWEST, 1 << max(round(math.log2(ideal)), 0)))
