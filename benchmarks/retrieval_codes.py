"""What codes of 4 and 8 bytes keep of our own towers' vectors: recall of Gowalla's held-out check-ins.

A tenth of the users is asked, places of earlier parts masked; our index learns from the vectors of the
others, FAISS's is not given any. All lists are searched. ``retrieval_gowalla.py`` trains the towers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray
from retrieval_index import built, bytes_for, source

from recsys.data.dataset import PARTS, Part
from recsys.evaluation.retrieval import ItemLists
from recsys.retrieval.build import IndexSettings, index
from recsys.retrieval.index import Index
from recsys.retrieval.kernels import best
from recsys.training.catalogue import Catalogue
from recsys.training.distributed import distributed
from recsys.training.loaded import opened_run
from recsys.training.run_folder import Run
from recsys.training.vectors import Queries, ranked

ASKED_EVERY = 10
DEPTHS = (20, 100, 200)
FLAT, IN_LISTS, BY_DISTANCE = "OPQ4,PQ4x8", "OPQ4,IVF512,PQ4x8", "OPQ4,IVF512(L2),PQ4x8"
FAISS_4B = (FLAT, IN_LISTS, BY_DISTANCE)
"""FAISS's OPQ at 4 bytes: over all items, over residuals of as many lists as ours has, and the same with
lists by distance, which FAISS's factory does not make for inner products."""
Figures = dict[str, Any]
Rank = Callable[[NDArray[np.float32], int], NDArray[np.int64]]
"""The best rows ``[count]`` of one query ``[1, D]``."""


@dataclass(frozen=True)
class Log:
    """Vectors of a log, and what is known of those who ask."""

    items: NDArray[np.float32]
    users: NDArray[np.float32]
    """Those that are asked."""
    others: NDArray[np.float32]
    """Those that our index may learn from."""
    seen: list[NDArray[np.int64]]
    wanted: list[NDArray[np.int64]]
    """Items of earlier parts, and of the part that is looked for, of each user that is asked."""

    def recalls(self, rank: Rank, k: int, rerank: int | None = None) -> NDArray[np.float64]:
        """Recall@k of each user: of a ranking, or of its first ``rerank`` places ordered exactly."""
        found = np.empty(len(self.users))
        for at, (query, gone, right) in enumerate(zip(self.users, self.seen, self.wanted, strict=True)):
            count = rerank or k
            rows = rank(query[None], count + len(gone))
            rows = rows[~np.isin(rows, gone)][:count]
            if rerank is not None:
                rows = best((self.items[rows] @ query)[None], rows[None], k)[1][0]
            found[at] = len(np.intersect1d(rows, right)) / len(right)
        return found


def code_figures(log: Log) -> Figures:
    """Recall of the code ranking at 4 bytes beside FAISS's, and what 8 bytes keep after re-ranking 200."""
    exact = {k: log.recalls(lambda query, count: _first(log.items @ query[0], count), k) for k in DEPTHS}
    figures: Figures = {f"exact_recall{k}": recalls.mean() for k, recalls in exact.items()}
    ranking, figures["codebooks_4b"] = _our_rank(log, 4)
    mine = {k: log.recalls(ranking, k) for k in DEPTHS}
    figures |= {f"ours_4b_recall{k}": recalls.mean() for k, recalls in mine.items()}
    figures |= _gain_4b(log, mine)
    ranking, figures["codebooks_8b"] = _our_rank(log, 8)
    figures["kept_8b"] = log.recalls(ranking, 20, rerank=200).mean() / figures["exact_recall20"]
    return figures


def _gain_4b(log: Log, mine: dict[int, NDArray[np.float64]]) -> Figures:
    """Points of recall above the better of FAISS's at the same bytes, and their standard errors."""
    figures: Figures = {}
    theirs = {}
    for spec in FAISS_4B:
        ranked = _faiss(log, spec)
        theirs[spec] = {k: log.recalls(ranked, k) for k in mine}
        figures |= {f"{spec}_recall{k}": recalls.mean() for k, recalls in theirs[spec].items()}
    best_spec = max(theirs, key=lambda spec: theirs[spec][100].mean())
    for k, recalls in mine.items():
        gain = 100 * (recalls - theirs[best_spec][k])
        name = "learned_gain_4b" if k == 100 else f"learned_gain_4b_at_{k}"
        figures |= {name: gain.mean(), f"{name}_error": gain.std() / np.sqrt(len(gain))}
    return figures


def _first(scores: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """Rows of the highest scores, best first."""
    rows = np.argpartition(-scores, count)[:count]
    return rows[np.argsort(-scores[rows])]


def _our_rank(log: Log, code_bytes: int) -> tuple[Rank, str]:
    """Our index with codes of so many bytes, all lists searched; and how its codebooks were made."""
    rows, dim = log.items.shape
    size = bytes_for(code_bytes, rows, dim)

    def build(folder: Path) -> None:
        settings = IndexSettings(codes=True, dtype="float32", bytes_per_item=size)
        index(log.items, folder / "index", settings=settings, queries=log.others)

    facts = {"bytes": code_bytes, "sum": float(log.items.sum())}
    folder, _ = built("gowalla-ours", facts | {"source": source()}, build)
    made = Index.open(folder / "index", verify=False)
    coarse, record = made._state[1].coarse, made.manifest.coarse
    assert coarse is not None
    assert record is not None
    assert record.code_bytes == code_bytes
    return lambda query, count: coarse.ranked(query, count, coarse.quantiser.lists)[0], record.codebooks


def _faiss(log: Log, spec: str) -> Rank:
    def build(folder: Path) -> None:
        dim = log.items.shape[1]
        if spec == BY_DISTANCE:
            made = _by_distance(dim)
        else:
            made = faiss.index_factory(dim, spec, faiss.METRIC_INNER_PRODUCT)
        made.train(log.items)
        made.add(log.items)
        faiss.write_index(made, str(folder / "index.faiss"))

    folder, _ = built(
        "gowalla", {"spec": spec, "rows": len(log.items), "sum": float(log.items.sum())}, build
    )
    opened = faiss.read_index(str(folder / "index.faiss"))
    if "IVF" in spec:
        faiss.extract_index_ivf(opened).nprobe = 512
    return lambda query, count: opened.search(query, count)[1][0]


def _by_distance(dim: int) -> Any:
    """OPQ over the residuals of 512 lists of nearest centroids, to be searched by inner product."""
    centres = faiss.IndexFlatL2(dim)
    codes = faiss.IndexIVFPQ(centres, dim, 512, 4, 8, faiss.METRIC_INNER_PRODUCT)
    codes.cp.spherical = False  # else centroids have a length of 1 and residuals are longer than vectors
    turn = faiss.OPQMatrix(dim, 4)
    made = faiss.IndexPreTransform(turn, codes)
    made.referenced_objects = [centres, codes, turn]
    return made


def tower_log(run: Path, part: Part) -> Log:
    """The best checkpoint's vectors of items and users; what a tenth of the users has seen and takes."""
    with opened_run(Run.load(run)) as (dataset, _, model, tables), distributed("cpu") as ranks:
        catalogue = Catalogue.of(dataset)
        queries = Queries.of(dataset, part, catalogue, PARTS[: PARTS.index(part)])
        found = ranked(model, tables, queries, catalogue, ranks)
    assert found is not None
    assert queries.seen is not None
    asked = np.flatnonzero(queries.relevant.lengths)[::ASKED_EVERY]
    return Log(
        found.item_vectors,
        found.query_vectors[asked],
        np.delete(found.query_vectors, asked, axis=0),
        _of(queries.seen, asked),
        _of(queries.relevant, asked),
    )


def _of(lists: ItemLists, asked: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    return [lists.items[lists.offsets[each] : lists.offsets[each + 1]] for each in asked]
