"""Opening a log: files or an in-memory table become one lazy frame with one stable order of rows.

The order is that of the sorted file paths, and of the rows in each file. Column types are the normal
ones of ``recsys.data.types``. Nothing but footers is read until the frame is collected (CSV files
excepted, see ``recsys.data.conversion``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, Union

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from recsys.data.check import reading
from recsys.data.conversion import parquet_of
from recsys.data.paths import find_files, format_of, partitions_of
from recsys.data.types import normal_type, normalised, spelled, widest
from recsys.errors import ConfigError, DataError, SchemaError
from recsys.stage import Fingerprint, fingerprint

if TYPE_CHECKING:
    import pandas as pd

Data: TypeAlias = Union[
    str, Path, Sequence[str | Path], pl.DataFrame, pl.LazyFrame, "pd.DataFrame", "pa.Table", "Source"
]
"""What every stage takes: a path, folder, glob or list of files, an in-memory table, or a Source."""

_PATH = "__path__"


@dataclass(frozen=True)
class LogFile:
    """One file of a log, and what its footer says."""

    path: Path
    """As named by the user."""
    parquet: Path
    """Where its rows are: the file itself, or what a CSV was converted to."""
    rows: int
    columns: dict[str, pl.DataType]
    """Types in the file, before they are normalised."""
    partitions: dict[str, str | None]


class Source:
    """A log that can be scanned any number of times, always in the same order.

    >>> source = open_source(pl.DataFrame({"clicked": [0, 1]}))
    >>> source.lazy().select(pl.col("clicked").sum()).collect().item()
    1
    """

    def __init__(
        self,
        name: str,
        columns: dict[str, pl.DataType],
        frame: pl.LazyFrame,
        files: Sequence[LogFile] = (),
        condition: pl.Expr | None = None,
        rows: int | None = None,
    ) -> None:
        self.name = name
        """For messages: the path as given, or what kind of table it is."""
        self.columns = columns
        """Normal types by name, in the order of the first file; partition columns last."""
        self.log_files = tuple(files)
        self._frame = frame
        self._condition = condition
        if rows is None and files and condition is None:
            rows = sum(file.rows for file in files)
        self._rows = rows

    def lazy(self) -> pl.LazyFrame:
        """The rows; their order never changes."""
        return self._frame if self._condition is None else self._frame.filter(self._condition)

    def numbered(self, index: str) -> pl.LazyFrame:
        """The rows with a column of their numbers, as ``locate`` takes them."""
        frame = self._frame.with_row_index(index)
        return frame if self._condition is None else frame.filter(self._condition)

    @property
    def files(self) -> list[Path]:
        """The files in order; empty for an in-memory table."""
        return [file.path for file in self.log_files]

    def rows(self) -> int:
        """Number of rows: from the footers, or counted once where they do not say."""
        if self._rows is None:
            with reading(self):
                self._rows = int(self.lazy().select(pl.len()).collect(engine="streaming").item())
        return self._rows

    def fingerprints(self) -> dict[str, Fingerprint]:
        """Fingerprints of the files by absolute path; empty for an in-memory table."""
        return {str(file.resolve()): fingerprint(file) for file in self.files}

    def locate(self, row: int) -> str:
        """``FILE, row N`` of a row of the source; both count from 0."""
        for file in self.log_files:
            if row < file.rows:
                return f"{file.path}, row {row}"
            row -= file.rows
        return f"{self.name}, row {row}"

    def partition_values(self, column: str) -> pl.Series | None:
        """Value of a Hive partition column per file; None where the column is in the files."""
        if not self.log_files or any(column not in file.partitions for file in self.log_files):
            return None
        return pl.Series(column, [file.partitions[column] for file in self.log_files], pl.String)

    def chosen(self, files: Sequence[LogFile], name: str) -> Source:
        """Some of the files only."""
        return Source(name, self.columns, _scan(files, self.columns), files)

    def filtered(self, condition: pl.Expr, name: str, rows: int) -> Source:
        """The rows that meet a condition; ``rows`` says how many."""
        return Source(name, self.columns, self._frame, self.log_files, condition, rows)

    def fitted(self, columns: dict[str, pl.DataType]) -> Source:
        """The same rows with columns in this order and of these, wider, types."""
        frame = self._frame.select(
            _fitted(pl.col(name), self.columns[name], columns[name]) for name in columns
        )
        return Source(self.name, columns, frame, self.log_files, self._condition, self._rows)

    def with_columns(self, made: dict[str, pl.Expr], dtype: pl.DataType) -> Source:
        """The same rows with further columns, all of one type, made of those that are there."""
        columns = self.columns | dict.fromkeys(made, dtype)
        frame = self._frame.with_columns(**made)
        return Source(self.name, columns, frame, self.log_files, self._condition, self._rows)

    def unreadable_file(self) -> str:
        """Name of the first file whose rows cannot be read; the source's name where all can."""
        for file in self.log_files:
            try:
                _scan([file], self.columns).select(pl.all().null_count()).collect(engine="streaming")
            except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError):
                return str(file.path)
        return self.name


def open_source(data: Data, root: Path | None = None) -> Source:
    """Open a log: Parquet or CSV file, folder, glob, list of these, or an in-memory table.

    Relative paths start from ``root``. Hive partitions in the paths are text columns, the same for
    file, folder, glob and list; a column of that name inside the files gives way. Raises DataError for
    a path, file or table that cannot be read or holds no rows, SchemaError where files disagree.
    """
    if isinstance(data, Source):
        return data
    if isinstance(data, str | Path):
        return _from_files(find_files(data, root), str(data if root is None else root / data))
    if isinstance(data, list | tuple) and all(isinstance(item, str | Path) for item in data):
        name = str(data[0]) if len(data) == 1 else f"{data[0] if data else ''} and {len(data) - 1} more"
        return _from_files(find_files(data, root), name)
    return _from_table(data)


def joined(sources: Sequence[Source]) -> Source:
    """Several sources one after the other; raises SchemaError where their columns differ."""
    first = sources[0]
    columns = dict(first.columns)
    for other in sources[1:]:
        _agree(columns, other.columns, first.name, other.name)
    frame = pl.concat([source.fitted(columns).lazy() for source in sources])
    files = [file for source in sources for file in source.log_files]
    return Source(", ".join(source.name for source in sources), columns, frame, files)


def _from_files(paths: Sequence[Path], name: str) -> Source:
    parquet = parquet_of(paths) if format_of(paths[0]) == "csv" else dict(zip(paths, paths, strict=True))
    files = [_footer(path, parquet[path]) for path in paths]
    columns = _agreed(files)
    if not sum(file.rows for file in files):
        raise DataError(f"{name}: no rows in {_counted(len(files))}")
    return Source(name, columns, _scan(files, columns), files)


def _counted(files: int) -> str:
    return "the file" if files == 1 else f"any of {files} files"


def _footer(path: Path, parquet: Path) -> LogFile:
    """What a Parquet file's footer says; raises DataError for an empty or truncated file."""
    try:
        if parquet.stat().st_size == 0:
            raise DataError(f"{path}: the file is empty (0 bytes)")
        metadata = pq.read_metadata(parquet)
        columns = dict(pl.scan_parquet(parquet, glob=False, hive_partitioning=False).collect_schema())
    except (pa.ArrowException, OSError, pl.exceptions.PolarsError) as error:
        raise DataError(
            f"{path}: not a readable Parquet file, it may be truncated ({str(error).splitlines()[0]}); "
            "write it again"
        ) from error
    partitions = partitions_of(path)
    kept = {name: dtype for name, dtype in columns.items() if name not in partitions}
    return LogFile(path, parquet, metadata.num_rows, kept, partitions)


def _agreed(files: Sequence[LogFile]) -> dict[str, pl.DataType]:
    """Types that hold the values of all files; raises SchemaError that names file and column."""
    first = files[0]
    columns = {name: normal_type(dtype) for name, dtype in first.columns.items()}
    seen = {tuple(first.columns.items())}
    for file in files[1:]:
        if set(file.partitions) != set(first.partitions):
            key = min(set(file.partitions) ^ set(first.partitions))
            raise SchemaError(
                f"{file.path}: the partitions of {first.path} differ: {key!r} is in one path only"
            )
        raw = tuple(file.columns.items())
        if raw not in seen:
            seen.add(raw)
            found = {name: normal_type(dtype) for name, dtype in raw}
            _agree(columns, found, str(first.path), str(file.path))
    return columns | dict.fromkeys(first.partitions, pl.String())


def _agree(columns: dict[str, pl.DataType], found: dict[str, pl.DataType], origin: str, other: str) -> None:
    """Widen ``columns`` in place until they hold ``found`` too."""
    for name in columns.keys() | found.keys():
        if name not in found:
            raise SchemaError(f"{other}: no column {name!r}, which {origin} has")
        if name not in columns:
            raise SchemaError(f"{other}: column {name!r} is not in {origin}")
        wide = widest(columns[name], found[name])
        if wide is None:
            raise SchemaError(
                f"{other}: column {name!r}: found {spelled(found[name])}, expected "
                f"{spelled(columns[name])} as in {origin}; write both with one type"
            )
        columns[name] = wide


def _scan(files: Sequence[LogFile], columns: dict[str, pl.DataType]) -> pl.LazyFrame:
    """One frame over files, rows in file order; neighbours of one layout share a scan."""
    runs = [list(run) for _, run in groupby(files, key=lambda file: tuple(file.columns.items()))]
    return pl.concat([_scan_alike(run, columns) for run in runs])


def _scan_alike(files: Sequence[LogFile], columns: dict[str, pl.DataType]) -> pl.LazyFrame:
    raw, keys = files[0].columns, files[0].partitions
    varied = {key: {file.partitions[key] for file in files} for key in keys}
    mapped = any(len(values) > 1 for values in varied.values())
    # A scan per partition would be simpler; beyond some hundreds of them polars runs out of threads.
    frame = pl.scan_parquet(
        [file.parquet.absolute() for file in files],
        glob=False,
        hive_partitioning=False,
        include_file_paths=_PATH if mapped else None,
    )
    selected = []
    for name, dtype in columns.items():
        if name not in keys:
            selected.append(_fitted(normalised(pl.col(name), raw[name]), normal_type(raw[name]), dtype))
        elif len(varied[name]) == 1:
            selected.append(pl.lit(files[0].partitions[name], dtype=pl.String).alias(name))
        else:
            by_path = {str(file.parquet.absolute()): file.partitions[name] for file in files}
            value = pl.col(_PATH).replace_strict(by_path, return_dtype=pl.String)
            selected.append(value.alias(name))
    return frame.select(selected)


def _fitted(column: pl.Expr, dtype: pl.DataType, target: pl.DataType) -> pl.Expr:
    return column if dtype == target else column.cast(target)


def _from_table(table: Any) -> Source:
    """A source over an in-memory table; raises ConfigError for what is no table."""
    kind = f"{type(table).__module__.partition('.')[0]} {type(table).__name__}"
    name = f"in-memory {kind}"
    try:
        if isinstance(table, pl.LazyFrame):
            frame = table
        elif isinstance(table, pl.DataFrame):
            frame = table.lazy()
        elif isinstance(table, pa.Table | pa.RecordBatch):
            frame = pl.DataFrame(pl.from_arrow(table)).lazy()
        elif kind == "pandas DataFrame":
            frame = pl.from_pandas(table).lazy()
        else:
            raise ConfigError(
                f"cannot read a {kind}; expected a path, a list of paths, or a polars, pandas or "
                "pyarrow table"
            )
        raw = frame.collect_schema()
        is_empty = frame.head(1).collect(engine="streaming").height == 0
    except (pl.exceptions.PolarsError, pa.ArrowException, ValueError, TypeError, OSError) as error:
        raise DataError(f"{name}: cannot be read: {error}") from error
    if is_empty:
        raise DataError(f"{name}: no rows")
    columns = {key: normal_type(dtype) for key, dtype in raw.items()}
    if columns != dict(raw):
        frame = frame.select(normalised(pl.col(key), dtype) for key, dtype in raw.items())
    return Source(name, columns, frame)
