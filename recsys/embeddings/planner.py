"""Sizes of the tables, solved from the bytes one can afford, and the row of every id.

There is one table per vocabulary, with the vocabulary's name. Without a byte budget every value has
a row of its own. With one, rows are cut at a common cap: tables above it become hashed tables of
``cap`` rows, smaller ones keep a row per value, so that the longest vocabularies pay first.

A hashed table keeps row 0 for the missing and row 1 for the unseen value; every other value shares
one of the rows from 2 on, ``2 + hash_rows(key, rows - 2, vocabulary)``.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.config import PlanSettings, TableSettings, parse_bytes
from recsys.data.dataset import FIRST_ID, MISSING_ID, UNSEEN_ID, Dataset
from recsys.embeddings.keys import hash_rows
from recsys.embeddings.plan import Plan, TablePlan, UpdatePath, VocabularyMode, VocabularyPlan
from recsys.errors import ConfigError, PlanError, did_you_mean
from recsys.models import MODELS
from recsys.stage import StageRecord, fingerprints, require_ours, settings_of, written_aside

PLAN_FILE = "plan.json"
VERSION = 1
"""Raised by hand when the same dataset and settings give another plan."""

FIXED_DIM: dict[str, int] = {"lr": 1}
"""Models whose tables have one width, whatever the settings say."""

_FLOAT32 = 4
_SMALLEST = FIRST_ID + 1
"""Fewest rows of a hashed table: missing, unseen, and one that all values share."""


@dataclass(frozen=True)
class _Demand:
    """What one table asks for, before the budget has spoken."""

    name: str
    size: int
    dim: int
    rows: int
    """Most rows it may take."""
    mode: VocabularyMode | None
    """None: ``full`` if all rows are granted, else ``hash``."""
    settings: TableSettings

    @property
    def elastic(self) -> bool:
        """Whether the budget decides the number of rows."""
        return self.settings.rows is None and self.mode != "full"

    def bytes(self, cap: int | None = None) -> int:
        rows = min(self.rows, cap) if self.elastic and cap is not None else self.rows
        return _FLOAT32 * rows * self.dim


def plan(
    dataset: Dataset | Path | str,
    *,
    model_name: str | None = None,
    settings: PlanSettings | None = None,
    embedding_dim: int | None = None,
    output: Path | str | None = None,
) -> Plan:
    """Decide rows, width and update path of every table; write ``plan.json`` into ``output`` if given.

    ``model_name`` and ``embedding_dim`` fix the width of all tables where the model has no choice
    (LR: 1). Raises ConfigError for an unknown model, PlanError for an override of an unknown table,
    overrides that contradict each other, or a budget below the smallest possible one.
    """
    started = time.perf_counter()
    if not isinstance(dataset, Dataset):
        dataset = Dataset.load(Path(dataset))
    if model_name is not None and model_name not in MODELS:
        raise ConfigError(f"model.name: unknown model {model_name!r}; {did_you_mean(model_name, MODELS)}")
    settings = settings or PlanSettings()
    fixed = embedding_dim or FIXED_DIM.get(model_name or "")
    demands = _demands(dataset, settings, fixed)
    cap = _solve_cap(demands, settings)
    dense_below = parse_bytes(settings.dense_below)
    features = {f.name: f.vocabulary for f in dataset.features if f.vocabulary is not None}
    made = Plan(
        tables={d.name: _table(d, cap, dense_below) for d in demands},
        vocabularies={d.name: _vocabulary(d, cap) for d in demands},
        features=features,
    )
    if output is not None:
        require_ours(Path(output), PLAN_FILE)
        record = StageRecord(
            stage="plan",
            version=VERSION,
            inputs=fingerprints([dataset.folder / "dataset.json"]),
            settings=stage_settings(settings, model_name, embedding_dim),
            seconds=time.perf_counter() - started,
        )
        with written_aside(Path(output)) as folder:
            made.save(folder / PLAN_FILE)
            record.save(folder)
    return made


def stage_settings(
    settings: PlanSettings, model_name: str | None = None, embedding_dim: int | None = None
) -> dict[str, object]:
    """What ``stage.json`` of a plan records; a change of it makes the plan stale."""
    return settings_of(
        {"plan": settings, "embedding_dim": embedding_dim or FIXED_DIM.get(model_name or "")}
    )


def _demands(dataset: Dataset, settings: PlanSettings, fixed_dim: int | None) -> list[_Demand]:
    vocabularies = dataset.manifest.vocabularies
    for name in settings.tables:
        if name not in vocabularies:
            raise PlanError(f"plan.tables.{name}: no such table; {did_you_mean(name, vocabularies)}")
    demands = []
    for name, info in vocabularies.items():
        override = settings.tables.get(name, TableSettings())
        if fixed_dim is not None and override.dim not in (None, fixed_dim):
            raise PlanError(
                f"plan.tables.{name}.dim: this model's tables have width {fixed_dim}, found "
                f"{override.dim}; leave it out"
            )
        dim = fixed_dim or override.dim or settings.embedding_dim
        rows, mode = _rows_asked(name, info.size, override, budgeted=settings.bytes is not None)
        demands.append(_Demand(name, info.size, dim, rows, mode, override))
    return demands


def _rows_asked(
    name: str, size: int, override: TableSettings, *, budgeted: bool
) -> tuple[int, VocabularyMode | None]:
    """Most rows of one table, and its mode where that is settled."""
    key = f"plan.tables.{name}"
    if override.mode == "full":
        if override.rows is not None and override.rows != size:
            raise PlanError(
                f"{key}.rows: mode full has a row per value, {size} here, found {override.rows}; "
                "leave rows out, or take mode hash"
            )
        return size, "full"
    if override.rows is not None:
        if override.rows < size and override.rows < _SMALLEST:
            raise PlanError(
                f"{key}.rows: a hashed table has at least {_SMALLEST} rows, found {override.rows}"
            )
        if override.mode is None and override.rows >= size:
            return size, "full"
        return max(override.rows, _SMALLEST), "hash"
    if override.mode == "hash" and not budgeted:
        raise PlanError(f"{key}.mode: hash needs {key}.rows or a budget in plan.bytes")
    return max(size, _SMALLEST) if override.mode == "hash" else size, override.mode


def _solve_cap(demands: list[_Demand], settings: PlanSettings) -> int | None:
    """The largest common cap on rows that fits the budget; None where there is no budget.

    Raises PlanError that names the smallest possible budget.
    """
    if settings.bytes is None:
        return None
    budget = parse_bytes(settings.bytes)

    def total(cap: int) -> int:
        return sum(demand.bytes(cap) for demand in demands)

    if total(_SMALLEST) > budget:
        raise PlanError(
            f"plan.bytes: {settings.bytes!r} ({budget} bytes) is too small for {len(demands)} tables; "
            f"the smallest possible here is {total(_SMALLEST)} bytes. Raise it, or lower embedding_dim"
        )
    low, high = _SMALLEST, max((demand.rows for demand in demands), default=_SMALLEST)
    while low < high:
        middle = (low + high + 1) // 2
        if total(middle) <= budget:
            low = middle
        else:
            high = middle - 1
    return low


def _granted(demand: _Demand, cap: int | None) -> tuple[int, VocabularyMode]:
    rows = min(demand.rows, cap) if demand.elastic and cap is not None else demand.rows
    return rows, demand.mode or ("full" if rows == demand.size else "hash")


def _table(demand: _Demand, cap: int | None, dense_below: int) -> TablePlan:
    rows, _ = _granted(demand, cap)
    path: UpdatePath = "dense" if _FLOAT32 * rows * demand.dim <= dense_below else "fused"
    stated = demand.settings
    made = TablePlan(rows=rows, dim=demand.dim, path=stated.path or path)
    return (
        made if stated.serve_dtype is None else made.model_copy(update={"serve_dtype": stated.serve_dtype})
    )


def _vocabulary(demand: _Demand, cap: int | None) -> VocabularyPlan:
    _, mode = _granted(demand, cap)
    return VocabularyPlan(mode=mode, table=demand.name, size=demand.size)


def table_rows(plan: Plan, dataset: Dataset, vocabulary: str) -> NDArray[np.int64] | None:
    """Row of every id, ``[size]``; None where the row is the id itself (mode ``full``).

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
    if planned.mode == "full":
        return None
    keys = dataset.values(vocabulary, ("key",))["key"].to_numpy()
    rows = np.empty(size, dtype=np.int64)
    rows[MISSING_ID], rows[UNSEEN_ID] = MISSING_ID, UNSEEN_ID
    rows[FIRST_ID:] = hashed_table_rows(keys, plan.tables[planned.table].rows, vocabulary)
    return rows


def row_maps(plan: Plan, dataset: Dataset) -> dict[str, NDArray[np.int64]]:
    """Row of every id, ``[size]``, of each hashed vocabulary; the others need none."""
    maps = {name: table_rows(plan, dataset, name) for name in plan.vocabularies}
    return {name: rows for name, rows in maps.items() if rows is not None}


def hashed_table_rows(keys: NDArray[np.uint64], rows: int, vocabulary: str) -> NDArray[np.int64]:
    """Rows ``[N]`` in ``[2, rows)`` of keys ``[N]`` of real values, in a hashed table of ``rows`` rows."""
    return FIRST_ID + hash_rows(keys, rows - FIRST_ID, vocabulary)


def describe(plan: Plan) -> pl.DataFrame:
    """The plan as a table for people: table, rows, dim, bytes, path, mode; largest first."""
    modes = {v.table: v.mode for v in plan.vocabularies.values()}
    lines = [
        {
            "table": name,
            "rows": table.rows,
            "dim": table.dim,
            "bytes": _FLOAT32 * table.rows * table.dim,
            "path": table.path,
            "mode": modes[name],
        }
        for name, table in plan.tables.items()
    ]
    columns = {"table": pl.String, "rows": pl.Int64, "dim": pl.Int64}
    columns |= {"bytes": pl.Int64, "path": pl.String, "mode": pl.String}
    frame = pl.DataFrame(lines, schema=columns)
    return frame.sort("bytes", "table", descending=[True, False])
