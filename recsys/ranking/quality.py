"""What is wrong with a column, or worth knowing before it is used: each with its number and a sentence.

Everything here is arithmetic on counts that ranking has made anyway; see ``recsys.ranking.drift`` for what
changes from day to day.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

if TYPE_CHECKING:
    from recsys.ranking.codes import Codes
    from recsys.ranking.information import Information
    from recsys.ranking.tally import Tally
    from recsys.schema import Schema

Severity = Literal["note", "warning", "error"]
SEVERITIES: tuple[str, ...] = ("error", "warning", "note")
"""Most serious first."""
KINDS = (
    *("all_missing", "leak", "leak_missing", "row_id", "duplicate", "near_duplicate", "drift"),
    *("few_in_sample", "label_by_day", "constant", "coverage", "follows", "new_values", "dominant", "rare"),
)
"""All kinds of findings, within a severity the more serious first."""

LOW_COVERAGE = 0.5
"""A column that is missing in more rows than it is present is more often a broken join than a choice."""
FULL_COVERAGE = 0.95
"""Above this, missing values are too few to matter to a model, and are not mentioned."""
RARE_BELOW = 5
"""A value seen fewer times than this teaches a model next to nothing about itself: with four rows the
standard error of a click rate is never below a tenth, and is usually a quarter."""
RARE_SHARE = 0.05
"""From this share of rows on, rare values are mentioned; nearly every long-tailed column has a few."""
DOMINANT_SHARE = 0.95
"""A value with this share leaves one row in twenty for all that the column can tell."""
ROW_ID_SHARE = 0.9
"""Distinct values per row from which a column names rows: what is learnt of a value is never used again."""
ROW_ID_LEAST = 100
"""Fewer rows than this with a value say nothing about row ids."""
LEAK_SHARE = 0.8
"""Share of the label's entropy. The strongest single columns of click logs tell a few per cent of it and
a retrieval score perhaps a third, so that a column above this was written after the label was known."""
LEAK_MISSING_SHARE = 0.5
"""The same for a column's being missing or not, which is one bit and should tell next to nothing."""
LEAK_ERRORS_LEFT = 0.05
"""A column leaks when guessing by its values makes fewer than this share of a constant guess's errors."""
LEAK_SUPPORT = 5
"""Rows that a value needs before it may speak in that guess, so that rows of their own prove nothing."""
LEAK_SUPPORTED_SHARE = 0.5
"""Share of rows that must have such a value; below it the guess speaks for a corner of the log only."""
FEW_OF_A_CLASS = 50
"""Rows outside the most frequent class below which pairs of columns are hardly judged by a sample."""
LEAK_Z = 5.0
"""Standard deviations beyond chance that a leak needs in any case: a handful of rows can look perfect."""


@dataclass(frozen=True)
class Finding:
    """One fact about a column that a reader should know.

    ``number`` is what the sentence is about (a share between 0 and 1, a count, or a PSI; the sentence says
    which), ``column`` is None where the finding is about the whole log.
    """

    column: str | None
    kind: str
    severity: Severity
    number: float
    sentence: str


def findings(
    tallies: Mapping[str, Tally],
    informations: Mapping[str, Information],
    schema: Schema,
    codes: Codes | None = None,
) -> list[Finding]:
    """Findings on every column, the most serious first, then in the order of the columns.

    Args:
        tallies: counts per value and class [K, C] of each column.
        informations: what each column tells about the label, in nats; columns without one are not
            tested for leaks.
        schema: kinds of the columns; names that it lacks (transforms, combinations) count as categorical.
        codes: rows as codes, for duplicate columns; None: those are not looked for.
    """
    from recsys.ranking.duplicates import duplicate_findings

    found: list[Finding] = []
    for name, tally in tallies.items():
        column = schema.columns.get(name)
        kind = "categorical" if column is None else column.kind
        found.extend(column_findings(name, tally, informations.get(name), kind))
    if codes is not None:
        found.extend(duplicate_findings(codes))
    return by_severity(found)


def by_severity(found: Sequence[Finding]) -> list[Finding]:
    """The most serious first, then by kind; findings of one kind stay in their order."""
    return sorted(found, key=lambda finding: seriousness(finding.severity, finding.kind))


def seriousness(severity: str, kind: str) -> tuple[int, int]:
    """Sorts findings, the most serious first."""
    return SEVERITIES.index(severity), KINDS.index(kind) if kind in KINDS else len(KINDS)


def findings_table(found: Sequence[Finding]) -> pl.DataFrame:
    """Findings as a table: column, kind, severity, number, sentence."""
    names = ("column", "kind", "severity", "number", "sentence")
    rows = [tuple(getattr(finding, name) for name in names) for finding in found]
    types = (pl.String, pl.String, pl.String, pl.Float64, pl.String)
    return pl.DataFrame(rows, schema=dict(zip(names, types, strict=True)), orient="row")


def column_findings(
    name: str, tally: Tally, information: Information | None, kind: str = "categorical"
) -> list[Finding]:
    """Findings on one column by itself, from its counts per value and class [K, C]."""
    if tally.distinct == 0:
        sentence = f"'{name}' is missing in all {tally.rows:,} rows; leave it out or mend its source."
        return [Finding(name, "all_missing", "error", 1.0, sentence)]
    leak = _leak(name, tally, information)
    found = [leak] if leak is not None else []
    found.extend(_coverage(name, tally))
    if tally.distinct == 1 and tally.missing == 0:
        sentence = f"'{name}' has the same value in every row, so it can tell nothing; leave it out."
        return [*found, Finding(name, "constant", "warning", 1.0, sentence)]
    counts = _present(tally).sum(1)
    if kind == "categorical":
        row_id = _row_id(name, tally)
        if row_id is not None:
            return [*found, row_id]
    found.extend(_dominant(name, tally, counts, kind))
    if kind != "numeric":
        found.extend(_rare(name, tally, counts, kind))
    return found


def sample_findings(codes: Codes) -> Iterator[Finding]:
    """Where a sample of the log holds hardly any row outside the most frequent class of the label."""
    rows = len(codes.label)
    others = rows - int(np.bincount(codes.label, minlength=codes.classes).max(initial=0))
    if rows < codes.rows and others < FEW_OF_A_CLASS:
        sentence = (
            f"Pairs, orders and transforms rest on {rows:,} of {codes.rows:,} rows, of which {others:,} "
            "are outside the most frequent class of the label: too few to tell; take a larger rank.sample."
        )
        yield Finding(None, "few_in_sample", "warning", float(others), sentence)


# --- one column ----------------------------------------------------------------------------------


def _present(tally: Tally) -> NDArray[np.int64]:
    """Counts [K, C] without the missing value, which stands first where there is one."""
    return tally.counts[1:] if tally.values.null_count() else tally.counts


def _coverage(name: str, tally: Tally) -> Iterator[Finding]:
    covered = tally.coverage
    if covered < FULL_COVERAGE:
        severity: Severity = "warning" if covered < LOW_COVERAGE else "note"
        only = "only " if covered < LOW_COVERAGE else ""
        sentence = f"'{name}' has a value in {only}{percent(covered)} of rows."
        yield Finding(name, "coverage", severity, covered, sentence)


def _row_id(name: str, tally: Tally) -> Finding | None:
    present = tally.rows - tally.missing
    if present < ROW_ID_LEAST or tally.distinct < ROW_ID_SHARE * present:
        return None
    share = tally.distinct / present
    sentence = (
        f"'{name}' looks like a row id: {_distinct(tally)} different values in {present:,} rows; "
        "what a model learns about a value is never used again."
    )
    return Finding(name, "row_id", "warning", share, sentence)


def _dominant(name: str, tally: Tally, counts: NDArray[np.int64], kind: str) -> Iterator[Finding]:
    top = int(counts.argmax())
    elements = int(counts.sum()) if kind in ("multi", "sequence") else tally.rows
    share = float(counts[top]) / elements
    if share < DOMINANT_SHARE:
        return
    if kind == "numeric":
        sentence = f"'{name}' has {percent(share)} of rows in one range of its values."
    else:
        of = "elements" if kind in ("multi", "sequence") else "rows"
        value = _shown(_values(tally)[top])
        sentence = f"'{name}' is {value} in {percent(share)} of {of}; the rest is all that it can tell by."
    yield Finding(name, "dominant", "note", share, sentence)


def _rare(name: str, tally: Tally, counts: NDArray[np.int64], kind: str) -> Iterator[Finding]:
    share = float(counts[counts < RARE_BELOW].sum()) / float(counts.sum())
    if share < RARE_SHARE:
        return
    once = float((counts == 1).mean())
    of = "elements" if kind in ("multi", "sequence") else "rows"
    sentence = (
        f"'{name}' has {_distinct(tally)} different values; {percent(share)} of {of} have one that is seen "
        f"fewer than {RARE_BELOW} times, and {percent(once)} of the values are seen once."
    )
    yield Finding(name, "rare", "note", share, sentence)


# --- leaks ---------------------------------------------------------------------------------------


def _leak(name: str, tally: Tally, information: Information | None) -> Finding | None:
    """The strongest sign that a column was written after the label was known; None without one."""
    entropy = _entropy(tally.classes)
    if entropy <= 0 or information is None or information.z < LEAK_Z:
        return None
    told = information.score / entropy
    missing = _missing_share(tally, entropy)
    # where the values themselves say no more, that they are there at all is the fault to name
    if missing >= max(LEAK_MISSING_SHARE, 0.9 * told):
        sentence = (
            f"Whether '{name}' is missing gives the label away: that alone tells {percent(missing)} of "
            "what there is to know about it. Is it filled in after the outcome?"
        )
        return Finding(name, "leak_missing", "error", missing, sentence)
    if told >= LEAK_SHARE:
        sentence = (
            f"'{name}' all but is the label: it tells {percent(min(told, 1.0))} of what there is to know "
            "about it. Was it written after the outcome was known?"
        )
        return Finding(name, "leak", "error", told, sentence)
    right, left, supported = guess(tally.counts)
    if supported >= LEAK_SUPPORTED_SHARE and left <= LEAK_ERRORS_LEFT:
        sentence = (
            f"'{name}' gives the label away: guessing by its value is right in {percent(right)} of rows, "
            f"judged on values seen at least {LEAK_SUPPORT} times. Was it written after the outcome?"
        )
        return Finding(name, "leak", "error", right, sentence)
    return _filled_in_for_a_class(name, tally)


def _filled_in_for_a_class(name: str, tally: Tally) -> Finding | None:
    """A column that has a value in rows of one class only, and in most of those; None for any other."""
    if tally.missing == 0 or not tally.values.null_count():
        return None
    present = np.maximum(tally.classes - tally.counts[0] / tally.share, 0)
    at = int(present.argmax())
    base, right = float(tally.classes[at]) / tally.rows, float(present[at]) / max(float(present.sum()), 1.0)
    is_most = present[at] >= LEAK_SUPPORTED_SHARE * tally.classes[at]
    # a class that most rows have anyway is no secret
    if base > 0.5 or not is_most or 1 - right > LEAK_ERRORS_LEFT * (1 - base):
        return None
    sentence = (
        f"Whether '{name}' is missing gives the label away: where it has a value, {percent(right)} of rows "
        "are of one class. Is it filled in after the outcome?"
    )
    return Finding(name, "leak_missing", "error", right, sentence)


def guess(counts: NDArray[np.int64]) -> tuple[float, float, float]:
    """How well each row's class is guessed from the *other* rows of its value, counts [K, C].

    Returns the share of rows guessed right (a tie counts half), the errors as a share of those of a
    constant guess, and the share of rows whose value has at least ``LEAK_SUPPORT`` of them.
    """
    rows = counts.sum(1)
    kept = counts[rows >= LEAK_SUPPORT]
    if not kept.size or counts.shape[1] < 2:
        return 0.0, 1.0, 0.0
    ordered = np.sort(kept, axis=1)
    first, second = ordered[:, -1], ordered[:, -2]
    right = float(first[first - 1 > second].sum()) + 0.5 * float(first[first - 1 == second].sum())
    total = float(kept.sum())
    constant = total - float(kept.sum(0).max())
    left = (total - right) / constant if constant > 0 else 1.0
    return right / total, left, total / float(rows.sum())


def _missing_share(tally: Tally, entropy: float) -> float:
    """Share of the label's entropy (nats) that being missing tells; 0 where nothing is missing."""
    if tally.missing == 0 or not tally.values.null_count():
        return 0.0
    gone = tally.counts[0] / tally.share
    present = np.maximum(tally.classes - gone, 0)
    left = (gone.sum() * _entropy(gone) + present.sum() * _entropy(present)) / tally.rows
    return 1.0 - float(left) / entropy


def _entropy(counts: NDArray[np.int64] | NDArray[np.float64]) -> float:
    """Entropy in nats of the shares of these counts; 0 where there are none."""
    seen = counts[counts > 0].astype(np.float64)
    if not seen.size:
        return 0.0
    share = seen / seen.sum()
    return float(-(share * np.log(share)).sum())


# --- words ---------------------------------------------------------------------------------------


def percent(share: float) -> str:
    """A share for a sentence: '12 %', '0.4 %', and '100 %' or '0 %' only where it is exactly that."""
    if share in (0.0, 1.0):
        return f"{100 * share:.0f} %"
    distance = 100 * min(abs(share), abs(1 - share))
    if distance >= 10:
        return f"{100 * share:.0f} %"
    digits = 1 if distance >= 0.1 else min(6, -math.floor(math.log10(distance) + 1e-9))
    return f"{100 * share:.{digits}f}".rstrip("0").rstrip(".") + " %"


def _values(tally: Tally) -> pl.Series:
    return tally.values[1:] if tally.values.null_count() else tally.values


def _distinct(tally: Tally) -> str:
    return f"{'about ' if tally.share < 1 else ''}{tally.distinct:,}"


def _shown(value: object) -> str:
    text = str(value)
    return repr(text if len(text) <= 40 else text[:39] + "…") if isinstance(value, str) else text
