"""Rows as integer codes: what everything that looks at more than one column works on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Codes:
    """All rows of a log, or a deterministic sample of them, as dense codes."""

    names: tuple[str, ...]
    """The F columns."""
    codes: NDArray[np.int32]
    """``[F, S]``, C-contiguous; ``0 <= codes[f] < sizes[f]``; a missing value is a code like any other."""
    sizes: NDArray[np.int64]
    """``[F]`` number of codes."""
    missing: NDArray[np.int64]
    """``[F]`` code that means missing, -1 where no value is missing."""
    label: NDArray[np.int32]
    """``[S]`` class numbers."""
    classes: int
    """Number of classes C."""
    rows: int
    """Rows of the log that these S rows stand for."""
    day: NDArray[np.int32] | None = None
    """``[S]`` day numbers, where the schema has a timestamp."""
    days: tuple[str, ...] = ()
    """Name of each day number: ISO date or the raw value."""
