"""Metrics of click prediction: exact, by group and by slice; numpy and numba, no torch."""

from recsys.evaluation.compare import Comparison, Difference
from recsys.evaluation.evaluate import Evaluation, evaluate
from recsys.evaluation.metrics import (
    Gauc,
    auc,
    calibration,
    calibration_curve,
    ctr,
    gauc,
    logloss,
    ne,
)

__all__ = [
    "Comparison",
    "Difference",
    "Evaluation",
    "Gauc",
    "auc",
    "calibration",
    "calibration_curve",
    "ctr",
    "evaluate",
    "gauc",
    "logloss",
    "ne",
]
