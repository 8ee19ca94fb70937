"""``adaptive``: frequent values have rows of their own, the others share the rest.

AdaptEmb of the study by Zhang et al., *Experimental Analysis of Large-scale Learnable Vector Storage
Compression*, VLDB 2024.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from recsys.embeddings.methods.method import Method

if TYPE_CHECKING:
    from recsys.embeddings.plan import VocabularyPlan


class Adaptive(Method):
    """Ids below ``2 + hot`` are their own rows; any other value is row
    ``2 + hot + hash_rows(key, rows - 2 - hot, vocabulary)``."""

    most_lookups = 1

    def listed(self, planned: VocabularyPlan) -> int:
        return planned.hot
