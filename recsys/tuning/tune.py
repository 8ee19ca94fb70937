"""``tune``: search settings of a run file, judged by validation rows alone.

    OUT/tune/
      stage.json       what the search was made from: data, settings, space
      journal.log      optuna's record of the trials
      trial-001/run    a trial's run folder; checkpoints are kept for the best trial only
      shared/          datasets and plans of trials that change how rows are prepared
      best.yaml        the run file with the best settings
      tune.html        table and charts

The stages before the first that the search changes are made once, in the run's own folders. What is
redone for a trial lies in folders named after the settings that it follows from, so that trials that
agree in them share it.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from recsys import chain, ranks
from recsys.config import RunConfig, TrainSettings
from recsys.doctor import require_training
from recsys.errors import (
    ConfigError,
    DataError,
    InstallationError,
    Interrupted,
    PlanError,
    TrainingError,
)
from recsys.place import FOLDERS, Place
from recsys.progress import say
from recsys.stage import StageRecord, file_aside, load_record, settings_of
from recsys.stages import STAGES
from recsys.tuning.space import BLOCKS, Space, read_space, with_values
from recsys.tuning.study import Asked, Study, require_optuna
from recsys.tuning.trial import BEST_FILE, REPORT_FILE, State, Trial, Tuning, shown_score
from recsys.upkeep import bring_up_to_date

VERSION = 1
TUNE_FOLDER = "tune"
_PRUNED = "behind the median of what earlier trials had reached"
_STAGES = list(FOLDERS)[: list(FOLDERS).index("train") + 1]


def tune(
    config: RunConfig | str | Path,
    *,
    data: str | Path | None = None,
    output: str | Path | None = None,
    overrides: Sequence[str] = (),
    trials: int | None = None,
    restart: bool = False,
) -> Tuning:
    """Search the settings that a run file's ``tune.space`` names; goes on with an interrupted search.

    Every trial trains on train rows and is judged by ``train.monitor`` on validation rows; test rows
    are never scored.

    Args:
        config: run file, or what it holds.
        data, output, overrides: as in ``run``.
        trials: settings to try, over ``tune.trials``; those of an earlier call count.
        restart: forget the trials in the folder.

    Returns:
        All trials and the best one; its run file is ``best_file``.

    Raises:
        ConfigError: a faulty run file or search space, or trials in the folder that other settings made.
        InstallationError: optuna is absent.
        DataError: there are no validation rows to judge by.
        Interrupted: a signal came; the trial goes on where it stood when tune is called again.
    """
    require_optuna()
    require_training()
    if ranks.world() > 1:
        raise ConfigError("tune: trials run one after the other, on one process")
    place = Place(chain.resolved(config, data=data, output=output, overrides=overrides))
    space = read_space(place.config)
    _check_model(place.config, space)
    count = _trials_wanted(place.config, space, trials)
    first = min(_STAGES.index(stage) for stage in space.stages())
    chain.run(place.config, until=_STAGES[first - 1])
    folder = place.root / TUNE_FOLDER
    _claim(folder, _wanted(place), restart=restart)
    study = Study(folder, space, place.config.tune)
    while len(study.trials) < count:
        asked = study.ask(count)
        trial = _repeated(study.trials, asked) or _try(place, space, asked)
        study.tell(asked, trial)
        found = _tuning(place, study)
        say(_line(found, trial, count))
        _keep_best_checkpoints(found)
    return _concluded(place, _tuning(place, study))


def _check_model(config: RunConfig, space: Space) -> None:
    """Refuse a misspelt model or option that no trial would change."""
    from recsys.models import parse_options

    if not any(axis.path.startswith("model.") for axis in space.axes):
        parse_options(config.model.name, config.model.options)


def _trials_wanted(config: RunConfig, space: Space, trials: int | None) -> int:
    """How many settings are tried: no more than there are."""
    count = config.tune.trials if trials is None else trials
    if count < 1:
        raise ConfigError(f"trials: expected 1 or more (found {count})")
    every = space.combinations(count)
    if every is not None:
        say(f"tune      the space has {len(every)} settings; each is tried once")
        return len(every)
    return count


def _wanted(place: Place) -> StageRecord:
    """What trials are made from; the same for all that may be compared."""
    config = place.config
    search = config.tune.model_dump(mode="json", exclude={"trials"})
    settings = {name: getattr(config, name) for name in ("split", *BLOCKS)} | {"tune": search}
    inputs = place.log | STAGES["infer"].handed(place)
    return StageRecord(stage="tune", version=VERSION, inputs=inputs, settings=settings_of(settings))


def _claim(folder: Path, wanted: StageRecord, *, restart: bool) -> None:
    """Make the folder ready; refuses to compare with trials that were made from something else."""
    earlier = load_record(folder)
    if restart and earlier is not None:
        shutil.rmtree(folder)
        earlier = None
    reason = None if earlier is None else wanted.reason_stale(earlier)
    if reason is not None:
        raise ConfigError(
            f"{folder}: its trials cannot be compared with new ones ({reason}); forget them with "
            "--restart, or name another --output"
        )
    if earlier is None and folder.is_dir() and any(folder.iterdir()):
        raise ConfigError(f"{folder}: holds files but no search; name another --output")
    if earlier is None:
        wanted.save(folder)


# --- one trial -----------------------------------------------------------------------------------


def _try(place: Place, space: Space, asked: Asked) -> Trial:
    """Train with the settings that were drawn."""
    try:
        config = with_values(place.config, asked.values)
        own = replace(place, config=config, apart=_folders(place, space, asked))
        run_folder = own.folder("train")

        def watch(step: int, score: float) -> str | None:
            return _PRUNED if asked.report(_reached(run_folder, config.train)) else None

        own = replace(own, watch=watch)
        for stage in own.apart:
            bring_up_to_date(STAGES[stage], own, about=f"trial {asked.number}")
    except Interrupted as error:
        raise Interrupted(
            f"stopped in trial {asked.number}; everything is saved, and the same command goes on"
        ) from error
    except (ConfigError, PlanError, TrainingError) as error:
        return Trial(asked.number, "failed", asked.values, None, reason=str(error))
    return _ended(asked, run_folder, config.train)


def _ended(asked: Asked, folder: Path, train: TrainSettings) -> Trial:
    from recsys.training.run_folder import Run

    result = Run.load(folder).result
    if result.best_value is None:
        raise DataError(f"{folder}: there are no validation rows to judge a trial by; choose another split")
    reached = _reached(folder, train)
    asked.report(reached)
    state: State = "pruned" if result.finished == _PRUNED else "finished"
    return Trial(
        asked.number, state, asked.values, result.best_value, len(reached), result.seconds, result.finished
    )


def _reached(folder: Path, train: TrainSettings) -> list[float]:
    """The best score by each evaluation so far: what counts is the best, wherever it came.

    Evaluations of a model that is still to be cut do not count.
    """
    from recsys.training.record import read_lines

    key, monitor = f"valid/{train.monitor}", train.monitor
    lines = [line for line in read_lines(folder) if key in line and line["step"] >= train.settles_at]
    scores = [shown_score(monitor, line[key]) for line in lines]
    return list(itertools.accumulate(scores, max))


def _repeated(earlier: Sequence[Trial], asked: Asked) -> Trial | None:
    """The same settings again reach the same: that trial under a new number."""
    for trial in earlier:
        if trial.values == asked.values:
            return replace(trial, number=asked.number, seconds=0.0, reason=f"as trial {trial.number}")
    return None


def _folders(place: Place, space: Space, asked: Asked) -> dict[str, Path]:
    """Folders of the stages that a trial changes, in the order of the chain."""
    root = place.root / TUNE_FOLDER
    folders = {}
    for at, stage in enumerate(_STAGES):
        moved = {
            axis.path: asked.values[axis.path]
            for axis in space.axes
            if _STAGES.index(axis.stage) <= at and stage != "train"
        }
        if stage == "train":
            folders[stage] = root / f"trial-{asked.number:03d}" / FOLDERS[stage]
        elif moved:
            digest = hashlib.sha256(json.dumps(moved, sort_keys=True).encode()).hexdigest()[:10]
            folders[stage] = root / "shared" / digest / FOLDERS[stage]
    return folders


# --- what is left at the end ---------------------------------------------------------------------


def _tuning(place: Place, study: Study) -> Tuning:
    config = place.config
    return Tuning(place.root / TUNE_FOLDER, config.name, config.train.monitor, tuple(study.trials))


def _line(found: Tuning, trial: Trial, count: int) -> str:
    """One line about a trial that has just ended."""
    values = ", ".join(f"{path} {value}" for path, value in trial.values.items())
    score = found.shown(trial.score)
    reached = "" if score is None else f" {found.monitor} {score:.5f}"
    why = f" ({trial.reason})" if trial.state == "failed" else ""
    best = f"; best: trial {found.best.number}" if any(t.state == "finished" for t in found.trials) else ""
    return f"tune      trial {trial.number} of {count} {trial.state}{reached}{why}: {values}{best}"


def _keep_best_checkpoints(found: Tuning) -> None:
    """Remove the checkpoints of all trials but the best, which are most of the bytes."""
    finished = [trial for trial in found.trials if trial.state == "finished"]
    best = found.best.number if finished else None
    for trial in found.trials:
        if trial.number != best:
            folder = found.folder / f"trial-{trial.number:03d}" / FOLDERS["train"]
            shutil.rmtree(folder / "checkpoints", ignore_errors=True)


def _concluded(place: Place, found: Tuning) -> Tuning:
    """Write ``best.yaml`` and ``tune.html``; raises TrainingError where no trial went through."""
    if not any(trial.state == "finished" for trial in found.trials):
        raise TrainingError(
            f"{found.folder}: none of {len(found.trials)} trials went through; the first: "
            f"{found.trials[0].reason}"
        )
    _write_best(place.config, found)
    from recsys.report.tune_report import write_tune_report

    try:
        write_tune_report(found.folder / REPORT_FILE, found)
    except InstallationError as error:
        say(f"tune      {REPORT_FILE} left out: {error}")
    return found


def _write_best(config: RunConfig, found: Tuning) -> None:
    """The run file with the best settings in place of its own, without the search."""
    best = found.best
    values: dict[str, Any] = with_values(config, best.values).model_dump(
        mode="json", exclude_unset=True, exclude={"tune"}
    )
    head = (
        f"# The best of {len(found.trials)} trials of 'recsys tune': trial {best.number}, "
        f"{found.monitor} {found.shown(best.score):.5f} on validation rows.\n"
        "# What it changed: " + ", ".join(f"{key}: {value}" for key, value in best.values.items()) + "\n"
    )
    with file_aside(found.folder / BEST_FILE) as aside:
        text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
        aside.write_text(head + text, encoding="utf-8")
