"""``pool``: a table of fewer rows than values, which training deals (``recsys.embeddings.pool``).

A plan made for training with dynamic rows has it; settings cannot ask for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from recsys.data.dataset import FIRST_ID
from recsys.embeddings.methods.method import Method

if TYPE_CHECKING:
    from recsys.embeddings.plan import VocabularyPlan


class Pooled(Method):
    """Rows are known once training has dealt them; values without one have zeros."""

    shared = True

    def listed(self, planned: VocabularyPlan) -> int:
        return planned.size - FIRST_ID

    def hashed_into(self, planned: VocabularyPlan, rows: int) -> tuple[range, ...]:
        return ()
