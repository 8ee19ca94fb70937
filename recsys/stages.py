"""The stages of a run: what each is made from, how it is made, and what it hands on.

``recsys run`` and the single verbs both go through here, so that a stage's record is put together in
one place. The heavy imports stand inside the functions that make a stage: finding that everything is
up to date needs no torch.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from recsys import ranks
from recsys.config import FilesSplit, ValidShare
from recsys.doctor import require_training
from recsys.errors import DataError, RecsysError
from recsys.place import PLAN_FILE, RUN_FILE, SCHEMA_FILE, Place
from recsys.progress import say
from recsys.ranking.ranking import RANKING_FILE, Ranking
from recsys.results import save_references
from recsys.stage import (
    STAGE_FILE,
    STARTED_FILE,
    Fingerprint,
    StageRecord,
    fingerprints,
    handed_on,
    load_record,
    outputs_of,
    settings_of,
)

if TYPE_CHECKING:
    from recsys.config import RunConfig, SplitSettings
    from recsys.embeddings.plan import Plan

SCORE = "__score__"


@dataclass(frozen=True)
class Made:
    """What making a stage gave."""

    rows: int | None = None
    """Rows that it read."""
    notes: tuple[str, ...] = ()
    """What a person should know: guesses, values treated as something else, metrics left out."""
    warnings: tuple[str, ...] = ()
    """What makes the results worthless if it is not mended, such as a column that is the label."""


@dataclass(frozen=True)
class Stage:
    """One stage of the chain."""

    name: str
    version_at: str
    """Where its version stands, ``module:NAME``: beside the code that makes the stage."""
    inputs: Callable[[Place], dict[str, Fingerprint]]
    settings: Callable[[Place], Mapping[str, Any]]
    make: Callable[[Place], Made]
    hands_on: tuple[str, ...]
    """Patterns of the files that later stages read; ``BEST`` stands for the best checkpoint's name."""

    def patterns(self, folder: Path) -> list[str]:
        """Patterns of the files that later stages read."""
        pointer = folder / "checkpoints" / "best"
        best = pointer.read_text(encoding="utf-8").strip() if pointer.is_file() else "best"
        return [pattern.replace("BEST", best) for pattern in self.hands_on]

    @property
    def version(self) -> int:
        """Raised by hand when the same inputs and settings give another result."""
        module, _, name = self.version_at.partition(":")
        return int(getattr(import_module(module), name))

    def wanted(self, place: Place) -> StageRecord:
        """The record that an up-to-date folder has."""
        return StageRecord(
            stage=self.name,
            version=self.version,
            inputs=self.inputs(place),
            settings=settings_of(self.settings(place)),
        )

    def finished(self, place: Place, wanted: StageRecord, seconds: float, rows: int | None) -> StageRecord:
        """Write the record of a stage that has just been made."""
        folder = place.folder(self.name)
        found = {
            "seconds": round(seconds, 3),
            "rows": rows,
            "outputs": outputs_of(folder, self.patterns(folder)),
        }
        record = wanted.model_copy(update=found)
        record.save(folder)
        return record

    def handed(self, place: Place, *patterns: str) -> dict[str, Fingerprint]:
        """Content of what this stage wrote, for the record of a later one."""
        folder = place.folder(self.name)
        try:
            return handed_on(folder, patterns or self.patterns(folder))
        except DataError as error:
            raise DataError(f"{folder}: stage {self.name!r} is not made yet; run 'recsys run'") from error


# --- infer ---------------------------------------------------------------------------------------


def _infer_settings(place: Place) -> dict[str, Any]:
    column = getattr(place.config.split, "column", None)
    return {
        "data": place.config.data.model_dump(mode="json", exclude={"root", "path"}),
        "split_column": column,
    }


def _infer(place: Place) -> Made:
    from recsys.features.infer import infer

    data = place.config.data
    schema = infer(
        place.data,
        label=data.label,
        group=data.group,
        weight=data.weight,
        timestamp=data.timestamp,
        split=place.split,
        columns=data.columns,
        ignore=data.ignore,
        output=place.folder("infer"),
    )
    return Made(schema.rows, schema.notes)


# --- rank ----------------------------------------------------------------------------------------


def _rank_inputs(place: Place) -> dict[str, Fingerprint]:
    return place.log | STAGES["infer"].handed(place)


def _rank_settings(place: Place) -> dict[str, Any]:
    return {"split": _without_paths(place.config.split), "rank": place.config.rank}


def _rank(place: Place) -> Made:
    from recsys.data.check import check_label
    from recsys.ranking.rank import rank

    train = place.parts.source("train")
    label = place.config.data.label or ""
    check_label(train.lazy(), label, train.name, train)  # the stages after want 0 and 1
    ranking = rank(
        place.data,
        place.schema,
        split=place.split,
        settings=place.config.rank,
        output=place.folder("rank"),
    )
    return Made(place.parts.rows("train"), ranking.sentences("warning"), ranking.sentences("error"))


# --- prepare -------------------------------------------------------------------------------------


def _prepare_settings(place: Place) -> dict[str, Any]:
    return {
        "split": _without_paths(place.config.split),
        "prepare": place.config.prepare,
        "keep": place.kept(),
        "combinations": place.combinations(),
        "positives_only": place.config.model.retrieves,
    }


def _prepare(place: Place) -> Made:
    from recsys.features.prepare import prepare

    kept = place.kept()
    dataset = prepare(
        place.data,
        place.schema,
        place.folder("prepare"),
        split=place.split,
        keep=None if kept is None else list(kept),
        combinations=place.combinations(),
        min_count=place.config.prepare.min_count,
        positives_only=place.config.model.retrieves,
    )
    treated = dataset.manifest.treatments.items()
    notes = tuple(f"{count:,} values: {treatment}" for treatment, count in treated)
    return Made(sum(dataset.manifest.rows.values()), notes)


# --- plan ----------------------------------------------------------------------------------------


def _plan_inputs(place: Place) -> dict[str, Fingerprint]:
    read = STAGES["prepare"].handed(place, "dataset.json")
    if _is_told(place):
        read |= STAGES["prepare"].handed(place, "vocab/*") | STAGES["rank"].handed(place, RANKING_FILE)
    grow = place.config.plan.grow
    if grow is None:
        return read
    from recsys.embeddings.growth import earlier_file

    return read | fingerprints([earlier_file(grow)])


def _is_told(place: Place) -> bool:
    """Whether the plan is chosen by what ranking found of the columns."""
    return place.config.plan.mode == "best" and (place.folder("rank") / RANKING_FILE).is_file()


def _plan_settings(place: Place) -> dict[str, Any]:
    return {"plan": place.config.plan, "model": place.config.model.name}


def _plan(place: Place) -> Made:
    from recsys.embeddings.planner import plan

    made = plan(
        place.dataset,
        model_name=place.config.model.name,
        settings=place.config.plan,
        output=place.folder("plan"),
        told=Ranking.load(place.folder("rank")).told if _is_told(place) else None,
    )
    return Made(notes=(_updates(made, place.config),))


def _updates(plan: Plan, config: RunConfig) -> str:
    """Which optimiser moves which tables, in words."""
    optimisers = {
        "dense": f"{config.train.tables.dense} on whole tables",
        "fused": "fused row-wise Adagrad",
    }
    chosen = [
        f"{optimiser}: {', '.join(name for name, table in plan.tables.items() if table.path == path)}"
        for path, optimiser in optimisers.items()
        if any(table.path == path for table in plan.tables.values())
    ]
    return f"updates by size (plan.dense_below: {config.plan.dense_below}): {'; '.join(chosen)}"


# --- train ---------------------------------------------------------------------------------------


def _train_inputs(place: Place) -> dict[str, Fingerprint]:
    read = STAGES["prepare"].handed(place, "dataset.json", "train.parquet", "valid.parquet", "vocab/*")
    read |= STAGES["plan"].handed(place)
    earlier = place.config.train.warm_start
    if earlier is not None:
        read |= fingerprints([earlier / "run.json", earlier / "checkpoints" / "best"])
    return read


def _train_settings(place: Place) -> dict[str, Any]:
    return {"model": place.config.model, "train": place.config.train}


def _resumable(folder: Path, wanted: StageRecord) -> bool:
    """Whether the run folder holds an interrupted training of exactly what is wanted now."""
    if (folder / STAGE_FILE).exists():
        return False
    begun = load_record(folder, STARTED_FILE)
    has_checkpoint = (folder / "checkpoints" / "latest").exists()
    return begun is not None and has_checkpoint and wanted.reason_stale(begun) is None


def train_here(place: Place, *, resume: bool) -> Made:
    """Train in this process; under torchrun every process calls it with the same arguments."""
    from recsys.embeddings.plan import Plan
    from recsys.training.train import train

    run = train(
        place.dataset,
        place.folder("train"),
        model=place.config.model,
        plan=Plan.load(place.folder("plan") / PLAN_FILE),
        settings=place.config.train,
        resume=resume,
        watch=place.watch,
    )
    return Made(round(run.result.rows_per_second * run.result.seconds))


def _train(place: Place) -> Made:
    require_training()
    folder = place.folder("train")
    wanted = STAGES["train"].wanted(place)
    resume = _resumable(folder, wanted) if place.resume is None else place.resume
    if resume and (folder / "checkpoints" / "latest").exists():
        say("          going on where it stood")
    aside = _set_aside(folder) if not resume and folder.exists() else None
    folder.mkdir(parents=True, exist_ok=True)
    wanted.save(folder, STARTED_FILE)
    ranks.announce({"resume": resume})
    try:
        made = train_here(place, resume=resume)
    except RecsysError:
        if aside is not None and not (folder / RUN_FILE).exists():  # refused before anything was written
            shutil.rmtree(folder)
            aside.rename(folder)
        raise
    finally:
        shutil.rmtree(_beside(folder, "unfinished"), ignore_errors=True)
    shutil.rmtree(_beside(folder, "before"), ignore_errors=True)
    return made


def _beside(folder: Path, what: str) -> Path:
    return folder.with_name(f"{folder.name}.{what}")


def _set_aside(folder: Path) -> Path:
    """Move a run out of the way of the one that takes its place; returns where it lies.

    A finished one stays there until the new one is finished too, another until the new one has begun.
    """
    from recsys.training.run_folder import RESULT_FILE

    finished = (folder / RESULT_FILE).exists()
    aside = _beside(folder, "before" if finished else "unfinished")
    shutil.rmtree(aside, ignore_errors=True)
    return folder.rename(aside)


# --- evaluate ------------------------------------------------------------------------------------


def _evaluate_inputs(place: Place) -> dict[str, Fingerprint]:
    return STAGES["train"].handed(place) | STAGES["prepare"].handed(place, "test.parquet") | place.log


def _evaluate_settings(place: Place) -> dict[str, Any]:
    if place.config.model.retrieves:
        return {"k": place.ranks_measured()}
    return {"evaluate": place.config.evaluate, "split": _without_paths(place.config.split)}


def _evaluate(place: Place) -> Made:
    require_training()
    if place.config.model.retrieves:
        return _evaluate_retrieval(place)
    from recsys.evaluation import evaluate
    from recsys.training.loaded import score_dataset

    roles = place.dataset.manifest.schema_
    by = place.config.evaluate.by
    named = [roles.label, roles.group, roles.weight, *by]
    columns = list(dict.fromkeys(name for name in named if name is not None))
    rows = place.parts.lazy("test").select(columns).collect()
    scored = rows.with_columns(
        pl.Series(SCORE, score_dataset(place.folder("train"), "test", place.dataset))
    )
    folder = place.folder("evaluate")
    evaluation = evaluate(
        scored,
        label=roles.label or "",
        score=SCORE,
        group=roles.group,
        weight=roles.weight,
        by=by,
        output=folder,
    )
    save_references(place, folder)
    missing: dict[str, list[str]] = {}
    for metric, reason in evaluation.reasons.items():
        missing.setdefault(reason, []).append(metric)
    reasons = (f"no {', '.join(metrics)}: {reason}" for reason, metrics in missing.items())
    return Made(int(evaluation.overall["rows"] or 0), (*evaluation.notes, *reasons))


def _evaluate_retrieval(place: Place) -> Made:
    from recsys.training.retrieval_evaluation import evaluate_retrieval

    folder = place.folder("evaluate")
    found = evaluate_retrieval(place.folder("train"), k=place.ranks_measured(), output=folder)
    return Made(found.facts["rows"], found.notes)


# --- export --------------------------------------------------------------------------------------


def _export_inputs(place: Place) -> dict[str, Fingerprint]:
    read = STAGES["prepare"].handed(place, "dataset.json", "test.parquet", "vocab/*")
    return STAGES["train"].handed(place) | STAGES["plan"].handed(place) | read


def _export_settings(place: Place) -> dict[str, Any]:
    return {"export": place.config.export}


def _export(place: Place) -> Made:
    require_training()
    from recsys.training.export import export

    settings = place.config.export
    export(
        place.folder("train"),
        place.folder("export"),
        dtype=settings.dtype,
        embeddings=settings.embeddings,
        prune=settings.prune,
    )
    return Made()


# --- index ---------------------------------------------------------------------------------------


def _index(place: Place) -> Made:
    from recsys.retrieval.of_bundle import index_bundle

    built = index_bundle(place.folder("export"), place.folder("index"), place.parts.lazy("train"))
    found = built.manifest.measured
    searched = "exact search" if built.manifest.coarse is None else "search by codes"
    notes = []
    if found is not None:
        notes.append(
            f"{searched}: recall@{found.k} {found.recall:.4f}, {found.milliseconds:.2f} ms a query"
        )
    return Made(len(built), tuple(notes))


def _without_paths(split: SplitSettings) -> dict[str, Any]:
    """The split rule for a record; given files are inputs, not settings."""
    if isinstance(split, FilesSplit):
        share = split.valid if isinstance(split.valid, ValidShare) else None
        return {"by": "files"} | ({} if share is None else {"valid": share.model_dump(mode="json")})
    return split.model_dump(mode="json")


STAGES: dict[str, Stage] = {
    stage.name: stage
    for stage in (
        Stage(
            "infer",
            "recsys.features.infer:VERSION",
            lambda place: place.log,
            _infer_settings,
            _infer,
            (SCHEMA_FILE,),
        ),
        Stage(
            "rank",
            "recsys.ranking.rank:VERSION",
            _rank_inputs,
            _rank_settings,
            _rank,
            ("ranking.*",),
        ),
        Stage(
            "prepare",
            "recsys.features.prepare:VERSION",
            _rank_inputs,
            _prepare_settings,
            _prepare,
            ("dataset.json", "*.parquet", "vocab/*"),
        ),
        Stage(
            "plan",
            "recsys.embeddings.planner:VERSION",
            _plan_inputs,
            _plan_settings,
            _plan,
            (PLAN_FILE,),
        ),
        Stage(
            "train",
            "recsys.training.run_folder:VERSION",
            _train_inputs,
            _train_settings,
            _train,
            ("run.json", "checkpoints/BEST/*"),
        ),
        Stage(
            "evaluate",
            "recsys.evaluation.evaluate:EVALUATE_VERSION",
            _evaluate_inputs,
            _evaluate_settings,
            _evaluate,
            ("metrics.json", "slices.parquet"),
        ),
        Stage(
            "export",
            "recsys.training.export:VERSION",
            _export_inputs,
            _export_settings,
            _export,
            ("manifest.json",),
        ),
        Stage(
            "index",
            "recsys.retrieval.of_bundle:VERSION",
            lambda place: STAGES["export"].handed(place),
            lambda place: {},
            _index,
            ("CURRENT",),
        ),
    )
}
