"""``quotient``: a row for an id's quotient and one for its remainder, multiplied element by element.

Shi et al., *Compositional Embeddings Using Complementary Partitions*, KDD 2020.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from recsys.data.dataset import FIRST_ID
from recsys.embeddings.combine import Combine
from recsys.embeddings.methods.method import Method

if TYPE_CHECKING:
    from recsys.embeddings.plan import VocabularyPlan


class Quotient(Method):
    """Of m remainders, id n reads row ``n mod m`` and row ``m + n // m``: no two ids read the same two.

    m is the largest for which both parts fit the table: the larger it is, the fewer ids share a row.
    """

    special = False
    most_lookups = 2
    combine: ClassVar[Combine] = "multiply"

    def fault(self, planned: VocabularyPlan) -> str | None:
        if planned.lookups != 2:
            return f"mode quotient has 2 rows per value, found {planned.lookups} lookups"
        if planned.unseen == "hash":
            return "mode quotient numbers its values, so an unseen one cannot be hashed"
        return None

    def smallest(self, size: int) -> int:
        return next(
            rows for rows in range(math.isqrt(4 * size), size + 2) if _remainders(size, rows) is not None
        )

    def listed(self, planned: VocabularyPlan) -> int:
        return planned.size - FIRST_ID

    def listed_rows(self, ids: NDArray[np.int64], planned: VocabularyPlan, rows: int) -> NDArray[np.int64]:
        remainders = _remainders(planned.size, rows)
        if remainders is None:
            raise ValueError(f"{planned.size} ids need {self.smallest(planned.size)} rows, found {rows}")
        return np.stack([ids % remainders, remainders + ids // remainders], axis=1)

    def hashed_into(self, planned: VocabularyPlan, rows: int) -> tuple[range, ...]:
        return ()

    def collisions(self, planned: VocabularyPlan, rows: int) -> tuple[float, float]:
        remainders = _remainders(planned.size, rows) or 1
        return planned.size * (planned.size / remainders - 1) / 2, 0.0


def _remainders(size: int, rows: int) -> int | None:
    """Most remainders m with ``m + ceil(size / m) <= rows``; None where there are none."""
    most = min((rows + math.isqrt(max(rows * rows - 4 * size, 0))) // 2 + 1, size)
    return next((m for m in range(most, math.isqrt(size) - 1, -1) if m + -(-size // m) <= rows), None)
