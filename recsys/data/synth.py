"""The synthetic click log: clicks drawn from a known logit, so that a model's worth is known.

    OUT/
      log.parquet      what a model may see: clicked, day, user_id, item_id, history, columns, …
      truth.parquet    row for row the known logit, and what each part adds to it; never an input
      synth.json       settings, seed, counts

Rows stand in the order of time. The same settings and seed give the same bytes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, ValidationError

from recsys.data.synth_draws import Draws
from recsys.data.synth_effects import Effects, click_chance
from recsys.data.synth_random import stream, uniform
from recsys.data.synth_settings import CLICK, SynthSettings, load_synth_settings
from recsys.data.synth_visible import Visible
from recsys.errors import ConfigError, DataError
from recsys.progress import progress
from recsys.stage import written_aside

LOG, TRUTH, RECORD = "log.parquet", "truth.parquet", "synth.json"
LOGIT = "logit"
_VERSION = 1
_CHUNK_ROWS = 1 << 17
_WORKERS = 2


class SynthRecord(BaseModel):
    """What ``synth.json`` holds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: int
    """Of the generator; another version draws other rows."""
    settings: SynthSettings
    rows: int
    clicks: int
    intercept: float
    components: tuple[str, ...]
    """Parts of the logit, columns of ``truth.parquet``."""


@dataclass(frozen=True)
class Block:
    """Consecutive rows of a log and of its truth."""

    log: pa.Table
    truth: pa.Table
    clicks: int


class Generator:
    """Makes any range of a log's rows."""

    def __init__(self, settings: SynthSettings) -> None:
        self.settings = settings
        self.draws = Draws(settings)
        self.effects = Effects(settings, self.draws)
        self._visible = Visible(self.draws)

    def block(self, start: int, stop: int) -> Block:
        """Rows ``start … stop-1`` of log and truth."""
        rows = self.draws.rows(start, stop)
        components = self.effects.components(rows)
        logit = self.effects.logit(components)
        clicked = uniform(stream(self.settings.seed, CLICK), rows.index) < click_chance(logit)
        truth = {LOGIT: logit, **components}
        return Block(
            self._visible.table(rows, clicked),
            pa.table({name: pa.array(part.astype(np.float32)) for name, part in truth.items()}),
            int(clicked.sum()),
        )


def _blocks(generator: Generator, chunk_rows: int) -> Iterator[Block]:
    """All blocks of the log in order, made a few ahead on threads (numpy lets go of the lock)."""
    total = generator.settings.rows
    waiting: deque[Future[Block]] = deque()
    with ThreadPoolExecutor(_WORKERS) as pool:
        for start in range(0, total, chunk_rows):
            waiting.append(pool.submit(generator.block, start, min(total, start + chunk_rows)))
            if len(waiting) > _WORKERS:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


class _Writer:
    """A Parquet file that grows by a row group per table; its schema is the first table's."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer: pq.ParquetWriter | None = None

    def write(self, table: pa.Table) -> None:
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._path, table.schema, compression="zstd")
        self._writer.write_table(table, row_group_size=table.num_rows)

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            self._writer.close()


def synth(
    settings: SynthSettings | Mapping[str, Any] | str | Path,
    output: str | Path,
    *,
    rows: int | None = None,
    seed: int | None = None,
    chunk_rows: int = _CHUNK_ROWS,
) -> Path:
    """Write a synthetic log and its truth into the folder ``output``, and return the folder.

    ``rows`` and ``seed`` replace those of the settings. Memory stays bounded whatever the rows; each
    chunk is a row group, and the rows are the same for every ``chunk_rows``. Raises ConfigError for
    wrong settings or a folder that holds something else, DataError when it cannot be written.
    """
    checked = load_synth_settings(settings, rows=rows, seed=seed)
    output = Path(output)
    if chunk_rows < 1:
        raise ConfigError(f"chunk_rows: expected at least 1, found {chunk_rows}")
    _refuse_foreign(output)
    generator = Generator(checked)
    clicks = 0
    parts: list[str] = []
    with (
        written_aside(output) as aside,
        progress("synth", total=checked.rows, unit="rows") as bar,
        _Writer(aside / LOG) as log,
        _Writer(aside / TRUTH) as truth,
    ):
        for block in _blocks(generator, chunk_rows):
            log.write(block.log)
            truth.write(block.truth)
            clicks += block.clicks
            parts = block.truth.column_names[1:]
            bar.advance(block.log.num_rows)
        record = SynthRecord(
            version=_VERSION,
            settings=checked,
            rows=checked.rows,
            clicks=clicks,
            intercept=generator.effects.intercept,
            components=tuple(parts),
        )
        (aside / RECORD).write_text(record.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return output


def load_synth_record(folder: str | Path) -> SynthRecord:
    """What ``synth.json`` of a synthetic log says; raises DataError that names the file."""
    path = Path(folder) / RECORD
    try:
        record = SynthRecord.model_validate_json(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DataError(
            f"{folder}: not a synthetic log (no {RECORD}); write one with 'recsys synth'"
        ) from error
    except ValidationError as error:
        raise DataError(f"{path}: not a valid record of a synthetic log: {error}") from error
    if record.version != _VERSION:
        raise DataError(
            f"{path}: written by version {record.version} of the generator, this is {_VERSION}; "
            "write the log anew with 'recsys synth'"
        )
    return record


def _refuse_foreign(output: Path) -> None:
    """Raise ConfigError rather than replace a folder that holds something else than a synthetic log."""
    if output.is_file() or (output.is_dir() and any(output.iterdir()) and not (output / RECORD).exists()):
        raise ConfigError(f"{output}: holds something else than a synthetic log; choose an empty folder")
