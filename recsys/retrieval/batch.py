"""``search``: answers for a file of queries, Parquet in and Parquet out, taken up where it stopped."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from recsys.data.check import reading
from recsys.data.paths import find_files
from recsys.errors import ConfigError, DataError
from recsys.progress import progress, say
from recsys.retrieval.index import Index
from recsys.retrieval.items import Filter
from recsys.retrieval.sources import Chunk, VectorSource, has_columns, open_vectors
from recsys.stage import (
    STARTED_FILE,
    StageRecord,
    file_aside,
    fingerprints,
    load_record,
    settings_of,
    writing,
)

_PART = 16_384
"""Queries of a part, which is the most that a stop costs."""


@dataclass(frozen=True)
class Asked:
    """What a batch asks of an index beside its vectors."""

    k: int = 10
    filter: Filter | None = None
    exclude_column: str | None = None
    """Column with a list of the ids that a query must not find, or with one such id."""
    exact: bool = False


def search(
    index: str | Path | Index,
    queries: str | Path,
    output: str | Path,
    *,
    asked: Asked | None = None,
    vector_column: str | None = None,
    query_column: str | None = None,
    tower: str | Path | None = None,
) -> Path:
    """Search for every query of a file; a search that was stopped goes on where it stood.

    One version of the index answers all queries. A search is taken up only where the queries, the version
    and what is asked are the same; else it starts afresh.

    Args:
        index: folder of the index, or an index that is open.
        queries: Parquet file, folder or glob with a column of vectors; or npy, safetensors.
        output: Parquet file to write: the query's id (row numbers where ``query_column`` is not given and
            none is found), ``ids`` and ``scores``, lists of at most ``k``, best first.
        asked: answers per query, filter, exclusions.
        vector_column, query_column: columns of the queries.
        tower: the query tower that made the queries; refused where the index is for another.

    Returns:
        The output's path.

    Raises:
        ConfigError, DataError, SchemaError: queries or arguments that cannot be used.
        RetrievalError: a damaged index, or another tower.
    """
    opened = index if isinstance(index, Index) else Index.open(index, tower=tower)
    asked, output = asked or Asked(), Path(output)
    files = find_files(str(queries)) if has_columns(queries) else [Path(queries)]
    if output.resolve() in {file.resolve() for file in files}:
        raise ConfigError(f"output: {output} is a file of the queries; name another")
    beside = [asked.exclude_column] if asked.exclude_column else []
    source = open_vectors(
        queries,
        vector_column=vector_column,
        id_column=query_column,
        attributes=beside,
        need_ids=False,
        interests=True,
    )
    _check(opened, source, asked, query_column)
    wanted = StageRecord(
        stage="search",
        version=1,
        inputs=fingerprints(files),
        settings=settings_of({"index": opened.version, "vectors": vector_column, "query": query_column})
        | {name: str(value) for name, value in vars(asked).items()},
    )
    parts = output.with_name(f".{output.name}.parts")
    with writing(output):
        done = _begun(parts, wanted)
        try:
            _answer_parts(opened, source, asked, parts, done)
        except BaseException:
            if not any(parts.glob("*.parquet")):  # nothing to go on from
                shutil.rmtree(parts, ignore_errors=True)
            raise
        with file_aside(output) as aside, reading(str(parts)):
            pl.scan_parquet(sorted(parts.glob("*.parquet"))).sink_parquet(aside)
    shutil.rmtree(parts, ignore_errors=True)
    return output


def _begun(parts: Path, wanted: StageRecord) -> set[str]:
    """Names of the parts that an earlier search of the same kind finished."""
    earlier = load_record(parts, STARTED_FILE)
    if earlier is not None and wanted.reason_stale(earlier) is None:
        done = {path.name for path in parts.glob("*.parquet")}
        say(f"search    {len(done)} parts are done already")
        return done
    shutil.rmtree(parts, ignore_errors=True)
    parts.mkdir(parents=True)
    wanted.save(parts, STARTED_FILE)
    return set()


def _check(index: Index, source: VectorSource, asked: Asked, query_column: str | None) -> None:
    """Raise what would stop the first query, before anything is written."""
    if query_column in ("ids", "scores"):
        raise ConfigError(
            f"query_column: {query_column!r} is a column of the answers too; rename that of the queries"
        )
    dim = index.manifest.dense.dim
    if source.dim != dim:
        column = "" if source.column is None else f", column {source.column!r}"
        raise DataError(
            f"{source.name}{column}: vectors of {source.dim} numbers; the index has those of {dim}"
        )
    index.search(np.ones((1, dim), np.float32), asked.k, filter=asked.filter)


def _answer_parts(index: Index, source: VectorSource, asked: Asked, parts: Path, done: set[str]) -> None:
    with progress("search", source.rows, "queries") as bar:
        for number, chunk in enumerate(source.chunks(_PART)):
            part = parts / f"{number:06d}.parquet"
            if part.name in done:
                bar.skip(len(chunk.vectors))
                continue
            with file_aside(part) as aside:
                _answers(index, chunk, asked).write_parquet(aside)
            bar.advance(len(chunk.vectors))


def _answers(index: Index, chunk: Chunk, asked: Asked) -> pl.DataFrame:
    """A line for each query: its id, and lists of ids and scores."""
    exclude = None if asked.exclude_column is None else _lists(chunk.items[asked.exclude_column])
    found = index.search(chunk.vectors, asked.k, filter=asked.filter, exclude=exclude, exact=asked.exact)
    return pl.DataFrame([chunk.items.to_series(0), found.ids.alias("ids"), found.scores])


def _lists(excluded: pl.Series) -> pl.Series:
    """A list for each query, of a column of lists or of single ids."""
    if isinstance(excluded.dtype, pl.List | pl.Array):
        return excluded
    return pl.select(pl.when(excluded.is_not_null()).then(pl.concat_list(excluded))).to_series()
