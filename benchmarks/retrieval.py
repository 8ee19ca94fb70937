"""Retrieval: the frontier of recall, speed and memory, beside FAISS and other indexes.

Recall@10 against an exact search, 1 M × 64 made vectors (``retrieval_data.py`` says how), queries from
another distribution than items, one thread. Memory and re-rank: 1 M × 256. Two towers, and what codes of
4 and 8 bytes keep of their vectors: the newest result of ``retrieval_gowalla.py``. Indexes are built once
and kept in ``benchmarks/.cache``. The other indexes' environment: ``make bench-envs``.

    OMP_NUM_THREADS=1 python benchmarks/retrieval.py [--quick] [--large]

``--large`` draws the frontier of ours and FAISS's at 10 M × 64, a result of its own (``retrieval_large``).
A quick run searches fewer items unless the index is in the cache, and takes what needs peers or 1 M × 256
from the newest full result (``peer_from``).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import faiss
from harness import RESULTS, Spread, finish, newest, parser
from retrieval_index import (
    OTHERS,
    Data,
    Point,
    against_faiss,
    data_of,
    faiss_cases,
    faiss_index,
    frontier,
    hnsw_cases,
    is_built,
    measured,
    others,
    our_cases,
    ours,
)
from retrieval_memory import rerank_milliseconds, resident, wide_index
from retrieval_pictures import draw

NAME, LARGE = "retrieval", "retrieval_large"
FULL_ROWS, QUICK_ROWS, LARGE_ROWS = 1_000_000, 20_000, 10_000_000
FULL_ROUNDS, QUICK_ROUNDS = 3, 5
CODE_BYTES = 16
Figures = dict[str, float | int | str | None]
TOWERS = ("gowalla_recall20", "gowalla_ndcg20", "learned_gain_4b", "learned_gain_4b_error", "kept_8b")
PEERS = (("IVF-PQ", True), ("IVF-PQ", False), ("OPQ-IVF-PQ", False), ("IVF-RaBitQ", False))
"""FAISS's kinds, and whether lists are made as FAISS does for inner products (spherical) or by distance."""


def main() -> None:
    arguments = parser(NAME, __doc__ or "")
    arguments.add_argument(
        "--without", nargs="*", default=[], choices=("hnsw", *OTHERS), help="peers to leave out"
    )
    arguments.add_argument("--large", action="store_true", help="ten million items, ours and FAISS's alone")
    options = arguments.parse_args()
    faiss.omp_set_num_threads(1)
    if options.large:
        finish(LARGE, large(), quick=False)
        return
    if options.quick:
        figures, spread = quick()
    else:
        figures, spread = full(options.without)
    figures |= two_towers()
    finish(NAME, figures, quick=options.quick, spread=spread)


def quick() -> tuple[Figures, dict[str, Spread]]:
    """Ours alone; at full size where its index is in the cache."""
    rows = FULL_ROWS if is_built(FULL_ROWS, CODE_BYTES) else QUICK_ROWS
    data = data_of(rows)
    opened, _ = ours(data, CODE_BYTES)
    chosen = measured(data, islice(our_cases(data, opened, "ours"), 1), QUICK_ROUNDS)[0]
    rerank = Spread.of(rerank_milliseconds(QUICK_ROWS))
    figures: Figures = {"rows": rows, "recall10": chosen.recall, "qps": chosen.qps}
    figures |= {"bytes_per_item": chosen.bytes, "rerank_ms": rerank.median}
    earlier = newest(NAME)
    figures["peer_from"] = None if earlier is None else earlier[0]
    for key in ("recall10_at_equal_memory_gain", "qps_over_faiss", "resident_bytes_per_item"):
        figures[key] = None if earlier is None else earlier[1]["figures"].get(key)
    return figures, {"rerank_ms": rerank}


def full(without: Sequence[str]) -> tuple[Figures, dict[str, Spread]]:
    """Ours and the peers, and the pictures."""
    data = data_of(FULL_ROWS)
    mine, theirs, seconds = beside_faiss(data, PEERS)
    rest = [] if "hnsw" in without else measured(data, hnsw_cases(data), FULL_ROUNDS)
    rest += others(data, without)
    draw([*frontier(mine), *_frontiers([*theirs, *rest])], RESULTS, NAME, items="1 M", at_least=10_000)
    wide = wide_index(FULL_ROWS)
    held, rerank = resident(wide), Spread.of(rerank_milliseconds(FULL_ROWS))
    figures: Figures = {"rows": FULL_ROWS, "code_bytes": CODE_BYTES} | seconds
    figures |= against_faiss(mine, theirs) | _reaching([*mine, *theirs, *rest])
    figures |= {
        "left_out": ", ".join(without) or None,
        "rerank_ms": rerank.median,
        "resident_bytes_per_item": held["loaded"],
        "resident_bytes_after_500_queries": held["anonymous"],
        "resident_recall10": held["recall10"],
    }
    return figures, {"rerank_ms": rerank}


def large() -> Figures:
    """Ours and FAISS's by distance, at ten million items."""
    data = data_of(LARGE_ROWS)
    mine, theirs, seconds = beside_faiss(data, [peer for peer in PEERS if not peer[1]])
    draw([*frontier(mine), *_frontiers(theirs)], RESULTS, LARGE, items="10 M", at_least=2_000)
    figures: Figures = {"rows": LARGE_ROWS, "code_bytes": CODE_BYTES} | seconds
    return figures | against_faiss(mine, theirs) | _reaching([*mine, *theirs])


def beside_faiss(
    data: Data, peers: Sequence[tuple[str, bool]]
) -> tuple[list[Point], list[Point], dict[str, float]]:
    """Points of ours and of FAISS's, and the seconds that each took to build."""
    opened, built = ours(data, CODE_BYTES)
    seconds = {"build_seconds": built}
    mine = measured(data, our_cases(data, opened, "ours"), FULL_ROUNDS)
    theirs = []
    for kind, spherical in peers:
        peer, built = faiss_index(data, kind, CODE_BYTES, spherical=spherical)
        trained = "" if spherical else ", lists by distance"
        seconds[f"build_seconds: FAISS {kind}{trained}"] = built
        cases = faiss_cases(data, peer, f"FAISS {kind}{trained} + refine")
        theirs += measured(data, cases, FULL_ROUNDS)
    return mine, theirs, seconds


def two_towers() -> Figures:
    """What the newest run of ``retrieval_gowalla.py`` reached."""
    found = newest("retrieval_gowalla")
    if found is None:
        print(f"no result of benchmarks/retrieval_gowalla.py yet: {', '.join(TOWERS)} are left out")
    figures: Figures = {key: None if found is None else found[1]["figures"][key] for key in TOWERS}
    return figures | {"gowalla_from": None if found is None else found[0]}


def _frontiers(points: list[Point]) -> list[Point]:
    names = dict.fromkeys(point.name for point in points)
    return [point for name in names for point in frontier([each for each in points if each.name == name])]


def _reaching(points: list[Point]) -> Figures:
    """For every index, its queries/s at recall@10 of 0.95 at least, with its bytes."""
    found: Figures = {}
    for name in dict.fromkeys(point.name for point in points):
        enough = [each for each in points if each.name == name and each.recall >= 0.95]
        if enough:
            best = max(enough, key=lambda each: each.qps)
            found[f"at 0.95: {name}"] = (
                f"{best.qps:.0f}/s, recall {best.recall:.4f}, {best.bytes:.0f} B, {best.setting}"
            )
    return found


if __name__ == "__main__":
    main()
