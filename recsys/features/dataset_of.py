"""The prepared dataset behind whatever a caller has: a dataset, its folder, or raw rows."""

from __future__ import annotations

from pathlib import Path

from recsys.config import SplitSettings
from recsys.data.dataset import Dataset
from recsys.data.source import Data
from recsys.features.infer import infer
from recsys.features.prepare import MANIFEST_FILE, prepare
from recsys.schema import Schema


def is_prepared(data: Dataset | Data | None) -> bool:
    """Whether this is a prepared dataset or the folder of one, rather than raw rows."""
    if isinstance(data, Dataset):
        return True
    return isinstance(data, str | Path) and (Path(data) / MANIFEST_FILE).is_file()


def dataset_of(
    data: Dataset | Data | None,
    folder: Path,
    *,
    schema: Schema | str | Path | None = None,
    split: SplitSettings | None = None,
    label: str | None = None,
    group: str | None = None,
) -> Dataset:
    """The dataset that ``data`` is, or one prepared from its raw rows into ``folder``.

    Args:
        data: a dataset, its folder, or raw rows as a path or an in-memory table; None where the split
            names three files.
        folder: where raw rows are prepared to; not touched otherwise.
        schema, split: how raw rows are read; default: inferred, and all rows train.
        label, group: column names, where no schema is given.

    Raises:
        SchemaError, DataError, ConfigError: as ``infer`` and ``prepare`` do.
    """
    if isinstance(data, Dataset):
        return data
    if is_prepared(data):
        return Dataset.load(Path(str(data)))
    if schema is None:
        schema = infer(data, label=label, group=group, split=split)
    return prepare(data, schema, folder, split=split)
