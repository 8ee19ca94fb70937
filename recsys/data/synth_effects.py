"""What each part of a row adds to the logit of a click in a synthetic log, and what of it is knowable.

Every effect is a hash of its value, drawn alike for frequent and for rare values; nothing is stored
per value. ``Seen`` counts values in train rows, and with it each component is also given as far as a
model can know it: the effect of a value seen fewer than 20 times is replaced by its prior mean. What
counts as "the value" of a component:

- a column, ``user_id``, ``item_id``: the value (missing is one);
- a pair: the pair of values;
- an interaction: both values, since its hidden vectors belong to values, not to pairs;
- tags: each tag; the rare ones add 0 to the list's mean;
- the level of the days, and drifting effects: the day, and the value on that day;
- interests: the category, which tells the cluster, counted wherever a train row shows it, on the
  candidate or in a history. A candidate of a rare category gets the mean over train rows; items of
  rare categories are left out of the history;
- numbers: none. Their effects are functions of the number.

The prior mean is 0 for all but the interests.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from recsys.data.synth_draws import Draws, Numbers, Rows, popularities
from recsys.data.synth_random import Float, Int, normal, stream
from recsys.data.synth_settings import (
    CATEGORY,
    DAY,
    HISTORY,
    ITEM,
    USER,
    Interaction,
    Numeric,
    SynthSettings,
)

Bool = NDArray[np.bool_]
SEEN_ENOUGH = 20
INTEREST = "interest"
_TABLE_VALUES = 1 << 16
_PILOT_BLOCKS, _PILOT_ROWS = 16, 4096
_SHAPES: dict[str, Callable[[Float], Float]] = {
    "linear": lambda z: z,
    "vee": lambda z: (np.abs(z) - np.sqrt(2 / np.pi)) / np.sqrt(1 - 2 / np.pi),
    "bump": lambda z: (np.exp(-2 * z * z) - 5**-0.5) / np.sqrt(1 / 3 - 1 / 5),
    "wave": lambda z: np.sin(2 * z) / np.sqrt((1 - np.exp(-8)) / 2),
}


class Seen:
    """How often the train rows show each value that an effect belongs to."""

    def __init__(self) -> None:
        self._counts: dict[str, Int] = {}
        self._interest_sum = 0.0
        self._rows = 0

    def add(self, effects: Effects, rows: Rows, train: Bool) -> None:
        """Count the rows that ``train`` marks."""
        for name, codes in effects.codes(rows).items():
            self._count(name, codes[train])
        for name, lists in rows.tags.items():
            self._count(name, lists.ranks[train[lists.rows]])
        self._count(HISTORY, rows.ranks[CATEGORY][train])
        self._count(HISTORY, effects.draws.category(rows.history.ranks[train[rows.history.rows]]))
        self._interest_sum += float(effects.interest(rows)[train].sum())
        self._rows += int(train.sum())

    @property
    def interest_mean(self) -> float:
        """Mean of the interest component over train rows."""
        return self._interest_sum / max(1, self._rows)

    def often(self, name: str, codes: Int) -> Bool:
        """Whether each code has been counted at least 20 times."""
        counts = self._counts.get(name, np.zeros(1, np.int64))
        return np.where(codes < len(counts), counts[np.minimum(codes, len(counts) - 1)], 0) >= SEEN_ENOUGH

    def _count(self, name: str, codes: Int) -> None:
        counts = self._counts.get(name, np.zeros(1, np.int64))
        highest = int(codes.max(initial=0))
        if highest >= len(counts):
            grown = np.zeros(max(highest + 1, 2 * len(counts)), np.int64)
            grown[: len(counts)] = counts
            counts = grown
        np.add.at(counts, codes, 1)
        self._counts[name] = counts


class Effects:
    """The known logit of one synthetic log."""

    def __init__(self, settings: SynthSettings, draws: Draws) -> None:
        self.settings = settings
        self.draws = draws
        self._tables: dict[tuple[str | int, ...], Float] = {}
        self._values = {name: popularity.values for name, popularity in popularities(settings).items()}
        self.intercept = self._solve_intercept()

    def components(self, rows: Rows) -> dict[str, Float]:
        """What each part adds to the logit, ``[B]`` each, intercept aside."""
        settings = self.settings
        parts = {DAY: settings.day_effect * self._wandering(DAY, rows.day * 0, rows.day)}
        parts[USER] = self._of_values(settings.users.effect, rows.ranks[USER], USER, "effect")
        items = settings.items
        parts[ITEM] = self._of_values(items.effect, rows.ranks[ITEM], ITEM, "effect")
        parts[CATEGORY] = self._of_values(items.category_effect, rows.ranks[CATEGORY], CATEGORY, "effect")
        for name, column in settings.columns.items():
            if column.effect:
                parts[name] = self._of_values(column.effect, rows.ranks[name], name, "effect")
            if column.drift:
                moved = self._wandering(name, rows.ranks[name], rows.day)
                parts[f"{name}@{DAY}"] = column.drift * moved
        for pair in settings.pairs:
            left, right = (rows.ranks[name] for name in pair.columns)
            parts["*".join(pair.columns)] = pair.strength * (1.0 - 2.0 * ((left ^ right) & 1))
        for interaction in settings.interactions:
            parts["*".join(interaction.columns)] = self._interaction(interaction, rows)
        for name, numeric in settings.numerics.items():
            if numeric.effect:
                parts[name] = self._number(name, numeric, rows.numbers[name])
        for name in settings.tags:
            parts[name] = self._mean_of_tags(name, rows, None)
        parts[INTEREST] = self.interest(rows)
        return parts

    def attainable(self, rows: Rows, components: dict[str, Float], seen: Seen) -> dict[str, Float]:
        """The components with what cannot be learned from the train rows replaced by its prior mean."""
        codes = self.codes(rows)
        known = dict(components)
        for name in codes.keys() & components.keys():
            known[name] = np.where(seen.often(name, codes[name]), components[name], 0.0)
        for interaction in self.settings.interactions:
            name = "*".join(interaction.columns)
            for column in interaction.columns:
                known[name] = np.where(seen.often(column, codes[column]), known[name], 0.0)
        for name in self.settings.tags:
            known[name] = self._mean_of_tags(name, rows, seen)
        often = seen.often(HISTORY, rows.ranks[CATEGORY])
        known[INTEREST] = np.where(often, self.interest(rows, seen), seen.interest_mean)
        return known

    def codes(self, rows: Rows) -> dict[str, Int]:
        """The value that each component belongs to, as a number from 0; ``[B]`` each."""
        settings = self.settings
        codes = {name: rows.ranks[name] + 1 for name in (USER, ITEM, CATEGORY, *settings.columns)}
        codes[DAY] = rows.day
        for name, column in settings.columns.items():
            if column.drift:
                codes[f"{name}@{DAY}"] = codes[name] * settings.days + rows.day
        for pair in settings.pairs:
            left, right = (rows.ranks[name] for name in pair.columns)
            codes["*".join(pair.columns)] = left * pair.values + right
        return codes

    def interest(self, rows: Rows, seen: Seen | None = None) -> Float:
        """What the part of the history in the candidate's cluster adds; rare items may be left out."""
        history = rows.history
        row = history.rows
        near = self.draws.cluster(history.ranks) == self.draws.cluster(rows.ranks[ITEM])[row]
        if seen is not None:
            near &= seen.often(HISTORY, self.draws.category(history.ranks))
        count = np.bincount(row[near], minlength=len(rows.index))
        settings = self.settings.history
        added: Float = settings.strength * (1.0 - np.exp(-count / settings.saturation))
        return added

    def logit(self, components: dict[str, Float]) -> Float:
        """The intercept and all components, in a fixed order of summation."""
        total: Float = self.intercept + np.sum(list(components.values()), axis=0)
        return total

    def _of_values(self, scale: float, ranks: Int, *names: str | int) -> Float:
        """A standard normal number per value, times ``scale``; few values are looked up instead."""
        values = self._values[str(names[0])]
        start = stream(self.settings.seed, *names)
        if values >= _TABLE_VALUES:
            return scale * normal(start, ranks)
        if names not in self._tables:
            self._tables[names] = normal(start, np.arange(-1, values))
        return scale * self._tables[names][ranks + 1]

    def _wandering(self, name: str, ranks: Int, day: Int) -> Float:
        """A number per value that turns into another, independent one over each drift period."""
        phase = day / self.settings.drift_period
        knot = phase.astype(np.int64)
        angle = (phase - knot) * (np.pi / 2)
        start = stream(self.settings.seed, name, "drift")
        here = normal(start, (ranks + 1) * 65536 + knot)
        there = normal(start, (ranks + 1) * 65536 + knot + 1)
        mixed: Float = np.cos(angle) * here + np.sin(angle) * there
        return mixed

    def _interaction(self, interaction: Interaction, rows: Rows) -> Float:
        left, right = interaction.columns
        total = np.zeros(len(rows.index))
        for factor in range(interaction.rank):
            total += self._of_values(1.0, rows.ranks[left], left, "with", right, factor) * self._of_values(
                1.0, rows.ranks[right], right, "with", left, factor
            )
        scaled: Float = total * (interaction.strength / np.sqrt(interaction.rank))
        return scaled

    def _number(self, name: str, numeric: Numeric, numbers: Numbers) -> Float:
        effect = numeric.effect * _SHAPES[numeric.shape](numbers.score)
        effect[numbers.outlier] = 0.0
        constant = normal(stream(self.settings.seed, name, "effect"), np.zeros(1, np.int64))[0]
        return np.where(np.isnan(numbers.visible), numeric.effect * constant, effect)

    def _mean_of_tags(self, name: str, rows: Rows, seen: Seen | None) -> Float:
        lists = rows.tags[name]
        effect = self._of_values(self.settings.tags[name].effect, lists.ranks, name, "effect")
        if seen is not None:
            effect = effect * seen.often(name, lists.ranks)
        total = np.bincount(lists.rows, weights=effect, minlength=len(lists.lengths))
        mean: Float = total / np.maximum(lists.lengths, 1)
        return mean

    def _solve_intercept(self) -> float:
        """The intercept with which a sample of the rows has the click rate aimed at."""
        settings = self.settings
        self.intercept = 0.0
        starts = np.linspace(0, max(0, settings.rows - _PILOT_ROWS), _PILOT_BLOCKS).astype(np.int64)
        blocks = [
            self.draws.rows(int(start), min(settings.rows, int(start) + _PILOT_ROWS))
            for start in np.unique(starts)
        ]
        logit = np.concatenate([self.logit(self.components(block)) for block in blocks])
        low, high = -50.0, 50.0
        for _ in range(60):
            middle = (low + high) / 2
            if click_chance(logit + middle).mean() < settings.ctr:
                low = middle
            else:
                high = middle
        return (low + high) / 2


def click_chance(logit: Float) -> Float:
    """Probability of a click."""
    chance: Float = 1.0 / (1.0 + np.exp(-logit))
    return chance
