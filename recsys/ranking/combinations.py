"""Combinations of two and three columns, by what they tell that their parts do not."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations as tuples

import numpy as np
import polars as pl

from recsys.errors import ConfigError
from recsys.ranking.codes import Codes
from recsys.ranking.information import Information, learnable
from recsys.ranking.pairs import PairCounter, all_pairs

MOST_TRIPLES = 20_000
"""Triples up to which all are screened; above, only those that hold one of the best pairs."""
SCREENED_ROWS = 1 << 14
"""Rows that triples are screened on."""
EXTENDED = 100
"""Best pairs that are extended where triples are too many."""

SCHEMA = {
    "a": pl.String,
    "b": pl.String,
    "c": pl.String,
    **dict.fromkeys(("joint", "gain", "gain_z", "low", "high"), pl.Float64),
    **dict.fromkeys(("p_adjusted", "synergy", "synergy_z", "redundancy", "normalised"), pl.Float64),
    "adds": pl.String,
    "tried": pl.Int64,
    "learnable": pl.Float64,
}


def combinations(
    codes: Codes,
    order: int = 2,
    singles: Mapping[str, Information] | None = None,
    limit: int = 50,
    *,
    pairs: pl.DataFrame | None = None,
) -> pl.DataFrame:
    """The combinations that tell most beyond their parts.

    All pairs are screened by their synergy, joint information less that of the parts, so that two
    columns that are each worthless surface, and two strong ones that have nothing to do with each other
    do not. All triples are screened likewise (joint less the best split in a pair and a column), on
    16,384 rows, where they are at most 20,000; else those that extend one of the 100 best pairs. For
    the ``limit`` best of each order, conditional informations are then computed exactly, on all rows of
    ``codes``: what one column adds where the others are known, in a pair the poorer column.

    The table is ordered by synergy less three of its deviations. ``tried`` is how many combinations of
    that order were screened, and ``p_adjusted`` the chance of such a synergy times ``tried``
    (Bonferroni): at 0.01, one run in a hundred shows one that is not there.

    Args:
        codes: rows as codes.
        order: 2, or 3 for pairs and triples.
        singles: names of the columns to combine, as keys; default: all.
        limit: lines per order at most.
        pairs: what ``all_pairs`` gave for the same codes, to spare the work.

    Returns:
        ``a``, ``b``, ``c`` (null in a pair); in nats ``joint``; ``gain`` with ``gain_z``, ``low``,
        ``high``: the smallest of the conditional informations, what the combination adds to its best
        part; ``adds`` the column that adds it; ``p_adjusted``; ``synergy`` and ``synergy_z``: the gain
        beyond what that column tells alone; ``redundancy`` of the pair, null for triples;
        ``normalised``: share of the label's entropy that the combination tells; ``tried``;
        ``learnable``: what of the synergy can be learned from the log's rows.

    Raises:
        ConfigError: another order.
    """
    if order not in (2, 3):
        raise ConfigError(f"combinations: order must be 2 or 3, found {order}")
    if singles is not None:
        codes = codes.only([name for name in codes.names if name in singles])
    if len(codes.names) < 2:
        return pl.DataFrame(schema=SCHEMA)
    table = all_pairs(codes) if pairs is None else _of_columns(pairs, codes.names)
    counter = codes.counter
    index = {name: number for number, name in enumerate(codes.names)}
    surely = pl.col("synergy") - 3.0 * (pl.col("synergy") / pl.col("synergy_z")).abs().fill_nan(0.0)
    table = table.with_columns(surely=surely).sort("surely", "a", "b", descending=[True, False, False])
    best = [(index[a], index[b]) for a, b in table.select("a", "b").head(max(limit, EXTENDED)).iter_rows()]
    found = [_Combination.of(counter, pair, len(table)) for pair in best[:limit]]
    shares = {(index[a], index[b]): r for a, b, r in table.select("a", "b", "redundancy").iter_rows()}
    if order == 3 and len(codes.names) > 2:
        tried, triples = _best_triples(codes, best[:EXTENDED], limit)
        found += [_Combination.of(counter, triple, tried) for triple in triples]
    found.sort(key=lambda one: one.surely, reverse=True)
    told = counter.chance.label_entropy
    return pl.DataFrame([one.line(codes.names, shares, told) for one in found], schema=SCHEMA)


@dataclass(frozen=True)
class _Combination:
    columns: tuple[int, ...]
    joint: float
    adds: int
    gain: Information
    synergy: float
    deviation: float
    tried: int
    sampled: float
    """Share of the log's rows that were counted."""

    @classmethod
    def of(cls, counter: PairCounter, columns: tuple[int, ...], tried: int) -> _Combination:
        """Exact gains of a triple in each direction, of which the smallest counts; of a pair, its one."""
        joint = float(counter.count([columns])[0, 0])
        if len(columns) == 2:
            gains = [counter.gain_of_pair((columns[0], columns[1]))]
        else:
            gains = [counter.gain(columns, column) for column in columns]
        least = min(gains, key=lambda one: one.gain.score)
        synergy = min(one.synergy for one in gains)
        deviation = math.sqrt(max(one.synergy_variance for one in gains))
        return cls(columns, joint, least.adds, least.gain, synergy, deviation, tried, counter.sampled)

    @property
    def surely(self) -> float:
        """What the combinations are ordered by."""
        return self.synergy - 3.0 * self.deviation

    @property
    def p(self) -> float:
        """Chance of such a synergy, for one combination."""
        expected = self.gain.expected
        return Information(expected + self.synergy, expected, self.deviation, self.deviation).p

    def line(
        self, names: Sequence[str], shares: Mapping[tuple[int, int], float], entropy: float
    ) -> dict[str, object]:
        gain = self.gain
        parts = [names[column] for column in self.columns] + [None] * (3 - len(self.columns))
        return {
            **dict(zip(("a", "b", "c"), parts, strict=True)),
            "joint": self.joint,
            "gain": gain.score,
            "gain_z": gain.z,
            "low": gain.low,
            "high": gain.high,
            "p_adjusted": min(1.0, self.p * self.tried),
            "synergy": self.synergy,
            "synergy_z": self.synergy / self.deviation if self.deviation > 0 else 0.0,
            "redundancy": shares.get(self.columns[:2]) if len(self.columns) == 2 else None,
            "normalised": self.joint / entropy if entropy > 0 else 0.0,
            "adds": names[self.adds],
            "tried": self.tried,
            "learnable": float(learnable(self.synergy, gain.expected * self.sampled)),
        }


def _best_triples(
    codes: Codes, pairs: Sequence[tuple[int, int]], limit: int
) -> tuple[int, list[tuple[int, ...]]]:
    """How many triples were screened, and the best of them."""
    counter = _sampled(codes).counter
    columns = range(len(codes.names))
    chosen: Iterable[tuple[int, ...]] = tuples(columns, 3)
    if math.comb(len(codes.names), 3) > MOST_TRIPLES:
        chosen = sorted(
            {tuple(sorted((*pair, other))) for pair in pairs for other in columns if other not in pair}
        )
    triples = np.array(list(chosen), dtype=np.int64)
    every = list(tuples(columns, 2))
    facts = counter.count(every)
    scores, variances = np.zeros((2, len(columns), len(columns)))
    for (a, b), (score, variance, *_) in zip(every, facts, strict=True):
        scores[a, b], variances[a, b] = score, variance
    joint, variance, _, nested, _ = counter.count([tuple(triple) for triple in triples.tolist()]).T
    a, b, c = triples.T
    splits = np.stack([scores[i, j] + counter.scores[k] for i, j, k in ((a, b, c), (a, c, b), (b, c, a))])
    spreads = np.stack(
        [variances[i, j] + counter.variances[k] for i, j, k in ((a, b, c), (a, c, b), (b, c, a))]
    )
    most = splits.argmax(axis=0)[None]
    free = variance + (1.0 - 2.0 * nested) * np.take_along_axis(spreads, most, 0)[0]
    surely = joint - splits.max(axis=0) - 3.0 * np.sqrt(np.maximum(free, 0.0))
    order = np.argsort(-surely, kind="stable")[:limit]
    return len(triples), [tuple(triple) for triple in triples[order].tolist()]


def _sampled(codes: Codes) -> Codes:
    """At most ``SCREENED_ROWS`` rows, drawn with a fixed seed: every n-th row would follow any rhythm."""
    rows = codes.label.shape[0]
    if rows <= SCREENED_ROWS:
        return codes
    pick = np.sort(np.random.default_rng(0).choice(rows, SCREENED_ROWS, replace=False))
    return codes.at(pick)


def _of_columns(pairs: pl.DataFrame, names: Sequence[str]) -> pl.DataFrame:
    known = list(names)
    return pairs.filter(pl.col("a").is_in(known) & pl.col("b").is_in(known))
