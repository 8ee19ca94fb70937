"""Hard gates as the bundle's writers and readers need them, without torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class OpenValues:
    """Hard gates: which values of each vocabulary are open."""

    open: dict[str, NDArray[np.bool_]]
    """Per vocabulary ``[size]``, by id."""
    scale: float
    """What the vector of an open value is multiplied by; that of a closed one by 0."""

    def of(self, vocabulary: str, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """Gates float32 ``[n]`` of ids ``[n]``."""
        return self.open[vocabulary][ids] * np.float32(self.scale)

    def counts(self) -> dict[str, tuple[int, int]]:
        """Open values and all values of each vocabulary, the missing and the unseen one included."""
        return {name: (int(each.sum()), len(each)) for name, each in self.open.items()}
