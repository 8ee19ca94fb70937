"""The part of a report that shows several seeds beside each other."""

from __future__ import annotations

from html import escape

from recsys.report.page import Field, card, table
from recsys.seeds import SeedRuns

_TITLES = {"auc": "AUC", "gauc": "GAUC", "logloss": "logloss", "ne": "NE", "calibration": "calibration"}
_PARTS = {"valid": "validation", "test": "test"}


def seeds_section(seeds: SeedRuns) -> str:
    """Every seed's metrics, then mean ± standard deviation, as HTML."""
    measured = seeds.measured
    fields = [Field("seed", align="text")]
    fields += [Field(f"{_PARTS[part]} {_TITLES[metric]}", _five) for part, metric in measured]
    rows = [
        [str(run.seed), *(getattr(run, part).get(metric) for part, metric in measured)]
        for run in seeds.runs
    ]
    total = ["mean ± sd", *(spread_text(seeds, part, metric) for part, metric in measured)]
    remark = (
        f"Everything else on this page is of seed {seeds.runs[0].seed}, the first; sd is that of a sample "
        f"of {len(seeds.runs)}."
    )
    return card("", table(rows, fields, total)) + f'<p class="small">{escape(remark)}</p>'


def spread_text(seeds: SeedRuns, part: str, metric: str) -> str:
    """``0.78012 ± 0.00034``; a dash where not every seed has the metric."""
    found = seeds.spread("valid" if part == "valid" else "test", metric)
    if found is None:
        return "–"
    return f"{found.mean:.5f}" + ("" if found.sd is None else f" ± {found.sd:.5f}")


def _five(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.5f}"
