"""What every method of giving values their rows answers; see ``recsys.embeddings.methods``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from recsys.data.dataset import FIRST_ID, MISSING_ID, UNSEEN_ID
from recsys.embeddings.combine import Combine
from recsys.embeddings.keys import MISSING_KEY, UNSEEN_KEY, hash_rows

if TYPE_CHECKING:
    from recsys.embeddings.plan import VocabularyPlan


class Method:
    """From a vocabulary's ids to rows of its table.

    A value has rows that are listed, id by id (``listed_rows``), or that its key is hashed to
    (``hashed_into``). Ids are those of a dataset: missing, unseen, then values by falling train count.
    Nothing may depend on other vocabularies or on their order.
    """

    shared: ClassVar[bool] = False
    """Whether several vocabularies read one table."""
    special: ClassVar[bool] = True
    """Whether rows 0 and 1 are the missing and the unseen value's alone (where ``unseen`` is hashed, nobody
    reads row 1)."""
    most_lookups: ClassVar[int | None] = None
    """Rows of a value at most; None: no bound."""
    combine: ClassVar[Combine] = "concat"
    """What its rows become unless the plan says otherwise."""

    def fault(self, planned: VocabularyPlan) -> str | None:
        """What of a vocabulary's plan does not fit the method, for people; None where all does."""
        most = self.most_lookups
        if most is not None and planned.lookups > most:
            return f"mode {planned.mode} has {_counted(most)} per value, found {planned.lookups} lookups"
        if planned.hot and planned.mode != "adaptive":
            return f"hot belongs to mode adaptive, found mode {planned.mode}"
        if planned.parts > 1 and planned.mode != "unified":
            return f"sub-tables belong to mode unified, found mode {planned.mode}"
        return None

    def smallest(self, size: int) -> int:
        """Fewest rows of a table for so many ids."""
        return FIRST_ID + 1

    def listed(self, planned: VocabularyPlan) -> int:
        """How many of the most frequent values have rows that are no function of their keys."""
        return 0

    def listed_rows(self, ids: NDArray[np.int64], planned: VocabularyPlan, rows: int) -> NDArray[np.int64]:
        """Rows ``[n, K]`` of ids ``[n]``, the missing and the unseen one among them where they have some.

        Default: the row is the id.
        """
        return np.repeat(ids[:, None], planned.lookups, axis=1)

    def hashed_into(self, planned: VocabularyPlan, rows: int) -> tuple[range, ...]:
        """Rows of the table that all values which are not listed are hashed to, by lookup; empty: there are
        none."""
        return (range(FIRST_ID + self.listed(planned), rows),) * planned.lookups

    def rows(
        self, keys: NDArray[np.uint64], planned: VocabularyPlan, rows: int, vocabulary: str
    ) -> NDArray[np.int64]:
        """Rows ``[size, K]`` of all ids in a table of ``rows``; ``keys`` are those of the values."""
        everything = np.concatenate([special_keys(), keys])
        into = self.hashed_into(planned, rows)
        if not into:
            return self.listed_rows(np.arange(len(everything)), planned, rows)
        found = hashed(everything, into, vocabulary)
        if self.special:
            unseen = [] if planned.unseen == "hash" else [UNSEEN_ID]
            values = range(FIRST_ID, FIRST_ID + self.listed(planned))
            listed = np.array([MISSING_ID, *unseen, *values], np.int64)
            found[listed] = self.listed_rows(listed, planned, rows)
        return found

    def shipped(self, planned: VocabularyPlan) -> int:
        """How many of the most frequent values a bundle lists with keys and rows."""
        return self.listed(planned) if planned.unseen == "hash" else planned.size - FIRST_ID

    def collisions(self, planned: VocabularyPlan, rows: int) -> tuple[float, float]:
        """Expected pairs of values in one row by one lookup, and by every lookup."""
        into = self.hashed_into(planned, rows)
        if not into:
            return 0.0, 0.0
        values = planned.size - self.listed(planned) - (FIRST_ID if self.special else 0)
        pairs = values * (values - 1) / 2
        return pairs / len(into[0]), pairs / float(len(into[0])) ** planned.lookups


def special_keys() -> NDArray[np.uint64]:
    """Keys ``[2]`` that stand for the missing and the unseen value, in the order of their ids."""
    keys = np.empty(FIRST_ID, dtype=np.uint64)
    keys[MISSING_ID], keys[UNSEEN_ID] = MISSING_KEY, UNSEEN_KEY
    return keys


def hashed(keys: NDArray[np.uint64], into: Sequence[range], vocabulary: str) -> NDArray[np.int64]:
    """Rows ``[n, K]`` of keys ``[n]``, those of each of the K lookups within its range."""
    each = [rows.start + hash_rows(keys, len(rows), vocabulary, lookup) for lookup, rows in enumerate(into)]
    return np.stack(each, axis=1)


def _counted(rows: int) -> str:
    return "one row" if rows == 1 else f"{rows} rows"
