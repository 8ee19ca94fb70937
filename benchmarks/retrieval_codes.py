"""What codes of 4 and 8 bytes keep on Gowalla: recall of held-out check-ins, seen places masked.

Vectors: a truncated SVD of the train matrix (64 numbers), made here. A tenth of the users is asked; the
vectors of others are the queries that our index is built with. FAISS's index is not given any.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import polars as pl
from numpy.typing import NDArray
from retrieval_index import built, bytes_for, source

from recsys.retrieval.build import IndexSettings, index
from recsys.retrieval.index import Index
from recsys.retrieval.kernels import best

DIM, ASKED_EVERY = 64, 10
FLAT, IN_LISTS, BY_DISTANCE = "OPQ4,PQ4x8", "OPQ4,IVF512,PQ4x8", "OPQ4,IVF512(L2),PQ4x8"
FAISS_4B = (FLAT, IN_LISTS, BY_DISTANCE)
"""FAISS's OPQ at 4 bytes: over all items, over residuals of as many lists as ours has, and the same with
lists by distance, which FAISS's factory does not make for inner products."""
Figures = dict[str, Any]
Rank = Callable[[NDArray[np.float32], int], NDArray[np.int64]]
"""The best rows ``[count]`` of one query ``[1, D]``."""


@dataclass(frozen=True)
class Log:
    """Gowalla as vectors."""

    items: NDArray[np.float32]
    users: NDArray[np.float32]
    """Those that are asked."""
    others: NDArray[np.float32]
    """Those that our index may learn from."""
    seen: list[NDArray[np.int64]]
    wanted: list[NDArray[np.int64]]
    """Train and test items of each user that is asked."""

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


def gowalla_codes(folder: Path, earlier: Figures | None = None) -> Figures:
    """``kept_8b`` and ``learned_gain_4b``, with what they are made of.

    ``earlier`` are figures of a full run, from which FAISS's are taken; None: measured here.
    """
    if not (folder / "train.parquet").exists():
        print(f"{folder}: no Gowalla here, kept_8b and learned_gain_4b are left out")
        return {"kept_8b": None, "learned_gain_4b": None}
    log = gowalla(folder)
    exact = log.recalls(lambda query, count: first(log.items @ query[0], count), 20).mean()
    figures: Figures = {"gowalla_svd_exact_recall20": exact}
    asked = {"kept_8b": log.others, "kept_8b_items_as_queries": None}
    for name in list(asked)[: None if earlier is None else 1]:
        ranked, kind = our_rank(log, 8, asked[name])
        figures[name] = log.recalls(ranked, 20, rerank=200).mean() / exact
        figures[f"{name}_codebooks"] = kind
    ranked, kind = our_rank(log, 4, log.others)
    mine = {k: log.recalls(ranked, k) for k in (20, 100, 200)}
    figures |= {f"ours_4b_recall{k}": recalls.mean() for k, recalls in mine.items()}
    figures["ours_4b_codebooks"] = kind
    if earlier is not None:
        known = [earlier[f"{spec}_recall100"] for spec in FAISS_4B]
        return figures | {"learned_gain_4b": 100 * (mine[100].mean() - max(known))}
    return figures | gain_4b(log, mine)


def gain_4b(log: Log, mine: dict[int, NDArray[np.float64]]) -> Figures:
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


def first(scores: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """Rows of the highest scores, best first."""
    rows = np.argpartition(-scores, count)[:count]
    return rows[np.argsort(-scores[rows])]


def our_rank(log: Log, code_bytes: int, queries: NDArray[np.float32] | None) -> tuple[Rank, str]:
    """Our index with codes of so many bytes, all lists searched; and how its codebooks were made."""
    rows, dim = log.items.shape
    size = bytes_for(code_bytes, rows, dim)

    def build(folder: Path) -> None:
        settings = IndexSettings(codes=True, dtype="float32", bytes_per_item=size)
        index(log.items, folder / "index", settings=settings, queries=queries)

    facts = {"bytes": code_bytes, "queries": queries is not None, "sum": float(log.items.sum())}
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


def gowalla(folder: Path) -> Log:
    """Vectors of users and items, and each asked user's train and test items."""
    from scipy.sparse import csr_matrix
    from scipy.sparse.linalg import svds

    train, test = (pl.read_parquet(folder / f"{part}.parquet") for part in ("train", "test"))
    user, item = train.columns[:2]
    shape = tuple(int(max(train[name].max(), test[name].max())) + 1 for name in (user, item))
    ones = np.ones(train.height, np.float32)
    matrix = csr_matrix((ones, (train[user].to_numpy(), train[item].to_numpy())), shape)
    left = 1 / np.sqrt(np.maximum(np.asarray(matrix.sum(axis=1)).ravel(), 1))
    right = 1 / np.sqrt(np.maximum(np.asarray(matrix.sum(axis=0)).ravel(), 1))
    weighted = matrix.multiply(left[:, None]).multiply(right[None]).tocsr().astype(np.float32)
    u, s, v = svds(weighted, k=DIM, random_state=0)
    lists = test.group_by(user).agg(item).sort(user)[::ASKED_EVERY]
    known = dict(train.group_by(user).agg(item).iter_rows())
    who = lists[user].to_numpy()
    vectors = np.ascontiguousarray(u * s, np.float32)
    return Log(
        np.ascontiguousarray(v.T, np.float32),
        vectors[who],
        np.delete(vectors, who, axis=0),
        [np.array(known.get(each, []), np.int64) for each in who],
        [np.array(line, np.int64) for line in lists[item].to_list()],
    )
