"""Single verbs on paths, as the command line gives them: like the Python functions of the same name,
but the folder that is written also gets its ``stage.json``.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import ValidationError

from recsys.config import FilesSplit, PlanSettings, RatioSplit, SplitSettings, TimeSplit, explain_faults
from recsys.errors import ConfigError, did_you_mean
from recsys.schema import Schema
from recsys.stage import Fingerprint, StageRecord, content, fingerprint, outputs_of, settings_of
from recsys.stages import SCHEMA_FILE, STAGES

if TYPE_CHECKING:
    from recsys.data.dataset import Dataset
    from recsys.embeddings.plan import Plan
    from recsys.features.ranking import Ranking


def infer(
    data: str,
    *,
    label: str,
    group: str | None = None,
    weight: str | None = None,
    timestamp: str | None = None,
    ignore: Sequence[str] = (),
    output: Path | None = None,
) -> Schema:
    """Infer the schema of a log; with ``output``, write it there."""
    from recsys.features.infer import infer as make

    asked: dict[str, Any] = {"label": label, "group": group, "weight": weight, "timestamp": timestamp}
    started = time.perf_counter()
    schema = make(data, **asked, ignore=tuple(ignore), output=output)
    if output is not None:
        settings = {"data": {**asked, "ignore": list(ignore)}}
        _record("infer", output, _log(data), settings, started, schema.rows)
    return schema


def rank(
    data: str,
    schema: Path | None,
    *,
    label: str | None = None,
    split: str | None = None,
    keep: int | None = None,
    output: Path | None = None,
) -> Ranking:
    """Rank the columns of a log; with ``output``, write the ranking there."""
    rule = _split(split)
    given = None if schema is None else _schema_path(schema)
    from recsys.features.ranking import rank as make

    started = time.perf_counter()
    ranking = make(data, given, split=rule, label=label, keep=keep, output=output)
    if output is not None:
        settings = {"split": split, "label": label, "rank": {"keep": keep}}
        _record("rank", output, _log(data, given), settings, started)
    return ranking


def prepare(
    data: str, schema: Path, output: Path, *, split: str | None = None, min_count: int = 1
) -> Dataset:
    """Encode a log into a dataset folder."""
    rule, given = _split(split), _schema_path(schema)
    from recsys.features.prepare import prepare as make

    started = time.perf_counter()
    dataset = make(data, Schema.load(given), output, split=rule, min_count=min_count)
    settings = {"split": split, "prepare": {"min_count": min_count}}
    _record("prepare", output, _log(data, given), settings, started, sum(dataset.manifest.rows.values()))
    return dataset


def plan(
    dataset: str,
    *,
    size: str | None = None,
    embedding_dim: int | None = None,
    model: str | None = None,
    output: Path | None = None,
) -> Plan:
    """Plan the tables of a dataset; with ``output``, write the plan there."""
    from recsys.embeddings.planner import plan as make

    asked = {"bytes": size, "embedding_dim": embedding_dim}
    settings = PlanSettings(**{key: value for key, value in asked.items() if value is not None})  # type: ignore[arg-type]
    started = time.perf_counter()
    made = make(Path(dataset), model_name=model, settings=settings, output=output)
    if output is not None:
        manifest = Path(dataset) / "dataset.json"
        inputs = {str(manifest.resolve()): content(manifest)}
        _record("plan", output, inputs, {"plan": settings, "model": model}, started)
    return made


def _record(
    stage: str,
    output: Path,
    inputs: Mapping[str, Fingerprint],
    settings: Mapping[str, Any],
    started: float,
    rows: int | None = None,
) -> None:
    """Write the ``stage.json`` of a folder that has just been made."""
    StageRecord(
        stage=stage,
        version=STAGES[stage].version,
        inputs=dict(inputs),
        settings=settings_of(settings),
        outputs=outputs_of(output, STAGES[stage].hands_on),
        seconds=round(time.perf_counter() - started, 3),
        rows=rows,
    ).save(output)


def _log(data: str, *beside: Path | None) -> dict[str, Fingerprint]:
    """Fingerprints of a log's files and of files beside it."""
    from recsys.data.source import open_source

    found = {str(Path(path).resolve()): mark for path, mark in open_source(data).fingerprints().items()}
    return found | {str(path.resolve()): fingerprint(path) for path in beside if path is not None}


def _schema_path(path: Path) -> Path:
    """The schema file of a path that may be its folder."""
    return path / SCHEMA_FILE if path.is_dir() else path


def _split(text: str | None) -> SplitSettings | None:
    """A split rule written as YAML on the command line."""
    if text is None:
        return None
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"--split {text!r}: not valid YAML: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"--split {text!r}: expected a mapping such as '{{by: ratio, key: user_id}}'")
    rules: dict[str, type[SplitSettings]] = {"time": TimeSplit, "ratio": RatioSplit, "files": FilesSplit}
    by = str(values.get("by"))
    if by not in rules:
        raise ConfigError(f"--split {text!r}: by {by!r} is no rule; {did_you_mean(by, rules)}")
    try:
        return rules[by].model_validate(values)
    except ValidationError as error:
        raise ConfigError("--split: " + "; ".join(explain_faults(error, rules[by]))) from error
