"""The life of an index: items come (``upsert``), go (``delete``), and are merged (``compact``).

The first two write a new delta: all rows that came since the base version was built, and the base rows
that went. It is searched exactly, so it costs time as it grows; ``compact`` makes a base version of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.data.types import spelled
from recsys.errors import ConfigError, DataError, RetrievalError, SchemaError
from recsys.progress import say
from recsys.retrieval.build import CODES_LEAST, QUERIES_FILE, IndexSettings, normal_chunks, publish_version
from recsys.retrieval.given_ids import id_series, in_file, of_index
from recsys.retrieval.index import check_tower, tower_fingerprint
from recsys.retrieval.manifest import DELTA_FILE, DeltaManifest, file_records, save
from recsys.retrieval.segment import Segment, SegmentWriter
from recsys.retrieval.snapshot import DEAD_FILE, Snapshot
from recsys.retrieval.sources import CHUNK, Chunk, VectorSource, has_columns, items_table, open_vectors
from recsys.retrieval.versions import Current, new_folder, one_writer, publish, read_current
from recsys.serving.files import load_tensors
from recsys.stage import writing

_LARGE_DELTA = 0.1
"""Share of the items that came or went from which on a compaction is advised."""


def upsert(
    folder: str | Path,
    vectors: str | Path | NDArray[Any],
    *,
    vector_column: str | None = None,
    id_column: str | None = None,
    ids: Any = None,
    tower: str | Path | None = None,
) -> None:
    """Add items, or replace those whose ids are there; readers see all of it or nothing.

    Args:
        folder: of the index.
        vectors, vector_column, id_column, ids: as in ``index``; attributes must be there as well.
        tower: what the vectors are for; refused where the index is for another query tower.

    Raises:
        DataError, SchemaError: vectors, ids or attributes that do not fit the index.
        RetrievalError: a damaged index, another tower, or another writer.
    """
    folder = Path(folder)
    with one_writer(folder):
        current = read_current(folder)
        snapshot = Snapshot.open(folder, current)
        if tower is not None:
            check_tower(snapshot, tower_fingerprint(tower))
        base = snapshot.manifest
        if not has_columns(vectors) and ids is None:
            raise ConfigError("ids: upsert needs them, to know which items these are")
        source = open_vectors(
            vectors,
            vector_column=vector_column,
            id_column=id_column or base.id_column,
            attributes=list(base.attributes),
            ids=ids,
        )
        if source.dim != base.dense.dim:
            raise DataError(
                f"{source.name}: vectors of {source.dim} numbers; the index holds {base.dense.dim}"
            )
        _publish_delta(folder, current, snapshot, _fitting(source, snapshot), source.name, None)


def delete(
    folder: str | Path, ids: str | Path | pl.Series | Sequence[Any], *, id_column: str | None = None
) -> None:
    """Remove items, all of them or, where something is wrong, none.

    Args:
        folder: of the index.
        ids: the ids, or a Parquet file, folder or glob that holds them.
        id_column: of the files; default: as in ``index``.

    Raises:
        DataError, SchemaError: what is given holds no ids.
        RetrievalError: names an id which is not there, or is of another type than the index's.
    """
    folder = Path(folder)
    wanted = _ids_in_files(ids, id_column) if isinstance(ids, str | Path) else id_series(ids, "ids")
    with one_writer(folder):
        current = read_current(folder)
        snapshot = Snapshot.open(folder, current)
        missing = snapshot.find(wanted) < 0
        if missing.any():
            raise RetrievalError(
                f"{folder}: no item {wanted[int(missing.argmax())]!r} to delete ({missing.sum()} of "
                f"{len(wanted)} ids are not in the index); nothing was deleted"
            )
        gone = of_index(wanted, snapshot.manifest.id_type)
        if gone.n_unique() == snapshot.rows:
            raise RetrievalError(f"{folder}: these are all its items; remove the folder instead")
        _publish_delta(folder, current, snapshot, (), str(folder), gone)


def _ids_in_files(path: str | Path, id_column: str | None) -> pl.Series:
    """Ids in a column of Parquet; named for messages."""
    frame = items_table(path, id_column, ())
    assert frame is not None
    ids = in_file(str(path), 0, frame).to_series(0)
    return ids.alias(f"{path}, column {ids.name!r}")


def compact(folder: str | Path, *, retrain: bool = False) -> None:
    """Merge the delta into a new base version.

    Lists and codebooks stay as they are, learned ones too, and probes are chosen anew; ``retrain`` makes
    new lists and codebooks from the vectors.
    """
    folder = Path(folder)
    with one_writer(folder):
        current = read_current(folder)
        home, snapshot = folder / current.version, Snapshot.open(folder, current)
        manifest, coarse = snapshot.manifest, snapshot.coarse
        codes = coarse is not None and snapshot.rows >= CODES_LEAST
        settings = IndexSettings(
            metric=manifest.metric,
            dtype=manifest.dense.dtype,
            codes=codes,
            bytes_per_item=manifest.coarse.bytes_per_item if codes and manifest.coarse else None,
            **_goal(snapshot),
        )
        asked = None
        if (home / QUERIES_FILE).exists():
            asked = load_tensors(home / QUERIES_FILE)["queries"]
        kept = coarse.quantiser if codes and coarse is not None and not retrain else None
        publish_version(folder, _live(folder, snapshot), asked, settings, kept, manifest.dense.tower)


def _goal(snapshot: Snapshot) -> dict[str, Any]:
    """The recall that a version was built for, and the number of answers that it is of."""
    measured = snapshot.manifest.measured
    if measured is None or measured.wanted_recall is None:
        return {}
    return {"recall": measured.wanted_recall, "k": measured.k}


def _fitting(source: VectorSource, snapshot: Snapshot) -> Iterator[Chunk]:
    """Rows with the columns of the index; raises SchemaError for values that do not fit its types."""
    schema, row = snapshot.base.items.schema, 0
    for chunk in normal_chunks(source, snapshot.manifest.metric):
        items = chunk.items.rename({chunk.items.columns[0]: snapshot.manifest.id_column})
        missing = [name for name in schema if name not in items.columns]
        if missing:
            raise SchemaError(f"{source.name}: attribute {missing[0]!r} of the index is missing")
        ids = items.to_series(0)
        if (ids.dtype == pl.String) != (snapshot.manifest.id_type == "string"):
            raise SchemaError(
                f"{source.name}: ids are {ids.dtype}, the index has {snapshot.manifest.id_type}"
            )
        fitting = (_fitting_values(source.name, row, items[name], dtype) for name, dtype in schema.items())
        yield Chunk(chunk.vectors, pl.DataFrame(fitting))
        row += len(chunk.vectors)


def _fitting_values(origin: str, first_row: int, values: pl.Series, dtype: pl.DataType) -> pl.Series:
    """Values in an attribute's type; raises SchemaError that names the first one that would change."""
    try:
        cast = values.cast(dtype, strict=dtype.is_nested())
        lost = cast.is_null() & values.is_not_null()
        if dtype.is_integer() and values.dtype.is_float():
            lost |= (cast != values).fill_null(False)
    except pl.exceptions.PolarsError as error:
        raise SchemaError(
            f"{origin}: attribute {values.name!r} holds {spelled(values.dtype)}, which does not fit the "
            f"index's {spelled(dtype)}"
        ) from error
    if lost.any():
        row = int(lost.arg_true()[0])
        raise SchemaError(
            f"{origin}, row {first_row + row}: attribute {values.name!r} is {values[row]!r}, which does "
            f"not fit the index's {spelled(dtype)}"
        )
    return cast


def _publish_delta(
    folder: Path,
    current: Current,
    snapshot: Snapshot,
    chunks: Iterable[Chunk],
    name: str,
    deleted: pl.Series | None,
) -> None:
    """Write the delta that follows: new rows first, then those of the last one that stay."""
    base = snapshot.manifest
    empty = pl.DataFrame(schema=snapshot.base.items.schema)
    gone = [empty.to_series(0) if deleted is None else deleted]
    with writing(folder):
        with new_folder(folder, "delta") as (aside, delta_name):
            with SegmentWriter(aside, base.dense.dim, base.dense.dtype, name) as writer:
                writer.append(Chunk(np.empty((0, base.dense.dim), np.float32), empty))
                for chunk in chunks:
                    writer.append(chunk)
                    gone.append(chunk.items.to_series(0))
                replaced = pl.concat([ids.cast(empty.dtypes[0]) for ids in gone])
                for chunk in _staying(snapshot, replaced):
                    writer.append(chunk)
                rows, _ = writer.finish()
            dead = _dead(snapshot, replaced)
            dead.tofile(aside / DEAD_FILE)
            manifest = DeltaManifest(
                base=base.fingerprint,
                rows=rows,
                dead=len(dead),
                dtype=base.dense.dtype,
                files=file_records(aside),
            )
            save(manifest, aside / DELTA_FILE)
        publish(folder, Current(current.version, delta_name))
    if rows + len(dead) > _LARGE_DELTA * base.rows:
        say(f"index     {rows} items came and {len(dead)} went since it was built; compact it soon")


def _staying(snapshot: Snapshot, gone: pl.Series) -> Iterator[Chunk]:
    """Rows of the delta before that stay when these ids go."""
    if snapshot.delta is not None:
        rows = snapshot.delta.segment.items.find(gone)
        yield from _rows_but(snapshot.delta.segment, rows[rows >= 0])


def _dead(snapshot: Snapshot, gone: pl.Series) -> NDArray[np.int64]:
    """Base rows, ascending, that are dead once these ids are gone too."""
    rows = snapshot.base.items.find(gone)
    before = np.empty(0, np.int64) if snapshot.delta is None else snapshot.delta.dead
    return np.union1d(before, rows[rows >= 0])


def _rows_but(segment: Segment, left_out: NDArray[np.int64]) -> Iterator[Chunk]:
    """The rows of a segment in order, without some."""
    items = segment.items.frame().collect()
    kept = np.setdiff1d(np.arange(segment.rows), left_out)
    for start in range(0, len(kept), CHUNK):
        rows = kept[start : start + CHUNK]
        yield Chunk(segment.dense.take(rows), items[rows])


def _live(folder: Path, snapshot: Snapshot) -> VectorSource:
    """What can be found in a snapshot, as a source to build from."""

    def read(_: int) -> Iterator[Chunk]:
        delta = snapshot.delta
        yield from _rows_but(snapshot.base, np.empty(0, np.int64) if delta is None else delta.dead)
        if delta is not None:
            yield from _rows_but(delta.segment, np.empty(0, np.int64))

    return VectorSource(str(folder), snapshot.rows, snapshot.manifest.dense.dim, read)
