"""Ranking columns: how well and how fast, beside OutRank 0.97.5, scikit-learn and a bare scan by polars.

Ours is always the command ``recsys rank`` as a process of its own, from start to exit, with the file in the
page cache. OutRank's are its own tasks in its own environment (``make bench-envs``); only its ranking task
counts in the speed-ups, its summary task stands apart.

Quality: ten logs of 100,000 rows and 48 columns, of which twelve move the label; ``separation_auc`` is the
AUC of the score that tells those twelve from the others, ``hits_top12`` how many of them lead the ranking;
both are means over the logs. OutRank's are taken with our ``outrank`` score; a full run checks that the
program itself gives the same numbers to 1e-6 (``outrank_formula_error``).

Pairs: all 1225 of 50 columns on 16,384 rows; ``xor_pair_rank`` is the place of the one pair that tells much
though neither of its columns does. The log of 10 million rows stays in ``benchmarks/.cache``; a quick run
without it measures two million (``scan_rows``). There the schema is given, as in the chain;
``scan_infer_seconds`` is what finding it took.

    python benchmarks/ranking.py [--quick | --trial]
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from harness import Spread, finish, newest, parser
from processes import high_water, proportional, run
from ranking_data import MadeLog, quality_log, wide_log

from recsys.evaluation import auc
from recsys.ranking.outrank import outrank_scores

HERE = Path(__file__).resolve().parent
CACHE = HERE / ".cache"
RECSYS = Path(sys.executable).with_name("recsys")
PEER = HERE / ".envs" / "outrank" / "bin" / "python"
PEER_SCRIPT = HERE / "peers" / "outrank_rank.py"
SINGLE = ("--order", "1", "--no-report")
ORDER2 = ("--order", "2", "--no-report")
TOP = 12
TOLERANCE = 1e-6
SCAN = (
    "import sys, polars as pl; "
    "print(pl.scan_parquet(sys.argv[1]).select(pl.all().sum()).collect(engine='streaming').width)"
)

Figures = dict[str, Any]


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    rows: int = 100_000
    order2_rows: int = 16_384
    order2_columns: int = 50
    seeds: int = 10
    scan_rows: int = 10_000_000
    rounds: int = 7
    peer_rounds: int = 3
    """0: OutRank, scikit-learn and the forest are taken from the newest full result."""
    peer_seeds: int = 3
    forest_rows: int = 20_000


FULL = Sizes()
QUICK = Sizes(rounds=3, peer_rounds=0)
QUICK_SCAN_ROWS = 2_000_000
TRIAL = Sizes(20_000, 2_000, 37, 2, 300_000, 2, 1, 1, 2_000)


@dataclass
class Measured:
    """Repeated measurements by name, and figures that are measured once."""

    repeats: dict[str, list[float]] = field(default_factory=dict)
    figures: Figures = field(default_factory=dict)

    def add(self, name: str, value: float) -> None:
        self.repeats.setdefault(name, []).append(value)
        print(f"{name}: {value:.4g}", flush=True)

    def median(self, name: str) -> float:
        return float(np.median(self.repeats[name]))


class Ours:
    """``recsys rank`` on one file; every run writes to a folder of its own."""

    def __init__(self, work: Path) -> None:
        self._work, self._runs = work, 0

    def command(self, file: Path, *flags: str) -> list[str | Path]:
        self._runs += 1
        output = self._work / f"rank-{self._runs}"
        return [RECSYS, "rank", file, "--label", "label", *flags, "--output", output]

    def seconds(self, file: Path, *flags: str) -> float:
        return run(self.command(file, *flags)).seconds

    def peak_mib(self, file: Path, *flags: str) -> float:
        """In a run that is not timed. High-water marks are looked at every five milliseconds."""
        return run(self.command(file, *flags), memory=high_water, every=0.005).peak_mib

    def written(self, file: Path, *flags: str) -> Path:
        """The folder that a run wrote."""
        command = self.command(file, *flags)
        run(command)
        return Path(command[-1])


def outrank(folder: Path, output: Path, *flags: str) -> tuple[dict[str, Any], float]:
    """OutRank's seconds and scores, and the peak of all its processes in MiB."""
    found = run([PEER, PEER_SCRIPT, folder, output, *flags], memory=proportional, every=1.0)
    answer: dict[str, Any] = json.loads(found.output.splitlines()[-1])
    return answer, found.peak_mib


# --- quality -------------------------------------------------------------------------------------------


def separation(scores: dict[str, float], log: MadeLog) -> tuple[float, int]:
    """AUC of the score as a judge of which columns are informative, and how many of the top 12 are."""
    best = sorted(log.names, key=lambda name: scores[name], reverse=True)
    truth = np.array([name in log.informative for name in log.names], dtype=np.float32)
    judged = auc(truth, np.array([scores[name] for name in log.names]))
    assert judged is not None
    return judged, sum(name in log.informative for name in best[:TOP])


def measure_quality(found: Measured, sizes: Sizes, ours: Ours, work: Path) -> None:
    for seed in range(sizes.seeds):
        log = quality_log(seed, sizes.rows)
        frame = log.frame()
        file = work / "quality.parquet"
        frame.write_parquet(file)
        table = pl.read_parquet(ours.written(file, *SINGLE) / "ranking.parquet")
        if set(table["kind"]) != {"categorical"}:
            sys.exit(f"columns taken for something else than ids:\n{table.select('column', 'kind')}")
        columns = table["column"].to_list()
        judged = {
            name: dict(zip(columns, table[column].to_list(), strict=True))
            for name, column in {"": "sure", "score_": "score", "plain_mi_": "mi", "z_": "z"}.items()
        }
        judged["outrank_"] = outrank_scores(frame, log.names, "label")
        for name, scores in judged.items():
            _judge(found, name, scores, log)
        if sizes.peer_rounds and seed < sizes.peer_seeds:
            _measure_sklearn(found, sizes, frame, log)
    for name in list(found.repeats):
        if name.endswith(("separation_auc", "hits_top12")):
            found.figures[name] = float(np.mean(found.repeats[name]))


def _judge(found: Measured, name: str, scores: dict[str, float], log: MadeLog) -> None:
    judged, hits = separation(scores, log)
    found.add(f"{name}separation_auc", judged)
    found.add(f"{name}hits_top12", hits)


def _measure_sklearn(found: Measured, sizes: Sizes, frame: pl.DataFrame, log: MadeLog) -> None:
    """Its mutual information on all rows, and a forest of 100 trees on the first rows, both cores."""
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.feature_selection import mutual_info_classif

    values, label = frame.select(log.names).to_numpy(), frame["label"].to_numpy()
    started = time.perf_counter()
    scores = mutual_info_classif(values, label, discrete_features=True, n_jobs=-1)
    found.add("mutual_info_classif_seconds", time.perf_counter() - started)
    _judge(found, "mutual_info_classif_", dict(zip(log.names, scores.tolist(), strict=True)), log)
    name = f"forest_{sizes.forest_rows // 1000}k_rows_"
    started = time.perf_counter()
    forest = RandomForestClassifier(100, n_jobs=-1, random_state=0)
    forest.fit(values[: sizes.forest_rows], label[: sizes.forest_rows])
    scores = forest.feature_importances_
    found.add(f"{name}seconds", time.perf_counter() - started)
    _judge(found, name, dict(zip(log.names, scores.tolist(), strict=True)), log)


# --- speed ---------------------------------------------------------------------------------------------


def measure_speed(found: Measured, sizes: Sizes, ours: Ours, work: Path) -> None:
    """Single columns and pairs, ours several times for each time of OutRank's."""
    log, pairs = wide_log(sizes.rows), wide_log(sizes.order2_rows)
    frame = log.frame()
    small = pairs.frame().select(*pairs.names[: sizes.order2_columns], "label")
    single_file, pair_file = work / "single.parquet", work / "pairs.parquet"
    frame.write_parquet(single_file)
    small.write_parquet(pair_file)
    ours.seconds(single_file, *SINGLE)  # fills the page cache and the interpreter's
    for number in range(max(sizes.peer_rounds, 1)):
        for _ in range(sizes.rounds):
            found.add("seconds_single", ours.seconds(single_file, *SINGLE))
            found.add("seconds_order2", ours.seconds(pair_file, *ORDER2))
        found.add("seconds_with_report", ours.seconds(single_file, "--order", "1"))
        found.add("seconds_default", ours.seconds(single_file))
        if sizes.peer_rounds:
            _measure_outrank(found, work / f"outrank-{number}", frame, small)
    table = pl.read_parquet(ours.written(pair_file, *ORDER2) / "pairs.parquet").drop_nulls("gain")
    gains = zip(table["a"], table["b"], table["gain"], strict=True)
    found.figures["xor_pair_rank"] = xor_rank({frozenset((a, b)): gain for a, b, gain in gains}, pairs)
    found.figures["peak_mib_single"] = ours.peak_mib(single_file, *SINGLE)
    found.figures["peak_mib_order2"] = ours.peak_mib(pair_file, *ORDER2)
    for name in ("seconds_single", "seconds_order2", "seconds_with_report", "seconds_default"):
        found.figures[name] = found.median(name)


def _measure_outrank(found: Measured, work: Path, frame: pl.DataFrame, small: pl.DataFrame) -> None:
    for name, log, flags in (
        ("single", frame, ()),
        ("order2", small, ("--interaction_order", "2")),
    ):
        folder = work / name
        folder.mkdir(parents=True)
        log.write_csv(folder / "data.csv")
        answer, peak = outrank(folder, folder / "out", *flags)
        found.add(f"outrank_seconds_{name}", answer["seconds"])
        found.add(f"outrank_summary_seconds_{name}", answer["summary_seconds"])
        found.add(f"outrank_peak_mib_{name}", peak)
        if name == "single":
            found.add("outrank_formula_error", _formula_error(answer["scores"], frame))
        else:
            joint = {a: score for a, b, score in answer["scores"] if b == "label" and " AND " in a}
            by_pair = {frozenset(a.split(" AND ")): score for a, score in joint.items()}
            found.add("outrank_xor_pair_rank", xor_rank(by_pair, wide_log(small.height)))


def xor_rank(scores: dict[frozenset[str], float], log: MadeLog) -> int:
    """Place of the interacting pair among the scored pairs, from 1; 0 where it is not among them."""
    assert log.xor is not None
    pair = frozenset(log.names[column] for column in log.xor)
    better = sum(score > scores[pair] for score in scores.values()) if pair in scores else -1
    return better + 1


def _formula_error(scores: list[list[Any]], frame: pl.DataFrame) -> float:
    """Largest difference between the program's scores and ours in its mode."""
    real = {a: score for a, b, score in scores if b == "label" and a != "label"}
    mine = outrank_scores(frame, list(real), "label")
    error: float = max(abs(real[name] - mine[name]) for name in real)
    if len(real) != frame.width - 1 or error > TOLERANCE:
        sys.exit(f"our outrank score differs from the program's by {error} on {len(real)} columns")
    return error


def scan_log(sizes: Sizes, work: Path, quick: bool) -> tuple[MadeLog, Path]:
    """The large log, kept from one run to the next; a smaller one where a quick run finds none."""
    log = wide_log(sizes.scan_rows)
    law = hashlib.sha256((HERE / "ranking_data.py").read_bytes()).hexdigest()[:12]
    kept = CACHE / f"ranking-{log.rows}-{law}.parquet"
    if kept.exists():
        return log, kept
    if quick or sizes is TRIAL:
        log = wide_log(min(log.rows, QUICK_SCAN_ROWS))
        return log, log.write_parquet(work / "scan.parquet")
    CACHE.mkdir(exist_ok=True)
    return log, log.write_parquet(kept)


def measure_scan(found: Measured, sizes: Sizes, ours: Ours, work: Path, quick: bool) -> None:
    """Whole processes on the same file in turn: ours, and one that reads every column and sums it."""
    log, file = scan_log(sizes, work, quick)
    scan: list[str | Path] = [sys.executable, "-c", SCAN, file]
    run(scan)
    schema = work / "schema"
    inferred = run([RECSYS, "infer", file, "--label", "label", "--output", schema])
    found.add("scan_infer_seconds", inferred.seconds)
    flags = ("--schema", str(schema), *SINGLE)
    ours.seconds(file, *flags)  # compiles the counting loop, where that is not on disk yet
    for _ in range(1 if quick else 3):
        found.add("scan_polars_rows_per_second", log.rows / run(scan).seconds)
        found.add("scan_rows_per_second", log.rows / ours.seconds(file, *flags))
        polars, mine = (
            found.repeats[name][-1] for name in ("scan_polars_rows_per_second", "scan_rows_per_second")
        )
        found.add("scan_share", mine / polars)
    found.figures["scan_rows"] = log.rows
    if not quick:
        found.figures["scan_peak_mib"] = ours.peak_mib(file, *flags)
    for name in ("scan_share", "scan_rows_per_second", "scan_polars_rows_per_second"):
        found.figures[name] = found.median(name)


# --- both sides ----------------------------------------------------------------------------------------


def report(found: Measured, sizes: Sizes, quick: bool, earlier: tuple[str, dict[str, Any]] | None) -> None:
    """Speed-ups, the peers' figures, and the result file."""
    figures = found.figures
    if earlier is not None:
        for name, value in earlier[1]["figures"].items():
            if name.startswith(("outrank_", "forest_", "mutual_info_classif_")):
                figures.setdefault(name, value)
        figures["peer_from"] = earlier[0]
    for name in found.repeats:
        figures.setdefault(name, found.median(name))
    if "outrank_formula_error" in found.repeats:
        figures["outrank_formula_error"] = max(found.repeats["outrank_formula_error"])
    for name in ("single", "order2"):
        figures[f"speedup_{name}"] = figures[f"outrank_seconds_{name}"] / figures[f"seconds_{name}"]
    figures["rows"], figures["order2_rows"], figures["seeds"] = sizes.rows, sizes.order2_rows, sizes.seeds
    spread = {name: Spread.of(values) for name, values in found.repeats.items()}
    finish("ranking", figures, quick=quick, spread=spread)


def main() -> None:
    arguments = parser("ranking", str(__doc__))
    arguments.add_argument(
        "--trial",
        action="store_true",
        help="every part, OutRank too, at a small size; writes no result file",
    )
    chosen = arguments.parse_args()
    sizes = TRIAL if chosen.trial else QUICK if chosen.quick else FULL
    earlier = None if sizes.peer_rounds else newest("ranking")
    if not sizes.peer_rounds and earlier is None:
        sys.exit("no full result on this kind of machine; run it once without --quick")
    if sizes.peer_rounds and not PEER.exists():
        sys.exit("OutRank's environment is missing; make it with 'make bench-envs'")
    found = Measured()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        ours = Ours(work)
        measure_speed(found, sizes, ours, work)
        measure_quality(found, sizes, ours, work)
        measure_scan(found, sizes, ours, work, chosen.quick)
    report(found, sizes, chosen.quick or chosen.trial, earlier)


if __name__ == "__main__":
    main()
