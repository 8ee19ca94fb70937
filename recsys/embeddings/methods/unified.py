"""``unified``: values of all vocabularies share the rows of one table.

Coleman et al., *Unified Embedding*, NeurIPS 2023.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from recsys.embeddings.methods.method import Method

if TYPE_CHECKING:
    from recsys.embeddings.plan import VocabularyPlan


class Unified(Method):
    """Lookup k of every value is row ``hash_rows(key, rows, vocabulary, k)``; the missing and the unseen
    value have reserved keys. Where the table has sub-tables, it is that row of the lookup's."""

    shared = True
    special = False

    def smallest(self, size: int) -> int:
        return 1

    def hashed_into(self, planned: VocabularyPlan, rows: int) -> tuple[range, ...]:
        size = rows // planned.parts
        dealt = planned.dealt or (0,) * planned.lookups
        return tuple(range(part * size, (part + 1) * size) for part in dealt)
