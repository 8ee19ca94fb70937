"""One page about what a model attends to, to be read without running anything: report.html."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from recsys.ranking.sheet import STYLE
from recsys.report.heatmaps import heatmap, position_chart
from recsys.report.page import Field, card, figure, key_figure, notes, page, table
from recsys.stage import file_aside

if TYPE_CHECKING:
    from recsys.explanation import Explanation

MOST_FIELDS = 60
"""Fields of a map whose names can still be read."""
MOST_PAIRS = 20
_SMALL = 420.0
_STYLE = (
    STYLE
    + """
section > p { color: var(--muted); max-width: 90ch; margin: 0 0 12px; }
.card + .card { margin-top: 16px; } .charts .card { margin-top: 0; }
"""
)
_HOW_TO_READ = (
    "Each line of a map is a field that looks, each column one that is looked at; a line sums to 100 %. "
    "From the second layer on, a field is what the layers before made of it, and holds something of all."
)


def write_attention_report(path: Path, found: Explanation, *, log: str) -> None:
    """Write one self-contained HTML page; raises DataError where the file cannot be written."""
    text = page(f"What {found.model} attends to", _body(found, log), style=_STYLE)
    with file_aside(path) as aside:
        aside.write_text(text, encoding="utf-8")


def _body(found: Explanation, log: str) -> Iterator[str]:
    title = f"What {found.model} attends to"
    yield f"<header><h1>{escape(title)}</h1><p>{found.rows:,} rows of {escape(log)}</p>"
    yield f'<div class="keys">{"".join(_keys(found))}</div></header>'
    yield from _fields(found) if found.fields else _histories(found)
    today = datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M")
    yield f"<footer>Written by recsys, {today}</footer>"


def _keys(found: Explanation) -> Iterator[str]:
    yield key_figure("rows", f"{found.rows:,}")
    if found.fields:
        heads = found.maps().any((2, 3)).sum(1).tolist()
        yield key_figure(
            "fields", str(len(found.fields)), f"all alike would be {1 / len(found.fields):.1%}"
        )
        yield key_figure("layers", str(len(heads)), f"of {', '.join(map(str, heads))} heads")
        return
    for (history,), part in found.average.group_by("history", maintain_order=True):
        yield key_figure(str(history), f"{part['events'].sum():,}", "events")


def _section(title: str, about: str, *content: str) -> Iterator[str]:
    yield f"<section><h2>{escape(title)}</h2><p>{escape(about)}</p>"
    yield from content
    yield "</section>"


# --- fields --------------------------------------------------------------------------------------


def _fields(found: Explanation) -> Iterator[str]:
    maps, overall = found.maps(), found.mean_map()
    kept = _most_seen(overall)
    names = [found.fields[at] for at in kept]
    if len(names) < len(found.fields):
        yield notes([f"Maps show the {len(names)} fields of {len(found.fields)} that are looked at most."])
    shown = maps[:, :, kept][..., kept]
    mean = overall[kept][:, kept]
    yield from _section(
        "All layers and heads",
        _HOW_TO_READ,
        figure("Mean attention", heatmap(names, mean, float(mean.max()))),
    )
    yield from _section(
        "Pairs of fields",
        "The pairs with the largest weight, averaged over layers and heads; a field's look at itself is on "
        "the map's diagonal.",
        card("", _pairs(overall, found.fields)),
    )
    full = float(shown.max())
    for number, layer in enumerate(shown, 1):
        small = [
            figure(f"Head {head}", heatmap(names, each, full, width=_SMALL, hints=len(names) <= 20))
            for head, each in enumerate(layer, 1)
            if each.any()
        ]
        about = f"Colours mean the same in all of these maps: the strongest is {full:.0%}."
        yield from _section(f"Layer {number}", about, f'<div class="charts">{"".join(small)}</div>')


def _most_seen(mean: NDArray[np.float64]) -> list[int]:
    """The fields that get the most attention, in their own order."""
    return sorted(np.argsort(-mean.sum(0), kind="stable")[:MOST_FIELDS].tolist())


def strongest_pairs(mean: NDArray[np.float64], most: int) -> list[tuple[int, int]]:
    """Pairs (from, to) of different fields by falling weight of ``mean [M, M]``.

    >>> strongest_pairs(np.array([[0.9, 0.1], [0.4, 0.6]]), 1)
    [(1, 0)]
    """
    order = np.argsort(-mean, axis=None, kind="stable")
    pairs = ((int(at) // len(mean), int(at) % len(mean)) for at in order)
    return [pair for pair in pairs if pair[0] != pair[1]][:most]


def _pairs(mean: NDArray[np.float64], names: tuple[str, ...]) -> str:
    rows = [
        (names[looking], names[seen], float(mean[looking, seen]), float(mean[looking, seen]) * len(names))
        for looking, seen in strongest_pairs(mean, MOST_PAIRS)
    ]
    columns = [
        Field("from", align="text"),
        Field("to", align="text"),
        Field("weight", lambda weight: f"{weight:.1%}", "bar"),
        Field("times an even share", lambda times: f"{times:.2f}"),
    ]
    return table(rows, columns)


# --- histories -----------------------------------------------------------------------------------


def _histories(found: Explanation) -> Iterator[str]:
    about = (
        "The mean weight of an event by its position, one standard deviation up and down. Weights need "
        "not sum to 1 (unless model.softmax is on): their sum tells how strong the interest is."
    )
    for (history,), part in found.average.group_by("history", maintain_order=True):
        chart = position_chart(
            part["weight"].to_numpy(),
            part["deviation"].to_numpy(),
            part["events"].to_numpy(),
            lambda value: f"{value:.4g}",
        )
        yield from _section(str(history), about, figure("Weight by position", chart))
