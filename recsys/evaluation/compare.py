"""How two scorings of the same rows differ, and how much of it the rows could bring about by chance.

AUC by DeLong's covariance, GAUC by a paired bootstrap of groups, logloss by one of rows.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys.errors import ConfigError
from recsys.evaluation.delong import delong
from recsys.evaluation.grouped import count_by_group
from recsys.evaluation.metrics import ScoresAre, gauc_of, losses_of, outside_unit_interval
from recsys.evaluation.resample import auc_draws, interval, mean_draws, p_value
from recsys.evaluation.values import GroupKeys, ordered_bits
from recsys.progress import progress
from recsys.stage import file_aside

RESAMPLES = 2_000
_NORMAL_95 = NormalDist().inv_cdf(0.975)
_LOWER_IS_BETTER = {"logloss"}
_SHOWN = {"auc": "AUC", "gauc": "GAUC", "logloss": "logloss"}
_SEED = (
    "A change of seed alone moves AUC too (standard deviation 0.0002 to 0.0009 for deep models on Frappe), "
    "which this does not tell: train each with several seeds."
)


@dataclass(frozen=True)
class Difference:
    """One metric of two scorings; ``difference`` is second - first."""

    metric: str
    first: float
    second: float
    difference: float
    low: float
    """Lower end of the 95 % interval of the difference."""
    high: float
    p_value: float
    """Two-sided, of the difference being 0."""
    method: str

    @property
    def better(self) -> Literal["first", "second"] | None:
        """Which is better; None where the interval holds 0, or touches it."""
        if self.low <= 0.0 <= self.high:
            return None
        return "second" if (self.difference > 0) != (self.metric in _LOWER_IS_BETTER) else "first"


@dataclass(frozen=True)
class Comparison:
    """Two scorings of the same rows.

    >>> label = np.array([True, False] * 50)
    >>> score = np.linspace(0.1, 0.9, 100)
    >>> compare_scores(Both(label, score, score)).differences["auc"].difference
    0.0
    """

    names: tuple[str, str]
    """What the two are called."""
    rows: int
    positives: int
    differences: dict[str, Difference]
    """By name: auc, gauc, logloss, and auc_bootstrap where it was asked for."""
    reasons: dict[str, str]
    """Metric → why it is not compared."""
    notes: tuple[str, ...] = ()

    @property
    def sentence(self) -> str:
        """The outcome in plain words, A being the first and B the second."""
        found = self.differences.get("auc") or self.differences.get("logloss")
        if found is None:
            return f"AUC cannot be compared: {self.reasons['auc']}."
        metric, size = _SHOWN[found.metric], f"{abs(found.difference):.4f}"
        if found.difference == 0 and found.low == found.high:
            return f"A and B have the same {metric}: no row makes a difference between them."
        ahead = (found.difference > 0) != (found.metric in _LOWER_IS_BETTER)
        sign = 1.0 if found.difference > 0 else -1.0
        low, high = sorted((sign * found.low, sign * found.high))
        leader, within = "B" if ahead else "A", f"(95 % interval {low:.4f} to {high:.4f})"
        if found.better is None:
            text = (
                f"No difference of {metric} shown: {leader} leads by {size} {within}, and these "
                f"{self.rows:,} rows could hide a lead of up to {(high - low) / 2:.4f}."
            )
        else:
            text = f"{leader} is better by {size} {metric} {within}."
        return " ".join([text, *self._otherwise(found.better), _SEED])

    def _otherwise(self, better: Literal["first", "second"] | None) -> Iterator[str]:
        """A sentence for every other metric that says something else for certain."""
        for name in ("gauc", "logloss"):
            other = self.differences.get(name)
            if other is not None and other.better not in (None, better):
                leader = "B" if other.better == "second" else "A"
                yield f"By {_SHOWN[name]} {leader} is better by {abs(other.difference):.4f}."

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        found = {name: {**asdict(d), "better": d.better} for name, d in self.differences.items()}
        return {**asdict(self), "differences": found, "sentence": self.sentence}

    def save(self, path: str | Path) -> None:
        """Write ``to_dict`` as a JSON file."""
        with file_aside(Path(path)) as aside:
            text = json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False)
            aside.write_text(text + "\n", encoding="utf-8")


class Both(NamedTuple):
    """Checked labels and two scorings of the same rows, each ``[N]``."""

    label: NDArray[np.bool_]
    first: NDArray[Any]
    second: NDArray[Any]
    groups: GroupKeys | None = None


def compare_scores(
    rows: Both,
    *,
    names: tuple[str, str] = ("first", "second"),
    scores_are: ScoresAre = "probabilities",
    resamples: int = RESAMPLES,
    seed: int = 0,
    bootstrap_auc: bool = False,
    notes: tuple[str, ...] = (),
) -> Comparison:
    """Compare two scorings; ``recsys.compare`` reads them. Raises ConfigError for too few resamples."""
    if resamples < 100:
        raise ConfigError(f"resamples: {resamples}; expected at least 100, a 95 % interval needs them")
    positives = int(np.count_nonzero(rows.label))
    found: dict[str, Difference] = {}
    reasons: dict[str, str] = {}
    if positives in (0, len(rows.label)):
        reasons["auc"] = f"every label is {int(positives > 0)}"
    elif min(positives, len(rows.label) - positives) == 1:
        reasons["auc"] = "one of the labels stands in a single row, which tells nothing about chance"
    else:
        found["auc"] = auc_difference(rows)
        if bootstrap_auc:
            drawn = auc_difference_bootstrap(rows, found["auc"], resamples, seed)
            if drawn is None:
                reasons["auc_bootstrap"] = "all rows are of one group, so there is nothing to draw from"
            else:
                found["auc_bootstrap"] = drawn
    gauc = None if rows.groups is None else gauc_difference(rows, rows.groups, resamples, seed)
    if gauc is not None:
        found["gauc"] = gauc
    else:
        reasons["gauc"] = (
            "no groups were given" if rows.groups is None else "fewer than two groups have both labels"
        )
    outside = [outside_unit_interval(score) for score in (rows.first, rows.second)]
    if scores_are == "probabilities" and any(outside):
        reasons["logloss"] = f"{max(outside)} scores lie outside [0, 1]; if they are log-odds, say so"
    else:
        found["logloss"] = logloss_difference(rows, scores_are, resamples, seed)
    return Comparison(names, len(rows.label), positives, found, reasons, notes)


def auc_difference(rows: Both) -> Difference:
    """AUC of two scorings with DeLong's interval; both classes need two rows at least."""
    pair = delong(rows.label, rows.first, rows.second)
    error = pair.standard_error or 0.0
    reach = _NORMAL_95 * error
    if error > 0:
        chance = math.erfc(abs(pair.difference) / error / math.sqrt(2.0))
    else:
        chance = 1.0 if pair.difference == 0 else 0.0
    low, high = pair.difference - reach, pair.difference + reach
    return Difference("auc", pair.first, pair.second, pair.difference, low, high, chance, "DeLong")


def auc_difference_bootstrap(rows: Both, exact: Difference, resamples: int, seed: int) -> Difference | None:
    """The same lead with an interval from resampled groups, or rows where there are no groups.

    None where all rows are of one group.
    """
    unit, units = np.arange(len(rows.label)), "rows"
    if rows.groups is not None:
        unit, units = _numbered(rows.groups), "groups"
    if unit.max() == 0:
        return None
    with progress("bootstrap", total=resamples, unit="draws") as bar:
        draws = auc_draws(rows.label, rows.first, rows.second, unit, resamples, seed, bar.advance)
    method = f"bootstrap of {int(unit.max()) + 1:,} {units}"
    return _drawn("auc", exact.first, exact.second, exact.difference, draws, method)


def gauc_difference(rows: Both, groups: GroupKeys, resamples: int, seed: int) -> Difference | None:
    """GAUC of two scorings with an interval from resampled groups; None where fewer than two count."""
    first, second = (
        count_by_group(rows.label, ordered_bits(score), groups, None) for score in (rows.first, rows.second)
    )
    used = ~np.isnan(
        first.auc
    )  # both list the same groups in the same order: labels decide which and where
    if used.sum() < 2:
        return None
    values = [gauc_of(counts).value or 0.0 for counts in (first, second)]
    impressions = (first.positives + first.negatives)[used]
    lead = impressions * (second.auc - first.auc)[used]
    draws = mean_draws(lead, impressions, resamples, seed)
    difference = float(lead.sum() / impressions.sum())
    return _drawn("gauc", values[0], values[1], difference, draws, f"bootstrap of {len(lead):,} groups")


def logloss_difference(rows: Both, scores_are: ScoresAre, resamples: int, seed: int) -> Difference:
    """Logloss of two scorings with an interval from resampled rows."""
    first, second = (losses_of(rows.label, score, scores_are) for score in (rows.first, rows.second))
    lead = second - first
    draws = mean_draws(lead, None, resamples, seed)
    values = float(first.mean()), float(second.mean())
    return _drawn("logloss", *values, float(lead.mean()), draws, f"bootstrap of {len(lead):,} rows")


def _drawn(
    metric: str, first: float, second: float, difference: float, draws: NDArray[np.float64], method: str
) -> Difference:
    low, high = interval(draws)
    return Difference(metric, first, second, difference, low, high, p_value(draws), method)


def _numbered(groups: GroupKeys) -> NDArray[np.int64]:
    """Number of each row's group, from 0, ``[N]``."""
    keys = np.empty(len(groups.key), np.dtype([("key", np.uint64), ("tag", np.uint32)]))
    keys["key"], keys["tag"] = groups.key, 0 if groups.tag is None else groups.tag
    unit: NDArray[np.int64] = np.unique(keys, return_inverse=True)[1].astype(np.int64)
    return unit
