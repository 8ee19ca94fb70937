"""The verbs of retrieval: ``index`` and ``search``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recsys.cli_steps import begin
from recsys.errors import ConfigError
from recsys.flags import names, needed

if TYPE_CHECKING:
    from recsys.retrieval.index import Index

Tower = Annotated[
    Path | None,
    typer.Option(
        metavar="BUNDLE", exists=True, file_okay=False, help="Bundle of the vectors' query tower."
    ),
]
VectorColumn = Annotated[
    str | None, typer.Option(metavar="NAME", help="Column or tensor of the vectors; default: the only one.")
]


def index(
    vectors: Annotated[
        Path | None,
        typer.Argument(
            metavar="VECTORS", help="Vectors (npy, safetensors, Parquet) or a bundle; to delete: ids."
        ),
    ] = None,
    output: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder of the index.")] = None,
    ids: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Parquet of ids and attributes, row by row.")
    ] = None,
    id_column: Annotated[str | None, typer.Option(metavar="NAME", help="Column of the ids.")] = None,
    vector_column: VectorColumn = None,
    attributes: Annotated[
        list[str] | None, typer.Option(metavar="A,B", help="Columns to keep for filters.")
    ] = None,
    metric: Annotated[str | None, typer.Option(help="ip (default), cosine or l2.")] = None,
    dtype: Annotated[
        str | None, typer.Option(help="Of the stored vectors: float32, float16, int8.")
    ] = None,
    codes: Annotated[
        bool | None,
        typer.Option("--codes/--no-codes", help="Search codes; default: from 100,000 items on."),
    ] = None,
    recall: Annotated[float | None, typer.Option(help="Wanted recall; default 0.95.")] = None,
    k: Annotated[int | None, typer.Option("-k", min=1, help="Answers it is of; default 10.")] = None,
    bytes_per_item: Annotated[
        float | None, typer.Option(help="Memory to use; default: as little as reaches the recall.")
    ] = None,
    queries: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Real queries to choose and measure by.")
    ] = None,
    tower: Tower = None,
    upsert: Annotated[bool, typer.Option("--upsert", help="Add or replace these items.")] = False,
    delete: Annotated[bool, typer.Option("--delete", help="Remove the items with these ids.")] = False,
    compact: Annotated[bool, typer.Option("--compact", help="Merge what came and went.")] = False,
    retrain: Annotated[
        bool, typer.Option("--retrain", help="With --compact: new lists and codes.")
    ] = False,
) -> None:
    """Build an index of item vectors, or change one."""
    begin("index", str(vectors or output or ""))
    stated = {
        "metric": metric,
        "dtype": dtype,
        "codes": codes,
        "recall": recall,
        "k": k,
        "bytes_per_item": bytes_per_item,
    }
    settings = {name: value for name, value in stated.items() if value is not None}
    folder = needed("--output", output)
    if upsert + delete + compact > 1:
        raise ConfigError("--upsert, --delete and --compact: one at a time")
    from recsys import summary
    from recsys.retrieval import changes
    from recsys.retrieval.build import IndexSettings
    from recsys.retrieval.build import index as build
    from recsys.retrieval.index import Index
    from recsys.retrieval.of_bundle import index_bundle, is_bundle

    bundle = vectors is not None and is_bundle(vectors)
    flags = {
        "vectors": vectors,
        "vector_column": vector_column,
        "id_column": id_column,
        "ids": ids,
        "attributes": attributes,
        "queries": queries,
        "tower": tower,
        "retrain": retrain or None,
        **settings,
    }
    _refuse_ignored(
        [name for name, value in flags.items() if value is not None],
        "compact" if compact else "delete" if delete else "upsert" if upsert else "",
        bundle=bundle,
    )
    if compact:
        changes.compact(folder, retrain=retrain)
    elif delete:
        changes.delete(folder, needed("VECTORS", vectors), id_column=id_column)
    elif upsert:
        changes.upsert(
            folder,
            needed("VECTORS", vectors),
            vector_column=vector_column,
            id_column=id_column,
            ids=ids,
            tower=tower,
        )
    elif bundle:
        index_bundle(
            needed("VECTORS", vectors),
            folder,
            queries=queries,
            settings=IndexSettings(**settings),  # type: ignore[arg-type]
        )
    else:
        build(
            needed("VECTORS", vectors),
            folder,
            settings=IndexSettings(**settings),  # type: ignore[arg-type]
            vector_column=vector_column,
            id_column=id_column,
            attributes=names(attributes),
            ids=ids,
            queries=queries,
            tower=tower,
        )
    summary.show_index(Index.open(folder, verify=False))


_FOR_COLUMNS = ("vector_column", "id_column", "ids")
_CHANGES = {
    "compact": ("retrain",),
    "delete": ("vectors", "id_column"),
    "upsert": ("vectors", *_FOR_COLUMNS, "tower"),
}
"""What each change of an index takes."""


def _refuse_ignored(given: list[str], change: str, *, bundle: bool) -> None:
    """Raise ConfigError for what would have no effect."""
    for name in given:
        flag = "VECTORS" if name == "vectors" else f"--{name.replace('_', '-')}"
        if change and name not in _CHANGES[change]:
            if name in ("vectors", "tower", "retrain", *_FOR_COLUMNS):
                raise ConfigError(f"{flag}: --{change} takes none")
            raise ConfigError(f"{flag} is for building an index; this one has its own")
        if not change and name == "retrain":
            raise ConfigError("--retrain is for --compact; a build trains anyway")
        if bundle and not change and name in ("attributes", "metric", "tower", *_FOR_COLUMNS):
            raise ConfigError(f"{flag}: a bundle has its own; leave it out")
    if bundle and change:
        raise ConfigError(f"VECTORS: --{change} takes files, found a bundle; build an index from it")


def search(
    folder: Annotated[Path, typer.Argument(metavar="INDEX", help="Folder of the index.")],
    query: Annotated[
        str | None, typer.Option(metavar="JSON", help="One vector: '[0.1, -0.2]', or several interests.")
    ] = None,
    like: Annotated[
        str | None, typer.Option(metavar="ID", help="An item whose neighbours to find.")
    ] = None,
    queries: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Queries: Parquet, npy or safetensors.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Parquet file for the answers to --queries.")
    ] = None,
    k: Annotated[int | None, typer.Option("-k", min=1, help="Answers per query; default: 10.")] = None,
    filter: Annotated[
        str | None, typer.Option(metavar="SQL", help="Items to search: \"price < 20 AND brand = 'a'\".")
    ] = None,
    exclude: Annotated[
        list[str] | None, typer.Option(metavar="A,B", help="Ids that one query must not find.")
    ] = None,
    exclude_column: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Column of --queries with such ids, or lists of them."),
    ] = None,
    query_column: Annotated[
        str | None, typer.Option(metavar="NAME", help="Column of --queries with the queries' ids.")
    ] = None,
    vector_column: VectorColumn = None,
    exact: Annotated[bool, typer.Option("--exact", help="Compare every item instead of codes.")] = False,
    tower: Tower = None,
) -> None:
    """Find the best items for one query, or for a file of them."""
    begin("search", str(folder))
    given = [flag for flag, value in (("query", query), ("like", like), ("queries", queries)) if value]
    if len(given) != 1:
        raise ConfigError("expected one of --query, --like and --queries")
    from recsys import summary
    from recsys.retrieval.batch import Asked
    from recsys.retrieval.batch import search as search_file
    from recsys.retrieval.index import Index

    opened = Index.open(folder, tower=tower)
    k = min(10, len(opened)) if k is None else k
    if queries is not None:
        if exclude:
            raise ConfigError("--exclude is for one query; name a column by --exclude-column")
        asked = Asked(k, filter, exclude_column, exact)
        answers = search_file(
            opened,
            queries,
            needed("--output", output),
            asked=asked,
            vector_column=vector_column,
            query_column=query_column,
        )
        typer.echo(str(answers))
        return
    left_out = [_id(opened, name) for name in names(exclude)]
    if like is not None:
        left_out.append(_id(opened, like))
        vector: Any = opened.vectors([_id(opened, like)])
    else:
        vector = _vector(query or "")
    summary.show_found(opened.search(vector, k, filter=filter, exclude=left_out or None, exact=exact))


def _id(index: Index, text: str) -> int | str:
    """An id as the index has it, from the command line."""
    if index.manifest.id_type == "string":
        return text
    try:
        return int(text)
    except ValueError as error:
        raise ConfigError(f"id {text!r}: the ids of this index are integers") from error


def _vector(text: str) -> list[Any]:
    """One query, ``[D]`` or several interests ``[1, I, D]``."""
    try:
        values = json.loads(text)
        if all(isinstance(value, list) for value in values):
            return [[[float(number) for number in interest] for interest in values]]
        return [float(value) for value in values]
    except (ValueError, TypeError) as error:
        raise ConfigError(
            f"--query: expected a JSON list of numbers, or of such lists; found {text[:40]!r}"
        ) from error
