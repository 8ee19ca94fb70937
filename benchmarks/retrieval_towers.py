"""What codes of 4 and 8 bytes keep of vectors of our own towers: recall of Gowalla's held-out check-ins.

    recsys run pipelines/gowalla_retrieval.yaml --data DATA/gowalla --output RUNS --until train
    python benchmarks/retrieval_towers.py RUNS/run [--part valid] [--quick]

Else as ``retrieval_codes.py``, which takes vectors of a truncated SVD: a tenth of the users is asked,
places of earlier parts masked; our index learns from the vectors of the others, FAISS's is not given any.
``--quick`` leaves 8 bytes out.
"""

from __future__ import annotations

from pathlib import Path

import faiss
import numpy as np
from harness import finish, parser
from numpy.typing import NDArray
from retrieval_codes import ASKED_EVERY, Figures, Log, first, gain_4b, our_rank

from recsys.data.dataset import PARTS, Part
from recsys.evaluation.retrieval import ItemLists
from recsys.training.catalogue import Catalogue
from recsys.training.distributed import distributed
from recsys.training.loaded import opened_run
from recsys.training.run_folder import Run
from recsys.training.vectors import Queries, ranked

NAME = "retrieval_towers"
DEPTHS = (20, 100, 200)


def tower_codes(log: Log, *, eight: bool) -> Figures:
    """Recall of the code ranking at 4 bytes beside FAISS's, and what 8 bytes keep after re-ranking 200."""
    exact = {k: log.recalls(lambda query, count: first(log.items @ query[0], count), k) for k in DEPTHS}
    figures: Figures = {f"exact_recall{k}": recalls.mean() for k, recalls in exact.items()}
    ranking, figures["codebooks_4b"] = our_rank(log, 4, log.others)
    mine = {k: log.recalls(ranking, k) for k in DEPTHS}
    figures |= {f"ours_4b_recall{k}": recalls.mean() for k, recalls in mine.items()}
    figures |= gain_4b(log, mine)
    if eight:
        ranking, figures["codebooks_8b"] = our_rank(log, 8, log.others)
        figures["kept_8b"] = log.recalls(ranking, 20, rerank=200).mean() / figures["exact_recall20"]
    return figures


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


def main() -> None:
    arguments = parser(NAME, "What codes keep of our own towers' vectors.")
    arguments.add_argument("run", type=Path, help="folder of a finished training on Gowalla")
    arguments.add_argument("--part", choices=PARTS[1:], default="test")
    options = arguments.parse_args()
    faiss.omp_set_num_threads(1)
    figures = tower_codes(tower_log(options.run, options.part), eight=not options.quick)
    finish(NAME, figures, quick=options.quick)


if __name__ == "__main__":
    main()
