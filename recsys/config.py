"""The run file: one YAML that carries a log to a bundle. Strict, typed, every field documented once.

The text under a field is its line in ``docs/config.md`` and its help on the command line.
Unknown keys are errors that name the nearest known key. Sizes that the data decides (vocabularies,
bin edges) are not here: they are found, and written back by the stages. Each block is a module of
``recsys.settings``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field, ValidationError, model_validator

from recsys.embeddings.plan import ServeDtype
from recsys.errors import ConfigError
from recsys.settings.data import (
    ColumnSettings,
    DataSettings,
    FilesSplit,
    RatioSplit,
    SplitSettings,
    TimeSplit,
    ValidShare,
    parse_split,
)
from recsys.settings.model import RETRIEVAL_MODELS, ModelSettings
from recsys.settings.plan import PlanSettings, TableSettings
from recsys.settings.rank import RankSettings
from recsys.settings.section import Section, explain_faults
from recsys.settings.sizes import parse_bytes
from recsys.settings.train import DenseOptimizer, Plateau, TableOptimizer, TrainSettings
from recsys.settings.tune import TuneSettings
from recsys.strict_yaml import parse_yaml, read_yaml

__all__ = [
    "RETRIEVAL_MODELS",
    "ColumnSettings",
    "DataSettings",
    "DenseOptimizer",
    "EvaluateSettings",
    "ExportSettings",
    "FilesSplit",
    "ModelSettings",
    "PlanSettings",
    "Plateau",
    "PrepareSettings",
    "RankSettings",
    "RatioSplit",
    "RunConfig",
    "Section",
    "SplitSettings",
    "TableOptimizer",
    "TableSettings",
    "TimeSplit",
    "TrainSettings",
    "ValidShare",
    "explain_faults",
    "load_config",
    "monitor_fault",
    "parse_bytes",
    "parse_config",
    "parse_split",
    "put_setting",
]


class PrepareSettings(Section):
    """Encoding of values."""

    min_count: int = Field(default=1, ge=1)
    """Values seen fewer times in train rows become the unseen value."""


class EvaluateSettings(Section):
    """Metrics of the test rows."""

    by: tuple[str, ...] = ()
    """Columns whose values each get their own metrics."""
    k: tuple[Annotated[int, Field(ge=1)], ...] = Field(default=(10, 20, 50, 100), min_length=1)
    """Of retrieval models: items that recall and NDCG look at."""


class ExportSettings(Section):
    """The bundle."""

    dtype: ServeDtype | None = None
    """Type of every table in the bundle; default: as the plan says per table."""
    embeddings: tuple[str, ...] = ()
    """Features whose vectors are also written as Parquet and safetensors, with raw ids."""
    prune: float = Field(default=0.0, ge=0, lt=1)
    """Share of the values with rows of their own that leave the bundle, those with the smallest vectors."""


class RunConfig(Section):
    """A whole run."""

    name: str
    """Name of the run; its outputs go to ``output``."""
    output: Path | None = None
    """Folder of all outputs; default: ``runs/NAME``; ``--output`` replaces it."""
    data: DataSettings
    """Where the log is and what its columns are."""
    split: SplitSettings
    """Which rows train, validate and test; applied before anything learns from the data."""
    rank: RankSettings = RankSettings()
    """Feature ranking."""
    prepare: PrepareSettings = PrepareSettings()
    """Encoding of values."""
    plan: PlanSettings = PlanSettings()
    """Tables and their bytes."""
    model: ModelSettings
    """Which model, and its options."""
    train: TrainSettings = TrainSettings()
    """The training loop."""
    evaluate: EvaluateSettings = EvaluateSettings()
    """Metrics of the test rows."""
    export: ExportSettings = ExportSettings()
    """The bundle."""
    tune: TuneSettings = TuneSettings()
    """The search of ``recsys tune``; no other verb reads it."""

    @model_validator(mode="after")
    def _source_stated(self) -> RunConfig:
        if isinstance(self.split, FilesSplit):
            if self.data.path is not None:
                raise ValueError("data.path must be left out when split.by is 'files'")
        elif self.data.path is None:
            raise ValueError("data.path is missing")
        return self

    @model_validator(mode="after")
    def _label_stated(self) -> RunConfig:
        if self.data.label is None and not self.model.retrieves:
            raise ValueError(
                f"data.label is missing; model {self.model.name!r} learns from rows of 0 and 1 (only "
                f"{', '.join(RETRIEVAL_MODELS)} takes every row for a positive)"
            )
        return self

    @model_validator(mode="after")
    def _ranking_possible(self) -> RunConfig:
        if self.model.retrieves and (self.rank.selects or self.rank.combine):
            raise ValueError(
                f"rank: columns are chosen by what they tell about a label, and {self.model.name!r} learns "
                "from positive rows alone; leave the block out"
            )
        return self

    @model_validator(mode="after")
    def _monitor_fits(self) -> RunConfig:
        fault = monitor_fault(self.model, self.train)
        if fault is not None:
            raise ValueError(fault)
        return self

    @model_validator(mode="after")
    def _values_chosen_once(self) -> RunConfig:
        sparsity = self.train.sparsity
        dealt = sparsity is not None and sparsity.method != "dsl" and sparsity.tables != 1
        if dealt and self.export.prune:
            raise ValueError(
                "export.prune and train.sparsity both choose which values have vectors; leave prune out, "
                "or set train.sparsity.tables to 1"
            )
        return self

    @property
    def folder(self) -> Path:
        """Folder of all outputs."""
        return self.output if self.output is not None else Path("runs") / self.name


def monitor_fault(model: ModelSettings, train: TrainSettings) -> str | None:
    """What is wrong with the monitored metric of a model, None where nothing is."""
    known = ("recall", "ndcg") if model.retrieves else ("auc", "gauc", "logloss")
    if train.monitor in known:
        return None
    return f"train.monitor: {train.monitor!r} is not measured of {model.name!r}; take {' or '.join(known)}"


def load_config(
    path: Path,
    *,
    data: Path | None = None,
    output: Path | None = None,
    overrides: Sequence[str] = (),
) -> RunConfig:
    """Read a run file, with ``--data``, ``--output`` and dotted ``--set key=value`` applied.

    Raises ConfigError that names the file and the key, with the nearest known name.
    """
    try:
        values = read_yaml(path)
    except (FileNotFoundError, IsADirectoryError) as error:
        raise ConfigError(f"{path}: no such run file") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected a mapping of settings")
    for override in overrides:
        _apply_override(values, override)
    if data is not None:
        put_setting(values, ["data", "root"], str(data))
    if output is not None:
        values["output"] = str(output)
    return parse_config(values, origin=str(path))


def parse_config(values: Mapping[str, Any], origin: str = "run file") -> RunConfig:
    """Build a run config from plain values; raises ConfigError that lists every fault."""
    try:
        return RunConfig.model_validate(dict(values))
    except ValidationError as error:
        faults = explain_faults(error, RunConfig)
        raise ConfigError(f"{origin}:\n" + "\n".join(f"  {fault}" for fault in faults)) from error


def _apply_override(values: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise ConfigError(f"--set {override!r}: expected key=value, for example train.epochs=3")
    try:
        value = parse_yaml(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {override!r}: the value is not valid YAML: {error}") from error
    put_setting(values, key.split("."), value)


def put_setting(values: dict[str, Any], path: Sequence[str], value: object) -> None:
    """Put a value into nested settings, in place; raises ConfigError where its key leads into none."""
    for part in path[:-1]:
        inner = values.setdefault(part, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"{'.'.join(path)}: {part!r} is not a block of settings")
        values = inner
    values[path[-1]] = value
