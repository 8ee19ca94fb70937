"""Scores of raw rows by a run's checkpoint: encoded as ``prepare`` does, scored as validation is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl
import pyarrow.parquet as pq
from numpy.typing import NDArray

from recsys.data.dataset import LABEL, Dataset
from recsys.data.source import Data
from recsys.errors import DataError
from recsys.features.encoder import Encoder
from recsys.training.loaded import score_dataset
from recsys.training.run_folder import Run


def score_raw(
    folder: str | Path, data: Data, cleared: Mapping[str, NDArray[np.int64]] | None = None
) -> NDArray[np.float32]:
    """Probabilities ``[N]`` of N raw rows, which need no label, by a run's best checkpoint.

    ``cleared`` are rows by table that count as zeros. Encoded rows pass through a temporary file, so that
    a log may be larger than memory.

    Raises:
        CheckpointError: the run is not finished, or damaged.
        SchemaError: a feature's column is missing, or a value is not of its type.
        DataError: the rows cannot be read, or the temporary file cannot be written.
    """
    with encoded_aside(Run.load(folder).dataset(), data) as encoded:
        return score_dataset(folder, "test", encoded, cleared)


@contextmanager
def encoded_aside(dataset: Dataset, data: Data, rows: int | None = None) -> Iterator[Dataset]:
    """Raw rows, or the first ``rows`` of them, as the test part of a dataset in a temporary folder.

    Encoded as ``dataset`` was; raises what ``score_raw`` raises.
    """
    with TemporaryDirectory(prefix="recsys-") as temporary:
        encoded = Dataset(Path(temporary), dataset.manifest)
        try:
            _write_encoded(Encoder.load(dataset), data, encoded.part("test"), rows)
        except OSError as error:
            raise DataError(f"{temporary}: cannot be written: {error.strerror or error}") from error
        yield encoded


def _write_encoded(encoder: Encoder, data: Data, path: Path, rows: int | None) -> None:
    writer: pq.ParquetWriter | None = None
    written = 0
    try:
        for frame in encoder.batches(data):
            kept = frame if rows is None else frame.head(rows - written)
            table = kept.with_columns(pl.lit(0.0, dtype=pl.Float32).alias(LABEL)).to_arrow()
            if writer is None:
                writer = pq.ParquetWriter(path, table.schema, compression="zstd", use_dictionary=False)
            writer.write_table(table)
            written += kept.height
            if written == rows:
                break
    finally:
        if writer is not None:
            writer.close()
