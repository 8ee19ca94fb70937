"""What two columns tell of the same: about the label, and of each other, beyond luck."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


def surely(number: Floats, variance: Floats, deviations: float) -> Floats:
    """The numbers moved towards 0 by so many deviations, and not across it."""
    room = deviations * np.sqrt(np.maximum(variance, 0.0))
    return np.asarray(np.sign(number) * np.maximum(np.abs(number) - room, 0.0))


def shared_information(synergy: Floats, mutual: Floats, widths: Ints, rows: int) -> Floats:
    """What both columns tell about the label: negative synergy, never more than they tell of each other.

    Where two columns make many small cells, joint information is underestimated, which alone would
    look like redundancy.

    Args:
        synergy, mutual: of the pairs, in nats ``[P]``; widths: distinct values of both ``[P, 2]``.
        rows: that the pairs were counted on.
    """
    return np.asarray(np.minimum(np.maximum(-synergy, 0.0), beyond(mutual, widths, rows)))


def beyond(mutual: Floats, widths: Ints, rows: int) -> Floats:
    """Mutual information beyond three deviations of chance (chi-square limit, generous for small cells)."""
    room = 3.0 * np.sqrt(np.prod(np.maximum(widths - 1.0, 0.0), axis=1) / 2) / max(rows, 1)
    return np.asarray(np.maximum(mutual - room, 0.0))
