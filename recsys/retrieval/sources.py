"""Item vectors from anyone: npy, Parquet, safetensors or arrays, read in chunks and checked row by row."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from recsys.data.check import reading, require_column
from recsys.errors import ConfigError, DataError, SchemaError, did_you_mean
from recsys.retrieval.given_ids import id_series, in_file
from recsys.retrieval.parquet_types import common_types, parquet_files, schema_of
from recsys.retrieval.vector_columns import vector_blocks, vector_column_of, width_of

CHUNK = 65_536
"""Rows held in memory at a time."""
ID = "id"
"""Column of the ids where the source does not name one."""
_ARRAYS = (".npy", ".safetensors")
"""Suffixes of files without columns."""


@dataclass(frozen=True)
class Chunk:
    """Neighbouring rows of a source."""

    vectors: NDArray[np.float32]
    """``[n, D]``, or several interests of each row ``[n, I, D]``; finite."""
    items: pl.DataFrame
    """Ids, Int64 or String and never null, in the first column; attributes in the others."""


@dataclass(frozen=True)
class VectorSource:
    """Vectors with ids and attributes that can be read any number of times in the same order."""

    name: str
    """For messages: the path as given, or what kind of array it is."""
    rows: int
    dim: int
    read: Callable[[int], Iterator[Chunk]]
    """Chunks of at most so many rows, not yet checked."""
    column: str | None = None
    """Column of the vectors, where there are columns."""

    def chunks(self, size: int = CHUNK) -> Iterator[Chunk]:
        """The rows in order; raises DataError that names the first row that cannot be used."""
        row = 0
        for chunk in self.read(size):
            self._check(row, chunk.vectors)
            items = in_file(self.name, row, chunk.items)
            yield replace(chunk, items=items)
            row += len(chunk.vectors)

    def _check(self, first_row: int, vectors: NDArray[np.float32]) -> None:
        finite = np.isfinite(vectors)
        if finite.all():
            return
        row, *interest, at = (int(found) for found in np.argwhere(~finite)[0])
        column = "" if self.column is None else f", column {self.column!r}"
        which = f"vector {interest[0]}" if interest else "the vector"
        raise DataError(
            f"{self.name}, row {first_row + row}{column}: number {at} of {which} is "
            f"{vectors[(row, *interest, at)]}, expected a finite one within float32's ±3.4e38; leave the "
            "row out or look for what spoilt it (training that diverged?)"
        )


def open_vectors(
    data: str | Path | NDArray[Any],
    *,
    vector_column: str | None = None,
    id_column: str | None = None,
    attributes: Sequence[str] = (),
    ids: str | Path | pl.Series | pl.DataFrame | Sequence[int] | Sequence[str] | None = None,
    need_ids: bool = True,
    interests: bool = False,
) -> VectorSource:
    """Open vectors; nothing but headers is read yet.

    Args:
        data: ``.npy`` ``[N, D]``, ``.safetensors``, Parquet file, folder or glob, or an array ``[N, D]``.
        vector_column: Parquet column of lists, or name of the tensor; default: the only one there is.
        id_column: Parquet column of ids, integers or text; default: ``id``, or one ending in ``_id``.
        attributes: columns to keep for filters.
        ids: of vectors that are no Parquet: a Parquet file with ``id_column`` and ``attributes``, a table,
            or the ids themselves, row by row; default: row numbers.
        need_ids: refuse Parquet in which no column of ids is found; else row numbers stand in.
        interests: a row of Parquet may hold a list of vectors, of equal width, instead of one.

    Raises:
        ConfigError: an unknown kind of file, or columns that are asked of an array.
        SchemaError: a column is missing or of a type that cannot be used.
        DataError: a file is missing or damaged.
    """
    if isinstance(data, np.ndarray):
        return _of_array("an array", data, items_table(ids, id_column, attributes))
    path = _path(data)
    if path.suffix == ".npy":
        return _of_array(str(path), _npy(path), items_table(ids, id_column, attributes))
    if path.suffix == ".safetensors":
        table = items_table(ids, id_column, attributes)
        return _of_array(str(path), _tensor(path, vector_column), table)
    if ids is not None:
        raise ConfigError(f"ids: {path} is Parquet, which holds its ids in a column; name it by id_column")
    return _of_parquet(
        str(data), vector_column, id_column, attributes, need_ids=need_ids, interests=interests
    )


def has_columns(data: str | Path | NDArray[Any]) -> bool:
    """Whether these vectors have their ids beside them, as Parquet does."""
    return not isinstance(data, np.ndarray) and _path(data).suffix not in _ARRAYS


def _path(data: Any) -> Path:
    if not isinstance(data, str | Path):
        raise ConfigError(
            f"vectors: expected a path or a numpy array [N, D], found {type(data).__name__}; "
            "numpy.asarray(vectors, 'float32') makes one"
        )
    return Path(data)


def _npy(path: Path) -> NDArray[Any]:
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path}: cannot be read, it may be truncated or damaged: {error}") from error
    return array


def _tensor(path: Path, name: str | None) -> Any:
    """A slice of a safetensors file: read piece by piece, as an array is."""
    try:
        file: Any = safe_open(path, framework="numpy")
        known = list(file.keys())
        matrices = [key for key in known if len(file.get_slice(key).get_shape()) == 2]
        if name is None and len(matrices) == 1:
            name = matrices[0]
        if name not in known:
            asked = f"no tensor {name!r}" if name else f"{len(matrices)} matrices, name one"
            raise SchemaError(f"{path}: {asked}; {did_you_mean(name or '', known)}")
        return _Slice(file.get_slice(name))
    except (SafetensorError, OSError) as error:
        raise DataError(f"{path}: cannot be read, it may be truncated or damaged: {error}") from error


class _Slice:
    """A tensor on disk with the face of an array: ``shape``, and rows by slice."""

    def __init__(self, piece: Any) -> None:
        self.piece = piece
        self.shape = tuple(piece.get_shape())

    def __getitem__(self, rows: slice) -> NDArray[Any]:
        found: NDArray[Any] = self.piece[rows]
        return found


def items_table(ids: Any, id_column: str | None, attributes: Sequence[str]) -> pl.DataFrame | None:
    """Ids and attributes that stand beside an array, ids first; None: row numbers."""
    if ids is None:
        if id_column or attributes:
            raise ConfigError(
                "id_column and attributes: the vectors have no columns; name their file by ids"
            )
        return None
    if isinstance(ids, str | Path):
        return _items_in_files(str(ids), id_column, attributes)
    if isinstance(ids, pl.DataFrame):
        frame, name = ids, _id_column("ids", id_column, ids.schema)
    else:
        name = id_column or ID
        frame = id_series(ids, "ids").alias(name).to_frame()
    for column in attributes:
        require_column(column, frame.schema, "ids")
    return frame.select(name, *(column for column in attributes if column != name))


def _items_in_files(spec: str, id_column: str | None, attributes: Sequence[str]) -> pl.DataFrame:
    files = parquet_files(spec)
    kept = list(dict.fromkeys([_id_column(spec, id_column, schema_of(files[0])), *attributes]))
    types = common_types(files, kept)
    parts = []
    for file in files:
        with reading(str(file)):
            frame = pl.read_parquet(file, columns=kept)
            parts.append(_cast(frame.select(kept), types))
    return pl.concat(parts)


def _cast(items: pl.DataFrame, types: Mapping[str, pl.DataType]) -> pl.DataFrame:
    return items.with_columns(pl.col(name).cast(dtype) for name, dtype in types.items())


def _of_array(name: str, array: Any, items: pl.DataFrame | None) -> VectorSource:
    if len(array.shape) != 2:
        raise DataError(f"{name}: expected vectors [N, D], found an array of shape {list(array.shape)}")
    rows, dim = array.shape
    if items is not None and items.height != rows:
        raise DataError(f"{name}: {rows} vectors and {items.height} ids; expected one id for each vector")

    def read(size: int) -> Iterator[Chunk]:
        for start in range(0, rows, size):
            stop = min(start + size, rows)
            block = np.asarray(array[start:stop])
            if block.dtype.kind not in "fiu":
                raise DataError(f"{name}: expected numbers, found {block.dtype}")
            beside = items[start:stop] if items is not None else pl.DataFrame({ID: np.arange(start, stop)})
            with np.errstate(over="ignore"):  # what is beyond float32 is named by the check
                vectors = np.ascontiguousarray(block, np.float32)
            yield Chunk(vectors, beside)

    return _not_empty(VectorSource(name, rows, dim, read))


def _of_parquet(
    spec: str,
    vector_column: str | None,
    id_column: str | None,
    attributes: Sequence[str],
    *,
    need_ids: bool,
    interests: bool,
) -> VectorSource:
    files = parquet_files(spec)
    schema = schema_of(files[0])
    vector_column = vector_column_of(spec, vector_column, schema, interests=interests)
    if need_ids or id_column is not None or len(_likely_ids(schema)) == 1:
        id_column = _id_column(spec, id_column, schema)
    for column in attributes:
        require_column(column, schema, spec)
    kept = list(dict.fromkeys([*([id_column] if id_column else []), *attributes]))
    types = common_types(files, kept, vectors=vector_column)
    with reading(spec):
        rows = sum(pq.read_metadata(file).num_rows for file in files)
    dim = width_of(spec, files, vector_column)

    def read(size: int) -> Iterator[Chunk]:
        row = 0
        for file in files:
            with reading(str(file)):
                batches = pq.ParquetFile(file).iter_batches(size, columns=[*kept, vector_column])
                for batch in batches:
                    items = _cast(pl.DataFrame(pa.table(batch.select(kept))), types)
                    if id_column is None:
                        numbers = np.arange(row, row + batch.num_rows)
                        items = items.insert_column(0, pl.Series(ID, numbers))
                    column = pl.Series(vector_column, batch.column(vector_column))
                    start = 0
                    for vectors in vector_blocks(column, dim, spec, row, size):
                        yield Chunk(vectors, items.slice(start, len(vectors)))
                        start += len(vectors)
                    row += batch.num_rows

    return _not_empty(VectorSource(spec, rows, dim, read, vector_column))


def _id_column(spec: str, given: str | None, schema: Mapping[str, pl.DataType]) -> str:
    if given is not None:
        require_column(given, schema, spec)
        return given
    likely = _likely_ids(schema)
    if len(likely) != 1:
        found = ", ".join(map(repr, likely)) or "none"
        raise SchemaError(
            f"{spec}: which column holds the ids? found {found} by name; name it by id_column"
        )
    return likely[0]


def _likely_ids(schema: Mapping[str, pl.DataType]) -> list[str]:
    """Columns that hold ids by their names."""
    return [ID] if ID in schema else [name for name in schema if name.endswith("_id")]


def _not_empty(source: VectorSource) -> VectorSource:
    if source.rows == 0 or source.dim == 0:
        raise DataError(f"{source.name}: holds no vectors ({source.rows} rows of {source.dim} numbers)")
    return source
