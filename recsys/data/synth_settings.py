"""Settings of the synthetic click log: strict, every field documented, loadable from YAML."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from recsys.config import Section, explain_faults
from recsys.errors import ConfigError, did_you_mean
from recsys.strict_yaml import read_yaml

Owner = Literal["row", "user", "item"]
CLICK, DAY, USER, ITEM, CATEGORY = "clicked", "day", "user_id", "item_id", "category"
HISTORY, HISTORY_CATEGORY = "history", "history_category"
_RESERVED = (CLICK, DAY, USER, ITEM, CATEGORY, HISTORY, HISTORY_CATEGORY)


class Popularity(Section):
    """How often each of a number of values is drawn."""

    values: int = Field(ge=2, le=1 << 31)
    """Number of different values."""
    zipf: float = Field(default=1.0, ge=0)
    """Exponent: the value of rank k has a share ∝ (k + offset)^-zipf; 0: all alike."""
    offset: float = Field(default=0.0, ge=0)
    """Flattens the head of the ranking and leaves its tail."""
    tail: float = Field(default=0.0, ge=0, lt=1)
    """Share of draws that are spread evenly over all values: of many values, a tail of rare ones."""


class Categorical(Popularity):
    """A column of one value per row."""

    type: Literal["string", "int64"] = "string"
    """Type of the visible values."""
    of: Owner = "row"
    """Whom the value belongs to: drawn anew per row, or fixed per user or per item."""
    missing: float = Field(default=0.0, ge=0, lt=1)
    """Share of rows without a value; missing has an effect of its own, like a value."""
    effect: float = Field(default=0.0, ge=0)
    """Standard deviation over values of what a value adds to the logit; 0: noise."""
    drift: float = Field(default=0.0, ge=0)
    """Standard deviation of the part of each value's effect that changes over the days."""
    shift: float = Field(default=0.0, ge=0, le=1)
    """Share of the last rows whose values come from another ranking; grows from 0."""


class Copy(Section):
    """A column that repeats another one and has no effect of its own."""

    of: str
    """Name of the categorical column."""
    noise: float = Field(default=0.0, ge=0, le=1)
    """Share of rows in which the value is drawn anew; 0: an exact copy."""


class Pair(Section):
    """Two columns of equally likely values that matter only together, like the two sides of XOR."""

    columns: tuple[str, str]
    """Names of the two columns."""
    values: int = Field(default=8, ge=2)
    """Number of values of each, even."""
    strength: float = Field(gt=0)
    """The logit rises or falls by this much."""

    @model_validator(mode="after")
    def _balanced(self) -> Pair:
        if self.values % 2:
            raise ValueError("values must be even, or one part alone would matter")
        return self


class Interaction(Section):
    """What two categorical columns add together: an inner product of hidden vectors."""

    columns: tuple[str, str]
    """Names of the two columns."""
    strength: float = Field(gt=0)
    """Standard deviation of the product over pairs of values."""
    rank: int = Field(default=4, ge=1)
    """Length of the hidden vectors."""


class Numeric(Section):
    """A column of numbers."""

    distribution: Literal["normal", "lognormal"] = "normal"
    """Of the visible numbers."""
    of: Owner = "row"
    """Whom the number belongs to: drawn anew per row, or fixed per user or per item."""
    shape: Literal["linear", "vee", "bump", "wave"] = "linear"
    """How the number (its normal score z) acts: z, |z|, exp(-2z²) or sin(2z), standardised."""
    effect: float = Field(default=0.0, ge=0)
    """Standard deviation of what the number adds to the logit; 0: noise."""
    missing: float = Field(default=0.0, ge=0, lt=1)
    """Share of rows without a number; missing has a constant effect of its own."""
    outliers: float = Field(default=0.0, ge=0, lt=1)
    """Share of rows whose number is multiplied by ``outlier_factor`` and has no effect."""
    outlier_factor: float = Field(default=100.0, gt=1)
    """What outliers are multiplied by."""


class Tags(Popularity):
    """A column of lists of strings; the mean effect of a list's tags matters."""

    of: Owner = "item"
    """Whom the tags belong to: drawn anew per row, or fixed per user or per item."""
    max_length: int = Field(default=5, ge=1)
    """Lists hold 1 to this many tags."""
    missing: float = Field(default=0.0, ge=0, lt=1)
    """Share of rows whose list is null; it adds nothing to the logit."""
    effect: float = Field(default=0.0, ge=0)
    """Standard deviation over tags of a tag's effect; a list adds the mean of its tags' effects."""


class Users(Popularity):
    """The users; column ``user_id``."""

    effect: float = Field(default=0.0, ge=0)
    """Standard deviation over users of what a user adds to the logit."""
    interests: tuple[int, int] = (1, 4)
    """Fewest and most interests of a user; an interest is a cluster of items."""


class Items(Popularity):
    """The items; columns ``item_id`` and ``category``.

    Popularity is that of an item within its cluster.
    """

    effect: float = Field(default=0.0, ge=0)
    """Standard deviation over items of what an item adds to the logit."""
    clusters: int = Field(default=50, ge=2)
    """Number of clusters, hidden; users' interests are clusters."""
    categories: int = Field(default=100, ge=2)
    """Number of categories, visible; each item belongs to one, and each category to one cluster."""
    category_effect: float = Field(default=0.0, ge=0)
    """Standard deviation over categories of what a category adds to the logit."""
    cluster_zipf: float = Field(default=0.5, ge=0)
    """Exponent of the clusters' popularity."""
    late: float = Field(default=0.0, ge=0, lt=1)
    """Share of items that first appear at a time drawn evenly over the log's days."""


class History(Section):
    """The user's earlier items, oldest first; columns ``history`` and ``history_category``."""

    max_length: int = Field(default=30, ge=1)
    """Longest list; a user's first rows may have a shorter one or none."""
    growth: float = Field(default=0.5, ge=0)
    """Items that join a user's history per day, on average over users."""
    stray: float = Field(default=0.1, ge=0, le=1)
    """Share of the history that belongs to none of the user's interests."""
    relevance: float = Field(default=0.5, ge=0, le=1)
    """Share of rows whose candidate comes from one of the user's interests."""
    strength: float = Field(default=1.0, ge=0)
    """What a history full of the candidate's cluster adds to the logit."""
    saturation: float = Field(default=2.0, gt=0)
    """n items of the candidate's cluster add ``strength * (1 - exp(-n / saturation))``."""


class SynthSettings(Section):
    """A synthetic click log."""

    rows: int = Field(ge=1)
    """Rows in the log, spread evenly over the days."""
    seed: int = Field(default=2024, ge=0)
    """Decides every value, effect and click."""
    start: datetime.date = datetime.date(2026, 1, 1)
    """First day."""
    days: int = Field(default=14, ge=1)
    """Number of days."""
    ctr: float = Field(default=0.15, gt=0, lt=1)
    """Share of clicks aimed at; the intercept is solved for it."""
    day_effect: float = Field(default=0.0, ge=0)
    """Standard deviation of the level that every row of a time shares."""
    drift_period: float = Field(default=7.0, gt=0)
    """Days over which the level and drifting effects turn into others."""
    users: Users
    """The users."""
    items: Items
    """The items."""
    history: History = History()
    """The users' earlier items."""
    columns: dict[str, Categorical] = Field(default_factory=dict)
    """Categorical columns by name."""
    copies: dict[str, Copy] = Field(default_factory=dict)
    """Copies of categorical columns by name."""
    pairs: tuple[Pair, ...] = ()
    """Pairs of columns that matter only together."""
    interactions: tuple[Interaction, ...] = ()
    """What categorical columns add together; ``user_id``, ``item_id`` and ``category`` may be named too."""
    numerics: dict[str, Numeric] = Field(default_factory=dict)
    """Numeric columns by name."""
    tags: dict[str, Tags] = Field(default_factory=dict)
    """Multi-valued columns by name."""

    @model_validator(mode="after")
    def _consistent(self) -> SynthSettings:
        names = [*_RESERVED, *self.columns, *self.copies, *self.numerics, *self.tags]
        names += [name for pair in self.pairs for name in pair.columns]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"column names used twice: {', '.join(twice)}")
        odd = [name for name in names if not name.isidentifier()]
        if odd:
            raise ValueError(f"column names must be plain identifiers, found {odd[0]!r}")
        for copy in self.copies.values():
            if copy.of not in self.columns:
                raise ValueError(f"copy of {copy.of!r}: {did_you_mean(copy.of, self.columns)}")
        known = [*self.columns, USER, ITEM, CATEGORY]
        for name in (name for interaction in self.interactions for name in interaction.columns):
            if name not in known:
                raise ValueError(f"interaction of {name!r}: {did_you_mean(name, known)}")
        fewest, most = self.users.interests
        if not 1 <= fewest <= most:
            raise ValueError("users.interests must be two numbers, the fewest (at least 1) and the most")
        if not self.items.clusters <= self.items.categories <= self.items.values:
            raise ValueError("items: expected clusters ≤ categories ≤ values")
        return self


def load_synth_settings(
    source: SynthSettings | Mapping[str, Any] | str | Path,
    *,
    rows: int | None = None,
    seed: int | None = None,
) -> SynthSettings:
    """Settings from a YAML file, a mapping or settings, with rows and seed replaced where given.

    Raises ConfigError that names the file and the key, with the nearest known name.
    """
    values, origin = _read(source)
    values |= {key: value for key, value in (("rows", rows), ("seed", seed)) if value is not None}
    try:
        return SynthSettings.model_validate(values)
    except ValidationError as error:
        faults = "\n".join(f"  {fault}" for fault in explain_faults(error, SynthSettings))
        raise ConfigError(f"{origin}:\n{faults}") from error


def _read(source: SynthSettings | Mapping[str, Any] | str | Path) -> tuple[dict[str, Any], str]:
    if isinstance(source, SynthSettings):
        return source.model_dump(), "synth settings"
    if isinstance(source, Mapping):
        return dict(source), "synth settings"
    path = Path(source)
    try:
        values = read_yaml(path)
    except (FileNotFoundError, IsADirectoryError) as error:
        raise ConfigError(f"{path}: no such file of synth settings; see data/synth_demo.yaml") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected a mapping of synth settings")
    return values, str(path)
