"""The files of an evaluation: ``metrics.json`` and ``slices.parquet``."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl

from recsys.errors import DataError

METRICS_FILE, SLICES_FILE = "metrics.json", "slices.parquet"


def save_metrics(folder: Path, values: Mapping[str, Any], slices: pl.DataFrame) -> None:
    """Write both files into a folder."""
    text = json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False)
    (folder / METRICS_FILE).write_text(text + "\n", encoding="utf-8")
    slices.write_parquet(folder / SLICES_FILE)


@contextmanager
def reading_metrics(folder: Path, *, command: str, what: str) -> Iterator[dict[str, Any]]:
    """The values of ``metrics.json``; DataError names the file where it or the block fails.

    Args:
        folder: the evaluation's; command: what writes it; what: what the file should be.
    """
    path = Path(folder) / METRICS_FILE
    try:
        yield json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DataError(f"{path}: no such file; write it with '{command}'") from error
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: not {what}: {error}") from error
