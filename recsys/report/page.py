"""Pieces of a self-contained HTML page: one file, nothing loaded from elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

_CSS = """
:root {
  --ink: #1f2937; --muted: #6b7280; --line: #e5e7eb; --paper: #ffffff; --ground: #f8f9fb;
  --blue: #2563eb; --bar: #dbe6fd; --orange: #ea580c;
  --sans: system-ui, -apple-system, "Segoe UI", "Helvetica Neue", "Liberation Sans", Arial, sans-serif;
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--ground); color: var(--ink); font: 15px/1.5 var(--sans);
  font-variant-numeric: tabular-nums;
}
main { max-width: 1120px; margin: 0 auto; padding: 40px 24px 64px; }
header p { margin: 4px 0 0; color: var(--muted); }
h1 { margin: 0; font-size: 28px; line-height: 1.2; letter-spacing: -0.01em; }
h2 { margin: 44px 0 14px; font-size: 19px; letter-spacing: -0.005em; }
h3 { margin: 0 0 6px; font-size: 14px; font-weight: 600; }
.keys {
  display: grid; grid-template-columns: repeat(auto-fit, minmax(168px, 1fr)); gap: 14px; margin-top: 26px;
}
.card, .key { background: var(--paper); border: 1px solid var(--line); border-radius: 10px; }
.key { padding: 14px 16px 13px; }
.key b { display: block; font-size: 26px; line-height: 1.25; font-weight: 650; letter-spacing: -0.01em; }
.key span { color: var(--muted); font-size: 13px; }
.key span.name { color: var(--ink); font-weight: 600; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(430px, 1fr)); gap: 16px; }
.card { padding: 16px 18px; }
.narrow { display: inline-block; min-width: 440px; max-width: 100%; }
figure { margin: 0; }
figure svg { display: block; width: 100%; height: auto; font-family: var(--sans); }
figure svg * { stroke-linejoin: round; }
figcaption, .small { color: var(--muted); font-size: 13px; margin: 6px 0 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 14px; }
th {
  text-align: left; font-weight: 600; color: var(--muted); font-size: 12.5px; white-space: nowrap;
  padding: 4px 14px 6px 0; border-bottom: 1px solid var(--line);
}
td { padding: 4px 14px 4px 0; border-bottom: 1px solid #f1f3f6; white-space: nowrap; }
table.dense, table.dense th { font-size: 12.5px; }
table.dense td { padding-top: 2px; padding-bottom: 2px; }
td.text { white-space: normal; overflow-wrap: anywhere; }
tr:last-child td { border-bottom: none; }
tr.total td { font-weight: 600; border-top: 1px solid var(--line); }
th.number, td.number { text-align: right; }
td.bar { min-width: 150px; text-align: right; padding-right: 14px; }
td.bar div { position: relative; border-radius: 3px; z-index: 0; }
td.bar i {
  position: absolute; inset: 1px auto 1px 0; background: var(--bar); border-radius: 3px; z-index: -1;
}
details { margin-bottom: 12px; }
summary { cursor: pointer; font-weight: 600; }
summary span { color: var(--muted); font-weight: 400; font-size: 13px; margin-left: 8px; }
details[open] summary { margin-bottom: 10px; }
ul.notes { margin: 22px 0 0; padding: 12px 18px 12px 34px; background: #fff8ed; border: 1px solid #fbe3c0;
  border-radius: 10px; font-size: 14px; }
footer { margin-top: 48px; color: var(--muted); font-size: 13px; }
@media print { body { background: none; } .card, .key { break-inside: avoid; } }
"""

Value = Any


@dataclass(frozen=True)
class Field:
    """A column of a table."""

    title: str
    show: Callable[[Value], str] = str
    align: str = "number"
    """``text``, ``number``, or ``bar``: a number over a bar from ``start`` to the column's largest."""
    start: float | None = 0.0
    """Where bars begin; None: a little below the smallest value, for values that are near each other."""


def page(title: str, body: Iterable[str], *, style: str = "", script: str = "") -> str:
    """A whole page; ``body`` is HTML, ``title`` is text, ``style`` follows the page's own."""
    ending = f"<script>{script}</script>\n" if script else ""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_CSS}{style}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(body)
        + f"\n</main>\n{ending}</body>\n</html>\n"
    )


def key_figure(name: str, value: str, remark: str = "") -> str:
    """One large number with its name."""
    below = f"<span>{escape(remark)}</span>" if remark else ""
    return f'<div class="key"><span class="name">{escape(name)}</span><b>{escape(value)}</b>{below}</div>'


def card(title: str, content: str) -> str:
    """A framed piece of the page; ``content`` is HTML."""
    heading = f"<h3>{escape(title)}</h3>" if title else ""
    return f'<div class="card">{heading}{content}</div>'


def figure(title: str, svg: str, caption: str = "") -> str:
    """A chart with its title and, below it, what to look for."""
    below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return card(title, f'<figure role="img" aria-label="{escape(title)}">{svg}{below}</figure>')


def folded(title: str, remark: str, content: str, *, is_open: bool) -> str:
    """A framed piece that the reader can fold away."""
    state = " open" if is_open else ""
    summary = f"<summary>{escape(title)}<span>{escape(remark)}</span></summary>"
    return f'<details class="card"{state}>{summary}{content}</details>'


def notes(lines: Sequence[str]) -> str:
    """A list that catches the eye; empty without lines."""
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f'<ul class="notes">{items}</ul>' if items else ""


def table(
    rows: Sequence[Sequence[Value]],
    fields: Sequence[Field],
    total: Sequence[Value] | None = None,
    *,
    dense: bool = False,
) -> str:
    """Rows of values, one field each; a value that is None shows as a dash."""
    head = "".join(
        f'<th class="{"text" if field.align == "text" else "number"}">{escape(field.title)}</th>'
        for field in fields
    )
    spans = [_span([row[at] for row in rows], field) for at, field in enumerate(fields)]
    lines = [_line(row, fields, spans) for row in rows]
    if total is not None:
        lines.append(_line(total, fields, [None] * len(fields), "total"))
    return (
        f'<div class="scroll"><table{" class=dense" if dense else ""}><thead><tr>{head}</tr></thead><tbody>'
        + "".join(lines)
        + "</tbody></table></div>"
    )


def _span(values: Sequence[Value], field: Field) -> tuple[float, float] | None:
    """Where the bars of a column begin and end; None for a column without bars."""
    if field.align != "bar" or all(value is None for value in values):
        return None
    numbers = [float(value) for value in values if value is not None]
    low, high = min(numbers), max(numbers)
    start = low - 0.25 * ((high - low) or abs(high) or 1.0) if field.start is None else field.start
    return start, high


def _line(
    row: Sequence[Value],
    fields: Sequence[Field],
    spans: Sequence[tuple[float, float] | None],
    kind: str = "",
) -> str:
    cells = "".join(
        _cell(value, field, span) for value, field, span in zip(row, fields, spans, strict=True)
    )
    return f'<tr class="{kind}">{cells}</tr>' if kind else f"<tr>{cells}</tr>"


def _cell(value: Value, field: Field, span: tuple[float, float] | None) -> str:
    shown = "–" if value is None else escape(field.show(value)) if value != "" else ""
    if span is None or value is None:
        align = "number" if field.align == "bar" else field.align
        return f'<td class="{align}">{shown}</td>'
    start, end = span
    width = 100 * (float(value) - start) / (end - start) if end > start else 0
    bar = f'<i style="width:{max(0.0, width):.1f}%"></i>'
    return f'<td class="bar"><div>{bar}{shown}</div></td>'
