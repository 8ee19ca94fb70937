"""Metrics of a table of labels and scores, whoever wrote it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import polars as pl

from recsys.data.check import reading, require_column
from recsys.data.source import Data, Source, open_source
from recsys.errors import ConfigError, DataError, did_you_mean
from recsys.evaluation.doubt import doubtful_auc
from recsys.evaluation.grouped import count_by_group
from recsys.evaluation.metric_files import METRICS_FILE, reading_metrics, save_metrics
from recsys.evaluation.metrics import (
    Gauc,
    ScoresAre,
    auc_of,
    curve_of,
    entropy_of,
    gauc_of,
    losses_of,
    outside_unit_interval,
    probabilities_of,
)
from recsys.evaluation.slices import SCHEMA, Scored, cut, slice_metrics
from recsys.evaluation.values import Origin, as_groups, as_labels, as_scores, as_weights, ordered_bits
from recsys.place import FOLDERS, run_folder_of
from recsys.stage import StageRecord, require_ours, settings_of, written_aside

EVALUATE_VERSION = 2
CURVE_BINS = 20
_CURVE_SCHEMA = {
    "low": pl.Float64,
    "high": pl.Float64,
    "rows": pl.Int64,
    "prediction": pl.Float64,
    "ctr": pl.Float64,
}


@dataclass(frozen=True)
class Evaluation:
    """Metrics of one table.

    >>> import polars as pl
    >>> table = pl.DataFrame({"label": [0, 1, 0, 1], "score": [0.1, 0.4, 0.5, 0.8]})
    >>> evaluate(table).overall["auc"]
    0.75
    """

    overall: dict[str, float | int | None]
    """rows, positives, ctr, auc, gauc, gauc_unweighted, gauc_rows_used, gauc_groups, gauc_groups_used,
    logloss, ne, prediction (mean), calibration; None where the rows do not define one."""
    slices: pl.DataFrame
    """column, value, rows, positives, ctr, auc, gauc, gauc_rows_used, logloss, ne, calibration."""
    curve: pl.DataFrame
    """Calibration by bins of about equally many rows: low, high, rows, prediction, ctr."""
    reasons: dict[str, str]
    """Metric → why it is None."""
    notes: tuple[str, ...] = ()
    """What a reader should know about the rows."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {
            "overall": self.overall,
            "reasons": self.reasons,
            "notes": list(self.notes),
            "curve": self.curve.to_dicts(),
            "slices": self.slices.to_dicts(),
        }

    def save(self, folder: Path) -> None:
        """Write ``metrics.json`` and ``slices.parquet`` into a folder."""
        save_metrics(folder, self.to_dict(), self.slices)

    @classmethod
    def load(cls, folder: Path) -> Evaluation:
        """Read what ``save`` wrote; raises DataError that names the file."""
        what = "metrics that 'recsys evaluate' wrote"
        with reading_metrics(folder, command="recsys evaluate --output", what=what) as values:
            return cls(
                overall=values["overall"],
                slices=pl.DataFrame(values["slices"], schema=SCHEMA),
                curve=pl.DataFrame(values["curve"], schema=_CURVE_SCHEMA),
                reasons=values["reasons"],
                notes=tuple(values["notes"]),
            )


def evaluate(
    data: Data,
    *,
    label: str = "label",
    score: str = "score",
    group: str | None = None,
    weight: str | None = None,
    by: Sequence[str] = (),
    scores_are: ScoresAre = "probabilities",
    output: str | Path | None = None,
) -> Evaluation:
    """Evaluate the scores of a table: exact AUC, GAUC, logloss, NE, calibration, and each by slices.

    ``data`` is a path (Parquet, folder, glob, CSV) or a polars, pandas or Arrow table with a column of
    labels (0 or 1) and a column of scores; ``group`` names GAUC's groups, ``weight`` sample weights, and
    each column of ``by`` gets its own slices. Scores are probabilities, or with ``scores_are="logits"``
    log-odds; where some lie outside [0, 1], ranking metrics stand and the others are None. ``output``
    is a folder for ``metrics.json``, ``slices.parquet`` and ``stage.json``.

    Raises SchemaError for a missing column, DataError for no rows, labels that are not 0 or 1, and
    missing, NaN or infinite scores.
    """
    started = time.perf_counter()
    chosen = Chosen(label, score, group, weight, (by,) if isinstance(by, str) else tuple(by), scores_are)
    if output is not None:
        require_ours(Path(output), METRICS_FILE)
    _refuse_run(data)
    source = open_source(data)
    frame = _read(source, chosen)
    evaluation = _evaluated(frame, source, chosen)
    if output is not None:
        record = StageRecord(
            stage="evaluate",
            version=EVALUATE_VERSION,
            inputs=source.fingerprints(),
            settings=settings_of({**asdict(chosen), "by": list(chosen.by)}),
            seconds=time.perf_counter() - started,
            rows=len(frame),
        )
        with written_aside(Path(output)) as folder:
            evaluation.save(folder)
            record.save(folder)
    return evaluation


@dataclass(frozen=True)
class Chosen:
    """Which column plays which part."""

    label: str
    score: str
    group: str | None
    weight: str | None
    by: tuple[str, ...]
    scores_are: ScoresAre

    def __post_init__(self) -> None:
        if self.scores_are not in get_args(ScoresAre):
            raise ConfigError(
                f"scores_are: {self.scores_are!r}; {did_you_mean(self.scores_are, get_args(ScoresAre))}"
            )

    @property
    def columns(self) -> list[str]:
        """Every column named, each once."""
        named = (self.label, self.score, self.group, self.weight, *self.by)
        return list(dict.fromkeys(name for name in named if name is not None))


def _refuse_run(data: Data) -> None:
    """Raise ConfigError for a folder that holds a run: of its many tables none holds scores."""
    run = run_folder_of(data)
    if run is not None:
        raise ConfigError(
            f"{data} holds a run, and no table of scores: its metrics lie in "
            f"{run.with_name(FOLDERS['evaluate'])}; make them with 'recsys evaluate RUN_FILE', or score "
            "rows with 'recsys predict'"
        )


def _read(source: Source, chosen: Chosen) -> pl.DataFrame:
    """The named columns in memory; raises SchemaError for an unknown one and DataError for no rows."""
    for name in chosen.columns:
        require_column(name, source.columns, source.name)
    with reading(source):
        frame = source.lazy().select(chosen.columns).collect()
    if frame.is_empty():
        raise DataError(f"{source.name}: no rows to evaluate; expected at least one")
    return frame


def _evaluated(frame: pl.DataFrame, source: Source, chosen: Chosen) -> Evaluation:
    labels = as_labels(frame[chosen.label], _origin(source, chosen.label))
    scores = as_scores(frame[chosen.score], _origin(source, chosen.score))
    weights = as_weights(frame[chosen.weight], _origin(source, chosen.weight)) if chosen.weight else None
    groups = as_groups(frame[chosen.group], _origin(source, chosen.group)) if chosen.group else None
    outside = outside_unit_interval(scores) if chosen.scores_are == "probabilities" else 0
    rows = Scored(
        label=labels,
        bits=ordered_bits(scores),
        groups=groups,
        weight=weights,
        prediction=None if outside else probabilities_of(scores, chosen.scores_are),
        loss=None if outside else losses_of(labels, scores, chosen.scores_are),
    )
    counted = None if groups is None else gauc_of(count_by_group(labels, rows.bits, groups, weights))
    overall = _overall(rows, auc_of(labels, scores, weights), counted)
    pieces = [
        slice_metrics(name, cut(frame[name], _origin(source, name).name), rows)
        for name in dict.fromkeys(chosen.by)
    ]
    curve = pl.DataFrame(schema=_CURVE_SCHEMA)
    if rows.prediction is not None:
        curve = curve_of(labels, rows.prediction, weights, CURVE_BINS).match_to_schema(_CURVE_SCHEMA)
    return Evaluation(
        overall=overall,
        slices=pl.concat(pieces) if pieces else pl.DataFrame(schema=SCHEMA),
        curve=curve,
        reasons=_reasons(overall, chosen.group, outside > 0),
        notes=_notes(frame, chosen, outside, overall["auc"]),
    )


def _origin(source: Source, column: str) -> Origin:
    name = f"{source.name}: column {column!r}"
    return Origin(name, source.locate) if len(source.files) > 1 else Origin(name)


def _notes(frame: pl.DataFrame, chosen: Chosen, outside: int, auc: float | None) -> tuple[str, ...]:
    """What a reader should know about the rows before trusting a number."""
    notes = []
    if outside:
        notes.append(
            f"{outside} of {len(frame)} values of {chosen.score!r} lie outside [0, 1] and are no "
            "probabilities: logloss, NE and calibration are left out; if they are log-odds, say "
            "scores_are='logits'"
        )
    if chosen.group is not None and (empty := frame[chosen.group].null_count()):
        notes.append(f"{empty} rows have no value in {chosen.group!r}; GAUC takes them as one group")
    if (doubt := doubtful_auc(auc, f"{len(frame):,} rows")) is not None:
        notes.append(f"warning: {doubt}")
    return tuple(notes)


def _overall(rows: Scored, auc: float | None, gauc: Gauc | None) -> dict[str, float | int | None]:
    base = float(np.average(rows.label, weights=rows.weight))
    entropy = entropy_of(base)
    logloss = None if rows.loss is None else float(np.average(rows.loss, weights=rows.weight))
    mean = None if rows.prediction is None else float(np.average(rows.prediction, weights=rows.weight))
    return {
        "rows": len(rows.label),
        "positives": int(np.count_nonzero(rows.label)),
        "ctr": base,
        "auc": auc,
        "gauc": gauc.value if gauc else None,
        "gauc_unweighted": gauc.unweighted if gauc else None,
        "gauc_rows_used": gauc.rows_used if gauc else None,
        "gauc_groups": gauc.groups if gauc else None,
        "gauc_groups_used": gauc.groups_used if gauc else None,
        "logloss": logloss,
        "ne": None if logloss is None or entropy == 0 else logloss / entropy,
        "prediction": mean,
        "calibration": None if mean is None or base == 0 else mean / base,
    }


def _reasons(
    overall: dict[str, float | int | None], group: str | None, no_probabilities: bool
) -> dict[str, str]:
    """Why each metric that is None is None."""
    only = f"every label is {int(bool(overall['positives']))}"
    grouped = "no group column was given" if group is None else f"no {group!r} has both labels"
    unlikely = "some scores lie outside [0, 1]"
    because = {
        "auc": only,
        "gauc": grouped,
        "gauc_unweighted": grouped,
        "gauc_rows_used": grouped,
        "gauc_groups": grouped,
        "gauc_groups_used": grouped,
        "logloss": unlikely,
        "ne": unlikely if no_probabilities else only,
        "prediction": unlikely,
        "calibration": unlikely if no_probabilities else only,
    }
    return {name: because[name] for name, value in overall.items() if value is None}
