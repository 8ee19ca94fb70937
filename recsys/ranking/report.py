"""One page about one ranking, to be read without running anything: report.html."""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable, Iterator, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from recsys.progress import duration
from recsys.ranking.charts import Bar, Point, bar_chart, cluster_map, day_line, day_map, scatter
from recsys.ranking.drift import PSI_NOTE, PSI_WARNING
from recsys.ranking.quality import SEVERITIES, findings_table, percent, seriousness
from recsys.ranking.report_tables import (
    BEYOND_CHANCE,
    LEAST_SHARED,
    columns_section,
    combinations_section,
    counted,
    findings_section,
    floats,
    or_empty,
    paragraph,
    shown_by,
    transforms_section,
)
from recsys.ranking.sheet import STYLE
from recsys.ranking.shown import order_sentence
from recsys.report.page import card, figure, key_figure, notes, page
from recsys.stage import file_aside

if TYPE_CHECKING:
    from recsys.ranking.ranking import Ranking

MOST_BARS = 60
MOST_MAPPED = 60
"""Columns of the redundancy map whose labels can still be read."""
MOST_DRIFTING, FEW_DRIFTING, LEAST_DRIFT = 40, 6, 0.03
"""Columns in the map of days: the first few, and of the others those that change at all."""

_STYLE = (
    STYLE
    + """
main { max-width: 1240px; }
header p.lead { color: var(--ink); margin: 18px 0 0; font-size: 16px; max-width: 80ch; }
td .tag { display: inline-block; padding: 0 8px; border-radius: 9px; font-size: 12px; font-weight: 600;
  border: 1px solid currentColor; }
.tag.error { color: var(--alarm); } .tag.warning { color: var(--ink); } .tag.note { color: var(--muted); }
.findings td:last-child { white-space: normal; }
th[tabindex] { cursor: pointer; } th[tabindex]:hover { color: var(--ink); }
th[aria-sort=ascending]::after { content: " ▲"; } th[aria-sort=descending]::after { content: " ▼"; }
section > p { color: var(--muted); max-width: 90ch; margin: 0 0 12px; }
table.dense td, table.dense th { padding-right: 10px; font-size: 12px; }
table.dense td.text, .findings td:not(:last-child) { white-space: nowrap; }
table.dense td.bar { min-width: 104px; padding-right: 10px; }
.card + .card { margin-top: 16px; }
"""
)
_SCRIPT = """
document.querySelectorAll('.sortable table').forEach(table => {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  const number = text => parseFloat(text.replace(/[,\\s%]/g, '').replace('−', '-'));
  heads.forEach((head, at) => {
    const sort = () => {
      const down = head.getAttribute('aria-sort') !== 'descending' ? -1 : 1;
      heads.forEach(other => other.removeAttribute('aria-sort'));
      head.setAttribute('aria-sort', down < 0 ? 'descending' : 'ascending');
      const isText = head.classList.contains('text');
      [...body.rows].map(row => [row, row.cells[at].textContent]).sort((a, b) => {
        if (isText) return down * a[1].localeCompare(b[1]);
        const x = number(a[1]), y = number(b[1]);
        if (isNaN(x) || isNaN(y)) return isNaN(x) - isNaN(y);
        return down * (x - y);
      }).forEach(([row]) => body.append(row));
    };
    head.tabIndex = 0;
    head.addEventListener('click', sort);
    head.addEventListener('keydown', event => { if (event.key === 'Enter') sort(); });
  });
});
"""


def write_report(ranking: Ranking, path: Path) -> None:
    """Write one self-contained HTML page; sections without data are left out or say why.

    Raises DataError that names the file where it cannot be written; what was there before stays then.
    """
    text = page(_title(ranking), _body(ranking), style=_STYLE, script=_SCRIPT)
    with file_aside(path) as aside:
        aside.write_text(text, encoding="utf-8")


def _title(ranking: Ranking) -> str:
    return f"Which columns matter: {Path(str(ranking.facts.get('file', 'ranking'))).name}"


def _body(ranking: Ranking) -> Iterator[str]:
    found = _findings(ranking)
    show = score_format(ranking)
    yield f"<header><h1>{escape(_title(ranking))}</h1><p>{escape(_about(ranking))}</p>"
    yield f'<div class="keys">{"".join(_keys(ranking, found))}</div>'
    yield f'<p class="lead">{escape(_lead(ranking, found, show))}</p></header>'
    yield notes([row["sentence"] for row in found.head(3).iter_rows(named=True)])
    yield from _section("What each column tells about the label", _score_bars(ranking, show))
    yield from _section("Which columns tell the same", _redundancy(ranking))
    yield from _section("Coverage and score", _coverage(ranking, show))
    yield from _section("From day to day", _days(ranking))
    yield from _section("Combinations that tell more than their parts", combinations_section(ranking))
    yield from _section("Transforms of numeric columns", transforms_section(ranking))
    yield from _section("Findings", findings_section(found))
    yield from _section("All columns", columns_section(ranking, show))
    today = datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M")
    yield f"<footer>Written by recsys, {today}</footer>"


def _chart(name: str, svg: str, caption: str) -> str:
    """A chart that is a section's only one, so that the section's heading is enough."""
    content = (
        f'<figure role="img" aria-label="{escape(name)}">{svg}<figcaption>{escape(caption)}</figcaption>'
    )
    return card("", f"{content}</figure>")


def score_format(ranking: Ranking) -> Callable[[float], str]:
    """How scores are written: by those that tell something, so that noise gets no digits."""
    scores, z = floats(ranking.table, "score"), floats(ranking.table, "z")
    return shown_by(scores[z >= BEYOND_CHANCE] if (z >= BEYOND_CHANCE).any() else scores)


def _section(title: str, content: str) -> Iterator[str]:
    if content:
        yield f"<section><h2>{escape(title)}</h2>{content}</section>"


# --- summary -------------------------------------------------------------------------------------


def _about(ranking: Ranking) -> str:
    facts = ranking.facts
    pieces = [str(facts["file"])] if "file" in facts else []
    sampled, rows = facts.get("sampled"), facts.get("rows")
    if sampled and rows and sampled < rows:
        pieces.append(f"pairs, drift and duplicates on a sample of {sampled:,} rows")
    if "seconds" in facts:
        pieces.append(f"ranked in {duration(float(facts['seconds']))}")
    return " · ".join(pieces)


def _keys(ranking: Ranking, found: pl.DataFrame) -> Iterator[str]:
    """The figures that a reader looks for first."""
    rows = ranking.facts.get("rows")
    if rows is not None:
        yield key_figure("Train rows", f"{rows:,}", "all other rows stay unseen")
    yield key_figure("Columns", f"{len(ranking.table):,}", "ranked")
    yield key_figure(
        "Beyond chance",
        f"{_beyond(ranking.table):,}",
        f"score above {BEYOND_CHANCE:.0f} standard deviations",
    )
    kept = _kept(ranking.table)
    yield key_figure("Kept", f"{sum(kept):,}", "columns for the model")
    counts = {name: int((found["severity"] == name).sum()) for name in SEVERITIES}
    serious = counts["error"] + counts["warning"]
    remark = (
        ", ".join(counted(counts[name], name) for name in SEVERITIES if counts[name]) or "nothing found"
    )
    yield key_figure("To look at", f"{serious:,}", remark)


def _lead(ranking: Ranking, found: pl.DataFrame, show: Callable[[float], str]) -> str:
    ranked, beyond = ranking.table, _beyond(ranking.table)
    if not beyond:
        return "No column tells anything about the label beyond what chance would show."
    best = ranked["column"][0]
    score = floats(ranked, "score")[0]
    rest = len(ranked) - beyond
    text = f"'{best}' tells most about the label ({show(float(score))} nats beyond chance)."
    leaks = set(found.filter(pl.col("kind").str.starts_with("leak"))["column"])
    if best in leaks:
        text = f"'{best}' tells so much about the label that it was probably written after it."
        honest = [name for name in ranked["column"] if name not in leaks]
        text += f" Of the others '{honest[0]}' tells most." if honest else ""
    if rest:
        text += f" {counted(rest, 'column')} of {len(ranked)} cannot be told from chance."
    return text


def _beyond(ranked: pl.DataFrame) -> int:
    return int((floats(ranked, "z") >= BEYOND_CHANCE).sum())


# --- charts --------------------------------------------------------------------------------------


def _score_bars(ranking: Ranking, show: Callable[[float], str]) -> str:
    ranked = ranking.table
    shown = ranked.head(MOST_BARS)
    kept = _kept(shown)
    bars = [
        Bar(
            row["column"],
            row["score"],
            row.get("low"),
            row.get("high"),
            row.get("kind") or "other",
            kept[at],
        )
        for at, row in enumerate(shown.iter_rows(named=True))
    ]
    more = (
        f" The first {len(shown)} of {len(ranked)}; all are in the table below."
        if len(shown) < len(ranked)
        else ""
    )
    caption = (
        "Mutual information with the label beyond what a column of the same value counts would show by "
        "chance, in nats, with 95 % intervals; one that reaches zero may be chance. Bars that would dwarf "
        f"the others end in an arrow; their number stands at the right. "
        f"Columns are {order_sentence(ranking)}.{more}"
    )
    return _chart("Scores of the columns", bar_chart(bars, show), caption) if bars else ""


def _redundancy(ranking: Ranking) -> str:
    pairs = or_empty(ranking.pairs)
    if pairs.is_empty() or "redundancy" not in pairs.columns:
        return paragraph("Columns were not compared with each other in this run.")
    pairs = pairs.filter(pl.col("redundancy").is_not_null())
    if "c" in pairs.columns:
        pairs = pairs.filter(pl.col("c").is_null())
    known = set(pairs["a"]) | set(pairs["b"])
    names = [name for name in ranking.table["column"] if name in known][:MOST_MAPPED]
    if len(names) < 2:
        return ""
    place = {name: at for at, name in enumerate(names)}
    values = np.zeros((len(names), len(names)))
    for a, b, value in pairs.select("a", "b", "redundancy").iter_rows():
        if a in place and b in place:
            values[place[a], place[b]] = values[place[b], place[a]] = value
    largest = values.max(0)
    sharing = np.flatnonzero(largest >= LEAST_SHARED)
    if sharing.size < 2:
        most = percent(float(np.clip(largest.max(), 0, 1)))
        return paragraph(f"No column tells much of another one: {most} at the most.")
    names, rest = [names[at] for at in sharing], len(names) - sharing.size
    values = values[np.ix_(sharing, sharing)]
    more = f" Looked at: the best {MOST_MAPPED} columns." if len(ranking.table) > MOST_MAPPED else ""
    if rest:
        more += (
            f" Left out: {counted(rest, 'column')} that share less than {percent(LEAST_SHARED)} with any."
        )
    caption = (
        "The stronger a cell, the more of one column the other one tells (full colour: all of it). "
        f"Columns that tell the same stand together; of such a block one is often enough.{more}"
    )
    return _chart("Redundancy of the columns", cluster_map(names, values, percent), caption)


def _coverage(ranking: Ranking, show: Callable[[float], str]) -> str:
    ranked = ranking.table
    if "coverage" not in ranked.columns or ranked.is_empty():
        return ""
    if float(floats(ranked, "coverage").min()) == 1.0:
        return paragraph("Every column has a value in every row.")
    points = [
        Point(row["column"], row["coverage"], row["score"], row.get("kind") or "other", row.get("low"))
        for row in ranked.drop_nulls(["coverage", "score"]).iter_rows(named=True)
    ]
    caption = (
        "High and left: a column that tells much where it has a value, and has one seldom; filling it "
        "would pay. Points above the scale have their score beside their name. The scale of "
        "the score is a square root, so that small ones can be told apart."
    )
    return _chart("Coverage and score", scatter(points, "rows with a value", "score", show), caption)


def _days(ranking: Ranking) -> str:
    drift, labels = or_empty(ranking.drift), or_empty(ranking.label_by_day)
    if drift.is_empty() and len(labels) < 2:
        return paragraph(
            "The log has no timestamp, or one day only, so nothing can be said about change over time."
        )
    pieces = []
    if len(labels) > 1:
        columns = {name: labels[name].to_numpy() for name in ("rows", "share", "low", "high")}
        is_share = len(ranking.facts.get("classes", (0, 1))) == 2
        svg = day_line(labels["day"].to_list(), columns, percent if is_share else "{:.3g}".format)
        what = "Share of positives" if is_share else "Mean class"
        pieces.append(
            figure("The label by day", svg, f"{what} with 95 % intervals; dashed: the mean of all rows.")
        )
    pieces.append(_drift_map(drift, labels))
    return "".join(pieces)


def _drift_map(drift: pl.DataFrame, labels: pl.DataFrame) -> str:
    if "psi_by_day" not in drift.columns or drift["psi"].null_count() == len(drift):
        return paragraph("No day has rows enough to compare its values with the other days'.")
    worst = drift.drop_nulls("psi").sort("psi", descending=True).head(MOST_DRIFTING)
    worst = worst.filter((pl.col("psi") >= LEAST_DRIFT) | (pl.int_range(pl.len()) < FEW_DRIFTING))
    values = np.array(
        [[math.nan if value is None else value for value in row] for row in worst["psi_by_day"].to_list()]
    )
    days = (
        labels["day"].to_list()
        if len(labels) == values.shape[1]
        else [str(at) for at in range(values.shape[1])]
    )
    svg = day_map(worst["column"].to_list(), days, values, PSI_WARNING, lambda value: f"{value:.2f}")
    more = f" The {len(worst)} that change most of {len(drift)}." if len(worst) < len(drift) else ""
    caption = (
        "How far a column's values on a day differ from the other days' (population stability index, less "
        f"what chance would show; the label is not used). Above {PSI_NOTE} is commonly read as changing, "
        f"above {PSI_WARNING} as changed: full colour, another hue. Dashed: too few rows.{more}"
    )
    return figure("Drift by day", svg, caption)


# --- words and numbers ---------------------------------------------------------------------------


def _kept(frame: pl.DataFrame) -> Sequence[bool]:
    return frame["kept"].fill_null(False).to_list() if "kept" in frame.columns else [True] * len(frame)


def _findings(ranking: Ranking) -> pl.DataFrame:
    """Findings as a table, the most serious first."""
    found = ranking.findings
    frame = found if isinstance(found, pl.DataFrame) else findings_table(found or ())
    if frame.is_empty():
        return findings_table(())
    rows = sorted(frame.rows(named=True), key=lambda row: seriousness(row["severity"], row["kind"]))
    return pl.DataFrame(rows, schema=frame.schema)
