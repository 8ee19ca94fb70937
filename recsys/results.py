"""What a run has to show for itself, read back from its folders."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from recsys.errors import InstallationError
from recsys.place import PLAN_FILE
from recsys.progress import say
from recsys.seeds import METRICS
from recsys.stage import settings_of

if TYPE_CHECKING:
    from recsys.config import RunConfig
    from recsys.embeddings.plan import Plan
    from recsys.evaluation import Evaluation
    from recsys.evaluation.retrieval_metrics import RetrievalEvaluation
    from recsys.place import Place
    from recsys.report.run_report import StageTime
    from recsys.seeds import SeedRuns
    from recsys.serving.manifest import BundleManifest

REPORT_FILE = "report.html"
REFERENCES_FILE = "references.json"
References = dict[str, dict[str, float]]
"""Reference → metric → value."""


def save_references(place: Place, folder: Path) -> None:
    """Where the log is a synthetic one, write down what a model can reach on its test rows."""
    from recsys.evaluation.references import references, synthetic_folder

    log = synthetic_folder(place.parts.files)
    if log is None:
        return
    found = references(log, place.split)
    named = {
        "attainable": {"auc": found.attainable_auc, "logloss": found.attainable_logloss},
        "known logit": {"auc": found.known_auc, "logloss": found.known_logloss},
    }
    (folder / REFERENCES_FILE).write_text(json.dumps(named, indent=2) + "\n", encoding="utf-8")


def load_references(folder: Path) -> References:
    """The references of an evaluation folder; empty where the log's best possible AUC is not known."""
    path = folder / REFERENCES_FILE
    if not path.is_file():
        return {}
    named = json.loads(path.read_text(encoding="utf-8"))
    return {
        name: {metric: value for metric, value in metrics.items() if value is not None}
        for name, metrics in named.items()
    }


def load_evaluation(place: Place) -> Evaluation | None:
    """Metrics of the test rows, where a ranking model's run has come that far."""
    from recsys.evaluation import Evaluation

    if place.config.model.retrieves:
        return None
    folder = place.folder("evaluate")
    return Evaluation.load(folder) if (folder / "metrics.json").is_file() else None


def load_retrieval(place: Place) -> RetrievalEvaluation | None:
    """The full ranking of the test rows' queries, where a retrieval model's run has come that far."""
    from recsys.evaluation.retrieval_metrics import RetrievalEvaluation

    if not place.config.model.retrieves:
        return None
    folder = place.folder("evaluate")
    return RetrievalEvaluation.load(folder) if (folder / "metrics.json").is_file() else None


def measured_of(place: Place) -> dict[str, float]:
    """Metrics of the test rows that stand in a table of seeds; the evaluation must be there."""
    retrieval, evaluation = load_retrieval(place), load_evaluation(place)
    if retrieval is not None:
        k = place.config.train.monitor_k
        return {name: retrieval.overall[f"{name}@{k}"] for name in ("recall", "ndcg")}
    overall = evaluation.overall if evaluation is not None else {}
    known = {name: overall.get(name) for name in METRICS}
    return {name: value for name, value in known.items() if value is not None}


def load_plan(place: Place) -> Plan | None:
    from recsys.embeddings.plan import Plan

    path = place.folder("plan") / PLAN_FILE
    return Plan.load(path) if path.is_file() else None


def load_bundle(place: Place) -> BundleManifest | None:
    """The bundle's manifest, where the run has come that far."""
    from recsys.serving.manifest import MANIFEST_FILE, BundleManifest

    folder = place.folder("export")
    return BundleManifest.load(folder) if (folder / MANIFEST_FILE).is_file() else None


def tables_of(place: Place, bundle: BundleManifest | None) -> Plan | None:
    """The tables as they were trained: a sparse run's are smaller than planned, and its bundle says how."""
    return load_plan(place) if bundle is None else bundle.plan


def report_of(place: Place) -> Path:
    """Where the run's report lies."""
    return place.folder("train") / REPORT_FILE


def write_report(
    place: Place,
    stages: Sequence[StageTime],
    *,
    evaluated: bool = True,
    seeds: SeedRuns | None = None,
) -> None:
    """Write ``run/report.html`` from what the folders hold.

    ``evaluated`` says whether the evaluation that may lie there is that of the weights in the run folder.
    """
    import polars as pl

    from recsys.embeddings.planner import describe
    from recsys.report.run_report import write_run_report
    from recsys.training.record import read_metrics

    bundle = load_bundle(place)
    plan = tables_of(place, bundle)
    tables = None if plan is None else describe(plan)
    if tables is not None and bundle is not None:
        sizes = {name: table.bytes for name, table in bundle.tables.items()}
        stored = [sizes.get(name) for name in tables["table"]]
        tables = tables.with_columns(pl.Series("bundle_bytes", stored, dtype=pl.Int64))
    try:
        write_run_report(
            report_of(place),
            title=f"{place.config.name}: {place.config.model.name}",
            evaluation=load_evaluation(place) if evaluated else None,
            retrieval=load_retrieval(place) if evaluated else None,
            curves=read_metrics(place.folder("train")),
            tables=tables,
            gates=None if bundle is None else bundle.gates,
            stages=stages,
            references=load_references(place.folder("evaluate")),
            settings=_settings(place.config),
            seeds=seeds,
            best_from=place.config.train.settles_at,
        )
    except InstallationError as error:
        say(f"report    left out: {error}")


def _settings(config: RunConfig) -> dict[str, object]:
    """Every setting by dotted key, those left at nothing aside."""
    values = settings_of(config.model_dump(mode="json", exclude={"tune"}))
    return {key: value for key, value in values.items() if value not in (None, [], {}, "")}
