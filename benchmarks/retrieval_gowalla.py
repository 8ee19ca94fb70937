"""Two towers on Gowalla: full ranking of 40,981 places, as LightGCN's authors split it.

    python benchmarks/retrieval_gowalla.py DATA [--quick]

DATA holds ``gowalla`` with train.parquet and test.parquet. Runs ``pipelines/gowalla_retrieval.yaml`` from
Parquet to an index, searches that index with the bundle's own query vectors, and measures what codes of 4
and 8 bytes keep of the towers' vectors (``retrieval_codes.py``). ``--quick`` trains a few steps and leaves
codes out, which shows that everything fits together; its figures are no results.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import faiss
from harness import finish, parser
from retrieval_codes import Figures, code_figures, tower_log

from recsys.chain import run
from recsys.place import Place
from recsys.results import load_retrieval
from recsys.training.run_folder import Run

NAME = "retrieval_gowalla"
PIPELINE = Path(__file__).resolve().parents[1] / "pipelines" / "gowalla_retrieval.yaml"
QUICK = ("train.max_steps=30",)


def gowalla_figures(data: Path, output: Path, *, quick: bool) -> Figures:
    """Recall and NDCG at 20 of the test rows, what they took, and what codes keep.

    Args:
        data: folder with Gowalla's train.parquet and test.parquet.
        output: folder that holds the run afterwards.
    """
    finished = run(PIPELINE, data=data, output=output, overrides=QUICK if quick else ())
    place = Place(finished.config)
    found = load_retrieval(place)
    assert found is not None
    seconds = {outcome.stage: outcome.seconds for outcome in finished.outcomes}
    figures: Figures = {
        "gowalla_recall20": found.overall["recall@20"],
        "gowalla_ndcg20": found.overall["ndcg@20"],
        "gowalla_train_seconds": seconds["train"],
        "gowalla_rows_per_second": Run.load(place.folder("train")).result.rows_per_second,
        "gowalla_seconds": sum(seconds.values()),
    }
    if not quick:
        faiss.omp_set_num_threads(1)
        figures |= code_figures(tower_log(place.folder("train"), "test"))
    return figures


def main() -> None:
    arguments = parser(NAME, "Two towers on Gowalla, from Parquet to an index.")
    arguments.add_argument("data", type=Path, help="folder that holds gowalla")
    options = arguments.parse_args()
    output = Path(tempfile.mkdtemp(prefix="recsys-gowalla-"))
    try:
        figures = gowalla_figures(options.data / "gowalla", output, quick=options.quick)
    finally:
        shutil.rmtree(output, ignore_errors=True)
    finish(NAME, figures, quick=options.quick)


if __name__ == "__main__":
    main()
