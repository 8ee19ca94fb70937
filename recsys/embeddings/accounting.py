"""What a plan costs and what its values share: bytes by part, rows per value, expected collisions."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from recsys.embeddings.budget import KEY_BYTES, ROW_BYTES, Counted
from recsys.embeddings.combine import width
from recsys.embeddings.plan import Plan, VocabularyPlan
from recsys.serving.quantise import row_bytes, worthwhile


def bytes_by_part(plan: Plan) -> dict[str, int]:
    """Bytes of a plan; file headers, and the raw values that a bundle holds for people, are left out.

    ``tables``: float32, as trained, without optimiser state. ``tables served``: in the bundle's types.
    ``keys`` and ``row maps``: of the values that a bundle lists, with a row per lookup; values whose rows
    are computed from their keys need neither.
    """
    served = sum(
        table.rows * row_bytes(worthwhile(table.serve_dtype, table.dim), table.dim)
        for table in plan.tables.values()
    )
    listed = [(info.method.shipped(info), info.lookups) for info in plan.vocabularies.values()]
    return {
        "tables": plan.train_bytes,
        "tables served": served,
        "keys": sum(KEY_BYTES * values for values, _ in listed),
        "row maps": sum(ROW_BYTES * values * lookups for values, lookups in listed),
    }


def counted_bytes(plan: Plan, counted: Counted) -> int:
    """What a plan spends of a budget, in the sense of ``plan.counted``."""
    parts = bytes_by_part(plan)
    found = parts["tables served" if counted == "bundle" else "tables"]
    return found if counted == "tables" else found + parts["keys"] + parts["row maps"]


def _met(info: VocabularyPlan, others: Sequence[VocabularyPlan]) -> float:
    """Values of others, times their lookups, among whose rows a lookup falls; over all rows, on average."""
    mine = info.dealt or (0,) * info.lookups
    theirs = [(other.size, other.dealt or (0,) * other.lookups) for other in others]
    met = sum(size * dealt.count(part) for part in mine for size, dealt in theirs)
    return info.parts * met / info.lookups


def collisions(plan: Plan) -> pl.DataFrame:
    """How crowded each vocabulary is, one line each, in their order.

    Columns: ``vocabulary``, ``mode``, ``table``, ``lookups``, ``width`` (of a value's vector),
    ``values`` (missing and unseen included), ``rows_per_value`` (of its table, over all values that read
    it), and expected numbers of pairs of values under hashes that spread evenly:

    - ``within``: of this vocabulary, in one row by one lookup: ``C(N, 2) / M``. No model can tell such
      rows apart; research calls them intra-feature collisions.
    - ``alike``: of this vocabulary, in one row by every lookup, which share their whole vector:
      ``C(N, 2) / M**lookups``.
    - ``between``: a value of this vocabulary and one of another, in one row by one lookup of each:
      ``N * sum of the others' values * lookups / M``. What reads the vectors can learn to undo these.
    """
    readers: dict[str, list[str]] = {name: [] for name in plan.tables}
    for name, info in plan.vocabularies.items():
        readers[info.table].append(name)
    lines = []
    for name, info in plan.vocabularies.items():
        rows = plan.tables[info.table].rows
        within, alike = info.method.collisions(info, rows)
        together = [plan.vocabularies[reader] for reader in readers[info.table]]
        others = [plan.vocabularies[reader] for reader in readers[info.table] if reader != name]
        between = info.size * _met(info, others) / rows if info.method.hashed_into(info, rows) else 0.0
        line = {
            "vocabulary": name,
            "mode": info.mode,
            "table": info.table,
            "lookups": info.lookups,
            "width": width(info.combine, info.lookups, plan.tables[info.table].dim),
            "values": info.size,
            "rows_per_value": rows / sum(one.size for one in together),
            "within": within,
            "alike": alike,
            "between": between,
        }
        lines.append(line)
    floats = ("rows_per_value", "within", "alike", "between")
    columns: dict[str, type[pl.DataType]] = dict.fromkeys(("vocabulary", "mode", "table"), pl.String)
    columns |= dict.fromkeys(("lookups", "width", "values"), pl.Int64)
    columns |= dict.fromkeys(floats, pl.Float64)
    return pl.DataFrame(lines, schema=columns)
