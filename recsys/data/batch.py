"""One batch of encoded rows, as numpy arrays; torch-free."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass
class Batch:
    """A rank's contiguous slice of one global batch; the slice may hold no rows.

    ``ids`` are vocabulary ids, not table rows: the tables map them where the plan hashes.
    """

    index: int
    """Number of the global batch since the start of training, from 0."""
    global_rows: int
    """Rows of the global batch, summed over ranks; the loss is divided by it."""
    label: NDArray[np.float32]
    """``[B]``, 0 or 1."""
    ids: dict[str, NDArray[np.int64]]
    """Categorical feature: ``[B]``. Multi and sequence: the values of all rows, ``[sum(lengths)]``."""
    lengths: dict[str, NDArray[np.int64]]
    """Multi and sequence features: ``[B]``."""
    numerics: dict[str, NDArray[np.float32]]
    """Numeric feature: ``[B]``, NaN where missing."""
    weight: NDArray[np.float32] | None = None
    """``[B]``."""
    group: NDArray[np.int64] | None = None
    """``[B]``, the key of the group."""

    @property
    def rows(self) -> int:
        """Rows of this rank's slice."""
        return int(self.label.shape[0])
