"""The metrics of click prediction: AUC, GAUC, logloss, normalised entropy, calibration.

All take ``label`` (0 or 1) and ``score`` as numpy arrays, polars, pandas or Arrow columns, or lists of
length N, check them, and count in float64. A metric that its rows do not define is None, never a
made-up number: AUC needs both classes, NE and calibration need a mean label that is not 0 (NE: nor 1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.errors import DataError
from recsys.evaluation.grouped import GroupCounts, count_by_group
from recsys.evaluation.kernels import pairs_in_order, plain, split_by_label
from recsys.evaluation.values import (
    GroupKeys,
    as_groups,
    as_labels,
    as_scores,
    as_weights,
    ordered_bits,
    require_rows,
)

ScoresAre = Literal["probabilities", "logits"]

LOGLOSS_CLIP = 1e-7
"""Probabilities are clipped to [1e-7, 1 - 1e-7] before their logarithm is taken."""


@dataclass(frozen=True)
class Gauc:
    """GAUC and what it rests on."""

    value: float | None
    """Mean of the groups' AUC, weighted by their impressions (rows, or sum of weights); None where no
    group has both classes."""
    unweighted: float | None
    """Plain mean of the same groups' AUC."""
    rows_used: float
    """Share of impressions that lie in groups with both classes."""
    groups: int
    groups_used: int
    """Groups with both classes."""


def auc(label: Any, score: Any, weight: Any = None) -> float | None:
    """Area under the ROC curve, exact: the share of (positive, negative) pairs in order, ties half.

    Any real scores will do, [N]; with weights [N] a pair counts the product of its two. None where one
    class is absent. Raises DataError for labels that are not 0 or 1, and for scores that are not finite.
    """
    labels, scores, weights = _checked(label, score, weight)
    return auc_of(labels, scores, weights)


def gauc(label: Any, score: Any, group: Any, weight: Any = None) -> Gauc:
    """Grouped AUC: exact AUC within each group, averaged by impressions over groups with both classes.

    ``group`` [N] holds integers, strings, times or anything with one value per row; rows without a
    group value form one group. Source: Zhou et al., Deep Interest Network (KDD 2018), eq. 5.
    """
    labels, scores, weights = _checked(label, score, weight)
    groups = as_groups(group)
    require_rows(label=labels, group=groups.key)
    return gauc_of(count_by_group(labels, ordered_bits(scores), groups, weights))


def logloss(
    label: Any, score: Any, weight: Any = None, *, scores_are: ScoresAre = "probabilities"
) -> float:
    """Mean binary cross-entropy in nats.

    Probabilities are clipped to ``LOGLOSS_CLIP``; of logits it is exact, without a clip. Raises
    DataError for a probability outside [0, 1].
    """
    labels, scores, weights = _checked(label, score, weight)
    _require_probabilities(scores, scores_are)
    return float(np.average(losses_of(labels, scores, scores_are), weights=weights))


def ne(
    label: Any, score: Any, weight: Any = None, *, scores_are: ScoresAre = "probabilities"
) -> float | None:
    """Normalised entropy: logloss over the entropy of the mean label; 1 is no better than a constant.

    None where one class is absent. Source: He et al., Practical Lessons from Predicting Clicks on Ads
    at Facebook (ADKDD 2014), eq. 1.
    """
    loss = logloss(label, score, weight, scores_are=scores_are)
    labels, _, weights = _checked(label, score, weight)
    entropy = entropy_of(float(np.average(labels, weights=weights)))
    return loss / entropy if entropy > 0 else None


def calibration(
    label: Any, score: Any, weight: Any = None, *, scores_are: ScoresAre = "probabilities"
) -> float | None:
    """Mean prediction / mean label; above 1 the model promises too much. None without a positive."""
    labels, scores, weights = _checked(label, score, weight)
    _require_probabilities(scores, scores_are)
    base = float(np.average(labels, weights=weights))
    predicted = float(np.average(probabilities_of(scores, scores_are), weights=weights))
    return predicted / base if base > 0 else None


def ctr(label: Any, weight: Any = None) -> float:
    """Mean label."""
    labels = as_labels(label)
    require_rows(label=labels)
    weights = None if weight is None else as_weights(weight)
    require_rows(label=labels, weight=weights)
    return float(np.average(labels, weights=weights))


def calibration_curve(
    label: Any,
    score: Any,
    weight: Any = None,
    *,
    bins: int = 20,
    scores_are: ScoresAre = "probabilities",
) -> pl.DataFrame:
    """Mean prediction against mean label in bins of about equally many rows, ascending.

    Columns: low, high (smallest and largest prediction of the bin), rows, prediction, ctr. Equal scores
    always share a bin, so that there may be fewer bins than asked for.
    """
    labels, scores, weights = _checked(label, score, weight)
    _require_probabilities(scores, scores_are)
    return curve_of(labels, probabilities_of(scores, scores_are), weights, bins)


def auc_of(
    label: NDArray[np.bool_], score: NDArray[Any], weight: NDArray[np.float64] | None
) -> float | None:
    """AUC of checked arrays."""
    if weight is not None:
        one_group = GroupKeys(np.zeros(len(label), np.uint64), None)
        value = float(count_by_group(label, ordered_bits(score), one_group, weight).auc[0])
        return None if np.isnan(value) else value
    positives = int(np.count_nonzero(label))
    possible = positives * (len(label) - positives)
    if possible == 0:
        return None
    positive = np.empty(positives + 1, score.dtype)
    negative = np.empty(len(label) - positives + 1, score.dtype)
    split_by_label(plain(score), plain(label), positive, negative)
    positive, negative = positive[:-1], negative[:-1]
    positive.sort()
    negative.sort()
    return int(pairs_in_order(positive, negative)) / (2 * possible)


def gauc_of(counts: GroupCounts) -> Gauc:
    """GAUC of counted groups."""
    impressions = counts.positives + counts.negatives
    used = ~np.isnan(counts.auc)
    groups_used = int(used.sum())
    share = float(impressions[used].sum() / impressions.sum())
    if groups_used == 0:
        return Gauc(None, None, 0.0, len(used), 0)
    value = float(np.average(counts.auc[used], weights=impressions[used]))
    return Gauc(value, float(counts.auc[used].mean()), share, len(used), groups_used)


def probabilities_of(score: NDArray[Any], scores_are: ScoresAre) -> NDArray[np.float64]:
    """Scores as probabilities, float64."""
    wide = score.astype(np.float64)
    if scores_are == "probabilities":
        return wide
    # exp of a negative number cannot overflow, so each sign takes the form that has one.
    small = np.exp(-np.abs(wide))
    probability: NDArray[np.float64] = np.where(wide >= 0, 1.0, small) / (1.0 + small)
    return probability


def losses_of(label: NDArray[np.bool_], score: NDArray[Any], scores_are: ScoresAre) -> NDArray[np.float64]:
    """Cross-entropy of every row, float64 ``[N]``."""
    wide = score.astype(np.float64)
    if scores_are == "logits":
        return np.logaddexp(0.0, np.where(label, -wide, wide))
    of_truth = np.where(label, wide, 1.0 - wide).clip(LOGLOSS_CLIP, 1.0 - LOGLOSS_CLIP)
    loss: NDArray[np.float64] = -np.log(of_truth)
    return loss


def entropy_of(base: float) -> float:
    """Entropy in nats of a coin that shows 1 with probability ``base``."""
    return float(-sum(share * np.log(share) for share in (base, 1.0 - base) if share > 0))


def curve_of(
    label: NDArray[np.bool_],
    prediction: NDArray[np.float64],
    weight: NDArray[np.float64] | None,
    bins: int,
) -> pl.DataFrame:
    """Calibration curve of checked arrays; see ``calibration_curve``."""
    ascending = np.sort(prediction)
    rows = len(ascending)
    # An edge opens a bin: equal scores stand on one side of it, whatever their number.
    inner = np.unique(ascending[np.arange(1, bins) * rows // bins])
    inner = inner[inner > ascending[0]]
    code = np.searchsorted(inner, prediction, side="right")
    first = np.concatenate(([0], np.searchsorted(ascending, inner, side="left")))
    amount = sums(code, weight, len(first))
    return pl.DataFrame(
        {
            "low": ascending[first],
            "high": ascending[np.append(first[1:], rows) - 1],
            "rows": np.diff(np.append(first, rows)),
            "prediction": ratio(sums(code, times(prediction, weight), len(first)), amount),
            "ctr": ratio(sums(code, times(label, weight), len(first)), amount),
        }
    ).filter(pl.col("ctr").is_not_nan())


def times(values: NDArray[Any], weight: NDArray[np.float64] | None) -> NDArray[Any]:
    return values if weight is None else values * weight


def sums(code: NDArray[Any], values: NDArray[Any] | None, bins: int) -> NDArray[np.float64]:
    """Sum of values per code; number of rows per code without values."""
    return np.bincount(code, weights=values, minlength=bins).astype(np.float64)


def ratio(above: NDArray[Any], below: NDArray[np.float64]) -> NDArray[np.float64]:
    quotient: NDArray[np.float64] = np.full(len(below), np.nan)
    np.divide(above, below, out=quotient, where=below > 0)
    return quotient


def outside_unit_interval(score: NDArray[Any]) -> int:
    """Number of scores that cannot be probabilities."""
    return int(np.count_nonzero((score < 0) | (score > 1)))


def _require_probabilities(score: NDArray[Any], scores_are: ScoresAre) -> None:
    if scores_are == "logits":
        return
    outside = (score < 0) | (score > 1)
    if outside.any():
        row = int(outside.argmax())
        raise DataError(
            f"score: {int(outside.sum())} of {len(score)} values lie outside [0, 1], the first at row "
            f"{row} ({score[row]:g}); if the scores are logits, say scores_are='logits'"
        )


def _checked(
    label: Any, score: Any, weight: Any
) -> tuple[NDArray[np.bool_], NDArray[Any], NDArray[np.float64] | None]:
    """Labels, scores and weights as arrays of one length, or DataError."""
    labels, scores = as_labels(label), as_scores(score)
    require_rows(label=labels, score=scores)
    weights = None if weight is None else as_weights(weight)
    require_rows(label=labels, weight=weights)
    return labels, scores, weights
