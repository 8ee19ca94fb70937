"""The compiled inner loop of counting, for logs so long that importing numba pays (a third of a second)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recsys.compiled import compiled

Ints = NDArray[np.int64]


@compiled
def add_counts(values: Ints, label: Ints, low: int, cells: Ints, start: int) -> int:
    """Count ``values [N]`` by class from row ``start`` on, in ``cells [span, C]`` from value ``low`` on.

    Returns the first row whose value has no cell, N where all have one.
    """
    span = cells.shape[0]
    for row in range(start, len(values)):
        place = values[row] - low
        if place < 0 or place >= span:
            return row
        cells[place, label[row]] += 1
    return len(values)
