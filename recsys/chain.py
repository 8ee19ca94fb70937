"""The chain: infer → rank → prepare → plan → train → evaluate → export, redoing only what is stale."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from recsys import ranks
from recsys.config import RunConfig, load_config
from recsys.errors import ConfigError, did_you_mean
from recsys.progress import duration, progress, say
from recsys.stage import StageRecord, is_edited, load_record, why_redo
from recsys.stages import SCHEMA_FILE, STAGES, Place, Stage, train_here

BY_HAND = "written by hand, kept"


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
    outcomes = []
    for stage in STAGES.values():
        outcomes.append(_do(stage, place, forced=stage.name in force))
        if stage.name == until:
            break
    return Finished(place.config, tuple(outcomes))


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


def _do(stage: Stage, place: Place, *, forced: bool) -> Outcome:
    """Make a stage unless it is up to date, and say which and why."""
    folder = place.folder(stage.name)
    wanted = stage.wanted(place)
    reason = "forced" if forced else why_redo(folder, wanted)
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
    return outcome


def _schema_by_hand(place: Place, record: StageRecord | None) -> bool:
    """Whether a person wrote or changed the schema; such a schema is never overwritten unasked."""
    if not place.schema.is_file():
        return False
    return record is None or is_edited(place.folder("infer"), SCHEMA_FILE)
