"""``explain``: what a trained model attends to, per row and on average."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from recsys.data.source import Data, open_source
from recsys.errors import ConfigError
from recsys.place import RUN_FILE, run_folder_of
from recsys.progress import progress
from recsys.stage import written_aside

if TYPE_CHECKING:
    from recsys.training.attention import Attended, EventWeights

ROWS = 10_000
SAMPLES, AVERAGE, REPORT, FACTS = "samples.parquet", "average.parquet", "report.html", "explain.json"


@dataclass(frozen=True)
class Explanation:
    """What a model attends to, averaged over rows; the rows themselves lie in ``folder``."""

    folder: Path
    """Holds ``samples.parquet``, ``average.parquet``, ``report.html`` and ``explain.json``."""
    model: str
    rows: int
    """Rows that were looked at."""
    fields: tuple[str, ...]
    """Fields that attend to each other, in the order of the maps; empty for DIN."""
    average: pl.DataFrame
    """AutoInt: ``layer``, ``head`` (both from 1), ``from``, ``to``, ``weight``; weights of one ``from``
    sum to 1, or are 0 for heads that a layer has lost and another has not. DIN:
    ``history``, ``position`` (1 is the newest event), ``events``, ``weight``, and ``deviation``, the
    weights' standard deviation."""

    def maps(self) -> NDArray[np.float64]:
        """AutoInt's mean maps, ``[layers, heads, M, M]``; raises ConfigError for another model."""
        if not self.fields:
            raise ConfigError(f"{self.model} weighs events, its fields do not attend to each other")
        shape = (*self.average.select(pl.col("layer", "head").max()).row(0), *(2 * [len(self.fields)]))
        return self.average["weight"].to_numpy().reshape(shape)

    def mean_map(self) -> NDArray[np.float64]:
        """Mean ``[M, M]`` of AutoInt's maps over all layers and heads that there are."""
        maps = self.maps()
        found: NDArray[np.float64] = maps.sum((0, 1)) / maps.any((2, 3)).sum()
        return found


def explain(
    run: str | Path, data: Data, output: str | Path | None = None, *, rows: int = ROWS
) -> Explanation:
    """Write down what a trained model attends to in the first rows of a log.

    Args:
        run: run folder of AutoInt, AutoInt+ or DIN; its best checkpoint is taken.
        data: raw rows, which need no label: Parquet path, folder or glob, or a polars, pandas or Arrow
            table.
        output: folder to write to, replaced when it is whole; default: ``explain`` in the run folder.
        rows: how many rows at most.

    Raises:
        ConfigError: no run folder, or a model without attention.
        CheckpointError: the run is not finished, or damaged.
        SchemaError: a feature's column is missing, or a value is not of its type.
        DataError: rows cannot be read, or ``output`` cannot be written.
    """
    from recsys.doctor import require_training

    folder = _run_folder(Path(run))
    if rows < 1:
        raise ConfigError(f"rows: expected at least 1, found {rows}")
    require_training()
    from recsys.report.attention_report import write_attention_report
    from recsys.training.attention import attended
    from recsys.training.run_folder import RunFile

    model = RunFile.load(folder).model
    source = open_source(data)
    target = folder / "explain" if output is None else Path(output)
    with written_aside(target, marker=FACTS) as aside, ExitStack() as closing:
        sums = _Sums(closing, aside / SAMPLES)
        with progress("explain", total=min(rows, source.rows())) as bar:
            for piece in attended(folder, source, rows):
                sums.add(piece)
                bar.advance(piece.rows)
        closing.close()
        found = Explanation(target, model, sums.rows, sums.fields, sums.average())
        found.average.write_parquet(aside / AVERAGE)
        facts = {"model": model, "rows": found.rows, "fields": list(found.fields), "log": source.name}
        (aside / FACTS).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
        write_attention_report(aside / REPORT, found, log=source.name)
    return found


def _run_folder(given: Path) -> Path:
    """The run folder that a path is or, being the outputs of a run file, holds."""
    folder = run_folder_of(given)
    if folder is not None:
        return folder
    raise ConfigError(
        f"{given}: not a run folder (no {RUN_FILE}); name the folder that 'recsys train' wrote. A bundle "
        "does not do: its graph gives scores alone"
    )


@dataclass
class _Sums:
    """Writes what rows attend to, and adds it up."""

    closing: ExitStack
    path: Path
    rows: int = 0
    fields: tuple[str, ...] = ()
    _writer: pq.ParquetWriter | None = None
    _maps: NDArray[np.float64] | None = None
    _histories: dict[str, _Positions] = field(default_factory=dict)

    def add(self, piece: Attended) -> None:
        self.rows += piece.rows
        self.fields = piece.fields
        for table in self._tables(piece):
            if self._writer is None:
                writer = pq.ParquetWriter(
                    self.path, table.schema, compression="zstd", use_dictionary=["history"]
                )
                self._writer = self.closing.enter_context(writer)
            self._writer.write_table(table)

    def _tables(self, piece: Attended) -> Iterator[pa.Table]:
        if piece.maps is not None:
            total = piece.maps.sum(0, dtype=np.float64)
            self._maps = total if self._maps is None else self._maps + total
            yield _map_rows(piece.first, piece.maps)
        for names, weights in piece.events.items():
            name = ", ".join(names)
            self._histories.setdefault(name, _Positions()).add(weights)
            yield _event_rows(piece.first, name, weights)

    def average(self) -> pl.DataFrame:
        if self._maps is not None:
            return _averaged(self._maps / self.rows, self.fields)
        return pl.concat(positions.frame(name) for name, positions in self._histories.items())


def _map_rows(first: int, maps: NDArray[np.float32]) -> pa.Table:
    """A line per row, layer and head, with its map row by row as a list of fixed size."""
    rows, layers, heads, fields, _ = maps.shape
    row, layer, head = np.indices((rows, layers, heads)).reshape(3, -1)
    flat = pa.array(maps.reshape(-1), pa.float32())
    return pa.table(
        {
            "row": pa.array(first + row, pa.int64()),
            "layer": pa.array(layer + 1, pa.int16()),
            "head": pa.array(head + 1, pa.int16()),
            "attention": pa.FixedSizeListArray.from_arrays(flat, fields * fields),
        }
    )


def _event_rows(first: int, history: str, weights: EventWeights) -> pa.Table:
    """A line per row and history, with the weights of its events, oldest first."""
    rows = len(weights.lengths)
    offsets = np.concatenate(([0], np.cumsum(weights.lengths)))
    lists = pa.LargeListArray.from_arrays(
        pa.array(offsets, pa.int64()), pa.array(weights.values, pa.float32())
    )
    numbers = pa.array(np.arange(first, first + rows), pa.int64())
    return pa.table({"row": numbers, "history": pa.array([history] * rows), "weights": lists})


def _averaged(maps: NDArray[np.float64], fields: tuple[str, ...]) -> pl.DataFrame:
    """Mean maps ``[layers, heads, M, M]`` as lines."""
    layer, head, looking, seen = np.indices(maps.shape).reshape(4, -1)
    names = pl.Series("field", fields, dtype=pl.String)
    return pl.DataFrame(
        {
            "layer": pl.Series("layer", layer + 1, dtype=pl.Int16),
            "head": pl.Series("head", head + 1, dtype=pl.Int16),
            "from": names.gather(looking),
            "to": names.gather(seen),
            "weight": maps.reshape(-1),
        }
    )


class _Positions:
    """Count, sum and sum of squares of the weights of one history, by position from the newest event."""

    def __init__(self) -> None:
        self._sums = np.zeros((3, 0))

    def add(self, weights: EventWeights) -> None:
        ends = np.cumsum(weights.lengths)
        age = np.repeat(ends, weights.lengths) - 1 - np.arange(len(weights.values))
        values = weights.values.astype(np.float64)
        longest = max(int(weights.lengths.max(initial=0)), self._sums.shape[1])
        sums = np.pad(self._sums, ((0, 0), (0, longest - self._sums.shape[1])))
        for line, each in enumerate((np.ones_like(values), values, values * values)):
            sums[line] += np.bincount(age, each, minlength=longest)
        self._sums = sums

    def frame(self, history: str) -> pl.DataFrame:
        count, total, squares = self._sums
        mean = total / count
        spread = np.sqrt(np.maximum(squares / count - mean * mean, 0.0))
        return pl.DataFrame(
            {
                "history": [history] * len(count),
                "position": np.arange(1, len(count) + 1),
                "events": count.astype(np.int64),
                "weight": mean,
                "deviation": spread,
            },
            schema={
                "history": pl.String,
                "position": pl.Int64,
                "events": pl.Int64,
                "weight": pl.Float64,
                "deviation": pl.Float64,
            },
        )
