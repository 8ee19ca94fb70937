"""``index``: build an index of item vectors, from a file of anyone's or from arrays."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.errors import ConfigError, DataError
from recsys.progress import progress, say
from recsys.retrieval.choice import Choice, Goal, choose
from recsys.retrieval.coarse import CODES_FILE, LISTS_FILE, Coarse
from recsys.retrieval.dense import DenseDtype, DenseFile, Metric, of_length_one
from recsys.retrieval.index import Index, tower_fingerprint
from recsys.retrieval.items import Items
from recsys.retrieval.manifest import (
    MANIFEST_FILE,
    CoarseRecord,
    IndexManifest,
    VectorsRecord,
    file_records,
    packages,
    save,
)
from recsys.retrieval.quality import Questions, answered, measure
from recsys.retrieval.quantiser import Quantiser
from recsys.retrieval.segment import VECTORS_FILE, Segment, SegmentWriter
from recsys.retrieval.snapshot import Snapshot
from recsys.retrieval.sources import Chunk, VectorSource, open_vectors
from recsys.retrieval.versions import Current, new_folder, one_writer, publish
from recsys.serving.files import save_tensors
from recsys.stage import writing

QUERIES_FILE = "queries.safetensors"
"""Given queries that parameters were chosen and recall was measured by: what a compaction goes by."""
CODES_FROM = 100_000
"""Items from which on codes are searched; below, an exact search is faster than one of codes."""
CODES_LEAST = 64
"""Items that codes need at least."""
_TUNING, _HELD_OUT, _TEACHING = 1_000, 1_000, 8_000
"""Most queries to choose parameters by, to measure the result by, and to learn the routing from."""


@dataclass(frozen=True)
class IndexSettings:
    """How an index is built."""

    metric: Metric = "ip"
    """``ip`` (inner product), ``cosine`` or ``l2``."""
    dtype: DenseDtype | None = None
    """Of the dense vectors on disk; default: float32 where searches are exact, else float16."""
    codes: bool | None = None
    """Search by codes; default: from 100,000 items on."""
    recall: float = 0.95
    """Wanted share of the exact answers."""
    k: int = 10
    """Answers per query that this recall is of."""
    bytes_per_item: float | None = None
    """Memory for codes, row numbers and tables; default: as little as reaches the recall."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value, known in (
            ("metric", self.metric, ("ip", "cosine", "l2")),
            ("dtype", self.dtype, (None, "float32", "float16", "int8")),
        ):
            if value not in known:
                listed = ", ".join(str(each) for each in known if each)
                raise ConfigError(f"{name}: expected one of {listed}, found {value!r}")
        if not 0 < self.recall <= 1:
            raise ConfigError(f"recall: expected a share above 0 and at most 1, found {self.recall}")
        if self.k < 1:
            raise ConfigError(f"k: expected at least 1, found {self.k}")


def index(
    vectors: str | Path | NDArray[Any],
    output: str | Path,
    *,
    settings: IndexSettings | None = None,
    vector_column: str | None = None,
    id_column: str | None = None,
    attributes: Sequence[str] = (),
    ids: Any = None,
    queries: str | Path | NDArray[Any] | None = None,
    quantiser: Quantiser | None = None,
    tower: str | Path | None = None,
) -> Index:
    """Build an index, or a new version of one; readers see the old version until the new one is whole.

    Args:
        vectors, vector_column, id_column, attributes, ids: what to index; see ``sources.open_vectors``.
        output: folder of the index.
        settings: metric, type of the stored vectors, wanted recall or memory.
        queries: vectors of real queries, in any form that ``vectors`` may have: what probes are chosen by,
            and recall is measured by on others of them. Default: item vectors stand in.
        quantiser: lists and codebooks learned elsewhere, instead of training some.
        tower: the query tower that the vectors are for: its bundle, or that one's fingerprint.

    Raises:
        ConfigError: settings that make no sense.
        DataError: vectors that cannot be used, an id that stands twice, or a full disk.
        RetrievalError: another process writes the same index.
    """
    settings = settings or IndexSettings()
    source = open_vectors(
        vectors, vector_column=vector_column, id_column=id_column, attributes=attributes, ids=ids
    )
    asked = None if queries is None else _queries(queries, source)
    made_for = None if tower is None else tower_fingerprint(tower)
    folder = Path(output)
    with one_writer(folder):
        publish_version(folder, source, asked, settings, quantiser, made_for)
    return Index.open(folder, verify=False)


def publish_version(
    folder: Path,
    source: VectorSource,
    asked: NDArray[np.float32] | None,
    settings: IndexSettings,
    quantiser: Quantiser | None,
    tower: str | None,
) -> None:
    """Write a version of vectors and point to it; the caller keeps other writers out."""
    with writing(folder):
        with new_folder(folder, "version") as (aside, name):
            _write_version(aside, source, asked, settings, quantiser, tower)
        publish(folder, Current(name, None))


def _write_version(
    home: Path,
    source: VectorSource,
    asked: NDArray[np.float32] | None,
    settings: IndexSettings,
    quantiser: Quantiser | None,
    tower: str | None,
) -> None:
    by_codes = settings.codes if settings.codes is not None else source.rows >= CODES_FROM
    by_codes = by_codes or quantiser is not None
    if by_codes and source.rows < CODES_LEAST:
        raise ConfigError(
            f"codes: {source.name} holds {source.rows} vectors; codebooks need {CODES_LEAST} at least, and "
            "so few are searched faster without"
        )
    if settings.bytes_per_item is not None and not by_codes:
        raise ConfigError(
            f"bytes_per_item: is for codes, and the {source.rows} vectors of {source.name} are searched "
            "exactly, without any; leave it out, or ask for codes (--codes)"
        )
    dtype: DenseDtype = settings.dtype or ("float16" if by_codes else "float32")
    with (
        SegmentWriter(home, source.dim, dtype, source.name) as writer,
        progress("vectors", source.rows, "items") as bar,
    ):
        for chunk in normal_chunks(source, settings.metric):
            writer.append(chunk)
            bar.advance(len(chunk.vectors))
        rows, id_type = writer.finish()
    dense = DenseFile(home / VECTORS_FILE, rows, source.dim, dtype, settings.metric)
    items = Items(home, rows, id_type)
    goal = Goal(settings.recall, min(settings.k, rows), settings.bytes_per_item)
    questions = _questions(source, dense, asked, settings, goal.k)
    choice = None
    if asked is not None:
        kept = np.concatenate([questions.tuning.queries, questions.held_out.queries])
        save_tensors(home / QUERIES_FILE, {"queries": kept})
    if by_codes:
        choice = _chosen(dense, goal, questions, quantiser, settings.seed)
        _write_codes(home, choice)
    manifest = IndexManifest(
        packages=packages(),
        metric=settings.metric,
        rows=rows,
        id_type=id_type,
        id_column=items.id_column,
        attributes={name: str(dtype) for name, dtype in list(items.schema.items())[1:]},
        vectors=(VectorsRecord(file=VECTORS_FILE, dim=source.dim, dtype=dtype, tower=tower),),
        coarse=None if choice is None else _record(choice, goal),
        measured=None,
        files=file_records(home),
    )
    coarse = None if manifest.coarse is None else Coarse.open(home, manifest.coarse, settings.metric, rows)
    snapshot = Snapshot(manifest, Segment(dense, items), coarse, None)
    measured = measure(snapshot, questions.held_out, goal.k, settings.recall)
    if choice is not None and measured.recall < settings.recall:
        say(
            f"index     recall@{goal.k} is {measured.recall:.4f}, wanted was {settings.recall}; give more "
            "bytes per item, or real queries to choose by"
        )
    save(manifest.model_copy(update={"measured": measured}), home / MANIFEST_FILE)


def normal_chunks(source: VectorSource, metric: Metric) -> Iterator[Chunk]:
    """The rows of a source as they are stored: of length one for the cosine."""
    row = 0
    for chunk in source.chunks():
        if metric == "cosine":
            chunk = replace(chunk, vectors=of_length_one(chunk.vectors, source.name, row))
        yield chunk
        row += len(chunk.vectors)


@dataclass(frozen=True)
class _Parts:
    """Questions for three purposes, none of them in two."""

    tuning: Questions
    held_out: Questions
    teaching: Questions | None


def _questions(
    source: VectorSource,
    dense: DenseFile,
    asked: NDArray[np.float32] | None,
    settings: IndexSettings,
    k: int,
) -> _Parts:
    """Queries, given or drawn from the items, and their exact answers among the vectors as given."""
    generator = np.random.default_rng(settings.seed)
    own = None
    if asked is None:
        own = generator.choice(dense.rows, min(dense.rows, _TUNING + _HELD_OUT), replace=False)
        queries = dense.take(own)
    else:
        count = min(len(asked), _TUNING + _HELD_OUT + _TEACHING)
        queries = asked[generator.choice(len(asked), count, replace=False)]
        if settings.metric == "cosine":
            queries = of_length_one(queries, "queries")
    if own is not None and dense.rows <= k:  # no item has k others
        own = None
    chunks = (chunk.vectors for chunk in normal_chunks(source, settings.metric))
    found = answered(np.ascontiguousarray(queries), chunks, k, settings.metric, own)
    third = max(1, len(found) // 2) if len(found) < 2 * _TUNING else _TUNING
    tuning, held_out = found.part(0, third), found.part(min(third, len(found) - 1), 2 * third)
    teaching = found.part(2 * third, len(found)) if asked is not None else None
    return _Parts(tuning, held_out, teaching)


def _chosen(
    dense: DenseFile, goal: Goal, questions: _Parts, quantiser: Quantiser | None, seed: int
) -> Choice:
    if quantiser is not None and quantiser.rotation.shape[1] != dense.dim:
        raise ConfigError(
            f"quantiser: made for vectors of {quantiser.rotation.shape[1]} numbers, these have {dense.dim}"
        )
    return choose(dense, goal, questions.tuning, questions.teaching, given=quantiser, seed=seed)


def _write_codes(home: Path, choice: Choice) -> None:
    choice.quantiser.save(home)
    choice.codes.tofile(home / CODES_FILE)
    choice.lists.astype(np.uint32).tofile(home / LISTS_FILE)


def _record(choice: Choice, goal: Goal) -> CoarseRecord:
    quantiser = choice.quantiser
    return CoarseRecord(
        lists=quantiser.lists,
        segments=quantiser.codebooks.shape[0],
        bits=quantiser.bits,
        code_bytes=quantiser.code_bytes,
        by_residual=quantiser.by_residual,
        probes=choice.probes,
        candidates=choice.candidates,
        k=goal.k,
        bytes_per_item=goal.bytes_per_item,
        routing=quantiser.routed_by,
        codebooks=quantiser.made_by,
        tried=choice.tried,
        learned=choice.learned,
    )


def _queries(queries: str | Path | NDArray[Any], source: VectorSource) -> NDArray[np.float32]:
    """All given query vectors, of the items' width."""
    opened = open_vectors(queries, need_ids=False)
    found = np.concatenate([chunk.vectors for chunk in opened.chunks()])
    if found.shape[1] != source.dim:
        raise DataError(
            f"queries: vectors of {found.shape[1]} numbers for items of {source.dim}; expected one width"
        )
    return found
