"""The part of a report that shows several seeds beside each other."""

from __future__ import annotations

from html import escape

from recsys.report.page import Field, card, table
from recsys.seeds import SeedRuns, Spread

_TITLES = {"auc": "AUC", "gauc": "GAUC", "logloss": "logloss", "ne": "NE", "calibration": "calibration"}
_PARTS = {"valid": "validation", "test": "test"}


def seeds_section(seeds: SeedRuns) -> str:
    """A line for each metric: mean ± standard deviation, then every seed, as HTML."""
    fields = [Field("", align="text"), Field("mean ± sd", _spread)]
    fields += [Field(f"seed {run.seed}", _five) for run in seeds.runs]
    rows = [
        [
            f"{_PARTS[part]} {_TITLES[metric]}",
            seeds.spread(part, metric),
            *(getattr(run, part).get(metric) for run in seeds.runs),
        ]
        for part, metric in seeds.measured
    ]
    remark = (
        f"Everything else on this page is of seed {seeds.runs[0].seed}, the first; sd is that of a sample "
        f"of {len(seeds.runs)}."
    )
    return card("", table(rows, fields)) + f'<p class="small">{escape(remark)}</p>'


def _spread(found: Spread) -> str:
    return f"{found.mean:.5f}" + ("" if found.sd is None else f" ± {found.sd:.5f}")


def _five(value: float) -> str:
    return f"{value:.5f}"
