"""What a plan is expected to lose of AUC, from how often the train rows hold each value.

A value whose rows are its own loses nothing. Of a value that n train rows hold, a row that other values of
its vocabulary hold m times is theirs by ``m / (n + m)``; and it is other vocabularies' too by theirs. With
several lookups something of the value is left unless all its rows are others', so the shares of the lookups
are multiplied. A value counts as often as the train rows hold it, and by what can be learnt of it from so
many, ``n / (n + LEARNT)``; a vocabulary by the nats that it tells of the label, or, unless they are known,
by its entropy, which is the most it can tell. The weighted means over values and vocabularies are

- ``alike``: what of the values is others' of the same vocabulary, which no model can tell apart,
- ``crowded``: what more of them is other vocabularies', which a model learns to tell apart in part,

and the loss is ``ALIKE * alike ** BEND + CROWDED * crowded ** BEND``, plus what the served type costs.

The constants are fitted by least squares to the validation AUCs of MovieLens-1M's cells in
``benchmarks/compression.py --part ladder`` (DCNv2, vectors of 16; per-feature hashing, a shared table with
one and two lookups, adaptive and full tables at 80, 200 and 400 kB), against the mean of the full tables:
``python benchmarks/compression_estimate.py`` repeats it (root mean square error 0.0011, of losses up to
0.015). They are of one log and one model: good for putting plans in order, not for foretelling an AUC.
Half the width for large vocabularies alone (``mixed``) costs nothing there, within noise; half the width
everywhere costs 0.002 to 0.005, which the estimate does not know. int4 is what it cost on the validation
rows of a shared table with 10,000 rows of 8.

Rows are sampled, so that an estimate takes milliseconds for vocabularies of any size, and draws are seeded
by names, so that plans are compared on the same luck.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys.data.dataset import Dataset
from recsys.embeddings.keys import salt
from recsys.embeddings.plan import Plan, ServeDtype, VocabularyPlan

LEARNT = 100.0
"""Train rows from which half of what there is to know of a value is learnt."""
ALIKE, CROWDED, BEND = 0.0375, 0.0166, 0.7
PRECISION: dict[ServeDtype, float] = {"float32": 0.0, "float16": 0.0, "int8": 0.0, "int4": 4e-4}
"""AUC that a type costs in the bundle."""
_BINS = 48
_SAMPLED_ROWS = 1_024

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Values:
    """The values of a vocabulary, in bins of alike frequency, most frequent first."""

    counts: Floats
    """Train rows that hold each value of a bin, on average, ``[bins]``."""
    numbers: Floats
    """Values per bin, ``[bins]``."""
    weight: float
    """Share of what all vocabularies tell."""

    @classmethod
    def of(cls, counts: NDArray[np.int64], weight: float) -> Values:
        """Of the train rows that hold each value ``[values]``, in falling order."""
        rising = np.geomspace(1, len(counts) + 1, _BINS + 1) if len(counts) else np.ones(1)
        edges = np.unique(rising.astype(np.int64)) - 1
        numbers = np.diff(edges)
        sums = np.add.reduceat(counts.astype(np.float64), edges[:-1]) if len(numbers) else np.zeros(0)
        return cls(np.maximum(sums / np.maximum(numbers, 1), 1.0), numbers.astype(np.float64), weight)

    def after(self, hot: int) -> Floats:
        """Values per bin without the ``hot`` most frequent ones."""
        before = np.cumsum(self.numbers) - self.numbers
        return self.numbers - np.clip(hot - before, 0, self.numbers)


def values_of(dataset: Dataset, told: Mapping[str, float] | None = None) -> dict[str, Values]:
    """The values of every vocabulary of a dataset.

    ``told``: nats of the label by feature; one that is not there counts as the mean of those that are.
    """
    counts = {name: dataset.values(name, ("count",))["count"].to_numpy() for name in _read(dataset)}
    weights = dict.fromkeys(counts, 0.0)
    told = told or {}
    usual = sum(told.values()) / max(len(told), 1)
    for feature in dataset.features:
        if feature.vocabulary is not None:
            weights[feature.vocabulary] += max(told.get(feature.name, usual), 0.0)
    if not any(weights.values()):
        weights = {name: _entropy(each) for name, each in counts.items()}
    total = sum(weights.values()) or 1.0
    return {name: Values.of(each, weights[name] / total) for name, each in counts.items()}


def _read(dataset: Dataset) -> list[str]:
    read = {feature.vocabulary for feature in dataset.features}
    return [name for name in dataset.manifest.vocabularies if name in read]


def _entropy(counts: NDArray[np.int64]) -> float:
    shares = counts[counts > 0] / max(counts.sum(), 1)
    return float(-(shares * np.log(shares)).sum())


@dataclass(frozen=True)
class Estimate:
    """What a plan is expected to lose."""

    alike: float
    crowded: float
    precision: float

    @property
    def loss(self) -> float:
        """Of AUC."""
        shared = ALIKE * self.alike**BEND + CROWDED * self.crowded**BEND
        return float(shared + self.precision)


def estimate(plan: Plan, values: Mapping[str, Values]) -> Estimate:
    """What a plan is expected to lose, beside one with a float32 row per value.

    Mode ``quotient`` counts as if rows were values' own: no two values have the same two, and how little it
    helps is not known to this estimate.
    """
    crowds = {name: _crowds(plan, name, values) for name in plan.tables}
    alike = crowded = precision = 0.0
    for name, held in values.items():
        info = plan.vocabularies[name]
        precision += held.weight * PRECISION[plan.tables[info.table].serve_dtype]
        mine, everyone = crowds[info.table].get(name, (None, None))
        if mine is None or everyone is None:
            continue
        share = held.after(info.hot) * held.counts**2 / (held.counts + LEARNT)
        share *= held.weight / (held.numbers @ held.counts)
        own = float(share @ _others(held.counts, mine) ** info.lookups)
        alike += own
        crowded += max(float(share @ _others(held.counts, everyone) ** info.lookups) - own, 0.0)
    return Estimate(alike, crowded, precision)


def _others(counts: Floats, loads: Floats) -> Floats:
    """Share of others in the row of a value that ``counts`` train rows hold, on average over rows."""
    return np.asarray((loads[None, :] / (counts[:, None] + loads[None, :])).mean(axis=1))


def _crowds(plan: Plan, table: str, values: Mapping[str, Values]) -> dict[str, tuple[Floats, Floats]]:
    """Train rows that sampled rows of a table hold, by vocabulary: of one of its lookups, and of all."""
    readers = {
        name: info for name, info in plan.vocabularies.items() if info.table == table and name in values
    }
    drawn: dict[str, list[Floats]] = {}
    for name, info in readers.items():
        into = info.method.hashed_into(info, plan.tables[table].rows)
        if into:
            drawn[name] = [
                _loads(name, info, values[name], len(into[0]), lookup) for lookup in range(info.lookups)
            ]
    everything = [load / readers[name].parts for name, loads in drawn.items() for load in loads]
    return {name: (loads[0], np.sum(_fitting(everything), axis=0)) for name, loads in drawn.items()}


def _fitting(loads: list[Floats]) -> list[Floats]:
    least = min(len(load) for load in loads)
    return [load[:least] for load in loads]


def _loads(name: str, info: VocabularyPlan, held: Values, rows: int, lookup: int) -> Floats:
    """Train rows of a vocabulary's values in each of a sample of so many rows, by one lookup."""
    sampled = min(rows, _SAMPLED_ROWS)
    generator = np.random.default_rng([salt(name, lookup), rows])
    numbers = generator.poisson(held.after(info.hot) * sampled / rows)
    at = generator.integers(0, sampled, numbers.sum())
    return np.bincount(at, np.repeat(held.counts, numbers), minlength=sampled).astype(np.float64)
