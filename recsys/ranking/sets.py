"""Sets of columns: orders in which each column counts for what the ones before it do not tell.

Everything is built from pairs: the score of a column, what it shares with another one about the label,
and what the two tell only together. All of it is beyond chance, in nats.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.errors import ConfigError
from recsys.ranking.codes import Codes
from recsys.ranking.company import ALONE, Company
from recsys.ranking.given import given
from recsys.ranking.information import Information
from recsys.ranking.sharing import beyond, shared_information, surely

__all__ = ["given", "keep_until_loss", "orders", "within_bytes"]

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

TOLD = 0.9
"""Share of a column's entropy, or of what it tells about the label, from which it is redundant."""

SCHEMA: dict[str, pl.DataType | type[pl.DataType]] = {
    "column": pl.String,
    **dict.fromkeys(("rank_3mr", "rank_jmi", "rank_cmim"), pl.Int64),
    **dict.fromkeys(("gain", "alone"), pl.Float64),
    "redundant_with": pl.String,
    "redundancy": pl.Float64,
    "works_with": pl.List(pl.String),
}


def orders(
    codes: Codes,
    pairs: pl.DataFrame,
    singles: Mapping[str, Information],
    triples: pl.DataFrame | None = None,
) -> pl.DataFrame:
    """Greedy orders of the columns.

    - 3MR (relevance - redundancy + relation; Škrlj and Mramor 2023): the column's score, less the most
      that one column before it already tells of it, plus the most that it tells only together with one
      of them. Taken as maxima rather than medians: one copy is enough to be redundant. Two columns that
      tell only together are entered by half of what they tell each. An interaction is told once: a
      copy of one of its parts adds nothing.
    - JMI (Yang and Moody 1999): greatest mean joint information with the columns before it.
    - CMIM (Fleuret 2004): greatest smallest information given one of the columns before it.

    Scores count less three deviations of chance, and relations less as many as the best of so many
    pairs reaches by luck, so that luck earns no rank; and of both only what can be learned from the rows
    there are, so that a pair of thousands of small cells does not come before one that tells less
    but in few. Shared information is never more than the mutual
    information of the two columns beyond luck.

    Args:
        codes: rows as codes, for the columns' entropies.
        pairs: what ``all_pairs`` gave for them.
        singles: per column its information with the label.
        triples: combinations that tell something, as ``combinations`` gave them; for 3MR only.

    Returns:
        One line per column in 3MR order: ``column``, ``rank_3mr``, ``rank_jmi``, ``rank_cmim`` (from 1),
        ``gain`` (nats that it adds to the columns before it and that can be learned), ``alone`` (its
        own), ``redundant_with``
        (a column before it that tells 0.9 of its entropy, or of what it tells about the label; or null),
        ``redundancy`` (share of its entropy that the former, else the closest column, tells),
        ``works_with`` (the columns whose company ``gain`` counts on, or null).
    """
    facts = _Facts.of(codes, pairs, singles)
    facts = replace(facts, triples=_triples(codes.names, facts.relation, triples))
    taken = _three_mr(facts)
    order = [step.column for step in taken]
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    jmi = _ranks(_greedy(facts, joint=True))
    cmim = _ranks(_greedy(facts, joint=False))
    told = np.where(place[:, None] < place[None, :], facts.share, 0.0)
    lines = []
    for step in taken:
        k = step.column
        other = _redundant(facts, k, told[:, k], place < place[k])
        closest = other if other is not None else _closest(facts.share[:, k], k)
        lines.append(
            {
                "column": codes.names[k],
                "rank_3mr": int(place[k]) + 1,
                "rank_jmi": int(jmi[k]),
                "rank_cmim": int(cmim[k]),
                "gain": step.gain,
                "alone": float(facts.scores[k]),
                "redundant_with": None if other is None else codes.names[other],
                "redundancy": float(facts.share[closest, k]) if closest is not None else 0.0,
                "works_with": [codes.names[friend] for friend in step.friends] or None,
            }
        )
    return pl.DataFrame(lines, schema=SCHEMA)


def _bounded(shared: Floats, least: Floats, told: Floats, sparse: NDArray[np.bool_]) -> Floats:
    """Shared information of pairs ``[P]``, no more than it can be.

    Two columns share no more about the label than the poorer one tells. Where they make more cells
    than there are rows, their joint information is far too low, and would make two strong columns of
    many values, such as users and items, look redundant: there, what is shared is at most what the one
    tells of the label times the share of it that the other one tells.
    """
    shared = np.minimum(shared, np.maximum(least, 0.0))
    return np.where(sparse, np.minimum(shared, np.maximum(told, 0.0)), shared)


def keep_until_loss(order: pl.DataFrame, loss: float) -> list[str]:
    """The first columns of the 3MR order that lose at most a share ``loss`` of all gains.

    Columns that tell something only together stay together.

    Args:
        order: what ``orders`` returned.
        loss: share of the sum of positive gains that may be lost, 0 to below 1.

    Raises:
        ConfigError: ``loss`` outside that range.
    """
    if not 0 <= loss < 1:
        raise ConfigError(f"keep_until_loss must be from 0 to below 1 (a share of all gains), found {loss}")
    order = order.sort("rank_3mr")
    gains = np.maximum(order["gain"].to_numpy(), 0.0)
    lost = gains.sum() - np.cumsum(gains)
    # Sums in another order differ in the last digits.
    enough = np.flatnonzero(lost <= loss * gains.sum() + 1e-12 * gains.sum())
    if not len(enough) or not gains.any():
        return []
    names, friends = order["column"].to_list(), _works_with(order)
    first = names[: int(enough[0]) + 1]
    kept = {one for name in first for one in unit(name, friends, first)}
    return [name for name in names if name in kept]


def within_bytes(order: pl.DataFrame, bytes_of: Mapping[str, int], budget: int) -> list[str]:
    """Columns that tell most for a budget of bytes, best gain per byte first.

    Columns that tell something only together are taken together or not at all. A column that is
    redundant counts in full while the one that makes it so is not taken. Columns without gain are left.

    Args:
        order: what ``orders`` returned.
        bytes_of: bytes that each column costs.
        budget: bytes that all kept columns cost together at most.

    Raises:
        ConfigError: a column without a cost, or a negative one.
    """
    costs = {name: _cost(name, bytes_of) for name in order["column"].to_list()}
    lines = {line["column"]: line for line in order.sort("rank_3mr").iter_rows(named=True)}
    friends = _works_with(order)
    kept: list[str] = []
    left = budget
    while True:
        best: tuple[float, list[str]] | None = None
        for name, line in lines.items():
            if name in kept:
                continue
            parts = unit(name, friends, kept)
            cost, value = sum(costs[one] for one in parts), sum(_worth(lines[one], kept) for one in parts)
            rate = value / max(cost, 1e-9)
            if line["gain"] is not None and value > 0 and cost <= left and (best is None or rate > best[0]):
                best = (rate, parts)
        if best is None:
            return kept
        kept += best[1]
        left -= sum(costs[one] for one in best[1])


@dataclass(frozen=True)
class _Facts:
    """All columns and pairs of columns: what luck does not explain, in nats."""

    scores: Floats
    """``[F]``."""
    shared: Floats
    """``[F, F]`` what the first tells of what the second one tells about the label; 0 on the diagonal."""
    relation: Floats
    """``[F, F]`` what two tell only together, symmetric."""
    share: Floats
    """``[F, F]`` share of the second column's entropy that the first one tells."""
    triples: Mapping[tuple[int, ...], float] = field(default_factory=dict)
    """What three tell only all together."""

    @classmethod
    def of(cls, codes: Codes, pairs: pl.DataFrame, singles: Mapping[str, Information]) -> _Facts:
        index = {name: number for number, name in enumerate(codes.names)}
        scores = np.array([singles[name].learnable for name in codes.names])
        columns = len(codes.names)
        shared, relation, share = (np.zeros((columns, columns)) for _ in range(3))
        picked = pairs.filter(pl.col("a").is_in(codes.names) & pl.col("b").is_in(codes.names))
        a, b = (np.array([index[name] for name in picked[side]], dtype=np.int64) for side in ("a", "b"))
        synergy, z = picked["synergy"].to_numpy(), picked["synergy_z"].to_numpy()
        free = np.where(z != 0, synergy / np.where(z != 0, z, 1.0), 0.0) ** 2
        counter = codes.counter
        rows, widths = counter.rows, np.array(counter.widths)
        mutual = picked["mutual"].to_numpy()
        both = np.stack([a, b], axis=1)
        # The best of many relations is looked for, so each must be beyond the luck of that many.
        luck = 1.0 + np.sqrt(2.0 * np.log(max(len(a), 16)))
        shared[a, b] = shared[b, a] = shared_information(
            surely(synergy, free, 3.0), mutual, widths[both], rows
        )
        sure = np.maximum(surely(synergy, free, luck), 0.0)
        relation[a, b] = relation[b, a] = sure * _part(picked["learnable"].to_numpy(), synergy)
        # The pair's own share is of the poorer column; the richer one's follows from the entropies.
        by_chance = counter.expected_mutual[a, b]
        real = np.where(beyond(mutual, widths[both], rows) > 0, mutual, 0.0)
        for one, other in ((a, b), (b, a)):
            room = counter.entropies[other] - by_chance
            share[one, other] = np.where(room > 1e-9, np.clip(real / np.maximum(room, 1e-9), 0.0, 1.0), 0.0)
        plain = np.array([singles[name].score for name in codes.names])
        known = np.array([singles[name].known for name in codes.names])
        # A number in its own bins, and a list by its elements, tell more or less than as coded here.
        coded = np.maximum(counter.scores, 0.0)
        more = np.where(coded > 0, np.maximum(plain, 0.0) / np.where(coded > 0, coded, 1.0), 1.0)
        both_tell = np.minimum(known[a], known[b]) * _bounded(
            shared[a, b],
            np.minimum(coded[a], coded[b]),
            np.maximum(share[a, b] * coded[b], share[b, a] * coded[a]),
            widths[a] * widths[b] > rows,
        )
        for one, other in ((a, b), (b, a)):
            shared[one, other] = both_tell * more[other]
        return cls(scores, shared, relation, share)


def _part(part: Floats, whole: Floats) -> Floats:
    """Share of the whole, 0 to 1; 0 where the whole is none."""
    return np.where(whole > 0, np.clip(part / np.where(whole > 0, whole, 1.0), 0.0, 1.0), 0.0)


def _triples(
    names: Sequence[str], relation: Floats, triples: pl.DataFrame | None
) -> dict[tuple[int, ...], float]:
    """What can be learned of three columns beyond what pairs of them tell, less three deviations."""
    if triples is None:
        return {}
    index = {name: number for number, name in enumerate(names)}
    found = {}
    for line in triples.drop_nulls("c").iter_rows(named=True):
        three = tuple(sorted(index[line[part]] for part in ("a", "b", "c")))
        sure = line["learnable"] * (1.0 - 3.0 / line["synergy_z"]) if line["synergy_z"] > 3.0 else 0.0
        found[three] = sure - float(relation[np.ix_(three, three)].sum()) / 2
    return {three: nats for three, nats in found.items() if nats > 0}


@dataclass(frozen=True)
class _Step:
    column: int
    gain: float
    friends: tuple[int, ...]


def _three_mr(facts: _Facts) -> list[_Step]:
    columns = len(facts.scores)
    taken, shared = np.zeros(columns, dtype=bool), np.zeros(columns)
    company = Company(facts.relation, facts.share, facts.triples)
    steps = []
    for _ in range(columns):
        helped, helper = company.helped(taken)
        gains = facts.scores - shared + helped
        worth, entered = company.entered(gains, helped, taken)
        # Sums in another order differ in the last digits: of copies, the first in the log comes first.
        k = int(np.where(taken, -np.inf, worth.round(12)).argmax())
        together = int(entered[k])
        if together == ALONE and 2 * helped[k] <= gains[k]:
            k = _richer(facts, k, gains, taken)
        friends = company.friends(k, together if together != ALONE else int(helper[k]))
        if together != ALONE:
            company.lend(k, together, float(worth[k] - max(gains[k], 0.0)))
        steps.append(_Step(k, float(worth[k]), friends))
        taken[k] = True
        company.take(k)
        shared = np.maximum(shared, facts.shared[k])
    return _as_it_came(steps, facts.share)


def _richer(facts: _Facts, k: int, gains: Floats, taken: NDArray[np.bool_]) -> int:
    """The column to take first in the place of ``k``: one that tells it, and by itself tells more.

    A price that goes by the item may come out before the item by a hair; what it adds to the others is
    then next to nothing, which only the order item, price shows.
    """
    tells = (facts.share[:, k] >= TOLD) & (facts.share[k] < TOLD) & (facts.scores >= facts.scores[k])
    tells &= ~taken & (gains > 0)
    return int(np.where(tells, gains, -np.inf).argmax()) if tells.any() else k


def _as_it_came(steps: Sequence[_Step], share: Floats) -> list[_Step]:
    """Steps whose friends are those that came: of two alike, the other may have been taken later."""
    friends = {step.column: step.friends for step in steps}
    place = {step.column: at for at, step in enumerate(steps)}
    mended = []
    for at, step in enumerate(steps):
        came = [other.column for other in steps[at + 1 :] if step.column in other.friends]
        found: list[int] = []
        for friend in step.friends:
            is_kept = place[friend] < at or step.column in friends[friend] or not came
            found.append(friend if is_kept else came[int(share[came, friend].argmax())])
        mended.append(replace(step, friends=tuple(dict.fromkeys(found))))
    return mended


def _greedy(facts: _Facts, *, joint: bool) -> list[int]:
    """JMI (mean over the columns taken) or CMIM (smallest over them), the best score first."""
    added = facts.scores[None, :] - facts.shared + facts.relation
    order = [int(facts.scores.argmax())] if len(facts.scores) else []
    total, least = np.zeros(len(facts.scores)), facts.scores.copy()
    while len(order) < len(facts.scores):
        total += added[order[-1]]
        least = np.minimum(least, added[order[-1]])
        worth = total if joint else least
        worth = worth.copy()
        worth[order] = -np.inf
        order.append(int(worth.argmax()))
    return order


def _ranks(order: Sequence[int]) -> Ints:
    ranks = np.empty(len(order), np.int64)
    ranks[list(order)] = np.arange(1, len(order) + 1)
    return ranks


def _redundant(facts: _Facts, k: int, told: Floats, before: NDArray[np.bool_]) -> int | None:
    """The column before ``k`` that makes it redundant, if there is one."""
    closest = _closest(told, k)
    if closest is not None and told[closest] >= TOLD:
        return closest
    shared = np.where(before, facts.shared[:, k], 0.0)
    if facts.scores[k] > 0 and shared.max(initial=0.0) >= TOLD * facts.scores[k]:
        return int(shared.argmax())
    return None


def _closest(share: Floats, k: int) -> int | None:
    share = share.copy()
    share[k] = 0.0
    return int(share.argmax()) if share.max(initial=0.0) > 0 else None


def unit(name: str, works_with: Mapping[str, Sequence[str] | None], kept: Collection[str]) -> list[str]:
    """The column and those not kept without which it is not worth its gain, and so on."""
    found, at = [name], 0
    while at < len(found):
        friends = works_with.get(found[at]) or ()
        found += [one for one in friends if one in works_with and one not in kept and one not in found]
        at += 1
    return found


def _works_with(order: pl.DataFrame) -> dict[str, list[str] | None]:
    return dict(order.select("column", "works_with").iter_rows())


def _worth(line: Mapping[str, object], kept: Sequence[str]) -> float:
    gain, alone = float(str(line["gain"])), float(str(line["alone"]))
    other = line["redundant_with"]
    return max(gain, alone) if other is not None and other not in kept else gain


def _cost(name: str, bytes_of: Mapping[str, int]) -> int:
    cost = bytes_of.get(name)
    if cost is None or cost < 0:
        raise ConfigError(f"bytes of column {name!r}: expected a number of bytes, found {cost}")
    return cost
