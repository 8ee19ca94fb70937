"""One page about one run: how it learned, how well it predicts, what it costs."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from recsys.evaluation import Evaluation
from recsys.evaluation.doubt import doubtful_auc
from recsys.evaluation.retrieval_metrics import RetrievalEvaluation
from recsys.progress import duration, size
from recsys.report.charts import BLUE, GREEN, ORANGE, PURPLE, calibration_chart, curve_chart
from recsys.report.density_section import density_section
from recsys.report.page import Field, card, figure, folded, key_figure, notes, page, table
from recsys.report.retrieval_table import retrieval_header, retrieval_section
from recsys.report.seeds_table import seeds_section
from recsys.seeds import SeedRuns
from recsys.serving.manifest import BundleGates
from recsys.stage import file_aside

Number = float | int | None
_RARE = 1e-3
"""Predictions below this are shown with six digits."""
References = Mapping[str, Mapping[str, float]]


class StageTime(NamedTuple):
    """How long one stage of the chain took."""

    name: str
    seconds: float
    rows_per_second: float | None = None
    state: str = ""
    """``made``, ``up to date``, …"""


class _Facts(NamedTuple):
    title: str
    evaluation: Evaluation | None
    retrieval: RetrievalEvaluation | None
    curves: pl.DataFrame
    tables: pl.DataFrame | None
    gates: BundleGates | None
    stages: Sequence[StageTime]
    references: References
    settings: Mapping[str, object]
    notes: Sequence[str]
    seeds: SeedRuns | None
    best_from: int


def write_run_report(
    path: str | Path,
    *,
    title: str,
    evaluation: Evaluation | None = None,
    retrieval: RetrievalEvaluation | None = None,
    curves: pl.DataFrame | Sequence[Mapping[str, Any]] = (),
    tables: pl.DataFrame | None = None,
    gates: BundleGates | None = None,
    stages: Sequence[StageTime] = (),
    references: Mapping[str, Mapping[str, float]] | None = None,
    settings: Mapping[str, object] | None = None,
    notes: Sequence[str] = (),
    seeds: SeedRuns | None = None,
    best_from: int = 0,
) -> None:
    """Write one self-contained HTML page; what is not given is left out of it.

    Args:
        evaluation, retrieval: metrics of the test rows, of a ranking or of a retrieval model.
        curves: rows of a run's ``metrics.jsonl``: step, loss, lr_scale, rows_per_second,
            data_wait_share, valid/auc, valid/gauc, valid/logloss.
        tables: ``describe`` of a plan: table, rows, dim, bytes, path, mode; and ``bundle_bytes`` where
            there is a bundle.
        gates: what a bundle left out, where the model was trained with gates.
        references: name of a reference → its metrics, for example ``{"attainable": {"auc": 0.78}}``;
            the first one stands beside the AUC.
        settings: settings worth showing, by dotted key.
        notes: what a reader should know before trusting a number.
        seeds: the same training with several seeds; the other figures are those of the first.
        best_from: step before which no epoch could be the best, as the model was still to be cut.

    Raises InstallationError without matplotlib, and DataError that names the file where it cannot be
    written; what was there before stays then.
    """
    facts = _Facts(
        title,
        evaluation,
        retrieval,
        curves if isinstance(curves, pl.DataFrame) else _frame(curves),
        tables,
        gates,
        stages,
        references or {},
        settings or {},
        notes,
        seeds,
        best_from,
    )
    path = Path(path)
    text = page(facts.title, _body(facts))
    with file_aside(path) as aside:
        aside.write_text(text, encoding="utf-8")


def _body(facts: _Facts) -> Iterator[str]:
    evaluation, references = facts.evaluation, facts.references
    yield f"<header><h1>{escape(facts.title)}</h1>"
    if evaluation is not None:
        overall = evaluation.overall
        yield (
            f"<p>Evaluated on {_count(overall['rows'])} rows with {_count(overall['positives'])} clicks "
            f"({_percent(overall['ctr'])})</p>"
        )
        yield f'<div class="keys">{"".join(_keys(evaluation, references))}</div>'
    if facts.retrieval is not None:
        yield from retrieval_header(facts.retrieval)
    yield "</header>"
    measured = facts.evaluation or facts.retrieval
    yield notes([*(measured.notes if measured else ()), *_doubts(facts.curves), *facts.notes])
    if facts.retrieval is not None:
        yield from _section("Full ranking of the catalogue", retrieval_section(facts.retrieval))
    yield from _section("Beside the references", _references(evaluation, references))
    if facts.seeds is not None:
        yield from _section(f"{len(facts.seeds.runs)} seeds", seeds_section(facts.seeds))
    yield from _section("Learning", _charts(_learning(facts.curves, references, facts.best_from)))
    if evaluation is not None:
        yield from _section("Calibration", _calibration(evaluation))
        yield from _section("Slices", _slices(evaluation))
    if facts.tables is not None and not facts.tables.is_empty():
        yield from _section("Embedding tables", card("", _tables(facts.tables)))
    yield from _section("Density", density_section(facts.curves))
    if facts.gates is not None:
        yield from _section("Gates", card("", _gates(facts.gates)))
    if facts.stages:
        yield from _section("Stages", card("", _stages(facts.stages)))
    if facts.settings:
        rows = [(key, str(value)) for key, value in facts.settings.items()]
        fields = (Field("setting", align="text"), Field("value", align="text"))
        yield from _section(
            "Settings", folded("Run file", f"{len(rows)} keys", table(rows, fields), is_open=False)
        )
    today = datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M")
    yield f"<footer>Written by recsys, {today}</footer>"


def _doubts(curves: pl.DataFrame) -> Iterator[str]:
    """A warning per kind of AUC on validation rows that is too round to be true, with its first step."""
    if "valid/auc" in curves.columns:
        measured = curves.drop_nulls("valid/auc").unique("valid/auc", keep="first", maintain_order=True)
        for step, value in measured.select("step", "valid/auc").iter_rows():
            doubt = doubtful_auc(value, f"the validation rows at step {step:,}")
            if doubt is not None:
                yield f"warning: {doubt}"


def _section(title: str, content: str) -> Iterator[str]:
    if content:
        yield f"<section><h2>{escape(title)}</h2>{content}</section>"


# --- numbers -------------------------------------------------------------------------------------


def _keys(evaluation: Evaluation, references: References) -> Iterator[str]:
    """The figures that a reader looks for first."""
    overall, reasons = evaluation.overall, evaluation.reasons
    share = overall["gauc_rows_used"]
    remarks = {
        "auc": _against(overall["auc"], references),
        "gauc": "" if share is None else f"rests on {share:.1%} of rows",
        "logloss": "nats per row",
        "ne": "1 is a constant guess",
        "calibration": "predicted / clicked",
    }
    titles = {"auc": "AUC", "gauc": "GAUC", "logloss": "Logloss", "ne": "NE", "calibration": "Calibration"}
    for name, title in titles.items():
        value = overall[name]
        digits = 3 if name == "calibration" else 4
        yield key_figure(
            title, _fixed(value, digits), remarks[name] if value is not None else reasons[name]
        )


def _against(value: Number, references: References) -> str:
    """How far the AUC is from the first reference that has one."""
    for name, metrics in references.items():
        if value is not None and "auc" in metrics:
            side = "below" if value < metrics["auc"] else "above"
            return f"{abs(value - metrics['auc']):.4f} {side} {name}"
    return "chance that a click ranks higher"


def _references(evaluation: Evaluation | None, references: References) -> str:
    if not references:
        return ""
    names = ("auc", "gauc", "logloss", "ne", "calibration")
    every: list[tuple[str, Mapping[str, Number]]] = list(references.items())
    if evaluation is not None:
        every.insert(0, ("this model", evaluation.overall))
    used = [
        name for name in names if any(metrics.get(name) is not None for _, metrics in references.items())
    ]
    fields = [Field("", align="text"), *(Field(_TITLES[name], _five) for name in used)]
    rows = [[name, *(metrics.get(key) for key in used)] for name, metrics in every]
    return f'<div class="narrow">{card("", table(rows, fields))}</div>'


_TITLES = {"auc": "AUC", "gauc": "GAUC", "logloss": "logloss", "ne": "NE", "calibration": "calibration"}


def _slices(evaluation: Evaluation) -> str:
    """One table per column; the first is unfolded."""
    fields = (
        Field("value", align="text"),
        Field("rows", _count, "bar"),
        Field("CTR", _percent),
        Field("AUC", _four, "bar", start=None),
        Field("GAUC", _four),
        Field("logloss", _four),
        Field("NE", _four),
        Field("calibration", lambda value: _fixed(value, 3)),
    )
    names = ("value", "rows", "ctr", "auc", "gauc", "logloss", "ne", "calibration")
    pieces: list[str] = []
    for (column,), frame in evaluation.slices.group_by("column", maintain_order=True):
        known = frame.drop_nulls("auc")
        remark = f"{len(frame)} slices"
        if len(known) > 1:
            ordered = known.sort("auc")
            worst, best = ordered.row(0, named=True), ordered.row(-1, named=True)
            remark += (
                f" · AUC from {worst['auc']:.4f} ({worst['value']}) to {best['auc']:.4f} ({best['value']})"
            )
        content = table(frame.select(names).rows(), fields)
        pieces.append(folded(str(column), remark, content, is_open=not pieces))
    if not pieces:
        return ""
    return "".join(pieces) + '<p class="small">Bars of AUC begin a little below the lowest slice.</p>'


def _tables(tables: pl.DataFrame) -> str:
    known = {
        "table": Field("table", align="text"),
        "rows": Field("rows", _count),
        "dim": Field("dim"),
        "bytes": Field("bytes in training", size, "bar"),
        "bundle_bytes": Field("bytes in the bundle", size),
        "path": Field("update path", align="text"),
        "mode": Field("rows by", align="text"),
    }
    names = [name for name in known if name in tables.columns]
    summed = {"rows", "bytes", "bundle_bytes"}
    total = ["all" if name == "table" else tables[name].sum() if name in summed else "" for name in names]
    return table(tables.select(names).rows(), [known[name] for name in names], total)


def _gates(gates: BundleGates) -> str:
    """Values kept and closed per vocabulary."""
    fields = (
        Field("vocabulary", align="text"),
        Field("values", _count),
        Field("closed", _count),
        Field("kept", _percent, "bar"),
    )
    counts = [(name, each.values, each.closed) for name, each in gates.vocabularies.items()]
    rows = [(name, values, closed, 1 - closed / values) for name, values, closed in counts]
    total = ("all", sum(row[1] for row in rows), sum(row[2] for row in rows), gates.kept_share)
    saved = f"The rows and keys of closed values, {size(gates.bytes)}, are not in the bundle."
    if gates.bytes < 0:
        saved = (
            f"The bundle grew by {size(-gates.bytes)}, as open values must be listed beside closed ones."
        )
    return table(rows, fields, total) + f'<p class="small">{saved}</p>'


def _stages(stages: Sequence[StageTime]) -> str:
    fields = [
        Field("stage", align="text"),
        Field("time", duration, "bar"),
        Field("rows/s", lambda value: f"{value:,.0f}"),
        Field("", align="text"),
    ]
    rows = [(stage.name, stage.seconds, stage.rows_per_second, stage.state) for stage in stages]
    return table(rows, fields, ("all", sum(stage.seconds for stage in stages), "", ""))


# --- charts --------------------------------------------------------------------------------------


def _charts(pieces: Iterator[tuple[str, str | None, str]]) -> str:
    shown = [figure(title, svg, caption) for title, svg, caption in pieces if svg is not None]
    return f'<div class="charts">{"".join(shown)}</div>' if shown else ""


def _learning(
    curves: pl.DataFrame, references: References, best_from: int
) -> Iterator[tuple[str, str | None, str]]:
    if "step" not in curves.columns:
        return
    levels = [(name, metrics["auc"]) for name, metrics in references.items() if "auc" in metrics]
    yield (
        "Loss",
        curve_chart(
            curves,
            {"loss": ("training", BLUE), "valid/logloss": ("validation", ORANGE)},
            best="valid/logloss",
            best_from=best_from,
            highest_is_best=False,
        ),
        "Mean logloss in nats. Validation rising while training falls means overfitting.",
    )
    yield (
        "Ranking on validation rows",
        curve_chart(
            curves,
            {
                "valid/auc": ("AUC", BLUE),
                "valid/gauc": ("GAUC", GREEN),
                "search/auc": ("AUC while gates are searched", ORANGE),
            },
            levels,
            best="valid/auc",
            best_from=best_from,
        ),
        "Circled: the best AUC.",
    )
    yield (
        "Open gates",
        curve_chart(curves, {"gates/open_share": ("share of values", ORANGE)}, in_steps=True),
        "Values whose gates are open. After the search they stay, and training begins without the others.",
    )
    yield (
        "Full ranking on validation rows",
        curve_chart(
            curves,
            {"valid/recall": ("recall", BLUE), "valid/ndcg": ("NDCG", GREEN)},
            best="valid/recall",
            best_from=best_from,
        ),
        "Circled: the best recall.",
    )
    yield (
        "Learning rate",
        curve_chart(curves, {"lr_scale": ("scale", PURPLE)}, in_steps=True),
        "Factor on every learning rate; it falls where validation stops improving.",
    )
    yield (
        "Speed",
        curve_chart(curves, {"rows_per_second": ("rows/s", BLUE)}),
        _waited(curves),
    )


def _waited(curves: pl.DataFrame) -> str:
    if "data_wait_share" not in curves.columns:
        return "Training rows per second."
    share = float(np.mean(curves["data_wait_share"].drop_nulls().to_numpy()))
    return f"Training rows per second; {share:.1%} of the time went to waiting for data."


def _calibration(evaluation: Evaluation) -> str:
    svg = calibration_chart(evaluation.curve)
    if svg is None:
        return ""
    smallest = evaluation.curve["prediction"].to_numpy().min()
    digits = 4 if smallest >= _RARE else 6
    fields = (
        Field("predictions", align="text"),
        Field("rows", _count),
        Field("mean prediction", lambda value: _fixed(value, digits)),
        Field("share of clicks", lambda value: _fixed(value, digits)),
        Field("ratio", lambda value: _fixed(value, 3)),
    )
    rows = [
        (
            f"{row['low']:.{digits}f} – {row['high']:.{digits}f}",
            row["rows"],
            row["prediction"],
            row["ctr"],
            row["prediction"] / row["ctr"] if row["ctr"] > 0 else None,
        )
        for row in evaluation.curve.iter_rows(named=True)
    ]
    caption = "Bins of about equally many rows. Above the dashed line the model promises too little."
    chart = figure("Predicted against clicked", svg, caption)
    return f'<div class="charts">{chart}{card("Bins", table(rows, fields, dense=True))}</div>'


# --- words ---------------------------------------------------------------------------------------


def _frame(rows: Sequence[Mapping[str, Any]]) -> pl.DataFrame:
    return pl.from_dicts([dict(row) for row in rows], infer_schema_length=None) if rows else pl.DataFrame()


def _fixed(value: Number, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _four(value: float) -> str:
    return f"{value:.4f}"


def _five(value: float) -> str:
    return f"{value:.5f}"


def _count(value: Number) -> str:
    return "–" if value is None else f"{value:,}"


def _percent(value: Number) -> str:
    return "–" if value is None else f"{value:.2%}"
