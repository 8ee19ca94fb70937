"""The frontier at 1 M × 64 or more: recall@10, queries/s and bytes, ours beside FAISS and other indexes.

Everything runs on one thread and answers the same queries in batches. Dense vectors lie on disk and are
mapped, for ours and for FAISS's IndexRefine alike, so that ``bytes`` counts codes, ids and tables. What
takes long to build is kept in ``benchmarks/.cache`` by the hash of what it was built from, with the seconds
that it took.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from harness import interleaved, versions
from numpy.typing import NDArray
from retrieval_data import made

from recsys.retrieval.build import IndexSettings, index
from recsys.retrieval.choice import byte_costs, lists_for
from recsys.retrieval.coarse import ROW_NUMBER_BYTES
from recsys.retrieval.index import Index
from recsys.retrieval.quality import answered

HERE = Path(__file__).parent
CACHE = HERE / ".cache"
PEER = HERE / ".envs" / "retrieval" / "bin" / "python"
PEER_SCRIPT = HERE / "peers" / "retrieval_search.py"
OTHERS = ("hnswlib", "usearch", "scann", "lance")
LONGEST = 1_200
"""Seconds after which one of them is given up."""
DIM, K = 64, 10
ASKED, TAUGHT = 1_000, 6_000
"""Queries that are measured, and those that our index is built with: none in both."""
TIMED = 200
"""Of those asked, the ones that are timed; recall is of all."""
PROBES = (16, 32, 64, 128, 256)
DEPTHS = (30, 50, 100, 200)


Search = Callable[[NDArray[np.float32]], NDArray[np.int64]]
Case = tuple[str, str, float, Search]
"""Name, setting, bytes per item, and rows ``[Q, K]`` of queries."""


@dataclass(frozen=True)
class Point:
    """One setting of one index."""

    name: str
    setting: str
    recall: float
    qps: float
    bytes: float


@dataclass
class Data:
    """Vectors on disk, queries, and exact answers."""

    rows: int
    folder: Path
    items: NDArray[np.float32]
    asked: NDArray[np.float32]
    taught: NDArray[np.float32]
    answers: NDArray[np.int64]

    def recall(self, rows: NDArray[np.int64]) -> float:
        found = [len(np.intersect1d(line, right)) for line, right in zip(rows, self.answers, strict=True)]
        return float(np.mean(found) / K)


def data_of(rows: int) -> Data:
    """Made vectors, from the cache where they were made before."""
    folder = _cached("data", {"rows": rows, "dim": DIM})
    if not (folder / "answers.npy").exists():
        folder.mkdir(parents=True, exist_ok=True)
        items, queries = made(rows, ASKED + 10_000, DIM)
        np.save(folder / "items.npy", items)
        np.save(folder / "queries.npy", queries)
        np.save(folder / "answers.npy", answered(queries[:ASKED], [items], K, "ip").answers)
        flat = faiss.IndexFlatIP(DIM)
        flat.add(items)
        faiss.write_index(flat, str(folder / "flat.faiss"))
    queries = np.load(folder / "queries.npy")
    items = np.load(folder / "items.npy", mmap_mode="r")
    return Data(
        rows,
        folder,
        items,
        queries[:ASKED],
        queries[ASKED : ASKED + TAUGHT],
        np.load(folder / "answers.npy"),
    )


def _cached(kind: str, facts: dict[str, Any]) -> Path:
    text = json.dumps([kind, facts, (HERE / "retrieval_data.py").read_text()], sort_keys=True)
    return CACHE / f"retrieval-{kind}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def _folder(kind: str, facts: dict[str, Any]) -> Path:
    return _cached(kind, facts | {"faiss": versions(["faiss-cpu"])["faiss-cpu"]})


def built(kind: str, facts: dict[str, Any], build: Callable[[Path], None]) -> tuple[Path, float]:
    """Folder of what ``build`` writes, and the seconds that it took when it was built."""
    folder = _folder(kind, facts)
    stamp = folder / "seconds.json"
    if not stamp.exists():
        folder.mkdir(parents=True, exist_ok=True)
        started = time.perf_counter()
        build(folder)
        stamp.write_text(json.dumps(time.perf_counter() - started))
        print(f"built {kind} {facts}: {json.loads(stamp.read_text()):.0f} s", flush=True)
    return folder, json.loads(stamp.read_text())


# --- ours -----------------------------------------------------------------------------------------


def ours(data: Data, code_bytes: int) -> tuple[Index, float]:
    """Our index with codes of so many bytes."""

    def build(folder: Path) -> None:
        size = bytes_for(code_bytes, data.rows, DIM)
        settings = IndexSettings(codes=True, bytes_per_item=size)
        index(data.folder / "items.npy", folder / "index", settings=settings, queries=data.taught)

    folder, seconds = built("ours", {"rows": data.rows, "bytes": code_bytes, "source": source()}, build)
    return Index.open(folder / "index", verify=False), seconds


def bytes_for(code_bytes: int, rows: int, dim: int) -> float:
    """Bytes per item that codes of so many bytes take, with codebooks of 4 or 8 bits, and hardly more."""
    costs = [byte_costs(rows, dim, lists_for(rows), bits) for bits in (4, 8)]
    return ROW_NUMBER_BYTES + max(tables + (code_bytes + 0.5) * filled for tables, filled in costs)


def is_built(rows: int, code_bytes: int) -> bool:
    """Whether our index of so many rows is in the cache."""
    facts = {"rows": rows, "bytes": code_bytes, "source": source()}
    return (_folder("ours", facts) / "seconds.json").exists()


def source() -> str:
    """Hash of the code that builds."""
    home = HERE.parent / "recsys" / "retrieval"
    names = ("choice.py", "codebooks.py", "learned.py", "routing.py", "quantiser.py")
    return hashlib.sha256(b"".join((home / name).read_bytes() for name in names)).hexdigest()[:12]


def our_cases(data: Data, opened: Index, name: str) -> Iterator[Case]:
    """Searches of our index by probes and candidates, the chosen setting first."""
    coarse = opened._state[1].coarse
    assert coarse is not None
    size = coarse.memory_bytes() / data.rows
    chosen = (coarse.probes, coarse.count)
    grid = [(probes, depth) for probes in PROBES for depth in DEPTHS]

    def search(queries: NDArray[np.float32], probes: int, depth: int) -> NDArray[np.int64]:
        coarse.probes, coarse.count = probes, depth
        return opened.search(queries, K).ids.explode().to_numpy().reshape(len(queries), K)

    for probes, depth in [chosen, *grid]:
        mark = " (chosen)" if (probes, depth) == chosen else ""
        yield name, f"{probes} probes, {depth}{mark}", size, lambda q, p=probes, d=depth: search(q, p, d)


# --- FAISS ----------------------------------------------------------------------------------------


def lists_of(data: Data, *, spherical: bool) -> tuple[NDArray[np.float32], NDArray[np.int64], float]:
    """Centroids and assignment, as FAISS trains them for inner products or by distance; seconds it took."""

    def build(folder: Path) -> None:
        clustering = faiss.Kmeans(
            DIM, lists_for(data.rows), niter=10, spherical=spherical, max_points_per_centroid=64
        )
        clustering.train(np.asarray(data.items))
        metric = faiss.METRIC_INNER_PRODUCT if spherical else faiss.METRIC_L2
        near = faiss.knn(np.asarray(data.items), clustering.centroids, 1, metric=metric)[1][:, 0]
        np.savez(folder / "lists.npz", centroids=clustering.centroids, lists=near)

    folder, seconds = built("lists", {"rows": data.rows, "spherical": spherical}, build)
    arrays = np.load(folder / "lists.npz")
    return arrays["centroids"], np.ascontiguousarray(arrays["lists"]), seconds


def faiss_index(data: Data, kind: str, code_bytes: int, *, spherical: bool) -> tuple[Any, float]:
    """One of FAISS's IVF indexes over lists that all of them share, and the seconds that both took."""
    centroids, near, spent = lists_of(data, spherical=spherical)

    def build(folder: Path) -> None:
        centres, items = centroids, np.asarray(data.items)
        sample = items[:: max(1, data.rows // 65_536)].copy()
        turn = None
        if kind == "OPQ-IVF-PQ":
            turn = faiss.OPQMatrix(DIM, 2 * code_bytes)
            turn.niter, turn.max_train_points = 5, 16_384
            turn.train(sample)
            items, sample, centres = (turn.apply(part) for part in (items, sample, centres))
        made_of = _empty(kind, centres, code_bytes)
        made_of.train(sample)
        rows = np.arange(data.rows)
        made_of.add_core(data.rows, *(faiss.swig_ptr(part) for part in (items, rows, near)))
        made_of.ntotal = data.rows
        if kind != "IVF-RaBitQ":
            made_of = faiss.IndexIVFPQFastScan(made_of)
        whole = made_of if turn is None else faiss.IndexPreTransform(turn, made_of)
        faiss.write_index(whole, str(folder / "index.faiss"))

    facts = {"rows": data.rows, "kind": kind, "bytes": code_bytes, "spherical": spherical}
    folder, seconds = built("faiss", facts, build)
    return faiss.read_index(str(folder / "index.faiss")), spent + seconds


def _empty(kind: str, centroids: NDArray[np.float32], code_bytes: int) -> Any:
    centres, lists = faiss.IndexFlatIP(DIM), len(centroids)
    centres.add(centroids)
    if kind == "IVF-RaBitQ":
        found = faiss.IndexIVFRaBitQ(centres, DIM, lists, faiss.METRIC_INNER_PRODUCT)
    else:
        found = faiss.IndexIVFPQ(centres, DIM, lists, 2 * code_bytes, 4, faiss.METRIC_INNER_PRODUCT)
    found.referenced_objects = [centres]
    return found


def faiss_cases(data: Data, opened: Any, name: str) -> Iterator[Case]:
    """Searches of a FAISS index whose candidates are refined with the mapped float32 vectors."""
    inner = faiss.downcast_index(opened.index) if hasattr(opened, "chain") else opened
    flat = faiss.read_index(str(data.folder / "flat.faiss"), faiss.IO_FLAG_MMAP_IFC)
    size = len(faiss.serialize_index(opened)) / data.rows

    def search(queries: NDArray[np.float32], probes: int, depth: int) -> NDArray[np.int64]:
        inner.nprobe = probes
        refined = faiss.IndexRefine(opened, flat)
        refined.k_factor = depth / K
        return np.asarray(refined.search(queries, K)[1])

    for probes in PROBES:
        for depth in DEPTHS:
            yield name, f"{probes} probes, {depth}", size, lambda q, p=probes, d=depth: search(q, p, d)


def hnsw_cases(data: Data) -> Iterator[Case]:
    """FAISS's HNSW over float32 vectors, all in memory."""

    def build(folder: Path) -> None:
        graph = faiss.IndexHNSWFlat(DIM, 16, faiss.METRIC_INNER_PRODUCT)
        graph.hnsw.efConstruction = 60
        graph.add(np.asarray(data.items))
        faiss.write_index(graph, str(folder / "index.faiss"))

    folder, seconds = built("hnsw", {"rows": data.rows}, build)
    graph = faiss.read_index(str(folder / "index.faiss"))
    size = (folder / "index.faiss").stat().st_size / data.rows

    def search(queries: NDArray[np.float32], width: int) -> NDArray[np.int64]:
        graph.hnsw.efSearch = width
        return np.asarray(graph.search(queries, K)[1])

    for width in (16, 32, 64, 128, 256):
        yield (
            f"FAISS HNSW16 (built in {seconds:.0f} s)",
            f"ef {width}",
            size,
            lambda q, w=width: search(q, w),
        )


# --- all of them ----------------------------------------------------------------------------------


def measured(data: Data, cases: Any, rounds: int) -> list[Point]:
    """Points of searches, timed round after round."""
    listed = list(cases)
    recalls = [data.recall(search(data.asked)) for _, _, _, search in listed]
    few = data.asked[:TIMED]
    timed = interleaved({str(at): partial(case[3], few) for at, case in enumerate(listed)}, rounds)
    return [
        Point(name, setting, recall, TIMED / float(np.median(timed[str(at)])), size)
        for at, ((name, setting, size, _), recall) in enumerate(zip(listed, recalls, strict=True))
    ]


def frontier(points: list[Point]) -> list[Point]:
    """Those that no other point of the list beats in recall and queries/s."""
    kept: list[Point] = []
    for point in sorted(points, key=lambda each: -each.qps):
        if not kept or point.recall > kept[-1].recall:
            kept.append(point)
    return kept


def others(data: Data, without: Sequence[str]) -> list[Point]:
    """Points of the indexes that live in an environment of their own; none where it is not made."""
    if not PEER.exists():
        print("no benchmarks/.envs/retrieval (make bench-envs): hnswlib and others left out")
        return []
    points = []
    for name in (each for each in OTHERS if each not in without):
        command = [str(PEER), str(PEER_SCRIPT), name, str(data.folder), str(data.folder / name)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=LONGEST)
        except subprocess.CalledProcessError as error:
            print(f"{name} failed: {error.stderr.strip().splitlines()[-1:]}")
            continue
        except subprocess.TimeoutExpired:
            print(f"{name} was not done after {LONGEST} s")
            continue
        points += [Point(**point) for point in json.loads(done.stdout.splitlines()[-1])]
    return points


def against_faiss(mine: list[Point], theirs: list[Point]) -> dict[str, float | str | None]:
    """Ours where it was chosen for recall 0.95, against the best of FAISS in no more memory (to 2 B)."""
    point = next(each for each in mine if "chosen" in each.setting)
    equal = [each for each in theirs if each.bytes <= point.bytes + 2]
    as_fast = [each for each in equal if each.qps >= point.qps]
    as_good = [each for each in equal if each.recall >= point.recall - 0.001]
    best = max(as_fast, key=lambda each: each.recall, default=None)
    fastest = max(as_good, key=lambda each: each.qps, default=None)
    return {
        "recall10": point.recall,
        "qps": point.qps,
        "bytes_per_item": point.bytes,
        "recall10_at_equal_memory_gain": None if best is None else point.recall - best.recall,
        "best_faiss_as_fast": None if best is None else f"{best.name}, {best.setting}: {best.recall:.4f}",
        "qps_over_faiss": None if fastest is None else point.qps / fastest.qps,
        "best_faiss_as_good": None
        if fastest is None
        else f"{fastest.name}, {fastest.setting}: {fastest.qps:.0f}/s",
    }
