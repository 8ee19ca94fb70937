"""Which features of an item are masked together: those that tell most of each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys.data.columns import Columns
from recsys.ranking.binning import fine_bins
from recsys.ranking.pairs import expected_mutual

_BINS = 32
"""Values of a number, at most."""
_DRAWS = 4
"""Times that an element of each list is picked."""
_DIGITS = 2
"""Decimals of a nat that count: by what is less, chance and rounding would decide."""
_STREAM = 0x4D41_534B

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class FeatureMasks:
    """Sets of features to be masked in one view of an item; the other view has those alone masked that
    the first one keeps."""

    names: tuple[str, ...]
    """The features, two at least."""
    together: tuple[frozenset[str], ...] | None
    """The set around each feature as seed; None: sets are drawn."""

    @classmethod
    def correlated(cls, names: Sequence[str], information: Floats) -> FeatureMasks:
        """Around each seed the features that tell most of it (Yao et al., CIKM 2021, section 3.2).

        Of k features that is the seed with its floor(k / 2) partners; one feature at least is kept. Among
        equals the first feature is taken.

        Args:
            names: the features.
            information: what they tell of each other ``[k, k]``, see ``mutual_information``.
        """
        sets = []
        for seed in range(len(names)):
            partners = [at for at in np.argsort(-information[seed], kind="stable").tolist() if at != seed]
            chosen = [seed, *partners[: _masked(len(names)) - 1]]
            sets.append(frozenset(names[at] for at in chosen))
        return cls(tuple(names), tuple(sets))

    @classmethod
    def random(cls, names: Sequence[str]) -> FeatureMasks:
        """As many features as ``correlated`` masks, each set with equal chances."""
        return cls(tuple(names), None)

    def draw(self, generator: np.random.Generator) -> frozenset[str]:
        """The features to mask: those around a seed that is drawn, or a set that is."""
        if self.together is not None:
            return self.together[int(generator.integers(len(self.together)))]
        chosen = generator.permutation(len(self.names))[: _masked(len(self.names))]
        return frozenset(self.names[at] for at in chosen.tolist())


def mutual_information(columns: Columns, names: Sequence[str]) -> Floats:
    """What features of items tell of each other beyond chance, nats ``[F, F]``, 0 on the diagonal.

    Numbers are cut into bins of equal mass. Of a list an element picked at random counts, over a few
    picks. What the values would tell if they were dealt at random over the items is taken off: an item's
    id would otherwise tell everything about every feature, though no two items share it.

    Args:
        columns: encoded features, a row per item.
        names: which features.
    """
    draw = np.random.default_rng(_STREAM)
    has_lists = any(name in columns.ragged for name in names)
    found = np.zeros((len(names), len(names)))
    draws = _DRAWS if has_lists else 1
    for _ in range(draws):
        codes = [_codes(columns, name, draw) for name in names]
        found += _beyond_chance(codes, columns.rows) / draws
    np.fill_diagonal(found, 0.0)
    return np.round(found, _DIGITS)


def _masked(features: int) -> int:
    """How many of k features are masked in one view."""
    return min(features // 2 + 1, features - 1)


def _codes(columns: Columns, name: str, draw: np.random.Generator) -> Ints:
    """A value's number for each item ``[I]``, from 0 on; a missing value has one of its own."""
    if name in columns.ragged:
        ragged = columns.ragged[name]
        starts, lengths = ragged.offsets[:-1], np.diff(ragged.offsets)
        at = starts + (draw.random(len(starts)) * lengths).astype(np.int64)
        values = np.full(len(starts), -1, np.int64)
        values[lengths > 0] = ragged.values[at[lengths > 0]]
    elif name in columns.numeric:
        numbers = columns.numbers[:, columns.numeric.index(name)].astype(np.float64)
        finite = np.isfinite(numbers)
        values = np.full(len(numbers), -1, np.int64)
        values[finite] = fine_bins(numbers[finite], _BINS).number(numbers[finite])
    else:
        values = columns.ids[:, columns.single.index(name)]
    return np.unique(values, return_inverse=True)[1].astype(np.int64)


def _beyond_chance(codes: Sequence[Ints], rows: int) -> Floats:
    """Mutual information of all pairs less its mean over random dealings ``[F, F]``."""
    sizes = [np.bincount(values) for values in codes]
    entropies = [_entropy(counts) for counts in sizes]
    found = -expected_mutual(sizes, rows)
    for one in range(len(codes)):
        for other in range(one):
            both = codes[one] * len(sizes[other]) + codes[other]
            joint = _entropy(np.unique(both, return_counts=True)[1])
            found[one, other] += entropies[one] + entropies[other] - joint
            found[other, one] = found[one, other]
    return found


def _entropy(counts: Ints) -> float:
    """Nats of values that occur so often."""
    share = counts / counts.sum()
    return -float((share * np.log(share)).sum())
