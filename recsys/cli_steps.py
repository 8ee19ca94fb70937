"""What verbs do first, and how one of them does its stage of a run file."""

from __future__ import annotations

from pathlib import Path

from recsys import __version__
from recsys.progress import say


def begin(verb: str, subject: str) -> None:
    """The first line, before anything slow is imported."""
    say(f"recsys {__version__} {verb} {subject}".rstrip())


def stage_of(
    file: str,
    stage: str,
    root: Path | None,
    output: Path | None,
    overrides: list[str] | None,
    resume: bool | None = None,
) -> None:
    """Redo one stage of a run file, after bringing those before it up to date."""
    from recsys import chain, summary

    finished = chain.run(
        file,
        data=root,
        output=output,
        overrides=overrides or (),
        force=(stage,),
        until=stage,
        resume=resume,
    )
    summary.show_run(finished)
