"""CSV files as Parquet: converted once per process, types found from every row.

Types are inferred over the whole of all files together: integers, floats, booleans, dates, timestamps,
else text. An empty field is a missing value; a line with fewer fields than the header is filled with
missing ones, one with more is an error. Codes with leading zeros become integers: write Parquet where
they matter. The converted files are temporary (``TMPDIR``) and go when the process ends.
"""

from __future__ import annotations

import atexit
import re
import shutil
import tempfile
import uuid
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import polars as pl

from recsys.data.types import widest
from recsys.errors import DataError
from recsys.stage import Fingerprint, fingerprint, os_error_in

"""polars reports a full disk as a compute error, not as an OSError."""
_DUPLICATE = re.compile(r"(.*)_duplicated_\d+")
_converted: dict[tuple[Path, Fingerprint, tuple[str, ...]], Path] = {}


def parquet_of(paths: Sequence[Path]) -> dict[Path, Path]:
    """Parquet files with the rows of CSV files, by CSV path; all have the same column types.

    Raises DataError that names the file which cannot be read, or the folder that is full.
    """
    found = {path: _types(path, fingerprint(path)) for path in paths}
    common: dict[str, pl.DataType] = {}
    for types in found.values():
        for name, dtype in types.items():
            common[name] = _common(common.get(name, pl.Null()), dtype)
    return {path: _convert(path, {name: common[name] for name in found[path]}) for path in paths}


def _common(left: pl.DataType, right: pl.DataType) -> pl.DataType:
    """Type that both texts can be read as: numbers of any size as floats, anything else as text."""
    if left.is_numeric() and right.is_numeric():
        return widest(left, right) or pl.Float64()
    return widest(left, right) or pl.String()


@cache
def _types(path: Path, _state: Fingerprint) -> dict[str, pl.DataType]:
    """Column types of one file over all of its rows; null for a column without any value."""
    frame = _scan(path)
    try:
        types = dict(frame.collect_schema())
        for name in types:
            twice = _DUPLICATE.fullmatch(name)
            if twice and twice[1] in types:
                raise DataError(f"{path}: column {twice[1]!r} stands twice in the header; rename one")
        text = [name for name, dtype in types.items() if dtype == pl.String]
        counted = frame.select(pl.len().alias(""), *(pl.col(name).count() for name in text))
        filled = counted.collect(engine="streaming").row(0, named=True)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise _unreadable(path, error) from error
    return {name: pl.Null() if filled.get(name) == 0 else dtype for name, dtype in types.items()}


def _scan(path: Path, types: dict[str, pl.DataType] | None = None) -> pl.LazyFrame:
    overrides = {name: pl.String() if dtype == pl.Null else dtype for name, dtype in (types or {}).items()}
    return pl.scan_csv(
        path, infer_schema_length=None, try_parse_dates=True, glob=False, schema_overrides=overrides
    )


def _convert(path: Path, types: dict[str, pl.DataType]) -> Path:
    key = (path.resolve(), fingerprint(path), tuple(f"{name} {dtype}" for name, dtype in types.items()))
    if key not in _converted:
        target = _folder() / f"{uuid.uuid4().hex}.parquet"
        try:
            _scan(path, types).sink_parquet(target)
        except (pl.exceptions.PolarsError, OSError) as error:
            target.unlink(missing_ok=True)
            if isinstance(error, OSError) or os_error_in(error):
                raise DataError(
                    f"{path}: cannot be converted to Parquet in {target.parent}: {error}; free some space, "
                    "or set TMPDIR to a folder with room"
                ) from error
            raise _unreadable(path, error) from error
        _converted[key] = target
    return _converted[key]


@cache
def _folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="recsys-csv-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _unreadable(path: Path, error: Exception) -> DataError:
    if isinstance(error, pl.exceptions.NoDataError) or not path.stat().st_size:
        return DataError(f"{path}: the file is empty ({path.stat().st_size} bytes)")
    return DataError(f"{path}: not a readable CSV file: {str(error).strip().splitlines()[0]}")
