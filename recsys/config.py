"""The run file: one YAML that carries a log to a bundle. Strict, typed, every field documented once.

The text under a field is its line in ``docs/config.md`` and its help on the command line.
Unknown keys are errors that name the nearest known key. Sizes that the data decides (vocabularies,
bin edges) are not here: they are found, and written back by the stages.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from recsys.embeddings.plan import MOST_LOOKUPS, ServeDtype, UpdatePath, VocabularyMode
from recsys.errors import ConfigError, did_you_mean
from recsys.gate_settings import GateSettings
from recsys.schema import Kind, Role, Side, Transform, ValueType
from recsys.sparsity_settings import SparsitySettings
from recsys.strict_yaml import parse_yaml, read_yaml
from recsys.tune_settings import TuneSettings


class Section(BaseModel):
    """Base of every block of the run file: unknown keys are refused, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    @classmethod
    def parse(cls, **values: Any) -> Self:
        """Build the block from plain values; raises ConfigError instead of pydantic's error."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise ConfigError("; ".join(explain_faults(error, cls))) from error


class ColumnSettings(Section):
    """What the user states about one column; anything left out is inferred."""

    kind: Kind | None = None
    """``categorical``, ``numeric``, ``multi`` (unordered list) or ``sequence`` (oldest first)."""
    type: ValueType | None = None
    """``int64``, ``string``, ``float64`` or ``datetime``; of the elements, for lists."""
    roles: tuple[Role, ...] | None = None
    """Any of ``feature, label, weight, group, timestamp, row_id``; empty: ignored."""
    side: Side | None = None
    """``user``, ``item`` or ``context``."""
    vocabulary: str | None = None
    """Columns that name the same vocabulary share ids and table."""
    aligned_with: str | None = None
    """Another sequence of the same length, element for element."""
    max_length: int | None = Field(default=None, ge=1)
    """Lists are cut to this length; a sequence keeps its newest values."""
    transform: Transform | None = None
    """Of numeric columns: ``auto``, ``linear`` or ``log``."""


class DataSettings(Section):
    """Where the log is and what its columns are."""

    root: Path = Path()
    """Folder that relative paths of ``path`` and ``split`` start from; ``--data`` replaces it."""
    path: str | None = None
    """Parquet file, folder, glob, or a CSV file; leave out when ``split.by`` is ``files``."""
    label: str | None = None
    """Column that holds 0 or 1. May be left out for retrieval models, which learn from positive rows
    alone: every row of the log is one then."""
    group: str | None = None
    """Column whose values are GAUC's groups, usually the user; it may be a feature too."""
    weight: str | None = None
    """Column of sample weights."""
    timestamp: str | None = None
    """Column of event times."""
    ignore: tuple[str, ...] = ()
    """Columns to leave out."""
    columns: dict[str, ColumnSettings] = {}
    """Overrides of what ``infer`` finds, by column name."""


class TimeSplit(Section):
    """Rows before ``valid_from`` train, rows from ``test_from`` on test, the rest validate."""

    by: Literal["time"]
    column: str
    """Column to compare: a date, a time, a number, or a Hive partition such as ``dt``."""
    valid_from: str | int | float
    """First value of the validation rows."""
    test_from: str | int | float
    """First value of the test rows."""

    @field_validator("valid_from", "test_from", mode="before")
    @classmethod
    def _written_date(cls, value: object) -> object:
        """YAML reads an unquoted 2026-01-31 as a date; text is what the column is compared with."""
        return value.isoformat() if isinstance(value, datetime.date) else value


class RatioSplit(Section):
    """Rows are dealt by a hash of their key, so that a row's part never changes as data grows."""

    by: Literal["ratio"]
    key: str | tuple[str, ...]
    """Column or columns whose values are hashed; rows of one key stay together."""
    valid: float = Field(default=0.1, ge=0, lt=1)
    """Share of keys for validation."""
    test: float = Field(default=0.1, ge=0, lt=1)
    """Share of keys for test."""
    salt: str = ""
    """Change it for another deal of the same keys."""


class ValidShare(Section):
    """Validation rows taken from the train path, by a hash of their key."""

    key: str | tuple[str, ...]
    """Column or columns whose values are hashed; rows of one key stay together."""
    share: float = Field(gt=0, lt=1)
    """Share of keys for validation."""
    salt: str = ""
    """Change it for another deal of the same keys."""


class FilesSplit(Section):
    """Given paths."""

    by: Literal["files"]
    train: str
    """Path, folder or glob of the train rows."""
    valid: str | ValidShare | None = None
    """Path, folder or glob of the validation rows; or which share of the train rows they are. Left out:
    there are none, and training ends after its last epoch."""
    test: str
    """Path, folder or glob of the test rows."""


_SPLITS: dict[str, type[TimeSplit] | type[RatioSplit] | type[FilesSplit]] = {
    "time": TimeSplit,
    "ratio": RatioSplit,
    "files": FilesSplit,
}
SplitSettings = Annotated[TimeSplit | RatioSplit | FilesSplit, Field(discriminator="by")]


class RankSettings(Section):
    """Feature ranking. At most one of ``keep``, ``keep_until_loss`` and ``bytes`` chooses columns."""

    keep: int | None = Field(default=None, ge=1)
    """Keep only this many best features for the stages that follow; default: all."""
    keep_until_loss: float | None = Field(default=None, ge=0, lt=1)
    """Keep the fewest features that lose at most this share of what all together tell about the label."""
    bytes: int | str | None = None
    """Keep the best features whose tables fit, e.g. ``8MB``: 64 bytes (16 float32) per value, and per
    numeric feature."""
    score: Literal["corrected", "mi", "adjusted", "outrank"] = "corrected"
    """What features are ranked by: mutual information with the label less what chance would show (and
    three deviations of that, so that luck earns no place), plain mutual information, adjusted (a share
    of the entropies), or the score of OutRank 0.97.5."""
    order: Literal[1, 2, 3] = 2
    """Columns looked at together at most; 1 leaves out redundancy and combinations."""
    combine: int = Field(default=0, ge=0)
    """How many of the best combinations ``prepare`` makes columns of."""
    given: tuple[str, ...] = ()
    """Columns that the model already has: they are kept, and the others are ranked by what they add."""
    sample: int = Field(default=262_144, ge=1_000)
    """Rows that everything but the single scores is counted on at most, spread evenly over the log."""
    report: bool = True
    """Whether ``report.html`` is written beside the tables."""

    @field_validator("bytes")
    @classmethod
    def _is_a_size(cls, value: int | str | None) -> int | str | None:
        return _checked_size(value)

    @model_validator(mode="after")
    def _one_choice(self) -> Self:
        stated = [name for name in ("keep", "keep_until_loss", "bytes") if getattr(self, name) is not None]
        if len(stated) > 1:
            raise ValueError(f"{' and '.join(stated)} both choose columns; give one of them")
        for name in ("keep_until_loss", "combine", "given"):
            if self.order == 1 and getattr(self, name):
                raise ValueError(f"{name} needs columns to be looked at together; set order to 2")
        return self

    @property
    def selects(self) -> bool:
        """Whether some features may be left out."""
        return not (self.keep is None and self.keep_until_loss is None and self.bytes is None)


class PrepareSettings(Section):
    """Encoding of values."""

    min_count: int = Field(default=1, ge=1)
    """Values seen fewer times in train rows become the unseen value."""


class TableSettings(Section):
    """Overrides for one table; the table of a vocabulary has the vocabulary's name, the shared one is
    ``unified``."""

    dim: int | None = Field(default=None, ge=1)
    """Width of the embedding vectors."""
    path: UpdatePath | None = None
    """``dense`` or ``fused``; default: by size."""
    mode: VocabularyMode | None = None
    """``full``, ``hash``, ``unified``, ``adaptive`` or ``quotient``; default: as the plan's says."""
    lookups: int | None = Field(default=None, ge=1, le=MOST_LOOKUPS)
    """Rows of a hashed or shared table that a value's vector is made of; default: the plan's."""
    rows: int | None = Field(default=None, ge=1)
    """Rows of a hashed table, or of the shared one."""
    sub_tables: int | None = Field(default=None, ge=1)
    """Of the shared table: equal blocks of rows that lookups are dealt over, one or more per device."""
    serve_dtype: ServeDtype | None = None
    """``float32``, ``float16``, ``int8`` or ``int4``."""


class PlanSettings(Section):
    """Tables and their bytes."""

    embedding_dim: int = Field(default=16, ge=1)
    """Width of the embedding vectors; LR always has 1."""
    bytes: int | str | None = None
    """Most bytes that all tables together may take, e.g. ``8MB``; the largest share rows."""
    counted: Literal["tables", "all", "bundle"] = "tables"
    """What ``bytes`` bounds: the float32 tables (``tables``), also the keys and row maps that the bundle
    lists (``all``), or both as the bundle holds them, in the tables' ``serve_dtype`` (``bundle``)."""
    mode: Literal["auto", "full", "hash", "unified", "adaptive", "quotient", "mixed", "best"] = "auto"
    """``full``: a row per value. ``hash``: values of a table share rows. ``unified``: one table, whose
    rows values of all vocabularies share. ``adaptive``: frequent values have rows of their own, the others
    of a table share. ``quotient``: a row per quotient and one per remainder of a value's number,
    multiplied. ``mixed``: a row per value, narrower the larger the vocabulary. ``auto``: ``full`` where the
    budget allows it, else ``hash``. ``best``: what promises the most for the ``bytes`` that a bundle ships
    (``counted`` is ``bundle``), the tables' ``serve_dtype`` included."""
    exact: int = Field(default=5, ge=0)
    """Vocabularies of so many values at most keep a row per value in modes ``hash`` and ``unified``."""
    lookups: int = Field(default=1, ge=1, le=MOST_LOOKUPS)
    """Rows of a hashed or shared table that make a value's vector, each a ``lookups``-th of its width."""
    hot: float = Field(default=0.5, gt=0, lt=1)
    """Mode ``adaptive``: share of a table's rows that frequent values have for themselves."""
    unseen: Literal["own", "hash"] | None = None
    """What values that the train rows did not hold get where values are hashed: the rows that the unseen
    value has of its ``own``, or those of their ``hash``, so that the bundle needs no keys. Default:
    ``hash`` where ``counted`` is ``bundle`` and ``prepare.min_count`` made no rare values unseen, else
    ``own``."""
    serve_dtype: ServeDtype = "int8"
    """Type of the tables in the bundle; ``float32``, ``float16``, ``int8`` or ``int4``."""
    dense_below: int | str = "16MB"
    """Tables up to this size take the ``dense`` update path, larger ones the ``fused`` path."""
    tables: dict[str, TableSettings] = {}
    """Overrides by table name."""
    grow: Path | None = None
    """Run folder, plan folder or ``plan.json`` of earlier data, whose plan is enlarged: what it says of a
    vocabulary stays, so that ``train.warm_start`` can carry over what was learnt."""

    @field_validator("bytes", "dense_below")
    @classmethod
    def _is_a_size(cls, value: int | str | None) -> int | str | None:
        return _checked_size(value)


RETRIEVAL_MODELS = ("two_tower",)
"""Models that find candidates; all others score rows."""


class ModelSettings(BaseModel):
    """Which model, and its options; each model documents its own."""

    model_config = ConfigDict(extra="allow", frozen=True, use_attribute_docstrings=True)

    name: str
    """``lr``, ``fm``, ``dnn``, ``deepfm``, ``dcnv2``, ``finalmlp``, ``autoint``, ``autoint_plus``
    or ``din``; for retrieval ``two_tower``."""

    @property
    def options(self) -> dict[str, Any]:
        """Everything but the name."""
        return dict(self.model_extra or {})

    @property
    def retrieves(self) -> bool:
        """Whether the model finds candidates, rather than scoring rows."""
        return self.name in RETRIEVAL_MODELS


class TableOptimizer(Section):
    """How embedding tables learn. ``fused`` tables always use row-wise Adagrad."""

    dense: Literal["adam", "adagrad", "sgd"] = "adam"
    """Optimiser of the tables on the dense path."""
    lr: float = Field(default=1e-3, gt=0)
    """Learning rate of the dense path."""
    fused_lr: float = Field(default=0.02, gt=0)
    """Learning rate of the fused path's row-wise Adagrad."""
    l2: float = Field(default=0.0, ge=0)
    """Adds l2/2·‖E‖² of whole dense-path tables to every step's mean loss (FuxiCTR's
    ``embedding_regularizer``)."""
    l2_rows: float = Field(default=0.0, ge=0)
    """Adds l2_rows·E_j/n_j to the gradient of every row j that a batch looks up, once a batch; n_j is how
    often the train rows hold it (DIN's mini-batch aware regularisation). Both paths; costs no more than
    what a batch looks up."""
    l2_rows_by_count: bool = True
    """Whether ``l2_rows`` is divided by n_j; without, frequent values are held down more than rare ones."""
    init_std: float = Field(default=1e-2, gt=0)
    """Standard deviation of the normal distribution that new vectors are drawn from."""


class DenseOptimizer(Section):
    """How everything but the tables learns."""

    name: Literal["adam", "adamw", "sgd"] = "adam"
    """Optimiser."""
    lr: float = Field(default=1e-3, gt=0)
    """Learning rate."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Decoupled for ``adamw``, added to the gradient otherwise."""


class Plateau(Section):
    """When validation stops improving."""

    factor: float = Field(default=0.1, gt=0, lt=1)
    """Learning rates are multiplied by this at each evaluation that brings no improvement."""
    min_lr_scale: float = Field(default=1e-3, gt=0)
    """Floor of the accumulated factor."""
    min_delta: float = Field(default=1e-6, ge=0)
    """Smallest rise of the metric that counts."""
    stop_after: int = Field(default=2, ge=1)
    """Training ends after this many evaluations in a row without improvement."""


class TrainSettings(Section):
    """The training loop."""

    epochs: int = Field(default=10, ge=1)
    """Passes over the train rows at most."""
    max_steps: int | None = Field(default=None, ge=1)
    """Steps at most."""
    batch_size: int = Field(default=4096, ge=1)
    """Global batch size, summed over processes."""
    seed: int = Field(default=2024, ge=0)
    """Seed of every generator: initial weights, shuffles, dropout."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train; ``auto`` takes a GPU if there is one."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Of matrix products in the dense part; weights stay fp32."""
    shuffle_rows: int = Field(default=4_000_000, ge=1)
    """Rows held in memory and shuffled together; a dataset below this is shuffled whole."""
    monitor: Literal["auc", "gauc", "logloss", "recall", "ndcg"] = "auc"
    """Validation metric that decides plateau, stopping and the best epoch. Retrieval models take
    ``recall`` or ``ndcg``, over the whole catalogue at ``monitor_k``; the others one of the first three."""
    monitor_k: int = Field(default=20, ge=1)
    """Items that ``recall`` and ``ndcg`` look at."""
    evaluate_every: int | None = Field(default=None, ge=1)
    """Steps between evaluations; default: each epoch."""
    checkpoint_every: int | None = Field(default=None, ge=1)
    """Steps between checkpoints; default: each evaluation."""
    log_every: int = Field(default=50, ge=1)
    """Steps between lines of ``metrics.jsonl``."""
    keep_checkpoints: int = Field(default=2, ge=1)
    """Newest checkpoints kept beside the best one."""
    plateau: Plateau = Plateau()
    """Learning-rate cut and early stopping."""
    decay: Literal["none", "linear"] = "none"
    """``linear``: learning rates also fall along a line, to zero after the last step that ``epochs`` and
    ``max_steps`` allow."""
    tables: TableOptimizer = TableOptimizer()
    """Optimiser of the embedding tables."""
    dense: DenseOptimizer = DenseOptimizer()
    """Optimiser of everything else."""
    clip_norm: float | None = Field(default=10.0, gt=0)
    """Gradient norm limit of the dense part."""
    average: float | None = Field(default=None, gt=0, lt=1)
    """Decay per update of a moving average of all weights, which is evaluated, saved and served in their
    place: 0.99 reaches back over some hundred updates. Default: none. Needs tables on the dense path."""
    warm_start: Path | None = None
    """Run folder of an earlier training, on earlier data, whose weights this one begins with: those of
    values by value, the dense part whole."""
    gates: GateSettings = GateSettings()
    """A search for the values that are not worth their vectors, before training without them (OptFS)."""
    sparsity: SparsitySettings | None = None
    """Keep a share of the weights only; without it, all."""

    @model_validator(mode="after")
    def _sparse_alone(self) -> Self:
        if self.sparsity is not None and self.gates.epochs:
            raise ValueError(
                "gates and sparsity both choose values; set gates.epochs to 0 or leave sparsity out"
            )
        if self.average is not None and (self.sparsity is not None or self.gates.epochs):
            raise ValueError("average cannot be combined with gates or sparsity, whose weights come and go")
        sparse = self.sparsity is not None and self.sparsity.tables != 1
        if sparse and self.tables.l2_rows:
            raise ValueError(
                "tables.l2_rows needs a row per value; set sparsity.tables to 1, or use tables.l2"
            )
        return self


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


def parse_bytes(value: int | str) -> int:
    """Number of bytes of ``8MB``, ``64KiB``, ``1.5GB`` or a plain integer.

    Raises ConfigError for anything else.
    """
    if isinstance(value, int):
        return _positive(value, value)
    units = {"B": 1, "KB": 1e3, "MB": 1e6, "GB": 1e9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
    text = value.strip().upper()
    number = text.rstrip("BKMGI ")
    unit = text[len(number) :].strip() or "B"
    try:
        count = int(float(number) * units[unit])
    except (ValueError, KeyError, OverflowError):
        raise ConfigError(f"{value!r} is not a size; write for example 8MB or 64KiB") from None
    return _positive(count, value)


def _checked_size(value: int | str | None) -> int | str | None:
    """A size as it was written; raises ValueError, as pydantic wants it, for what is none."""
    if value is not None:
        try:
            parse_bytes(value)
        except ConfigError as error:
            raise ValueError(str(error)) from error
    return value


def _positive(count: int, value: int | str) -> int:
    if count < 1:
        raise ConfigError(f"{value!r} is not a size; it must be positive")
    return count


def parse_split(text: str) -> TimeSplit | RatioSplit | FilesSplit:
    """A split rule written as YAML, as on the command line; raises ConfigError for anything else."""
    try:
        values = parse_yaml(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"split {text!r}: not valid YAML: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"split {text!r}: expected a mapping such as '{{by: ratio, key: user_id}}'")
    by = str(values.get("by"))
    if by not in _SPLITS:
        raise ConfigError(f"split {text!r}: by {by!r} is no rule; {did_you_mean(by, _SPLITS)}")
    return _SPLITS[by].parse(**values)


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


def explain_faults(error: ValidationError, root: type[BaseModel]) -> list[str]:
    """One line per fault of settings of the type ``root``, with the nearest key for an unknown one."""
    return [_explain(fault, root) for fault in error.errors()]


def _explain(fault: Any, root: type[BaseModel]) -> str:
    location = [part for part in fault["loc"] if part not in _SPLITS]
    key = ".".join(str(part) for part in location)
    if fault["type"] == "extra_forbidden":
        return f"{key}: unknown key; {did_you_mean(str(location[-1]), _keys_beside(fault['loc'], root))}"
    shown = fault["type"] != "missing" and not isinstance(fault["input"], Mapping)
    found = f" (found {fault['input']!r})" if shown else ""
    return f"{key or 'as a whole'}: {fault['msg'].removeprefix('Value error, ')}{found}"


def _keys_beside(location: Sequence[str | int], root: type[BaseModel]) -> list[str]:
    """Field names of the section that a location's last part was looked for in."""
    section: Any = root
    for part in location[:-1]:
        if isinstance(section, type) and issubclass(section, BaseModel):
            section = section.model_fields[str(part)].annotation
        elif get_origin(section) is dict:
            section = get_args(section)[1]
        elif get_origin(section) is tuple:
            section = get_args(section)[0]
        else:
            section = _SPLITS[str(part)]
    return list(section.model_fields)


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
