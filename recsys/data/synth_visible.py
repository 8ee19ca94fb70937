"""What a synthetic log shows of its rows: ranks as scrambled numbers or words, never their truth."""

from __future__ import annotations

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from recsys.data.synth_draws import Draws, Lists, Rows
from recsys.data.synth_random import Int
from recsys.data.synth_settings import CATEGORY, CLICK, DAY, HISTORY, HISTORY_CATEGORY, ITEM, USER

_TABLE_VALUES = 1 << 16


class Visible:
    """Makes the columns of a log's Parquet file."""

    def __init__(self, draws: Draws) -> None:
        self._draws = draws
        settings = draws.settings
        self._first = np.datetime64(settings.start)
        # A copy shows the words of its original.
        self._words = {name: copy.of for name, copy in settings.copies.items()}
        self._integers = {USER, ITEM}
        self._integers |= {name for name, column in settings.columns.items() if column.type == "int64"}
        self._integers |= {name for name, of in self._words.items() if of in self._integers}
        self._tables: dict[str, pa.Array] = {}

    def table(self, rows: Rows, clicked: NDArray[np.bool_]) -> pa.Table:
        """The visible columns of some rows."""
        columns = {
            CLICK: pa.array(clicked.astype(np.int8)),
            DAY: pa.array(self._first + rows.day.astype("timedelta64[D]")),
        }
        for name in (USER, ITEM, CATEGORY):
            columns[name] = self._shown(name, rows.ranks[name])
        history = rows.history
        columns[HISTORY] = _lists(self._shown(ITEM, history.ranks), history)
        categories = self._draws.category(history.ranks)
        columns[HISTORY_CATEGORY] = _lists(self._shown(CATEGORY, categories), history)
        columns |= {
            name: self._shown(name, ranks) for name, ranks in rows.ranks.items() if name not in columns
        }
        for name, numbers in rows.numbers.items():
            columns[name] = pa.array(numbers.visible, from_pandas=True)
        for name, lists in rows.tags.items():
            columns[name] = _lists(self._shown(name, lists.ranks), lists)
        return pa.table(columns)

    def _shown(self, name: str, ranks: Int) -> pa.Array:
        """Numbers or words, null where the rank is -1."""
        scramble = self._draws.scrambles[name]
        missing = ranks < 0
        numbers = pa.array(scramble.apply(ranks), mask=missing if missing.any() else None)
        if name in self._integers:
            return numbers
        word = self._words.get(name, name)
        if scramble.values > _TABLE_VALUES:
            return _spelled(word, pl.Series(numbers))
        if word not in self._tables:
            self._tables[word] = _spelled(word, pl.Series(np.arange(scramble.values)))
        return self._tables[word].take(numbers)


def _spelled(word: str, numbers: pl.Series) -> pa.Array:
    """Strings such as ``site_17``."""
    spelled = pl.select(pl.concat_str(pl.lit(f"{word}_"), numbers.cast(pl.String))).to_series()
    return spelled.to_arrow().cast(pa.string())


def _lists(values: pa.Array, lists: Lists) -> pa.Array:
    offsets = np.concatenate([[0], np.cumsum(lists.lengths)]).astype(np.int32)
    mask = None if lists.missing is None else pa.array(lists.missing)
    return pa.ListArray.from_arrays(pa.array(offsets), values, mask=mask)
