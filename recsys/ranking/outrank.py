"""The score of OutRank 0.97.5 (``MI-numba-randomized``), faults included, for comparison with it.

For each batch of N rows, with R the n rows of one class,

    score = sum over classes of n / N * (H(column[(i + n) mod N] for i in R) - H(column[i] for i in R))

in nats: the noise of a column is one read of it at a circular offset, another for each class. The score
of a log is the unweighted median over its batches. It depends on the order of rows and on the batch size,
and can be negative. Values are compared as the strings that OutRank reads from a CSV file, so a missing
value is the empty string. Where the sum of a column's codes (ranks of its strings in the batch) equals the
sum of the label's, OutRank takes the two for one column and returns plain mutual information; so does this.

Source: Škrlj and Mramor, "OutRank", RecSys 2023, and the behaviour of the released program.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.errors import ConfigError, DataError, SchemaError, did_you_mean

BATCH_SIZE = 16_384
SHORTEST_TAIL = 1_024
"""The rows after the last full batch count as a batch only if they are more than this."""

_DENSE_CELLS = 1 << 18

Rows: TypeAlias = pl.LazyFrame | pl.DataFrame


def outrank_scores(
    rows: Rows, columns: Sequence[str], label: str, *, batch_size: int = BATCH_SIZE, subsampling: int = 1
) -> dict[str, float]:
    """OutRank's score of each column with the label, to 1e-6 of the program's (it adds up in float32).

    ``subsampling=n`` keeps every n-th row, as OutRank does (its default is 10). Columns are read one at a
    time, so memory grows with the rows of one column. A list counts as one value.

    Returns:
        Nats by column, in the order asked for.

    Raises:
        ConfigError: batch_size or subsampling below 1.
        SchemaError: A column is not in the rows.
        DataError: So few rows that OutRank would skip them all.
    """
    log = _Log(rows, batch_size, subsampling, (*columns, label))
    conditions = [_Condition.of(codes) for codes in log.batches(log.text(label))]
    return {column: _median(log.batches(log.text(column)), conditions) for column in columns}


@dataclass(frozen=True)
class _Condition:
    """What the score needs to know of the conditioning column of one batch."""

    codes: NDArray[np.int64]  # [N]
    counts: NDArray[np.int64]  # [C] rows per class
    shifted: NDArray[np.int64]  # [N] row that is read in place of each row to imitate noise

    @classmethod
    def of(cls, codes: NDArray[np.int64]) -> _Condition:
        counts = np.bincount(codes)
        return cls(codes, counts, (np.arange(len(codes)) + counts[codes]) % len(codes))

    def score(self, codes: NDArray[np.int64]) -> float:
        """Score of a column of the batch, given its codes ``[N]``; nats.

        Entropies of a class weighted by n / N differ by their sums of c ln c only, since the shifted
        reads have as many rows. A class of one row, which OutRank leaves out, adds nothing to either.
        """
        rows, distinct = len(codes), int(codes.max()) + 1
        joint = _c_log_c(self._joint(codes, distinct))
        if int(codes.sum()) == int(self.codes.sum()):
            margins = _c_log_c(np.bincount(codes)) + _c_log_c(self.counts)
            return float(np.log(rows) + (joint - margins) / rows)
        return (joint - _c_log_c(self._joint(codes[self.shifted], distinct))) / rows

    def _joint(self, codes: NDArray[np.int64], distinct: int) -> NDArray[np.int64]:
        """Rows per value and class, those without rows perhaps left out, in no particular order."""
        cells = codes + self.codes * distinct
        if distinct * len(self.counts) <= _DENSE_CELLS:
            return np.bincount(cells)
        cells.sort()
        starts = np.flatnonzero(np.diff(cells, prepend=-1))
        return np.diff(starts, append=len(cells))


class _Log:
    """The rows that OutRank would score, in its batches, one column at a time."""

    def __init__(self, rows: Rows, batch_size: int, subsampling: int, columns: Sequence[str]):
        for name, value in {"batch_size": batch_size, "subsampling": subsampling}.items():
            if value < 1:
                raise ConfigError(f"{name} must be 1 or more, found {value}")
        self._rows, self._batch_size, self._subsampling = rows.lazy(), batch_size, subsampling
        self._schema = self._rows.collect_schema()
        for column in columns:
            if column not in self._schema:
                raise SchemaError(
                    f"column {column!r} is not in the rows; {did_you_mean(column, self._schema)}"
                )

    def text(self, column: str) -> pl.Expr:
        """A column as OutRank reads it from a CSV file; the elements of a list stand side by side."""
        values = pl.col(column)
        if isinstance(self._schema[column], pl.List | pl.Array):
            listed = values.cast(pl.List(pl.String)).list
            return listed.join(",").fill_null("")
        return values.cast(pl.String).fill_null("")

    def batches(self, text: pl.Expr) -> Iterator[NDArray[np.int64]]:
        """Codes ``[N]`` of a column of strings, batch after batch: ranks among the batch's values."""
        codes = self._codes(text)
        full, tail = divmod(len(codes), self._batch_size)
        count = full + (tail > SHORTEST_TAIL)
        if not count:
            raise DataError(
                f"{len(codes)} rows to score (one in {self._subsampling} of the log); OutRank needs a full "
                f"batch of {self._batch_size}, or more than {SHORTEST_TAIL}; give more rows or a smaller "
                "batch_size"
            )
        for start in range(0, count * self._batch_size, self._batch_size):
            yield _compact(codes[start : start + self._batch_size])

    def _codes(self, text: pl.Expr) -> NDArray[np.int64]:
        """Rank of every row's string among those of the log."""
        kept = text.gather_every(self._subsampling, self._subsampling - 1).alias("text")
        strings = self._rows.select(kept).collect()["text"]
        distinct = strings.unique().sort()
        return strings.cast(pl.Enum(distinct)).to_physical().to_numpy().astype(np.int64)


def _compact(codes: NDArray[np.int64]) -> NDArray[np.int64]:
    """The same order of values, numbered without gaps."""
    if int(codes.max()) < 4 * len(codes):
        present = np.bincount(codes) > 0
        numbers: NDArray[np.int64] = np.cumsum(present) - 1
        return numbers[codes]
    return np.unique(codes, return_inverse=True)[1].astype(np.int64)


def _c_log_c(counts: NDArray[np.int64]) -> float:
    found = counts[counts > 1].astype(np.float64)
    return float(found @ np.log(found))


def _median(batches: Iterator[NDArray[np.int64]], conditions: Sequence[_Condition]) -> float:
    scores = [condition.score(codes) for codes, condition in zip(batches, conditions, strict=True)]
    return float(np.median(scores))
