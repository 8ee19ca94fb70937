"""``predict``: scores of raw rows, from a run's checkpoint or from a bundle."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from recsys.data.check import reading
from recsys.data.source import Data, Source, open_source
from recsys.errors import ConfigError, did_you_mean
from recsys.place import RUN_FILE
from recsys.progress import progress
from recsys.schema import Role, Schema
from recsys.serving.bundle import Bundle
from recsys.serving.manifest import MANIFEST_FILE
from recsys.stage import file_aside

if TYPE_CHECKING:
    import pandas as pd

ALL = "*"
_KEPT_ROLES: tuple[Role, ...] = ("row_id", "label", "weight", "group", "timestamp")


def predict(
    model: str | Path,
    data: Data,
    output: str | Path | None = None,
    *,
    score_name: str = "score",
    keep: Sequence[str] | None = None,
) -> pl.DataFrame | pd.DataFrame | pa.Table:
    """Score raw rows, which need no label.

    Args:
        model: run folder (scored with torch) or bundle folder (scored without).
        data: Parquet path, folder or glob, or a polars, pandas or Arrow table.
        output: Parquet file to write; replaced when it is whole.
        score_name: name of the column of probabilities, float32.
        keep: columns of the input to stand before it; ``["*"]`` keeps all. Default: those whose role
            is row_id, label, weight, group or timestamp, where the input has them.

    Returns:
        The kept columns and the scores in the order of the rows, as the kind of table that was given;
        polars for a path.

    Raises:
        ConfigError: ``model`` is neither, ``keep`` names a column that is not there, or ``output`` is
            part of the log.
        SchemaError: a feature's column is missing, or a value is not of its type.
        BundleError, CheckpointError: the model is damaged.
        DataError: rows cannot be read, or the disk is full.
    """
    source = open_source(data)
    if output is not None and Path(output).resolve() in {file.resolve() for file in source.files}:
        raise ConfigError(f"output: {output} is a file of the log to score; name another")
    opened = _open(Path(model))
    kept = _kept(keep, opened.schema, source)
    if score_name in kept:
        raise ConfigError(f"score_name: the kept columns hold {score_name!r} already; name another")
    with progress("predict", total=source.rows()) as bar:
        pieces = []
        for piece in opened.scores(source):
            pieces.append(piece)
            bar.advance(len(piece))
    scores = pl.Series(score_name, np.concatenate(pieces), dtype=pl.Float32)
    with reading(source):
        beside = source.lazy().select(kept).collect()
    scored = pl.DataFrame([*beside.get_columns(), scores])  # also where nothing is kept
    if output is not None:
        _write(scored, Path(output))
    return _like(data, scored)


class _Checkpoint:
    """A run folder, scored with torch."""

    def __init__(self, folder: Path) -> None:
        from recsys.training.run_folder import Run

        self.folder = folder
        self.schema = Run.load(folder).dataset().manifest.schema_

    def scores(self, source: Source) -> Iterator[NDArray[np.float32]]:
        from recsys.training.raw_scores import score_raw

        yield score_raw(self.folder, source)


class _Bundle:
    """A bundle folder, scored with onnxruntime."""

    def __init__(self, folder: Path) -> None:
        self.bundle = Bundle.load(folder)
        self.schema = self.bundle.manifest.schema_

    def scores(self, source: Source) -> Iterator[NDArray[np.float32]]:
        return self.bundle.scorer().scores(source)


def _open(model: Path) -> _Checkpoint | _Bundle:
    if (model / MANIFEST_FILE).exists():
        return _Bundle(model)
    if (model / RUN_FILE).exists():
        return _Checkpoint(model)
    inside = [name for name in ("bundle", "run") if (model / name).is_dir()]
    advice = (
        f"it holds {' and '.join(inside)}: name one of them, e.g. {model / inside[0]}" if inside else ""
    )
    raise ConfigError(
        f"{model}: neither a bundle ({MANIFEST_FILE}) nor a run folder ({RUN_FILE}); "
        + (advice or "make one with 'recsys export' or 'recsys train'")
    )


def _kept(keep: Sequence[str] | None, schema: Schema, source: Source) -> list[str]:
    if keep is None:
        named = [name for name, column in schema.columns.items() if set(_KEPT_ROLES) & set(column.roles)]
        return [name for name in named if name in source.columns]
    if ALL in keep:
        return list(source.columns)
    for name in keep:
        if name not in source.columns:
            known = did_you_mean(name, source.columns)
            raise ConfigError(f"keep: {source.name} has no column {name!r}; {known}")
    return list(dict.fromkeys(keep))


def _write(frame: pl.DataFrame, path: Path) -> None:
    with file_aside(path) as aside:
        frame.write_parquet(aside)


def _like(data: Any, frame: pl.DataFrame) -> pl.DataFrame | pd.DataFrame | pa.Table:
    """The frame as the kind of table that was given."""
    if isinstance(data, pa.Table | pa.RecordBatch):
        return frame.to_arrow()
    if type(data).__module__.partition(".")[0] == "pandas":
        return frame.to_pandas()
    return frame
