"""Lookups dealt over the sub-tables of a shared table, so that each may lie on a device of its own.

Every sub-table gets as many lookups as any other, give or take one, and of these those that spread the
values most evenly; a value's lookups go to different sub-tables where there are enough.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from recsys.embeddings.keys import salt
from recsys.embeddings.plan import VocabularyPlan


def dealt(
    vocabularies: Mapping[str, VocabularyPlan],
    parts: int,
    before: Mapping[str, VocabularyPlan] | None = None,
) -> dict[str, VocabularyPlan]:
    """The vocabularies of a shared table with the sub-table of each of their lookups.

    A function of names, sizes and lookups, not of their order: the largest come first, and salts decide
    where nothing else does. ``before`` has vocabularies that keep what they were dealt.
    """
    if parts == 1:
        return dict(vocabularies)
    lookups, values = np.zeros(parts, np.int64), np.zeros(parts, np.int64)
    for planned in (before or {}).values():
        np.add.at(lookups, list(planned.dealt), 1)
        np.add.at(values, list(planned.dealt), planned.size)
    found = {}
    for name in sorted(vocabularies, key=lambda name: (-vocabularies[name].size, salt(name, 0))):
        planned = vocabularies[name]
        mine: list[int] = []
        for lookup in range(planned.lookups):
            turn = (np.arange(parts) - salt(name, lookup) % parts) % parts
            taken = np.bincount(mine, minlength=parts)
            part = int(np.lexsort((turn, values, lookups, taken))[0])
            mine.append(part)
            lookups[part] += 1
            values[part] += planned.size
        found[name] = planned.model_copy(update={"parts": parts, "dealt": tuple(mine)})
    return {name: found[name] for name in vocabularies}
