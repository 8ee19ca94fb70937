"""What an index of 1 M × 256 holds in memory, how fast it re-ranks, and what codes of 8 bytes keep."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray
from retrieval_data import made
from retrieval_index import built, source

from recsys.retrieval.build import IndexSettings, index
from recsys.retrieval.coarse import Coarse
from recsys.retrieval.dense import DenseFile, DenseWriter
from recsys.retrieval.index import Index
from recsys.retrieval.kernels import best

WIDE = 256
CANDIDATES, QUERIES = 1_000, 300


def wide_index(rows: int) -> Path:
    """Our index of made vectors of 256 numbers, from the cache where it was built before."""

    def build(folder: Path) -> None:
        items, queries = made(rows, 2_500, WIDE)
        np.save(folder / "asked.npy", queries[:500])
        settings = IndexSettings(codes=True)
        index(items, folder / "index", settings=settings, queries=queries[500:])

    return built("wide", {"rows": rows, "dim": WIDE, "source": source()}, build)[0]


def resident(folder: Path) -> dict[str, float]:
    """Bytes per item that opening and searching an index adds to a process that has done so before."""
    done = subprocess.run(
        [sys.executable, __file__, str(folder)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _grown(folder: Path) -> None:
    """What ``resident`` runs in a process of its own: prints anonymous and mapped bytes per item."""
    asked = np.load(folder / "asked.npy")
    with tempfile.TemporaryDirectory() as small:  # libraries, compiled loops and their first memory
        items = made(5_000, 1, WIDE)[0]
        warm = index(items, small + "/index", settings=IndexSettings(codes=True, dtype="float16"))
        coarse = warm._state[1].coarse
        assert coarse is not None
        coarse.count = CANDIDATES
        warm.search(asked)  # with buffers as large as the other search will need
        del warm, coarse, items
    gc.collect()
    before = _memory(folder)
    opened = Index.open(folder / "index", verify=False)
    opened.search(asked[:10], 10)
    loaded = _memory(folder)["anonymous"] - before["anonymous"]
    opened.search(asked, 10)
    _drop(folder / "index" / "version-000001" / "vectors.bin")
    gc.collect()
    after = _memory(folder)
    each = {name: (after[name] - before[name]) / len(opened) for name in after}
    measured = opened.manifest.measured
    assert measured is not None
    each |= {"loaded": loaded / len(opened), "recall10": measured.recall}
    print(json.dumps(each))


def _drop(path: Path) -> None:
    """Let the system forget a file's pages, as far as no process needs them."""
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _memory(folder: Path) -> dict[str, float]:
    """Anonymous bytes, and resident ones of the index's mapped files but the dense vectors."""
    anonymous = mapped = 0.0
    ours = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        first = line.split(maxsplit=1)[0]
        if "-" in first and not first.endswith(":"):
            ours = str(folder) in line and "vectors.bin" not in line
        elif first == "Anonymous:":
            anonymous += 1024 * int(line.split()[1])
        elif first == "Rss:" and ours:
            mapped += 1024 * int(line.split()[1])
    return {"anonymous": anonymous, "mapped": mapped}


def rerank_milliseconds(rows: int) -> list[float]:
    """Milliseconds of comparing one query with 1000 random rows of a mapped float16 file, warm."""
    generator = np.random.default_rng(0)
    block = generator.standard_normal((50_000, WIDE), np.float32)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vectors.bin"
        writer = DenseWriter(path, WIDE, "float16", "made")
        for _ in range(0, rows, len(block)):
            writer.append(block)
        writer.finish()
        dense = DenseFile(path, writer.rows, WIDE, "float16", "ip")
        dense.scores(block[:1], np.arange(dense.rows)[None])  # maps every page; few rows stay in a cache
        spent = []
        for _ in range(QUERIES):
            candidates = generator.integers(0, dense.rows, (1, CANDIDATES))
            started = time.perf_counter()
            dense.scores(block[:1], candidates)
            spent.append(1000 * (time.perf_counter() - started))
    return spent


# --- 8 bytes on Gowalla ---------------------------------------------------------------------------


def kept_at_8_bytes(log: Path) -> dict[str, float | int | str | None]:
    """Recall@20 of held-out check-ins after codes of 8 bytes and a re-rank of 200, over an exact search's.

    Vectors: a truncated SVD of Gowalla's train matrix (64 numbers), made here; seen items are masked.
    """
    if not (log / "train.parquet").exists():
        print(f"{log}: no Gowalla here, kept_8b is left out")
        return {"kept_8b": None}
    users, items, seen, wanted = gowalla_vectors(log)
    with tempfile.TemporaryDirectory() as folder:
        settings = IndexSettings(codes=True, dtype="float32", bytes_per_item=27.2)
        opened = index(items, folder + "/index", settings=settings)
        coarse, dense = opened._state[1].coarse, opened._state[1].base.dense
        assert coarse is not None
        exact = _task_recall(_exact(users, dense, seen), wanted)
        coded = _task_recall(_by_codes(users, coarse, dense, seen), wanted)
        size = coarse.quantiser.code_bytes
    return {"kept_8b": coded / exact, "kept_8b_code_bytes": size, "kept_8b_exact_recall20": exact}


def gowalla_vectors(
    log: Path,
) -> tuple[NDArray[np.float32], NDArray[np.float32], list[NDArray[np.int64]], list[NDArray[np.int64]]]:
    """Vectors of users with test items, of items, and each user's train and test items."""
    from scipy.sparse import csr_matrix
    from scipy.sparse.linalg import svds

    train, test = (pl.read_parquet(log / f"{part}.parquet") for part in ("train", "test"))
    user, item = train.columns[:2]
    shape = (
        int(max(train[user].max(), test[user].max())) + 1,
        int(max(train[item].max(), test[item].max())) + 1,
    )
    ones = np.ones(train.height, np.float32)
    matrix = csr_matrix((ones, (train[user].to_numpy(), train[item].to_numpy())), shape)
    left = 1 / np.sqrt(np.maximum(np.asarray(matrix.sum(axis=1)).ravel(), 1))
    right = 1 / np.sqrt(np.maximum(np.asarray(matrix.sum(axis=0)).ravel(), 1))
    weighted = matrix.multiply(left[:, None]).multiply(right[None]).tocsr().astype(np.float32)
    u, s, v = svds(weighted, k=64, random_state=0)
    lists = test.group_by(user).agg(item).sort(user)[::10]
    known = dict(train.group_by(user).agg(item).iter_rows())
    who = lists[user].to_numpy()
    return (
        np.ascontiguousarray(u[who] * s, np.float32),
        np.ascontiguousarray(v.T, np.float32),
        [np.array(known.get(each, []), np.int64) for each in who],
        [np.array(line, np.int64) for line in lists[item].to_list()],
    )


def _exact(
    users: NDArray[np.float32], dense: DenseFile, seen: list[NDArray[np.int64]]
) -> NDArray[np.int64]:
    lines = []
    for start in range(0, len(users), 1_000):
        scores = users[start : start + 1_000] @ dense.take(slice(None)).T
        for line, gone in zip(scores, seen[start : start + 1_000], strict=True):
            line[gone] = -np.inf
        lines.append(np.argpartition(-scores, 19, axis=1)[:, :20])
    return np.concatenate(lines)


def _by_codes(
    users: NDArray[np.float32], coarse: Coarse, dense: DenseFile, seen: list[NDArray[np.int64]]
) -> NDArray[np.int64]:
    lines = []
    for query, gone in zip(users, seen, strict=True):
        ranked = coarse.ranked(query[None], 200 + len(gone), coarse.quantiser.lists)[0]
        fresh = ranked[~np.isin(ranked, gone)][None, :200]
        lines.append(best(dense.scores(query[None], fresh), fresh, 20)[1])
    return np.concatenate(lines)


def _task_recall(rows: NDArray[np.int64], wanted: list[NDArray[np.int64]]) -> float:
    return float(
        np.mean(
            [
                len(np.intersect1d(line, right)) / len(right)
                for line, right in zip(rows, wanted, strict=True)
            ]
        )
    )


if __name__ == "__main__":
    _grown(Path(sys.argv[1]))
