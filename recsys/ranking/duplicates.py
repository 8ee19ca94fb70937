"""Columns that tell what another column tells: copies, near copies, and columns that follow from another.

Two columns are copies where they part the rows in the same way, whatever their values are called. All pairs
are screened on some thousand rows, and what passes is counted on all of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys.ranking.quality import Finding, percent

if TYPE_CHECKING:
    from recsys.ranking.codes import Codes

NEAR_AGREEMENT = 0.99
"""Rows that must agree before two columns count as near copies: a model cannot use the hundredth row."""
ERRORS_LEFT = 0.1
"""And the guess must make fewer than this share of a constant guess's errors, else every column would be
called a near copy of one that has the same value in 99 % of rows."""
SUPPORTED_SHARE = 0.5
"""Share of rows whose value is seen at least twice, below which 'follows from' holds by chance alone."""
SCREEN_ROWS = 8192
SCREEN_PAIRS = 50
"""Pairs of rows with one value that a screen rests on; with fewer the two columns are counted in full."""
SCREEN_LEFT = 0.25
"""Looser than ``ERRORS_LEFT``, since the screen compares rows in twos and so sees errors twice."""


class Agreement(NamedTuple):
    """How far one column follows from another."""

    share: float
    """Share of rows guessed right: by the value most frequent among rows with their value of the other."""
    left: float
    """Errors of that guess as a share of a constant guess's."""
    supported: float
    """Share of rows whose value of the other column is seen at least twice."""

    @property
    def holds(self) -> bool:
        return self.share >= NEAR_AGREEMENT and self.left <= ERRORS_LEFT

    @property
    def is_exact(self) -> bool:
        return self.share == 1.0


def duplicate_findings(codes: Codes) -> list[Finding]:
    """Copies (``duplicate``), near copies (``near_duplicate``) and columns that follow from another.

    A column is named once, beside the first column that tells the same. Columns of one value, and columns
    with a value of their own in most rows, are left out: they match anything.
    """
    usable = [at for at in range(len(codes.names)) if codes.sizes[at] > 1]
    candidates = _screened(codes, usable)
    copies: dict[int, Finding] = {}
    follows: dict[int, Finding] = {}
    for a, b in sorted(candidates, key=lambda pair: (pair[0], pair[1])):
        if a in copies or b in copies:
            continue
        forth, back = agreements(codes.codes[a], codes.codes[b])
        if min(forth.supported, back.supported) >= SUPPORTED_SHARE and forth.holds and back.holds:
            copies[b] = _copy(codes.names[a], codes.names[b], forth, back)
            continue
        for upper, lower, agreement in ((a, b, forth), (b, a, back)):
            if agreement.supported >= SUPPORTED_SHARE and agreement.holds and lower not in follows:
                follows[lower] = _following(codes.names[upper], codes.names[lower], agreement)
    return [*copies.values(), *(found for at, found in follows.items() if at not in copies)]


def agreements(first: NDArray[np.int32], second: NDArray[np.int32]) -> tuple[Agreement, Agreement]:
    """How far ``second`` follows from ``first``, and ``first`` from ``second``; codes [S] each."""
    width = int(second.max()) + 1
    pairs, counts = np.unique(first.astype(np.int64) * width + second, return_counts=True)
    a, b = pairs // width, pairs % width
    rows_a, rows_b = np.bincount(first), np.bincount(second)
    order = np.argsort(b, kind="stable")
    return (
        _agreement(a, counts, rows_a, rows_b),
        _agreement(b[order], counts[order], rows_b, rows_a),
    )


def _agreement(
    group: NDArray[np.int64],
    counts: NDArray[np.int64],
    rows: NDArray[np.intp],
    other: NDArray[np.intp],
) -> Agreement:
    """From joint counts sorted by group; ``rows`` are per group, ``other`` per value of the guessed one."""
    starts = np.flatnonzero(np.diff(group, prepend=-1))
    total = float(counts.sum())
    right = float(np.maximum.reduceat(counts, starts).sum())
    constant = total - float(other.max())
    left = (total - right) / constant if constant > 0 else 1.0
    return Agreement(right / total, left, float(rows[rows > 1].sum()) / total)


def _screened(codes: Codes, usable: list[int]) -> set[tuple[int, int]]:
    """Pairs (a, b), a before b, that may be copies or of which one may follow from the other.

    Rows are sorted by one column, and neighbours with the same value of it are asked whether they have
    the same value of each other column: [F, S] comparisons for each column.
    """
    rows = codes.codes.shape[1]
    sample = codes.codes[:, :: max(1, rows // SCREEN_ROWS)]
    sample = np.ascontiguousarray(sample[usable])
    same_by_chance = np.array([_collision(row) for row in sample])
    sizes = codes.sizes[usable]
    found: set[tuple[int, int]] = set()
    for at, row in enumerate(sample):
        order = np.argsort(row, kind="stable")
        same = np.flatnonzero(row[order][1:] == row[order][:-1])
        if same.size >= SCREEN_PAIRS:
            left, right = order[same], order[same + 1]
            differ = (sample[:, left] != sample[:, right]).mean(1)
            passed = differ <= SCREEN_LEFT * (1 - same_by_chance)
        else:
            passed = np.abs(sizes - sizes[at]) <= 0.02 * sizes[at]
        for other in np.flatnonzero(passed):
            if other != at:
                found.add((usable[min(at, int(other))], usable[max(at, int(other))]))
    return found


def _collision(row: NDArray[np.int32]) -> float:
    """Chance that two rows have the same value."""
    share = np.bincount(row) / row.size
    return float((share * share).sum())


def _copy(kept: str, name: str, forth: Agreement, back: Agreement) -> Finding:
    share = min(forth.share, back.share)
    if forth.is_exact and back.is_exact:
        sentence = (
            f"'{name}' tells exactly what '{kept}' tells: 100 % of rows agree; one of them is enough."
        )
        return Finding(name, "duplicate", "warning", 1.0, sentence)
    sentence = (
        f"'{name}' tells nearly what '{kept}' tells: {percent(share)} of rows agree; one of them is enough."
    )
    return Finding(name, "near_duplicate", "warning", share, sentence)


def _following(upper: str, lower: str, agreement: Agreement) -> Finding:
    how = "always" if agreement.is_exact else f"in {percent(agreement.share)} of rows"
    sentence = (
        f"'{lower}' follows from '{upper}' {how}: whoever knows '{upper}' learns little from '{lower}'."
    )
    return Finding(lower, "follows", "note", agreement.share, sentence)
