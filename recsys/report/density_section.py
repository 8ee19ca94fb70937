"""The part of a report that shows what a sparse training kept, over time and at the end."""

from __future__ import annotations

import polars as pl

from recsys.report.charts import BLUE, GREEN, curve_chart
from recsys.report.page import Field, card, figure, table

_PREFIX = "density/"
_PARTS = {"dense": ("dense part", BLUE), "tables": ("tables", GREEN)}


def density_section(curves: pl.DataFrame) -> str:
    """Densities of a run's record as HTML; empty where nothing was made sparse.

    Of each part a curve; of each layer and vocabulary the share kept after the first update and at the end.
    """
    names = [name for name in curves.columns if name.startswith(_PREFIX)]
    if not names:
        return ""
    recorded = curves.select("step", *names).drop_nulls(names)
    lines = {f"{_PREFIX}{part}": line for part, line in _PARTS.items()}
    svg = curve_chart(recorded, lines, in_steps=True)
    chart = "" if svg is None else figure("Density", svg, "Share of the weights that is kept.")
    rows = [(name.removeprefix(_PREFIX), recorded[name][0], recorded[name][-1]) for name in sorted(names)]
    fields = (
        Field("kept of", align="text"),
        Field("after the first update", _percent),
        Field("at the end", _percent, "bar"),
    )
    return f'<div class="charts">{chart}{card("What was kept", table(rows, fields))}</div>'


def _percent(value: float) -> str:
    return f"{value:.1%}"
