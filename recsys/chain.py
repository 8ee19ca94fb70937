"""The chain: infer → rank → prepare → plan → train → evaluate → export, redoing only what is stale."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from recsys import ranks
from recsys.config import RunConfig, load_config
from recsys.doctor import require_training
from recsys.errors import ConfigError, did_you_mean
from recsys.place import SCHEMA_FILE, Place
from recsys.progress import duration, progress, say
from recsys.results import report_of, write_report
from recsys.stage import StageRecord, is_edited, load_record, settings_of, why_redo
from recsys.stages import STAGES, Stage, train_here

if TYPE_CHECKING:
    from recsys.report.run_report import StageTime

BY_HAND = "written by hand, kept"
_MOST_NOTES = 8
"""Notes of one stage that are said; all of them stand in its folder."""


@dataclass(frozen=True)
class Outcome:
    """What became of one stage."""

    stage: str
    state: str
    """``made``, ``up to date``, or why it was left alone."""
    seconds: float
    rows: int | None
    """Rows that the stage read, where it counts them."""

    @property
    def rows_per_second(self) -> float | None:
        return self.rows / self.seconds if self.rows and self.seconds else None


@dataclass(frozen=True)
class Finished:
    """A run that went through."""

    config: RunConfig
    outcomes: tuple[Outcome, ...]

    @property
    def folder(self) -> Path:
        """Folder of all outputs."""
        return self.config.folder

    @property
    def needs_report(self) -> bool:
        """Whether the report does not show what the folders hold now."""
        made = any(outcome.state == "made" for outcome in self.outcomes)
        return made or not report_of(Place(self.config)).exists()


def run(
    config: RunConfig | str | Path,
    *,
    data: str | Path | None = None,
    output: str | Path | None = None,
    overrides: Sequence[str] = (),
    force: Sequence[str] = (),
    until: str | None = None,
    resume: bool | None = None,
) -> Finished:
    """Carry a log to a bundle; stages whose inputs, settings and version are unchanged are left alone.

    Args:
        config: run file, or what it holds.
        data: folder that the run file's relative data paths start from.
        output: folder of all outputs.
        overrides: ``key=value`` with dotted keys, over the run file's values.
        force: stages to redo whatever their state.
        until: last stage to do; default: all.
        resume: None: go on with an interrupted training of the same settings. True: go on with the
            training in the folder. False: train from the start.

    Raises:
        ConfigError: unknown stage, or a faulty run file.
        RecsysError: a stage failed; what was there before it stays.
    """
    place = Place(_config(config, data, output, overrides), resume=resume)
    for name in [*force, *([until] if until else [])]:
        if name not in STAGES:
            raise ConfigError(f"no stage {name!r}; {did_you_mean(name, STAGES)}")
    if ranks.rank() > 0:
        train_here(place, resume=ranks.await_call()["resume"])
        return Finished(place.config, ())
    stages = _stages_until(until)
    if STAGES["train"] in stages:
        _check_model(place)
    _check_columns(place, stages)
    outcomes = []
    for stage in stages:
        outcomes.append(_do(stage, place, forced=stage.name in force))
    finished = Finished(place.config, tuple(outcomes))
    if STAGES["evaluate"] in stages and finished.needs_report:
        write_report(place, [_time(outcome) for outcome in outcomes])
    return finished


def _time(outcome: Outcome) -> StageTime:
    from recsys.report.run_report import StageTime

    return StageTime(outcome.stage, outcome.seconds, outcome.rows_per_second, outcome.state)


def _config(
    config: RunConfig | str | Path,
    data: str | Path | None,
    output: str | Path | None,
    overrides: Sequence[str],
) -> RunConfig:
    if isinstance(config, RunConfig):
        if overrides:
            raise ConfigError("overrides are for a run file; change the RunConfig instead")
        changed: dict[str, object] = {}
        if data is not None:
            changed["data"] = config.data.model_copy(update={"root": Path(data)})
        if output is not None:
            changed["output"] = Path(output)
        return config.model_copy(update=changed)
    return load_config(
        Path(config),
        data=None if data is None else Path(data),
        output=None if output is None else Path(output),
        overrides=overrides,
    )


def _stages_until(last: str | None) -> list[Stage]:
    names = list(STAGES)
    return [STAGES[name] for name in (names if last is None else names[: names.index(last) + 1])]


def _check_model(place: Place) -> None:
    """Refuse an unknown model or option before the stages that come first take their time.

    Options that a finished training had are known to be good, and spare the import of torch.
    """
    from recsys.models import parse_options

    model = place.config.model
    record = load_record(place.folder("train"))
    settings = settings_of({"model": model})
    if record is not None and settings.items() <= record.settings.items():
        return
    require_training()
    parse_options(model.name, model.options)


def _check_columns(place: Place, stages: Sequence[Stage]) -> None:
    """Refuse a misspelt column of the last stages before the first ones take their time."""
    config = place.config
    asked = {"evaluate": ("by", config.evaluate.by), "export": ("embeddings", config.export.embeddings)}
    for stage, (key, names) in asked.items():
        if names and STAGES[stage] in stages:
            columns = place.parts.columns
            for name in names:
                if name not in columns:
                    raise ConfigError(
                        f"{stage}.{key}: {place.parts.name} has no column {name!r}; "
                        f"{did_you_mean(name, columns)}"
                    )


def _do(stage: Stage, place: Place, *, forced: bool) -> Outcome:
    """Make a stage unless it is up to date, and say which and why."""
    folder = place.folder(stage.name)
    wanted = stage.wanted(place)
    reason = why_redo(folder, wanted) or ("asked for" if forced else None)
    record = load_record(folder)
    if stage.name == "infer" and not forced and _schema_by_hand(place, record):
        since = wanted.reason_stale(record) if record is not None else None
        beside = f"; since then: {since} (look it over, or --force infer)" if since else ""
        say(f"{stage.name:<9} {SCHEMA_FILE} was {BY_HAND}{beside}")
        return Outcome(stage.name, BY_HAND, record.seconds if record else 0.0, None)
    if reason is None and record is not None:
        say(f"{stage.name:<9} up to date")
        return Outcome(stage.name, "up to date", record.seconds, record.rows)
    say(f"{stage.name:<9} {reason}")
    started = time.perf_counter()
    with progress(stage.name):
        made = stage.make(place)
    record = stage.finished(place, wanted, time.perf_counter() - started, made.rows)
    outcome = Outcome(stage.name, "made", record.seconds, record.rows)
    speed = outcome.rows_per_second
    rate = f", {speed:,.0f} rows/s" if speed else ""
    say(f"{'':<9} done in {duration(record.seconds)}{rate}")
    for note in made.notes[:_MOST_NOTES]:
        say(f"{'':<9} note: {note}")
    if len(made.notes) > _MOST_NOTES:
        say(f"{'':<9} and {len(made.notes) - _MOST_NOTES} more notes in {folder}")
    return outcome


def _schema_by_hand(place: Place, record: StageRecord | None) -> bool:
    """Whether a person wrote or changed the schema; such a schema is never overwritten unasked."""
    if not place.schema.is_file():
        return False
    return record is None or is_edited(place.folder("infer"), SCHEMA_FILE)
