"""Full ranking of a part's queries by a run's best weights."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from recsys.data.dataset import PARTS, Dataset, Part
from recsys.errors import ConfigError, DataError
from recsys.evaluation.evaluate import EVALUATE_VERSION
from recsys.evaluation.metric_files import METRICS_FILE
from recsys.evaluation.retrieval_metrics import HEAD_SHARE, SCHEMA, RetrievalEvaluation, lines_of
from recsys.models import parse_options
from recsys.models.two_tower import TwoTower, TwoTowerConfig
from recsys.stage import StageRecord, fingerprints, require_ours, settings_of, written_aside
from recsys.training.catalogue import Catalogue
from recsys.training.distributed import distributed
from recsys.training.loaded import opened_run
from recsys.training.run_folder import RUN_FILE, Run
from recsys.training.vectors import Found, Queries, ranked


def evaluate_retrieval(
    folder: str | Path,
    part: Part = "test",
    *,
    k: Sequence[int] = (10, 20, 50, 100),
    output: str | Path | None = None,
) -> RetrievalEvaluation:
    """Recall and NDCG of a part's queries over the whole catalogue, head and tail items also apart.

    A query is a group of rows (``data.group``, usually the user), with the features of its first row.
    Items that its rows hold in earlier parts are no answers and not asked for. Without groups each row is
    a query, and nothing is left out.

    Args:
        folder: run folder of a retrieval model.
        part: whose queries.
        k: ranks that count.
        output: folder for ``metrics.json``, ``slices.parquet`` and ``stage.json``.

    Raises:
        ConfigError: the run's model ranks rows.
        CheckpointError: the run is not finished, or damaged.
        DataError: the part holds no rows.
    """
    started = time.perf_counter()
    if output is not None:
        require_ours(Path(output), METRICS_FILE)
    run = Run.load(folder)
    config = parse_options(run.file.model, run.file.options)
    if not isinstance(config, TwoTowerConfig):
        raise ConfigError(f"{folder}: model {run.file.model!r} scores rows, and has no vectors of items")
    with opened_run(run) as (dataset, _, model, tables), distributed("cpu") as ranks:
        assert isinstance(model, TwoTower)
        rows = dataset.manifest.rows.get(part, 0)
        if not rows:
            raise DataError(f"{dataset.folder}: no {part} rows to evaluate on")
        catalogue = Catalogue.of(dataset, config.item)
        queries = Queries.of(dataset, part, catalogue, PARTS[: PARTS.index(part)])
        found = ranked(model, tables, queries, catalogue, ranks)
    assert found is not None
    evaluation = _evaluated(found, catalogue, dataset, rows, sorted(set(k)))
    if output is not None:
        record = StageRecord(
            stage="evaluate",
            version=EVALUATE_VERSION,
            inputs=fingerprints([run.folder / RUN_FILE, run.folder / "checkpoints" / "best"]),
            settings=settings_of({"part": part, "k": sorted(set(k))}),
            seconds=time.perf_counter() - started,
            rows=rows,
        )
        with written_aside(Path(output)) as aside:
            evaluation.save(aside)
            record.save(aside)
    return evaluation


def _evaluated(
    found: Found, catalogue: Catalogue, dataset: Dataset, rows: int, k: Sequence[int]
) -> RetrievalEvaluation:
    best = found.best(max(k))
    head = _head(catalogue)
    lines = lines_of("all", found.metrics(best, k))
    for name, chosen in (("head", head), ("tail", ~head)):
        lines += lines_of(name, found.metrics(best, k, among=chosen))
    unknown = int(found.queries.unknown.sum())
    notes = []
    if unknown:
        notes.append(f"{unknown:,} of {rows:,} rows hold an item of no train row, which cannot be found")
    if not dataset.has_group:
        notes.append("no data.group: each row is a query of its own, and items seen before may be answers")
    facts = {
        "rows": rows,
        "queries": found.queries.columns.rows,
        "items": len(catalogue),
        "head_items": int(head.sum()),
        "unknown": unknown,
    }
    return RetrievalEvaluation(pl.DataFrame(lines, schema=SCHEMA), facts, tuple(notes))


def _head(catalogue: Catalogue) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Whether each item is one of the most frequent; among equals the one with the lower id is."""
    order = np.argsort(-catalogue.counts[catalogue.ids], kind="stable")
    head = np.zeros(len(catalogue), np.bool_)
    head[order[: int(np.ceil(HEAD_SHARE * len(catalogue)))]] = True
    return head
