"""OutRank 0.97.5 on a folder that holds data.csv: the seconds of its two tasks, and its scores.

Run by benchmarks/ranking.py and tests/ranking/test_outrank.py in OutRank's own environment. The tasks are
its command as anybody would type it, each a process of its own.

    python outrank_rank.py FOLDER OUTPUT [FLAG ...]     prints one JSON object
"""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import time
from pathlib import Path

HEURISTIC = "MI-numba-randomized"


def seconds_of(task: str, folder: Path, output: Path, flags: list[str]) -> float:
    """Run a task of OutRank; wall-clock seconds."""
    command = [str(Path(sys.executable).with_name("outrank")), "--task", task, "--data_path", str(folder)]
    command += ["--data_source", "csv-raw", "--heuristic", HEURISTIC, "--output_folder", str(output)]
    command += ["--subsampling", "1", "--num_threads", "2", "--disable_tqdm", "True", *flags]
    started = time.perf_counter()
    # Its checkpoints go to the current folder.
    done = subprocess.run(command, cwd=output, capture_output=True, text=True, check=False)
    taken = time.perf_counter() - started
    if done.returncode:
        sys.exit(f"outrank --task {task} failed:\n{done.stdout}\n{done.stderr}")
    return taken


def scores(output: Path) -> list[tuple[str, str, float]]:
    """Its table of pairs; OutRank adds "-(cardinality; coverage)" to the names."""
    path = output / "pairwise_ranks.tsv"
    if not path.exists():
        sys.exit("OutRank scored nothing: too few rows for a batch")
    with path.open(newline="") as table:
        rows = list(csv.DictReader(table, delimiter="\t"))
    return [
        (row["FeatureA"].rpartition("-(")[0], row["FeatureB"].rpartition("-(")[0], float(row["Score"]))
        for row in rows
    ]


def main() -> None:
    folder, output, flags = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]
    output.mkdir(parents=True, exist_ok=True)
    if "--target_ranking_only" not in flags:
        flags = ["--target_ranking_only", "True", *flags]
    ranking = seconds_of("ranking", folder, output, flags)
    summary = seconds_of("ranking_summary", folder, output, flags)
    print(json.dumps({"seconds": ranking, "summary_seconds": summary, "scores": scores(output)}))


if __name__ == "__main__":
    main()
