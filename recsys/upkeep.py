"""One stage brought up to date, with what became of it and why."""

from __future__ import annotations

import time
from dataclasses import dataclass

from recsys.place import SCHEMA_FILE, Place
from recsys.progress import duration, progress, say
from recsys.stage import StageRecord, is_edited, load_record, why_redo
from recsys.stages import Stage

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


def bring_up_to_date(stage: Stage, place: Place, *, forced: bool = False, about: str = "") -> Outcome:
    """Make a stage unless it is up to date, and say which and why.

    ``about`` names which of several foldersful this is, such as ``seed 7``.
    """
    folder = place.folder(stage.name)
    wanted = stage.wanted(place)
    reason = why_redo(folder, wanted) or ("asked for" if forced else None)
    record = load_record(folder)
    prefix = f"{stage.name:<9} {about}: " if about else f"{stage.name:<9} "
    if stage.name == "infer" and not forced and _schema_by_hand(place, record):
        since = wanted.reason_stale(record) if record is not None else None
        beside = f"; since then: {since} (look it over, or --force infer)" if since else ""
        say(f"{prefix}{SCHEMA_FILE} was {BY_HAND}{beside}")
        return Outcome(stage.name, BY_HAND, record.seconds if record else 0.0, None)
    if reason is None and record is not None:
        say(f"{prefix}up to date")
        return Outcome(stage.name, "up to date", record.seconds, record.rows)
    say(f"{prefix}{reason}")
    started = time.perf_counter()
    with progress(stage.name):
        made = stage.make(place)
    record = stage.finished(place, wanted, time.perf_counter() - started, made.rows)
    outcome = Outcome(stage.name, "made", record.seconds, record.rows)
    speed = outcome.rows_per_second
    rate = f", {speed:,.0f} rows/s" if speed else ""
    say(f"{'':<9} done in {duration(record.seconds)}{rate}")
    for warning in made.warnings:
        say(f"{'':<9} warning: {warning}")
    for note in made.notes[:_MOST_NOTES]:
        say(f"{'':<9} note: {note}")
    if len(made.notes) > _MOST_NOTES:
        say(f"{'':<9} and {len(made.notes) - _MOST_NOTES} more notes in {folder}")
    return outcome


def is_up_to_date(stage: Stage, place: Place) -> bool:
    """Whether a stage's folder holds what the run file asks for; its inputs must be there."""
    return why_redo(place.folder(stage.name), stage.wanted(place)) is None


def _schema_by_hand(place: Place, record: StageRecord | None) -> bool:
    """Whether a person wrote or changed the schema; such a schema is never overwritten unasked."""
    if not place.schema.is_file():
        return False
    return record is None or is_edited(place.folder("infer"), SCHEMA_FILE)
