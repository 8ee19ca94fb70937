"""``full``: every value has a row of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from recsys.data.dataset import FIRST_ID
from recsys.embeddings.methods.method import Method

if TYPE_CHECKING:
    from recsys.embeddings.plan import VocabularyPlan


class Full(Method):
    """The row is the id."""

    most_lookups = 1

    def smallest(self, size: int) -> int:
        return size

    def listed(self, planned: VocabularyPlan) -> int:
        return planned.size - FIRST_ID

    def hashed_into(self, planned: VocabularyPlan, rows: int) -> tuple[range, ...]:
        return ()
