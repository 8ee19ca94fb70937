"""The tables of a ranking's report, and how its numbers are written."""

from __future__ import annotations

import math
from collections.abc import Callable
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from recsys.ranking.quality import SEVERITIES, percent
from recsys.report.page import Field, card, folded, table

if TYPE_CHECKING:
    from recsys.ranking.ranking import Ranking

LEAST_SHARED = 0.05
"""Columns that share less than this are not called redundant."""
MOST_COMBINATIONS = 25
MOST_TRANSFORMS = 40
BEYOND_CHANCE = 3.0
"""Standard deviations from which a score counts as more than chance: one column in 700 is that lucky."""


def combinations_section(ranking: Ranking) -> str:
    pairs = or_empty(ranking.pairs)
    if pairs.is_empty() or "gain" not in pairs.columns:
        return ""
    pairs = pairs.drop_nulls("gain").sort("gain", descending=True)
    if "gain_z" in pairs.columns:
        pairs = pairs.filter(pl.col("gain_z") >= BEYOND_CHANCE)
    if pairs.is_empty():
        return paragraph(
            "No combination tells more than the better of its parts, beyond what chance would show."
        )
    best = pairs.head(MOST_COMBINATIONS)
    show = shown_by(best["gain"].to_numpy())
    parts = [name for name in ("a", "b", "c") if name in best.columns]
    fields = [Field("combination", align="text"), Field("gain", show, "bar")]
    has_interval = {"low", "high"} <= set(best.columns) and best["low"].null_count() < len(best)
    if has_interval:
        fields.append(Field("95 % interval"))
    numbers: dict[str, Callable[[float], str]] = {"gain_z": _z, "joint": show, "redundancy": _whole_percent}
    titles = {"gain_z": "z", "joint": "together", "redundancy": "redundancy of the parts"}
    extra = [name for name in numbers if name in best.columns]
    fields.extend(Field(titles[name], numbers[name]) for name in extra)
    rows: list[list[Any]] = []
    for row in best.iter_rows(named=True):
        line = [" × ".join(row[part] for part in parts if row[part] is not None), row["gain"]]
        if has_interval:
            line.append(_interval(row["low"], row["high"], show))
        rows.append([*line, *(row[name] for name in extra)])
    remark = (
        "Gain: what the combination tells beyond its better part and beyond chance, in nats. A model that "
        "multiplies columns may find these by itself; as columns of their own they are there for any model."
    )
    return paragraph(remark) + card("", _sortable(table(rows, fields)))


def transforms_section(ranking: Ranking) -> str:
    transforms = or_empty(ranking.transforms)
    if transforms.is_empty():
        return ""
    transforms = transforms.head(MOST_TRANSFORMS)
    show = shown_by(floats(transforms, "score"))
    known = {
        "column": Field("column", align="text"),
        "transform": Field("transform", align="text"),
        "score": Field("score", show, "bar"),
        "z": Field("z", _z),
        "linear": Field("usable by a straight line", show, "bar"),
    }
    names = [name for name in known if name in transforms.columns]
    content = table(transforms.select(names).rows(), [known[name] for name in names])
    remark = (
        "The score of a transform is what its bins tell; beside it what a model that is linear in it can "
        "use, both in nats. A transform is worth having where the second is near the first."
    )
    return paragraph(remark) + card("", _sortable(content))


def findings_section(found: pl.DataFrame) -> str:
    if found.is_empty():
        return paragraph("Nothing was found wrong with any column.")
    pieces = []
    for severity in SEVERITIES:
        rows = found.filter(pl.col("severity") == severity)
        if rows.is_empty():
            continue
        fields = (Field("column", align="text"), Field("kind", align="text"), Field("", align="text"))
        lines = [
            (row["column"] or "whole log", row["kind"].replace("_", " "), row["sentence"])
            for row in rows.iter_rows(named=True)
        ]
        content = f'<div class="findings">{table(lines, fields)}</div>'
        title = {"error": "Mend before training", "warning": "Look at", "note": "Good to know"}[severity]
        pieces.append(folded(title, counted(len(rows), severity), content, is_open=severity != "note"))
    return "".join(pieces)


def columns_section(ranking: Ranking, show: Callable[[float], str]) -> str:
    ranked = ranking.table
    rows: list[list[Any]] = []
    known: dict[str, Field] = {
        "column": Field("column", align="text"),
        "kind": Field("kind", align="text"),
        "kept": Field("kept", lambda value: "kept" if value else "", "text"),
        "score": Field("score", show, "bar"),
        "interval": Field("95 % interval"),
        "z": Field("z", _z),
        "mi": Field("MI", show),
        "adjusted_mi": Field("AMI", lambda value: _minus(f"{value:.4f}")),
        "distinct": Field("distinct", lambda value: f"{value:,}"),
        "coverage": Field("coverage", percent),
        "redundant_with": Field("redundant with", align="text"),
        "gain": Field("adds", show),
        "jmi_rank": Field("JMI"),
        "mrmr_rank": Field("3MR"),
    }
    has_interval = {"low", "high"} <= set(ranked.columns)
    names = [name for name in known if name in ranked.columns or (name == "interval" and has_interval)]
    for at, row in enumerate(ranked.iter_rows(named=True)):
        row["redundant_with"] = _redundant(row)
        row["interval"] = _interval(row.get("low"), row.get("high"), show) if has_interval else None
        rows.append([at + 1, *(row[name] for name in names)])
    fields = [Field("#"), *(known[name] for name in names)]
    return card("", _sortable(table(rows, fields, dense=True))) + (
        '<p class="small">Click a heading to sort. Score = MI − expected MI, in nats. AMI: adjusted mutual '
        "information, 0 for chance and 1 for a copy of the label. Adds: what a column tells that the "
        "better ones do not. JMI and 3MR: its rank in those greedy orders.</p>"
    )


def _sortable(content: str) -> str:
    return f'<div class="sortable">{content}</div>'


def paragraph(text: str) -> str:
    return f"<p>{escape(text)}</p>"


def shown_by(values: np.ndarray[Any, Any]) -> Callable[[float], str]:
    """How to write these numbers: with digits enough for two significant ones of the fifth largest, so that
    a few giants do not turn all others into zeros."""
    finite = np.abs(values[np.isfinite(values)]) if values.size else values
    usual = float(np.sort(finite)[-min(5, finite.size)]) if finite.size else 0.0
    digits = 4 if usual <= 0 else min(max(1 - math.floor(math.log10(usual)), 3), 6)

    def show(value: float) -> str:
        return _minus(f"{value:.{digits}f}")

    return show


def _interval(low: float | None, high: float | None, show: Callable[[float], str]) -> str | None:
    return None if low is None or high is None else f"{show(low)} … {show(high)}"


def _z(value: float) -> str:
    return _minus(f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}")


def _minus(text: str) -> str:
    """A number with a real minus sign, and with none where only zeros are left of it."""
    return text.lstrip("-") if float(text.replace(",", "")) == 0 else text.replace("-", "−")


def _whole_percent(share: float) -> str:
    return f"{100 * max(share, 0.0):.0f} %"


def _redundant(row: dict[str, Any]) -> str:
    """Which column tells how much of this one; nothing where it is a trifle."""
    share = row.get("redundancy")
    if row.get("redundant_with") is None or share is None or share < LEAST_SHARED:
        return ""
    return f"{row['redundant_with']} ({_whole_percent(share)})"


def counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def floats(frame: pl.DataFrame, name: str) -> np.ndarray[Any, Any]:
    if name not in frame.columns:
        return np.zeros(0)
    numbers: np.ndarray[Any, Any] = frame[name].cast(pl.Float64).fill_null(math.nan).to_numpy()
    return numbers


def or_empty(frame: pl.DataFrame | None) -> pl.DataFrame:
    return pl.DataFrame() if frame is None else frame
