"""All pairs of columns: what they tell of each other, and what they tell of the label together.

One sort (or one count, where the table is small) of the packed codes gives all that a pair needs. What
chance would give is looked up by the size of a cell, and for two columns in a small table over sizes.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations as tuples
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.errors import DataError
from recsys.ranking.chance import Chance
from recsys.ranking.dealing import dealt
from recsys.ranking.information import Information, conditional_information, learnable

if TYPE_CHECKING:
    from recsys.ranking.codes import Codes

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

DENSE = 1 << 18
"""Cell sizes up to which chance is looked up in a table."""
THREADED = 1 << 16
"""Rows from which threads pay for themselves."""
DOUBTED = 3.0
"""Deviations from which a screened gain or synergy is computed exactly."""
CONFIRMED = 400
"""Pairs at most for which that is done, up to 32,768 rows; beyond, fewer in proportion, 50 at least."""
SPARSE = 100
"""Pairs of a strong column and small cells at most for which that is done too."""
CHUNK = 32
"""Pairs that a thread takes at a time."""


def all_pairs(codes: Codes, *, threads: int | None = None) -> pl.DataFrame:
    """Joint information with the label and mutual information of every pair of columns.

    ``joint`` and ``joint_z`` are exact corrections, as in ``information``. ``gain`` is ``joint`` less
    the score of the better column, ``synergy`` less both scores. That corrects for labels dealt over all
    rows, not within the values of a column that does tell something, which matters where cells are
    small: a strong column's synergy may be screened too high or too low. So where it is more than three
    deviations above 0 (the largest 400, fewer on many rows), both are computed exactly, from what
    the poorer column tells where the better one is known; and so they are, against what is
    too low, for the 100 pairs (fewer on many rows) of the strongest columns and smallest cells, such
    as users and items. So they are for a candidate and a list of the same vocabulary, see
    ``PairCounter.gain_of_pair``.

    Args:
        codes: rows as codes; pairs are counted on all of them.
        threads: how many work at once; default: one per processor, or one where rows are few.

    Returns:
        One line per pair in column order, in nats: ``a``, ``b``, ``joint`` (I(ab;Y) beyond chance),
        ``joint_z``, ``gain``, ``gain_z``, ``synergy`` (joint less both scores: what neither column
        tells alone), ``synergy_z``, ``mutual`` (I(a;b) beyond chance), ``redundancy`` (share of the
        poorer column's entropy beyond chance that the other one tells: 1 for a copy), ``learnable``
        (what of the synergy can be learned from the log's rows, see ``information.learnable``).
    """
    pairs = list(tuples(range(len(codes.names)), 2))
    counter = codes.counter
    chunks = [pairs[begin : begin + CHUNK] for begin in range(0, len(pairs), CHUNK)]
    if threads is None:
        threads = len(os.sched_getaffinity(0)) if counter.rows >= THREADED else 1
    with ThreadPoolExecutor(threads) as pool:
        counted = list(pool.map(counter.count, chunks))
        facts = np.concatenate(counted) if counted else np.zeros((0, 5))
        found = _scored(counter, np.array(pairs, dtype=np.int64).reshape(-1, 2), facts)
        sure = found.synergy - DOUBTED * np.sqrt(np.maximum(found.synergy_variance, 0.0))
        most = min(CONFIRMED, max(50, (CONFIRMED << 15) // max(counter.rows, 1)))
        doubted = [line for line in np.argsort(-sure, kind="stable")[:most].tolist() if sure[line] > 0]
        doubted += _sparse(counter, found.pairs, facts[:, 3], set(doubted))[: min(most, SPARSE)]
        doubted += [line for line, pair in enumerate(pairs) if counter.occurs(pair) and line not in doubted]
        exact = pool.map(counter.gain_of_pair, [pairs[line] for line in doubted])
        for line, gain in zip(doubted, exact, strict=True):
            found.confirm(line, gain, counter.sampled)
    names = np.array(codes.names, dtype=object)
    return found.frame(names[found.pairs[:, 0]].tolist(), names[found.pairs[:, 1]].tolist())


def _sparse(counter: PairCounter, pairs: Ints, nested: Floats, known: set[int]) -> list[int]:
    """Pairs one of whose columns tells something; strong columns and small cells first."""
    beyond = np.abs(counter.scores) - DOUBTED * np.sqrt(counter.variances)
    weight = beyond[pairs].max(axis=1, initial=0.0) * (1.0 - nested)
    order = np.argsort(-weight, kind="stable").tolist()
    return [line for line in order if weight[line] > 0 and line not in known]


@dataclass(frozen=True)
class _Scored:
    """Figures of all pairs ``[P]``, in nats."""

    pairs: Ints
    joint: Floats
    variance: Floats
    gain: Floats
    gain_variance: Floats
    synergy: Floats
    synergy_variance: Floats
    mutual: Floats
    redundancy: Floats
    chance: Floats
    """What chance gives to the synergy, on all rows of the log."""

    def confirm(self, line: int, exact: Gain, sampled: float) -> None:
        """Put the exact gain and synergy in the place of the screened ones."""
        gain = exact.gain
        self.gain[line], self.gain_variance[line] = gain.score, gain.sd**2
        self.synergy[line], self.synergy_variance[line] = exact.synergy, exact.synergy_variance
        self.chance[line] = gain.expected * sampled

    def frame(self, a: list[str], b: list[str]) -> pl.DataFrame:
        return pl.DataFrame(
            {
                "a": pl.Series(a, dtype=pl.String),
                "b": pl.Series(b, dtype=pl.String),
                "joint": self.joint,
                "joint_z": _ratio(self.joint, self.variance),
                "gain": self.gain,
                "gain_z": _ratio(self.gain, self.gain_variance),
                "synergy": self.synergy,
                "synergy_z": _ratio(self.synergy, self.synergy_variance),
                "mutual": self.mutual,
                "redundancy": self.redundancy,
                "learnable": learnable(self.synergy, self.chance),
            }
        )


def _scored(counter: PairCounter, pairs: Ints, facts: Floats) -> _Scored:
    left, right = pairs[:, 0], pairs[:, 1]
    joint, variance, together, nested, chance_joint = facts.T
    scores, variances, entropies = counter.scores, counter.variances, counter.entropies
    best = np.where(scores[left] >= scores[right], left, right)
    overlap = 1.0 - 2.0 * nested
    chance = counter.expected_mutual[left, right]
    mutual = entropies[left] + entropies[right] - together - chance
    room = np.minimum(entropies[left], entropies[right]) - chance
    # Where all values occur once, chance already tells everything.
    share = np.where(room > 1e-9, mutual / np.maximum(room, 1e-9), 0.0)
    return _Scored(
        pairs,
        joint,
        variance,
        gain=joint - scores[best],
        gain_variance=variance + overlap * variances[best],
        synergy=joint - scores[left] - scores[right],
        synergy_variance=variance + overlap * (variances[left] + variances[right]),
        mutual=mutual,
        redundancy=np.clip(share, -1.0, 1.0),
        chance=np.maximum(chance_joint - counter.expected[best], 0.0) * counter.sampled,
    )


@dataclass(frozen=True)
class Gain:
    """What a column adds to others, exactly, in nats."""

    adds: int
    """The column that does."""
    gain: Information
    synergy: float
    """The gain beyond what the column tells alone."""
    synergy_variance: float


@dataclass(frozen=True)
class PairCounter:
    """Columns packed with the label, and what chance gives by cell size; counts tuples from them."""

    packed: list[NDArray[np.int32]]
    """Per column ``[S]``: code shifted left by ``bits``, plus the label."""
    widths: list[int]
    bits: int
    rows: int
    sizes: list[Ints]
    """Per column: rows per value."""
    entropies: Floats
    scores: Floats
    variances: Floats
    expected: Floats
    """What chance gives to each column ``[F]``."""
    chance: SizeTable
    sampled: float
    """Share of the log's rows that these are."""
    occurrences: Mapping[tuple[int, int], NDArray[np.int32]]
    """See ``Codes.occurrences``, by the columns' numbers."""
    known: dict[tuple[int, int], Gain] = field(default_factory=dict)
    """Exact gains of the pairs asked for so far: the best ones are asked for more than once."""

    @classmethod
    def of(cls, codes: Codes) -> PairCounter:
        """Pack the columns of ``codes``, values that do not occur left out."""
        bits = max(1, (codes.classes - 1).bit_length())
        chance = SizeTable(np.bincount(codes.label, minlength=codes.classes))
        packed, sizes, scores = [], [], []
        for column in codes.codes:
            rows = np.bincount(column)
            there = rows > 0
            dense = (np.cumsum(there, dtype=np.int32) - 1)[column]
            both = (dense << bits) | codes.label
            counts = np.bincount(both)
            packed.append(both)
            sizes.append(rows[there])
            scores.append(chance.corrected(rows[there], counts))
        rows = codes.label.shape[0]
        corrected = np.array(scores).reshape(-1, 3).T
        at = {name: number for number, name in enumerate(codes.names)}
        return cls(
            packed,
            widths=[len(sizes_of) for sizes_of in sizes],
            bits=bits,
            rows=rows,
            sizes=sizes,
            entropies=np.array([chance.entropy(sizes_of) for sizes_of in sizes]),
            scores=corrected[0],
            variances=corrected[1],
            expected=corrected[2],
            chance=chance,
            sampled=rows / max(codes.rows, rows, 1),
            occurrences={(at[a], at[b]): often for (a, b), often in codes.occurrences.items()},
        )

    @cached_property
    def expected_mutual(self) -> Floats:
        """Mutual information of all pairs by chance ``[F, F]``, see the function of this name."""
        return expected_mutual(self.sizes, self.rows)

    def count(self, tuples: Sequence[tuple[int, ...]]) -> Floats:
        """Per tuple of columns, in nats, ``[T, 5]``.

        Joint score, its variance by chance, joint entropy, and how far the luck of a part is in the
        luck of the tuple: 1 where cells are large (the part's chi-square is a summand of the tuple's),
        0 where each cell is one row; their variances' difference is the one to go by, or their sum.
        Last, what chance gives.
        """
        facts = np.zeros((len(tuples), 5))
        for line, columns in enumerate(tuples):
            cells, counts = self.table(*columns)
            score, variance, expected = self.chance.corrected(cells, counts)
            free = (np.count_nonzero(cells) - 1.0) * (self.chance.classes - 1.0)
            nested = min(1.0, variance * 2.0 * self.rows**2 / free) if free > 0 else 1.0
            facts[line] = score, variance, self.chance.entropy(cells), nested, expected
        return facts

    def table(self, *columns: int) -> tuple[Ints, Ints]:
        """Rows per tuple of values, and per tuple of values and class; no particular order."""
        room = math.prod(self.widths[column] for column in columns) << self.bits
        if room >= 1 << 63:
            raise DataError(f"{len(columns)} columns of {room} cells do not fit; combine fewer columns")
        kind: type[np.int32] | type[np.int64] = np.int32 if room < 1 << 31 else np.int64
        key: NDArray[Any] = self.packed[columns[0]].astype(kind)
        for column in columns[1:]:
            key >>= self.bits
            key *= kind(self.widths[column] << self.bits)
            key += self.packed[column]
        if 2 * room <= len(key):
            counts = np.bincount(key, minlength=room)
            return counts.reshape(-1, 1 << self.bits).sum(axis=1), counts
        key.sort()
        return _runs(key >> self.bits), _runs(key)

    def gain(self, columns: Sequence[int], column: int) -> Gain:
        """What one of the columns tells about the label where the others are known."""
        known = np.zeros(self.rows, dtype=np.int64)
        for other in columns:
            if other != column:
                known = known * self.widths[other] + self.codes(other)
        gain = conditional_information((known, self.codes(column), self.labels))
        # The column's own luck may add to that of its gain, where cells are small.
        variance = gain.sd**2 + float(self.variances[column])
        return Gain(column, gain, gain.score - float(self.scores[column]), variance)

    def occurs(self, pair: tuple[int, int]) -> tuple[int, int] | None:
        """The pair as a column and a list of its vocabulary, where it is one."""
        return next((both for both in (pair, pair[::-1]) if both in self.occurrences), None)

    def gain_of_pair(self, pair: tuple[int, int]) -> Gain:
        """What one column of a pair adds where the other is known.

        It is the poorer one that adds: the better one's gain would be dealt within the poorer one's
        values, and where these have few rows, chance would explain much of what a strong column tells.

        Of a column and a list of its vocabulary, it is what the list adds by how often the value is in
        it, where more of that can be learned. A list's set of elements hardly occurs twice, so that
        counting tells nothing of it; that the candidate is in the history is what models of
        histories learn. All of it is synergy: it takes both columns to count.
        """
        if pair not in self.known:
            self.known[pair] = self._gain_of_pair(pair)
        return self.known[pair]

    def _gain_of_pair(self, pair: tuple[int, int]) -> Gain:
        told = self.gain(pair, self.poorest(pair))
        both = self.occurs(pair)
        if both is not None:
            known, often = self.codes(both[0]), self.occurrences[both].astype(np.int64)
            found = conditional_information((known, often, self.labels))
            if found.learnable > told.gain.learnable:
                return Gain(both[1], found, found.score, found.sd**2)
        return told

    def poorest(self, columns: Sequence[int]) -> int:
        """The column that tells least by itself, the first of equals."""
        return min(columns, key=lambda column: self.scores[column])

    @property
    def labels(self) -> Ints:
        """Class numbers ``[S]``."""
        return (self.packed[0] & ((1 << self.bits) - 1)).astype(np.int64)

    def codes(self, column: int) -> Ints:
        """Dense codes of a column ``[S]``."""
        return (self.packed[column] >> self.bits).astype(np.int64)


class SizeTable:
    """Sums over cells of what chance gives, by cell size.

    Exact for sizes up to 256; above, cubic interpolation between exact sizes 6 % apart, within 1e-6.

    Args:
        classes: rows per class ``[C]``.
    """

    def __init__(self, classes: Ints) -> None:
        self.rows = int(classes.sum())
        chance = Chance(classes)
        self.classes = int(np.count_nonzero(classes))
        self._shares = chance.shares
        self._grid = _grid(self.rows, 256, 0.06)
        mean, rest, slopes = chance.moments(self._grid)
        # Times n and n²: flat in n, so that interpolation keeps its accuracy.
        n = self._grid.astype(np.float64)
        self._nodes = np.column_stack([n * mean, n**2 * rest, n[:, None] * slopes])
        whole = np.arange(self.rows + 1, dtype=np.float64)
        self._log = whole * np.log(np.maximum(whole, 1.0))
        self._label = self._log[classes].sum()
        self.label_entropy = float((self._log[self.rows] - self._label) / max(self.rows, 1))
        self._table = self._facts(np.arange(min(self.rows, DENSE) + 1))

    def corrected(self, cells: Ints, counts: Ints) -> tuple[float, float, float]:
        """Score in nats, its variance by chance and what chance gives, of a table that covers all rows.

        Args:
            cells: rows per cell; counts: rows per (cell, class); 0 where one does not occur.
        """
        rows, shares = self.rows, self._shares
        sums = self._sums(cells)
        seen = float(np.count_nonzero(cells))
        mi = (self._log[counts].sum() - sums[0] - self._label + self._log[rows]) / rows
        free = seen - 2.0 + sums[2]
        tied = (seen - 1.0) / free if seen > 1 and free > 0 else 0.0
        common = sums[5:]
        apart = sums[4] - ((shares * common**2).sum() - (shares * common).sum() ** 2) / rows
        variance = sums[3] * tied + apart * rows / max(rows - 1, 1)
        return float(mi - sums[1]), max(float(variance), 0.0), float(sums[1])

    def entropy(self, cells: Ints) -> float:
        """Entropy of the cells in nats."""
        return float((self._log[self.rows] - self._log[cells].sum()) / self.rows)

    def _sums(self, cells: Ints) -> Floats:
        largest = int(cells.max())
        if largest >= len(self._table):
            small = cells < len(self._table)
            return np.asarray(
                self._facts(cells[~small]).sum(axis=0) + self._sums(np.append(cells[small], 0))
            )
        if largest > 2 * len(cells):
            return np.asarray(self._table[cells].sum(axis=0))
        times = np.bincount(cells)
        return np.asarray(times.astype(np.float64) @ self._table[: len(times)])

    def _facts(self, sizes: Ints) -> Floats:
        """Per size: n·ln n, expected, share², variance of the rest, linear part (see information)."""
        at, weights = _neighbours(np.maximum(sizes, 1), self._grid)
        found = np.zeros((len(sizes), self._nodes.shape[1]))
        for place, weight in zip(at.T, weights.T, strict=True):
            found += weight[:, None] * self._nodes[place]
        found[sizes == 0] = 0.0
        rows, share, shares = self.rows, sizes / self.rows, self._shares
        common = found[:, 2:] * share[:, None]
        spread = (shares * common**2).sum(axis=1) - (shares * common).sum(axis=1) ** 2
        own = [self._log[sizes], found[:, 0] / rows, share**2, found[:, 1] / rows**2]
        return np.column_stack([*own, spread / np.maximum(sizes, 1), common])


def expected_mutual(sizes: Sequence[Ints], rows: int) -> Floats:
    """Mutual information in nats that columns would have if dealt independently, all pairs ``[F, F]``.

    Exact on a grid of value sizes (each up to 24, then 12 % apart), cubic interpolation between them in
    the logarithm of the sizes: within 1e-4 relative of the exact mean, at the cost of one small product.

    Args:
        sizes: per column the rows per value; rows: their sum.
    """
    grid = _grid(rows, 24, 0.113)
    high, low = np.triu_indices(len(grid))
    _, _, _, mean, _, _ = dealt(np.full(len(high), rows), grid[high], grid[low])
    table = np.zeros((len(grid), len(grid)))
    table[high, low] = table[low, high] = mean * (grid[high] / rows) * (grid[low] / rows)
    weights = np.array([_weights(column, grid) for column in sizes]).reshape(-1, len(grid))
    return np.asarray(weights @ table @ weights.T)


def _grid(rows: int, whole: int, step: float) -> Ints:
    """Sizes 1..whole, then each exp(step) times the last, then ``rows``."""
    steps = np.exp(np.arange(0.0, max(np.log(max(rows, 1) / whole), 0.0), step))
    nodes = np.concatenate([np.arange(1, whole + 1), (whole * steps).astype(np.int64), [rows]])
    return np.unique(nodes[nodes <= max(rows, 1)])


def _weights(sizes: Ints, grid: Ints) -> Floats:
    """How often each node counts in a sum over the sizes ``[nodes]``."""
    distinct, times = np.unique(sizes, return_counts=True)
    at, weights = _neighbours(distinct, grid)
    return np.asarray(
        np.bincount(at.ravel(), (weights * times[:, None]).ravel(), minlength=len(grid)), dtype=np.float64
    )


def _neighbours(sizes: Ints, grid: Ints) -> tuple[Ints, Floats]:
    """Four nodes around each size, and their weights in cubic interpolation over ln size ``[K, 4]``."""
    near = min(4, len(grid))
    first = np.clip(np.searchsorted(grid, sizes, side="right") - 2, 0, len(grid) - near)
    at = first[:, None] + np.arange(near)
    nodes, place = np.log(grid)[at], np.log(sizes)
    weights = np.ones((len(sizes), near))
    for i in range(near):
        for j in range(near):
            if i != j:
                weights[:, i] *= (place - nodes[:, j]) / (nodes[:, i] - nodes[:, j])
    return at, weights


def _runs(ordered: NDArray[Any]) -> Ints:
    """Lengths of the runs of equal numbers."""
    ends = np.flatnonzero(ordered[1:] != ordered[:-1])
    return np.diff(ends, prepend=-1, append=len(ordered) - 1)


def _ratio(score: Floats, variance: Floats) -> Floats:
    there = variance > 1e-24
    return np.where(there, score / np.sqrt(np.where(there, variance, 1.0)), 0.0)
