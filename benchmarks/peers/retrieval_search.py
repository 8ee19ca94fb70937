"""One other index on the vectors of benchmarks/retrieval.py, on one core; prints its points as JSON.

    retrieval_search.py hnswlib|usearch|scann|lance|lance-build DATA CACHE

An index is built once and kept in CACHE; its name says how long that took.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

LIMITS = ("OMP_NUM_THREADS", "LANCE_IO_THREADS", "RAYON_NUM_THREADS", "TF_NUM_INTRAOP_THREADS")
BUILD_LANCE = "lance-build"
"""Building with Lance alone, on all cores: on one it may wait for itself for ever."""
if sys.argv[1] != BUILD_LANCE:
    for variable in LIMITS:
        os.environ[variable] = "1"
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

import numpy as np  # noqa: E402

K, ROUNDS, LISTS = 10, 3, 2_048
WIDTHS = (16, 32, 64, 128, 256)


def timed(name: str, setting: str, size: float, search: Callable[[], Any], answers: Any) -> dict[str, Any]:
    """A point: recall@10, queries/s (median), bytes per item."""
    rows = search()
    spent = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        search()
        spent.append(time.perf_counter() - started)
    found = [len(np.intersect1d(line, right)) for line, right in zip(rows, answers, strict=True)]
    qps = len(answers) / float(np.median(spent))
    return {
        "name": name,
        "setting": setting,
        "recall": float(np.mean(found)) / K,
        "qps": qps,
        "bytes": size,
    }


def once(folder: Path, build: Callable[[], None]) -> float:
    """Seconds that building took, now or when it was done."""
    stamp = folder / "seconds.json"
    if not stamp.exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        started = time.perf_counter()
        build()
        stamp.write_text(json.dumps(time.perf_counter() - started))
    return float(json.loads(stamp.read_text()))


def hnswlib(items: Any, asked: Any, answers: Any, folder: Path) -> list[dict[str, Any]]:
    import hnswlib

    path = folder / "index.bin"
    index = hnswlib.Index("ip", items.shape[1])

    def build() -> None:
        index.init_index(len(items), M=16, ef_construction=60)
        index.add_items(items, num_threads=1)
        index.save_index(str(path))

    seconds = once(folder, build)
    index.load_index(str(path), len(items))
    index.set_num_threads(1)
    points = []
    for width in WIDTHS:
        index.set_ef(width)
        name = f"hnswlib M16 (built in {seconds:.0f} s)"
        size = path.stat().st_size / len(items)
        search = lambda: index.knn_query(asked, K)[0].astype(np.int64)  # noqa: E731
        points.append(timed(name, f"ef {width}", size, search, answers))
    return points


def usearch(items: Any, asked: Any, answers: Any, folder: Path) -> list[dict[str, Any]]:
    from usearch.index import Index

    path = folder / "index.bin"

    def build() -> None:
        made = Index(ndim=items.shape[1], metric="ip", dtype="f16", connectivity=16, expansion_add=60)
        made.add(np.arange(len(items)), items, threads=1)
        made.save(str(path))

    seconds = once(folder, build)
    points = []
    for width in WIDTHS:
        index = Index.restore(str(path))
        index.expansion_search = width
        name = f"usearch f16 (built in {seconds:.0f} s)"
        size = path.stat().st_size / len(items)
        search = lambda: index.search(asked, K, threads=1).keys.astype(np.int64)  # noqa: E731, B023
        points.append(timed(name, f"ef {width}", size, search, answers))
    return points


def scann(items: Any, asked: Any, answers: Any, folder: Path) -> list[dict[str, Any]]:
    from scann.scann_ops.py import scann_ops_pybind as ops

    def build() -> None:
        maker = ops.builder(items, K, "dot_product").tree(LISTS, 32, training_sample_size=131_072)
        made = maker.score_ah(2, anisotropic_quantization_threshold=0.2).reorder(100).build()
        made.serialize(str(folder))

    seconds = once(folder, build)
    index = ops.load_searcher(str(folder))
    size = sum(path.stat().st_size for path in folder.glob("*.npy")) / len(items)
    name = f"scann, vectors in memory (built in {seconds:.0f} s)"
    points = []
    for probes in (8, 16, 32, 64, 128):
        for depth in (50, 100, 200):
            settings = {"leaves_to_search": probes, "pre_reorder_num_neighbors": depth}
            search = lambda: index.search_batched(asked, **settings)[0].astype(np.int64)  # noqa: E731, B023
            points.append(timed(name, f"{probes} probes, {depth}", size, search, answers))
    return points


def build_lance(items: Any, folder: Path) -> None:
    import lance as library
    import pyarrow as pa

    vectors = pa.FixedSizeListArray.from_arrays(pa.array(items.ravel()), items.shape[1])
    table = pa.table({"id": np.arange(len(items)), "vector": vectors})
    made = library.write_dataset(table, str(folder / "items.lance"))
    made.create_index(
        "vector", "IVF_PQ", metric="dot", num_partitions=LISTS, num_sub_vectors=16, num_bits=8
    )


def lance(items: Any, asked: Any, answers: Any, folder: Path) -> list[dict[str, Any]]:
    import lance as library

    def build() -> None:
        cores = list(range(os.cpu_count() or 1))
        command = [sys.executable, __file__, BUILD_LANCE, *sys.argv[2:]]
        free = {key: value for key, value in os.environ.items() if key not in LIMITS}
        subprocess.run(
            command, check=True, env=free, preexec_fn=lambda: os.sched_setaffinity(0, cores)
        )  # fmt: skip

    seconds = once(folder, build)
    dataset = library.dataset(str(folder / "items.lance"))
    asked, answers = asked[:100], answers[:100]

    def one(query: Any, probes: int, depth: int) -> Any:
        nearest = {"column": "vector", "q": query, "k": K, "nprobes": probes, "refine_factor": depth}
        return dataset.to_table(columns=["id", "_distance"], nearest=nearest)["id"].to_numpy()

    points = []
    for probes, depth in ((16, 10), (32, 10), (64, 10), (128, 20)):
        search = lambda: np.stack([one(query, probes, depth) for query in asked])  # noqa: E731, B023
        name = f"Lance IVF_PQ on disk (built in {seconds:.0f} s, all cores)"
        points.append(timed(name, f"{probes} probes, {depth * K}", 0.0, search, answers))
    return points


def main() -> None:
    name, data, cache = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    items = np.load(data / "items.npy")
    if name == BUILD_LANCE:
        build_lance(items, cache)
        return
    asked, answers = np.load(data / "queries.npy")[:1_000], np.load(data / "answers.npy")
    search = {"hnswlib": hnswlib, "usearch": usearch, "scann": scann, "lance": lance}[name]
    print(json.dumps(search(items, asked, answers, cache)))


if __name__ == "__main__":
    main()
