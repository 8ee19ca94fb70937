"""The plan of a dataset: which tables there are, their sizes solved from the bytes one can afford.

By default there is one table per vocabulary, with the vocabulary's name, and every value has a row of
its own; under a byte budget the largest ones are hashed (``recsys.embeddings.budget``). In mode
``unified`` one table, ``unified``, is shared by all vocabularies but the smallest
(Coleman et al., Unified Embedding, NeurIPS 2023). ``recsys.embeddings.rows`` says which row is whose.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import polars as pl

from recsys.config import PlanSettings, TableSettings, parse_bytes
from recsys.data.dataset import FIRST_ID, Dataset, VocabularyInfo
from recsys.embeddings.budget import (
    FLOAT32,
    LEAST_EXACT,
    BudgetError,
    Demand,
    Granted,
    SharedDemand,
    chunk,
    exact_values,
    own_bytes,
    solve,
)
from recsys.embeddings.choose import best
from recsys.embeddings.dealing import dealt
from recsys.embeddings.estimate import values_of
from recsys.embeddings.growth import (
    earlier_file,
    earlier_plan,
    grown,
    least_count,
    require_known,
    shared_table,
)
from recsys.embeddings.methods import METHODS
from recsys.embeddings.mixed import mixed
from recsys.embeddings.plan import Plan, ServeDtype, TablePlan, UpdatePath, VocabularyMode, VocabularyPlan
from recsys.errors import ConfigError, PlanError, did_you_mean
from recsys.models import MODELS, RETRIEVERS
from recsys.stage import StageRecord, fingerprints, require_ours, settings_of, written_aside

PLAN_FILE = "plan.json"
VERSION = 4
"""Raised by hand when the same dataset and settings give another plan."""

SHARED_TABLE = "unified"
"""Name of the table that vocabularies share."""

FIXED_DIM: dict[str, int] = {"lr": 1}
"""Models whose tables have one width, whatever the settings say."""


def plan(
    dataset: Dataset | Path | str,
    *,
    model_name: str | None = None,
    settings: PlanSettings | None = None,
    embedding_dim: int | None = None,
    output: Path | str | None = None,
    told: Mapping[str, float] | None = None,
) -> Plan:
    """Decide rows, width and update path of every table; write ``plan.json`` into ``output`` if given.

    ``model_name`` and ``embedding_dim`` fix the width of all tables where the model has no choice
    (LR: 1). ``told``, for mode ``best``: nats that each column tells of the label, as a ranking found.
    Raises ConfigError for an unknown model, PlanError for an override of an unknown table,
    overrides that contradict each other, a budget below the smallest possible one, or an earlier plan that
    cannot be grown.
    """
    started = time.perf_counter()
    if not isinstance(dataset, Dataset):
        dataset = Dataset.load(Path(dataset))
    known = MODELS | RETRIEVERS
    if model_name is not None and model_name not in known:
        raise ConfigError(f"model.name: unknown model {model_name!r}; {did_you_mean(model_name, known)}")
    settings = settings or PlanSettings()
    earlier = None if settings.grow is None else earlier_plan(settings.grow)
    made = _solved(dataset, settings, embedding_dim or FIXED_DIM.get(model_name or ""), told, earlier)
    read = [dataset.folder / "dataset.json"]
    if settings.grow is not None and earlier is not None:
        made = grown(earlier, dataset, made)
        read.append(earlier_file(settings.grow))
    if output is not None:
        require_ours(Path(output), PLAN_FILE)
        record = StageRecord(
            stage="plan",
            version=VERSION,
            inputs=fingerprints(read),
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


def _solved(
    dataset: Dataset,
    settings: PlanSettings,
    fixed_dim: int | None,
    told: Mapping[str, float] | None = None,
    earlier: Plan | None = None,
) -> Plan:
    """The plan of the vocabularies that an earlier plan does not know."""

    def made(tried: PlanSettings) -> Plan:
        return _solved(dataset, tried, fixed_dim, earlier=earlier)

    new = _new(dataset, earlier)
    if new and settings.mode == "best":
        values = {name: each for name, each in values_of(dataset, told).items() if name in new}
        settings = best(settings, made, values)
    if new and settings.mode == "mixed":
        if fixed_dim is not None:
            raise PlanError(
                f"plan.mode: mixed has no widths to choose, as this model's tables have width {fixed_dim}; "
                "take best, auto, full or hash"
            )
        settings = mixed(settings, {name: info.size for name, info in new.items()}, made)
    unseen = _unseen(dataset, settings)
    joined = None if earlier is None else shared_table(earlier, SHARED_TABLE)

    def solved(exact: int) -> tuple[list[_Wish], SharedDemand | None, Granted]:
        """What fits where vocabularies of at most so many values keep a row for each."""
        wishes = _wishes(dataset, settings, fixed_dim, new, joined, exact)
        shared = _shared_demand(wishes, settings, fixed_dim, unseen, joined)
        demands = [_demand(wish, settings, unseen) for wish in wishes if not wish.shared]
        return wishes, shared, solve(demands, shared, settings)

    try:
        wishes, shared, granted = solved(exact_values(settings, _own_costs(settings, fixed_dim, new)))
    except BudgetError:
        if settings.exact is not None:
            raise
        wishes, shared, granted = solved(LEAST_EXACT)
    dense_below = parse_bytes(settings.dense_below)
    tables, vocabularies = {}, {}
    for wish in wishes:
        if shared is not None and wish.shared:
            vocabularies[wish.name] = shared.vocabularies[wish.name]
            continue
        shape = granted.own[wish.name]
        vocabularies[wish.name] = shape.vocabulary
        dtype = _dtype(wish.stated, settings)
        tables[wish.name] = _table(shape.rows, shape.dim, dtype, wish.stated, dense_below)
    if shared is not None:
        stated = settings.tables.get(SHARED_TABLE, TableSettings())
        tables[SHARED_TABLE] = _table(granted.shared_rows, shared.dim, shared.dtype, stated, dense_below)
    features = {f.name: f.vocabulary for f in dataset.features if f.vocabulary in vocabularies}
    return Plan(tables=tables, vocabularies=vocabularies, features=features)


def _new(dataset: Dataset, earlier: Plan | None) -> dict[str, VocabularyInfo]:
    """The vocabularies that an earlier plan does not know; all where there is none."""
    known = () if earlier is None else earlier.vocabularies
    return {name: info for name, info in dataset.manifest.vocabularies.items() if name not in known}


def _table(rows: int, dim: int, dtype: ServeDtype, stated: TableSettings, dense_below: int) -> TablePlan:
    path: UpdatePath = "dense" if FLOAT32 * rows * dim <= dense_below else "fused"
    return TablePlan(rows=rows, dim=dim, path=stated.path or path, serve_dtype=dtype)


def _dtype(stated: TableSettings, settings: PlanSettings) -> ServeDtype:
    """Type of a table in the bundle."""
    return stated.serve_dtype or settings.serve_dtype


def _unseen(dataset: Dataset, settings: PlanSettings) -> Literal["own", "hash"]:
    """What unseen values get where values are hashed.

    Where ``prepare`` made rare values unseen, the train rows taught the unseen value what a reader that
    hashed them would not find. Raises PlanError where that is asked for.
    """
    if settings.unseen == "hash":
        require_known(dataset, "plan.unseen: hash", "take own")
    counted = settings.counted == "bundle" and least_count(dataset) == 1
    return settings.unseen or ("hash" if counted else "own")


@dataclass(frozen=True)
class _Wish:
    """What the settings say of one vocabulary."""

    name: str
    size: int
    dim: int
    lookups: int
    """Of a value, where its rows are hashed."""
    mode: VocabularyMode | None
    """None: ``full`` where the budget allows it, else ``hash``."""
    stated: TableSettings

    @property
    def shared(self) -> bool:
        """Whether it reads the shared table."""
        return self.mode == "unified"

    @property
    def key(self) -> str:
        """Where its settings stand in the run file."""
        return f"plan.tables.{self.name}"


def _wishes(
    dataset: Dataset,
    settings: PlanSettings,
    fixed_dim: int | None,
    new: Mapping[str, VocabularyInfo],
    joined: TablePlan | None,
    exact: int,
) -> list[_Wish]:
    """What is wished of the new vocabularies; what settings say of the others is the earlier plan's."""
    vocabularies = dataset.manifest.vocabularies
    for name in settings.tables:
        if name not in vocabularies and name != SHARED_TABLE:
            raise PlanError(f"plan.tables.{name}: no such table; {did_you_mean(name, vocabularies)}")
    wishes = []
    for name, info in new.items():
        stated = settings.tables.get(name, TableSettings())
        _require_width(f"plan.tables.{name}", stated, fixed_dim)
        if stated.sub_tables is not None:
            raise PlanError(
                f"plan.tables.{name}.sub_tables: only the shared table has sub-tables; state it under "
                f"plan.tables.{SHARED_TABLE}"
            )
        wish = _Wish(
            name=name,
            size=info.size,
            dim=fixed_dim or stated.dim or settings.embedding_dim,
            lookups=stated.lookups or settings.lookups,
            mode=_mode(info.size, stated, settings, exact),
            stated=stated,
        )
        if wish.mode == "full" and (stated.lookups or 1) > 1:
            raise PlanError(
                f"{wish.key}.lookups: a value with a row of its own is looked up once, found "
                f"{stated.lookups}; leave lookups out, or take mode hash or unified"
            )
        wishes.append(wish)
    if any(wish.shared for wish in wishes):
        _require_free_name(vocabularies)
    elif joined is None and SHARED_TABLE in settings.tables and SHARED_TABLE not in vocabularies:
        shares = settings.mode == "unified"
        remedy = "set plan.exact, as all keep a row per value" if shares else "set plan.mode to unified"
        raise PlanError(
            f"plan.tables.{SHARED_TABLE}: no vocabulary reads the shared table; {remedy}, or leave it out"
        )
    return wishes


def _require_width(key: str, stated: TableSettings, fixed_dim: int | None) -> None:
    if fixed_dim is not None and stated.dim not in (None, fixed_dim):
        raise PlanError(
            f"{key}.dim: this model's tables have width {fixed_dim}, found {stated.dim}; leave it out"
        )


def _require_free_name(vocabularies: Mapping[str, VocabularyInfo]) -> None:
    if SHARED_TABLE in vocabularies:
        raise PlanError(
            f"the vocabulary {SHARED_TABLE!r} has the name of the shared table; name it otherwise in the "
            "schema (vocabulary: ...), or take another plan.mode"
        )


def _own_costs(
    settings: PlanSettings, fixed_dim: int | None, new: Mapping[str, VocabularyInfo]
) -> dict[int, int]:
    """By size, bytes of a row per value for the vocabularies that may keep one each."""
    costs: dict[int, int] = {}
    for name, info in new.items():
        stated = settings.tables.get(name, TableSettings())
        if _may_be_exact(stated, settings):
            dim, dtype = fixed_dim or stated.dim or settings.embedding_dim, _dtype(stated, settings)
            cost = own_bytes(info.size, dim, dtype, settings.counted)
            costs[info.size] = costs.get(info.size, 0) + cost
    return costs


def _may_be_exact(stated: TableSettings, settings: PlanSettings) -> bool:
    """Whether a vocabulary keeps a row per value if it is small; not where its rows are spoken for."""
    several = settings.exact is None and (stated.lookups or 1) > 1
    return settings.mode != "auto" and stated.mode is None and stated.rows is None and not several


def _mode(size: int, stated: TableSettings, settings: PlanSettings, exact: int) -> VocabularyMode | None:
    """The mode of a vocabulary where it is settled before the budget has spoken; those of at most
    ``exact`` values keep a row for each."""
    if stated.mode is not None:
        return stated.mode
    if _may_be_exact(stated, settings) and size - FIRST_ID <= exact:
        return "full"
    return next((mode for mode in get_args(VocabularyMode) if mode == settings.mode), None)


def _demand(wish: _Wish, settings: PlanSettings, unseen: Literal["own", "hash"]) -> Demand:
    """What a vocabulary with a table of its own asks for."""
    rows, mode = wish.stated.rows, wish.mode
    least = METHODS[mode or "hash"].smallest(wish.size)
    if mode == "full":
        if rows is not None and rows != wish.size:
            raise PlanError(
                f"{wish.key}.rows: mode full has a row per value, {wish.size} here, found {rows}; "
                "leave rows out, or take mode hash"
            )
        rows = None
    elif rows is not None:
        if rows < min(wish.size, least):
            kind = "hashed" if mode in (None, "hash") else mode
            raise PlanError(f"{wish.key}.rows: a {kind} table has at least {least} rows, found {rows}")
        if mode is None and rows >= wish.size:
            rows, mode = None, "full"
        else:
            rows, mode = max(rows, least), mode or "hash"
    elif mode is not None and settings.bytes is None:
        raise PlanError(f"{wish.key}.mode: {mode} needs {wish.key}.rows or a budget in plan.bytes")
    elif mode == "hash" and wish.stated.mode is None and unseen == "own":
        mode = None  # a bundle lists its values either way, so that a row per value costs no more
    dtype = _dtype(wish.stated, settings)
    return Demand(wish.name, wish.size, wish.dim, wish.lookups, rows, mode, unseen, settings.hot, dtype)


def _shared_demand(
    wishes: Sequence[_Wish],
    settings: PlanSettings,
    fixed_dim: int | None,
    unseen: Literal["own", "hash"],
    joined: TablePlan | None,
) -> SharedDemand | None:
    """What the vocabularies of the shared table ask for; None where there is none.

    ``joined``: the shared table of an earlier plan, which costs nothing and is cut as it was.
    """
    members = [wish for wish in wishes if wish.shared]
    if not members:
        return None
    key, stated = f"plan.tables.{SHARED_TABLE}", settings.tables.get(SHARED_TABLE, TableSettings())
    for wish in members:
        for name in ("dim", "path", "rows", "serve_dtype", "sub_tables"):
            if getattr(wish.stated, name) is not None:
                raise PlanError(
                    f"{wish.key}.{name}: {wish.name!r} reads the shared table, which has one for all; set "
                    f"{key}.{name}, or {wish.key}.lookups for wider vectors"
                )
    parts = 1 if joined else stated.sub_tables or 1
    if joined is None:
        _require_sub_tables(members, stated, parts)
    for name in ("mode", "lookups"):
        if getattr(stated, name) is not None:
            raise PlanError(
                f"{key}.{name}: the shared table has none; set plan.{name}, or {name} of a vocabulary"
            )
    if settings.bytes is None and stated.rows is None and joined is None:
        raise PlanError(f"plan.mode: unified needs a budget in plan.bytes or rows in {key}.rows")
    _require_width(key, stated, fixed_dim)
    width = stated.dim or chunk(fixed_dim or settings.embedding_dim, settings.lookups, "plan")
    vocabularies = {
        wish.name: VocabularyPlan(
            mode="unified", table=SHARED_TABLE, lookups=wish.lookups, unseen=unseen, size=wish.size
        )
        for wish in members
    }
    return SharedDemand(
        vocabularies=dealt(vocabularies, parts),
        parts=parts,
        dim=width,
        rows=joined.rows if joined else stated.rows,
        dtype=_dtype(stated, settings),
        joined=joined is not None,
    )


def _require_sub_tables(members: Sequence[_Wish], stated: TableSettings, parts: int) -> None:
    """Raise PlanError where a sub-table would have no lookup, or rows cannot be cut evenly."""
    key, lookups = f"plan.tables.{SHARED_TABLE}", sum(wish.lookups for wish in members)
    if lookups < parts:
        raise PlanError(
            f"{key}.sub_tables: {parts} sub-tables, but the shared table's vocabularies have {lookups} "
            "lookups to deal over them; take fewer, or more lookups"
        )
    if stated.rows is not None and stated.rows % parts:
        raise PlanError(
            f"{key}.rows: {stated.rows} rows cannot be cut into {parts} equal sub-tables; take a multiple"
        )


def describe(plan: Plan) -> pl.DataFrame:
    """The plan as a table for people: table, rows, dim, bytes, path, mode; largest first."""
    modes = {v.table: v.mode for v in plan.vocabularies.values()}
    lines = [
        {
            "table": name,
            "rows": table.rows,
            "dim": table.dim,
            "bytes": FLOAT32 * table.rows * table.dim,
            "path": table.path,
            "mode": modes[name],
        }
        for name, table in plan.tables.items()
    ]
    columns = {"table": pl.String, "rows": pl.Int64, "dim": pl.Int64}
    columns |= {"bytes": pl.Int64, "path": pl.String, "mode": pl.String}
    frame = pl.DataFrame(lines, schema=columns)
    return frame.sort("bytes", "table", descending=[True, False])
