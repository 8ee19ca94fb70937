"""Click logs with columns of 2 to 50,000 values, twelve of which move the label, for ``ranking.py``.

Value v of a column has weight v**-1.1 (v**-0.3 where there are at most five). The logit is -2, plus a
normal effect per value (sd 0.6) of each of the first twelve columns, plus, where asked for, 1.2 or -1.2 by
whether two binary columns agree. Any number of rows: piece after piece, each column from a generator of its
own, so that a short log is the beginning of a long one and memory stays that of a piece.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
from numpy.typing import NDArray

SIZES = (2, 3, 5, 10, 20, 50, 100, 300, 1_000, 3_000, 10_000, 50_000)
PIECE = 1 << 18
_EFFECTS, _ROWS = 0, 1


@dataclass(frozen=True)
class MadeLog:
    """A log of the law above; the same seed always gives the same rows."""

    rows: int
    columns: int
    seed: int
    xor: tuple[int, int] | None = None
    """Binary columns whose agreement moves the label though neither does alone."""

    @property
    def sizes(self) -> list[int]:
        return [SIZES[column % len(SIZES)] for column in range(self.columns)]

    @property
    def names(self) -> list[str]:
        """They end in ``id``, so that integers are not taken for measurements."""
        return [f"c{column:02d}_k{size}_id" for column, size in enumerate(self.sizes)]

    @property
    def informative(self) -> list[str]:
        """The columns that move the label by themselves."""
        return self.names[: len(SIZES)]

    @cached_property
    def _effects(self) -> list[NDArray[np.float64]]:
        generator = np.random.default_rng((self.seed, _EFFECTS))
        return [0.6 * generator.normal(size=size) for size in SIZES]

    def pieces(self) -> Iterator[pl.DataFrame]:
        """The rows; values count from 1, the label ``label`` is 0 or 1 and stands last."""
        edges = {size: _edges(size) for size in SIZES}
        with ThreadPoolExecutor(2) as pool:
            for number, start in enumerate(range(0, self.rows, PIECE)):
                rows = min(PIECE, self.rows - start)

                def values(column: int, number: int = number, rows: int = rows) -> NDArray[np.int32]:
                    uniform = np.random.default_rng((self.seed, _ROWS, number, column)).random(rows)
                    found = np.searchsorted(edges[self.sizes[column]], uniform, side="right")
                    return found.astype(np.int32)

                codes = list(pool.map(values, range(self.columns)))
                label = self._label(codes, number)
                named = {name: each + 1 for name, each in zip(self.names, codes, strict=True)}
                yield pl.DataFrame(named | {"label": label})

    def _label(self, codes: list[NDArray[np.int32]], number: int) -> NDArray[np.int8]:
        logit = np.full(len(codes[0]), -2.0)
        for column, effects in zip(codes, self._effects, strict=False):
            logit += effects[column]
        if self.xor is not None:
            first, second = self.xor
            logit += np.where(codes[first] == codes[second], -1.2, 1.2)
        uniform = np.random.default_rng((self.seed, _ROWS, number, self.columns)).random(len(logit))
        return (uniform < 1 / (1 + np.exp(-logit))).astype(np.int8)

    def frame(self) -> pl.DataFrame:
        """All rows in memory."""
        return pl.concat(self.pieces())

    def write_parquet(self, path: Path) -> Path:
        """Stream the rows into one file with row groups of a piece."""
        writer: pq.ParquetWriter | None = None
        aside = path.with_suffix(".partial")
        for piece in self.pieces():
            table = piece.to_arrow()
            writer = writer or pq.ParquetWriter(aside, table.schema, compression="zstd")
            writer.write_table(table)
        if writer is not None:
            writer.close()
            aside.replace(path)
        return path

    def write_csv(self, folder: Path) -> Path:
        """``data.csv`` in a folder of its own, as OutRank wants it."""
        folder.mkdir(parents=True)
        self.frame().write_csv(folder / "data.csv")
        return folder


def wide_log(rows: int = 100_000) -> MadeLog:
    """The log of the timings: 50 columns, and two more that matter only together."""
    return MadeLog(rows, columns=50, seed=7, xor=(24, 36))


def quality_log(seed: int, rows: int = 100_000) -> MadeLog:
    """The log of the ranking quality: 48 columns, no interaction."""
    return MadeLog(rows, columns=48, seed=seed)


def _edges(size: int) -> NDArray[np.float64]:
    weights = np.arange(1, size + 1) ** (-0.3 if size <= 5 else -1.1)
    edges = np.cumsum(weights)
    edges /= edges[-1]
    return edges
