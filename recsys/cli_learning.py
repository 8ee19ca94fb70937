"""The verbs that learn: ``train`` and ``tune``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from recsys.cli_steps import begin, stage_of
from recsys.flags import DataRoot, Output, Overrides, RunFile, Seeds


def train(
    file: RunFile,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the training in the folder.")
    ] = False,
    warm_start: Annotated[
        Path | None,
        typer.Option(metavar="RUN", help="Begin with what an earlier run learnt, on earlier data."),
    ] = None,
    seeds: Seeds = None,
    root: DataRoot = None,
    output: Output = None,
    overrides: Overrides = None,
) -> None:
    """Train a run file's model; under torchrun on many processes.

    Stages before it are brought up to date first, by the first process alone.
    """
    begin("train", str(file))
    from recsys.doctor import require_training

    require_training()
    if warm_start is not None:
        overrides = [*(overrides or ()), f"train.warm_start={warm_start}"]
    if seeds is None:
        return stage_of(str(file), "train", root, output, overrides, resume=resume)
    from recsys import chain, summary

    finished = chain.run(
        file,
        data=root,
        output=output,
        overrides=overrides or (),
        until="train",
        resume=resume or None,
        seeds=seeds,
    )
    summary.show_run(finished)
    return None


def tune(
    file: RunFile,
    trials: Annotated[
        int | None, typer.Option(min=1, help="Settings to try, instead of tune.trials.")
    ] = None,
    restart: Annotated[bool, typer.Option("--restart", help="Forget the trials in the folder.")] = False,
    root: DataRoot = None,
    output: Output = None,
    overrides: Overrides = None,
) -> None:
    """Search the settings that tune.space names, judged by validation rows; goes on where it stood."""
    begin("tune", str(file))
    from recsys import summary
    from recsys.tuning.tune import tune as search

    found = search(
        file, data=root, output=output, overrides=overrides or (), trials=trials, restart=restart
    )
    summary.show_tuning(found)
