"""The tables of a ranking's report, and how its numbers are written."""

from __future__ import annotations

import math
from collections.abc import Callable
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from recsys.ranking.quality import SEVERITIES, percent
from recsys.ranking.shown import order_sentence
from recsys.ranking.together import told_once
from recsys.report.page import Field, card, folded, table

if TYPE_CHECKING:
    from recsys.ranking.ranking import Ranking

LEAST_SHARED = 0.05
"""Columns that share less than this are not called redundant."""
MOST_COMBINATIONS = 25
MOST_TRANSFORMS, MOST_OF_A_COLUMN = 60, 3
GAINING = 0.02
"""Share of the raw column's score that a transform must gain to be shown."""
CERTAIN = 0.01
"""Chance, over all combinations tried, below which a gain is shown."""
BEYOND_CHANCE = 3.0
"""Standard deviations from which a score counts as more than chance: one column in 700 is that lucky."""


def combinations_section(ranking: Ranking) -> str:
    pairs = or_empty(ranking.pairs)
    if pairs.is_empty() or "gain" not in pairs.columns:
        return ""
    pairs = _beyond_parts(pairs)
    if {"redundant_with", "redundancy", "distinct"} <= set(ranking.table.columns):
        pairs = told_once(pairs, ranking.table)
    if pairs.is_empty():
        return paragraph("No combination tells more than its parts, beyond what chance would show.")
    best = pairs.head(MOST_COMBINATIONS)
    show = shown_by(best["gain"].to_numpy())
    parts = [name for name in ("a", "b", "c") if name in best.columns]
    fields = [Field("combination", align="text"), Field("gain", show, "bar")]
    has_interval = {"low", "high"} <= set(best.columns) and best["low"].null_count() < len(best)
    if has_interval:
        fields.append(Field("95 % interval"))
    numbers: dict[str, Callable[[float], str]] = {
        "gain_z": _z,
        "synergy": show,
        "joint": show,
        "redundancy": _whole_percent,
    }
    titles = {
        "gain_z": "z",
        "synergy": "synergy",
        "joint": "together",
        "redundancy": "redundancy of the parts",
    }
    extra = [name for name in numbers if name in best.columns]
    fields.extend(Field(titles[name], numbers[name]) for name in extra)
    rows: list[list[Any]] = []
    for row in best.iter_rows(named=True):
        line = [" × ".join(row[part] for part in parts if row[part] is not None), row["gain"]]
        if has_interval:
            line.append(_interval(row["low"], row["high"], show))
        rows.append([*line, *(row[name] for name in extra)])
    remark = (
        "Gain: what the combination tells beyond its better part and beyond chance, in nats. Synergy: what "
        "it tells beyond the sum of its parts. A model that multiplies columns may find these by itself; "
        "as columns of their own they are there for any model."
    )
    return paragraph(remark) + card("", _sortable(table(rows, fields)))


def _beyond_parts(pairs: pl.DataFrame) -> pl.DataFrame:
    """Combinations whose gain and synergy are more than chance, the most certain synergy first.

    Where some were counted exactly, with an interval, only those are shown.
    """
    pairs = pairs.drop_nulls("gain")
    if "low" in pairs.columns and pairs["low"].null_count() < len(pairs):
        pairs = pairs.drop_nulls("low")
    if "gain_z" in pairs.columns:
        pairs = pairs.filter(pl.col("gain_z") >= BEYOND_CHANCE)
    if "p_adjusted" in pairs.columns:
        pairs = pairs.filter(pl.col("p_adjusted").is_null() | (pl.col("p_adjusted") < CERTAIN))
    if not {"synergy", "synergy_z"} <= set(pairs.columns):
        return pairs.sort("gain", descending=True)
    pairs = pairs.filter(pl.col("synergy_z") >= BEYOND_CHANCE)
    certain = pl.col("synergy") * (1 - BEYOND_CHANCE / pl.col("synergy_z"))
    return pairs.sort(certain, descending=True, maintain_order=True)


def transforms_section(ranking: Ranking) -> str:
    transforms = or_empty(ranking.transforms)
    if transforms.is_empty():
        return ""
    transforms = _gaining(transforms)
    if transforms.is_empty():
        return paragraph(
            "No numeric column tells more than chance would, so transforms of them change nothing."
        )
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
        "use, both in nats. A transform is worth having where the second is near the first. Shown: columns "
        "that tell something, and of their transforms those that gain."
    )
    return paragraph(remark) + card("", _sortable(content))


def _gaining(transforms: pl.DataFrame) -> pl.DataFrame:
    """Of each column beyond chance the raw one and the best few transforms that gain over it."""
    chosen: list[pl.DataFrame] = []
    for (_,), rows in transforms.group_by("column", maintain_order=True):
        if float(rows["z"].fill_null(0.0).max() or 0.0) < BEYOND_CHANCE:  # type: ignore[arg-type]
            continue
        raw = rows.filter(pl.col("transform") == "raw")
        score, linear = (raw["score"][0], raw["linear"][0]) if len(raw) else (0.0, 0.0)
        gains = (pl.col("linear") - linear > GAINING * score) | (pl.col("score") > (1 + GAINING) * score)
        others = rows.filter((pl.col("transform") != "raw") & gains).sort("linear", descending=True)
        chosen.extend((raw, others.head(MOST_OF_A_COLUMN)))
    return pl.concat(chosen).head(MOST_TRANSFORMS) if chosen else transforms.head(0)


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
        "given_score": Field("adds to given", show),
        "outrank": Field("OutRank", show),
        "sure": Field("sure", show),
        "score": Field("score", show, "bar"),
        "interval": Field("95 % interval"),
        "z": Field("z", _z),
        "mi": Field("MI", show),
        "adjusted_mi": Field("AMI", lambda value: _minus(f"{value:.4f}")),
        "distinct": Field("distinct", lambda value: f"{value:,}"),
        "coverage": Field("coverage", percent),
        "redundant_with": Field("redundant with", align="text"),
        "gain": Field("adds", show),
        "rank_jmi": Field("JMI"),
        "rank_3mr": Field("3MR"),
    }
    has_interval = {"low", "high"} <= set(ranked.columns)
    names = [name for name in known if name in ranked.columns or (name == "interval" and has_interval)]
    for at, row in enumerate(ranked.iter_rows(named=True)):
        row["redundant_with"] = _redundant(row)
        row["interval"] = _interval(row.get("low"), row.get("high"), show) if has_interval else None
        rows.append([at + 1, *(row[name] for name in names)])
    fields = [Field("#"), *(known[name] for name in names)]
    return card("", _sortable(table(rows, fields, dense=True))) + (
        f'<p class="small">Columns are {order_sentence(ranking)}; click a heading to sort. '
        "Score = MI − expected MI, in nats. AMI: adjusted mutual "
        "information, 0 for chance and 1 for a copy of the label. Adds: what a column tells that the "
        "better ones do not. JMI and 3MR: its rank in those greedy orders.</p>"
    )


def _sortable(content: str) -> str:
    return f'<div class="sortable">{content}</div>'


def paragraph(text: str) -> str:
    return f"<p>{escape(text)}</p>"


def shown_by(values: np.ndarray[Any, Any]) -> Callable[[float], str]:
    """How to write these numbers: so that the lower quartile of those above zero has two digits left."""
    positive = values[np.isfinite(values) & (values > 0)] if values.size else values
    usual = float(np.quantile(positive, 0.25)) if positive.size else 0.0
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
