"""The search space of a run file: which settings there are, what each may be, and what it changes."""

from __future__ import annotations

import json
import math
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel

from recsys.config import RunConfig, TableSettings, parse_config, put_setting
from recsys.errors import ConfigError, did_you_mean
from recsys.settings.tune import Choice, Dimension

if TYPE_CHECKING:
    from optuna.trial import Trial as Drawing

BLOCKS = ("rank", "prepare", "plan", "model", "train")
"""Blocks of the run file whose settings may be searched; the others decide what trials are judged by."""
_FIXED = {
    "train.seed": "a seed is drawn, not chosen; 'recsys train --seeds' shows what it moves",
    "train.monitor": "trials are judged by it",
}
_TABLES = "plan.tables."
_DIGITS, _DIGITS_OF_STEPS = 6, 10
"""Significant digits of a number that is drawn from a range, and from a range of steps."""


@dataclass(frozen=True)
class Axis:
    """One setting of the search."""

    path: str
    dimension: Dimension
    is_integer: bool

    @property
    def stage(self) -> str:
        """The first stage that the setting changes."""
        block = self.path.partition(".")[0]
        if block == "model":
            return "plan" if self.path == "model.name" else "train"
        return block

    @property
    def count(self) -> float:
        """How many values it may have; infinite for a range without steps."""
        found = self.dimension
        if found.choices:
            return len(found.choices)
        assert found.low is not None
        assert found.high is not None
        step = self._step
        return math.inf if step is None else math.floor((found.high - found.low) / step + 1e-9) + 1

    @property
    def values(self) -> list[Any]:
        """Every value it may have; of an axis whose count is finite."""
        found = self.dimension
        if found.choices:
            return [_plain(choice) for choice in found.choices]
        low, step = found.low, self._step
        assert low is not None
        assert step is not None
        return [self._rounded(low + at * step) for at in range(int(self.count))]

    @property
    def _step(self) -> float | None:
        return 1 if self.dimension.step is None and self.is_integer else self.dimension.step

    @property
    def ends(self) -> list[Any]:
        """Values that tell whether the setting takes all of them."""
        found = self.dimension
        return [_plain(choice) for choice in found.choices] or [found.low, found.high]

    def draw(self, drawing: Drawing) -> Any:
        """Let optuna draw a value."""
        found = self.dimension
        if found.choices:
            labels = [json.dumps(_plain(choice)) for choice in found.choices]
            return json.loads(str(drawing.suggest_categorical(self.path, labels)))
        low, high = found.low, found.high
        assert low is not None
        assert high is not None
        if self.is_integer:
            step = int(found.step or 1)
            return drawing.suggest_int(self.path, int(low), int(high), step=step, log=found.log)
        value = drawing.suggest_float(self.path, low, high, step=found.step, log=found.log)
        return self._rounded(value)

    def drawn(self, value: Any) -> Any:
        """A value as optuna stores it, to have that one drawn."""
        return json.dumps(value) if self.dimension.choices else value

    def _rounded(self, value: float) -> float | int:
        if self.is_integer:
            return round(value)
        digits = _DIGITS if self.dimension.step is None else _DIGITS_OF_STEPS
        return float(f"{value:.{digits}g}")


@dataclass(frozen=True)
class Space:
    """All settings of a search."""

    axes: tuple[Axis, ...]

    def combinations(self, most: int) -> list[dict[str, Any]] | None:
        """Every combination of values where there are at most so many; None otherwise."""
        if math.prod(axis.count for axis in self.axes) > most:
            return None
        paths = [axis.path for axis in self.axes]
        every = [axis.values for axis in self.axes]
        return [dict(zip(paths, values, strict=True)) for values in product(*every)]

    def stages(self) -> set[str]:
        """The first stage that each setting changes."""
        return {axis.stage for axis in self.axes}


def read_space(config: RunConfig) -> Space:
    """The search space of a run file, each of its ends tried on the settings.

    Raises ConfigError that names the key, with the nearest known one for a misspelt path.
    """
    if not config.tune.space:
        raise ConfigError(
            "tune.space is missing; name settings to search, for example "
            "tune: {space: {train.dense.lr: {low: 0.0001, high: 0.01, log: true}}}"
        )
    types_by_path = _known_settings(config)
    axes = []
    for path, dimension in config.tune.space.items():
        kind = _kind_of(path, types_by_path)
        axis = Axis(path, dimension, _is_integer(path, dimension, kind))
        for value in axis.ends:
            _require_fit(config, path, value)
        axes.append(axis)
    return Space(tuple(axes))


def with_values(config: RunConfig, values: Mapping[str, Any], origin: str = "tune.space") -> RunConfig:
    """A run file's settings with some replaced, by dotted key; raises ConfigError for what they refuse."""
    plain = config.model_dump(mode="json", exclude_unset=True)
    for path, value in values.items():
        put_setting(plain, path.split("."), value)
    return parse_config(plain, origin=origin)


def _require_fit(config: RunConfig, path: str, value: Any) -> None:
    """Raise ConfigError where a setting does not take a value, or the model does not."""
    from recsys.models import parse_options

    origin = f"tune.space.{path}: {value!r}"
    tried = with_values(config, {path: value}, origin)
    if path.startswith("model.") and path != "model.name":
        names = [tried.model.name, *_searched_names(config)]
        faults = []
        for name in dict.fromkeys(names):
            try:
                parse_options(name, tried.model.options)
                return
            except ConfigError as error:
                faults.append(str(error))
        raise ConfigError(f"{origin}: {faults[0]}")


def _known_settings(config: RunConfig) -> dict[str, Any]:
    """Setting → its type, for all that may be searched."""
    from recsys.models import model_class

    known: dict[str, Any] = {"model.name": str}
    for block in BLOCKS:
        if block != "model":
            known.update(_leaves(block, RunConfig.model_fields[block].annotation))
    for name in dict.fromkeys([config.model.name, *_searched_names(config)]):
        known.update(_leaves("model", model_class(name).Config))
    return {path: kind for path, kind in known.items() if path not in _FIXED}


def _searched_names(config: RunConfig) -> list[str]:
    dimension = config.tune.space.get("model.name")
    return [] if dimension is None else [str(choice) for choice in dimension.choices]


def _leaves(key: str, section: Any) -> Iterator[tuple[str, Any]]:
    """Dotted keys under a block with their types; blocks by name are left out."""
    for name, field in section.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from _leaves(f"{key}.{name}", kind)
        elif get_origin(kind) is not dict:
            yield f"{key}.{name}", kind


def _kind_of(path: str, known: Mapping[str, Any]) -> Any:
    """The type of a setting; raises ConfigError for one that is not there, or is not searched."""
    if path in known:
        return known[path]
    if path in _FIXED:
        raise ConfigError(f"tune.space.{path}: not searched: {_FIXED[path]}")
    if path.startswith(_TABLES):
        field = TableSettings.model_fields.get(path.rpartition(".")[2])
        if field is not None and path.count(".") > _TABLES.count("."):
            return field.annotation
    block = path.partition(".")[0]
    if block not in BLOCKS and block in RunConfig.model_fields:
        raise ConfigError(
            f"tune.space.{path}: not searched: trials are compared on the same rows by the same measure; "
            f"settings of {', '.join(BLOCKS)} are"
        )
    raise ConfigError(f"tune.space.{path}: unknown setting; {did_you_mean(path, known)}")


def _is_integer(path: str, dimension: Dimension, kind: Any) -> bool:
    """Whether a range holds integers alone; raises ConfigError where a setting takes no such range."""
    if dimension.choices:
        return False
    taken = set(_simple_types(kind))
    if float in taken:
        return False
    if int not in taken:
        raise ConfigError(f"tune.space.{path}: takes no range of numbers; give choices")
    for value in (dimension.low, dimension.high, dimension.step):
        if value is not None and value != int(value):
            raise ConfigError(f"tune.space.{path}: expected integers (found {value!r})")
    return True


def _simple_types(kind: Any) -> Iterator[Any]:
    """The types that a setting takes, out of unions and annotations; lists stay lists."""
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        for part in get_args(kind):
            yield from _simple_types(part)
    elif origin is Annotated:
        yield from _simple_types(get_args(kind)[0])
    else:
        yield kind


def _plain(choice: Choice) -> Any:
    return list(choice) if isinstance(choice, tuple) else choice
