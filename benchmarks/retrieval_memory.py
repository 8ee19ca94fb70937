"""What an index of 1 M × 256 holds in memory, and how fast it re-ranks."""

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
from retrieval_data import made
from retrieval_index import built, source

from recsys.retrieval.build import IndexSettings, index
from recsys.retrieval.dense import DenseFile, DenseWriter
from recsys.retrieval.index import Index

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


if __name__ == "__main__":
    _grown(Path(sys.argv[1]))
