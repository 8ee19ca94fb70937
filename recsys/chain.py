"""The chain: infer → rank → prepare → plan → train → evaluate → export, redoing only what is stale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from recsys import ranks
from recsys.chain_seeds import SEEDS_FOLDER, finished_seeds, further_seeds, require_one_process
from recsys.config import RunConfig, load_config
from recsys.doctor import require_training
from recsys.errors import ConfigError, did_you_mean
from recsys.place import Place
from recsys.results import report_of, write_report
from recsys.seeds import SeedRuns
from recsys.stage import load_record, settings_of
from recsys.stages import STAGES, Stage, train_here
from recsys.upkeep import Outcome, bring_up_to_date, is_up_to_date

if TYPE_CHECKING:
    from recsys.report.run_report import StageTime


@dataclass(frozen=True)
class Finished:
    """A run that went through."""

    config: RunConfig
    outcomes: tuple[Outcome, ...]
    further: tuple[Outcome, ...] = ()
    """What became of the stages of further seeds."""
    seeds: SeedRuns | None = None
    """What several seeds reached, where they were asked for."""

    @property
    def folder(self) -> Path:
        """Folder of all outputs."""
        return self.config.folder

    @property
    def needs_report(self) -> bool:
        """Whether the report does not show what the folders hold now."""
        made = any(outcome.state == "made" for outcome in (*self.outcomes, *self.further))
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
    seeds: int | None = None,
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
        seeds: train with so many seeds, from ``train.seed`` on, and measure each where the chain comes to
            that; finished ones are not repeated. What comes after training uses the first.

    Raises:
        ConfigError: unknown stage, or a faulty run file.
        RecsysError: a stage failed; what was there before it stays.
    """
    place = Place(resolved(config, data=data, output=output, overrides=overrides), resume=resume)
    for name in [*force, *([until] if until else [])]:
        if name not in STAGES:
            raise ConfigError(f"no stage {name!r}; {did_you_mean(name, STAGES)}")
    if seeds is not None:
        _check_seeds(seeds, until)
    if ranks.rank() > 0:
        train_here(place, resume=ranks.await_call()["resume"])
        return Finished(place.config, ())
    stages = _stages_of(place, until)
    if STAGES["train"] in stages:
        _check_model(place)
    _check_columns(place, stages)
    outcomes = [bring_up_to_date(stage, place, forced=stage.name in force) for stage in stages]
    evaluated = STAGES["evaluate"] in stages
    finished = Finished(place.config, tuple(outcomes))
    if seeds is not None:
        further = further_seeds(place, seeds, force=force, evaluated=evaluated)
        found = finished_seeds(place, seeds)
        if found is not None:
            found.save(place.root / SEEDS_FOLDER)
        finished = replace(finished, further=tuple(further), seeds=found)
    if (evaluated or seeds is not None) and finished.needs_report:
        _report(place, finished)
    return finished


def _check_seeds(seeds: int, until: str | None) -> None:
    require_one_process()
    if seeds < 1 or STAGES["train"] not in _stages_until(until):
        raise ConfigError(
            f"seeds: expected 1 or more, of a chain that trains (found {seeds}, until {until})"
        )


def _report(place: Place, finished: Finished) -> None:
    """Write the report, with metrics of test rows only where they are those of the weights."""
    write_report(
        place,
        [_time(outcome) for outcome in (*finished.outcomes, *finished.further)],
        evaluated=is_up_to_date(STAGES["evaluate"], place),
        seeds=finished.seeds or finished_seeds(place),
    )


def _time(outcome: Outcome) -> StageTime:
    from recsys.report.run_report import StageTime

    return StageTime(outcome.stage, outcome.seconds, outcome.rows_per_second, outcome.state)


def resolved(
    config: RunConfig | str | Path,
    *,
    data: str | Path | None = None,
    output: str | Path | None = None,
    overrides: Sequence[str] = (),
) -> RunConfig:
    """What a run file holds, with what is said beside it put in its place; raises ConfigError."""
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


def _stages_of(place: Place, last: str | None) -> list[Stage]:
    """The stages of a run up to one.

    A retrieval model has no label to rank columns by, and no other model has vectors of items to index.
    """
    model = place.config.model
    left_out = "rank" if model.retrieves else "index"
    if last == left_out:
        reason = "learns from positive rows alone" if model.retrieves else "has no vectors of items"
        raise ConfigError(f"{last}: {model.name!r} {reason}; leave this stage out")
    return [stage for stage in _stages_until(last) if stage.name != left_out]


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
