"""Codes made of arrays, for tests of what looks at several columns."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from recsys.ranking.codes import Codes
from recsys.ranking.information import Information, information

Ints = NDArray[np.int64]


def coded(columns: Mapping[str, Ints], label: Ints) -> Codes:
    """Codes of integer columns; nothing is missing."""
    codes = np.ascontiguousarray(np.stack(list(columns.values())).astype(np.int32))
    return Codes(
        names=tuple(columns),
        codes=codes,
        sizes=codes.max(axis=1).astype(np.int64) + 1,
        label=label.astype(np.int32),
        classes=int(label.max()) + 1,
        rows=len(label),
    )


def table(x: Ints, y: Ints) -> Ints:
    """Rows per value and class of two columns of codes."""
    classes = int(y.max()) + 1
    counts = np.bincount(x.astype(np.int64) * classes + y, minlength=(int(x.max()) + 1) * classes)
    return counts.reshape(-1, classes)


def singles(codes: Codes) -> dict[str, Information]:
    """What each column tells alone."""
    return {
        name: information(table(column, codes.label))
        for name, column in zip(codes.names, codes.codes, strict=True)
    }


def clicks(logit: NDArray[np.float64], generator: np.random.Generator) -> Ints:
    """Labels drawn from logits."""
    return (generator.random(len(logit)) < 1 / (1 + np.exp(-logit))).astype(np.int64)
