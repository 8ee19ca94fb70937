"""The report's charts, as SVG text to stand inside a page.

matplotlib draws them without pyplot, so that no global state is touched; it is imported on first use.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.errors import InstallationError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, MUTED, GRID = "#1f2937", "#6b7280", "#e5e7eb"
BLUE, ORANGE, GREEN, PURPLE = "#2563eb", "#ea580c", "#0f766e", "#7c3aed"
MOST_POINTS = 400
"""Longer curves are averaged down to this many points, so that a page stays small."""
_FEW_POINTS = 30
_THOUSANDS_FROM = 5000
_LOG_AXES_FROM = 30.0
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "recsys",
    "font.size": 9.5,
    "text.color": INK,
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.solid_capstyle": "round",
    "lines.linewidth": 1.8,
}


class Drawing:
    """An SVG in the making; ``svg`` is set when the ``drawn`` block ends."""

    def __init__(self, axes: Axes) -> None:
        self.axes = axes
        self.svg = ""


@contextmanager
def drawn(width: float = 5.4, height: float = 3.0) -> Iterator[Drawing]:
    """Yield axes of this size in inches to draw on; raises InstallationError without matplotlib."""
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InstallationError(
            "the report's charts need matplotlib, which is not installed; install it with "
            "'pip install matplotlib' (it is part of requirements/cpu.txt and cuda.txt)"
        ) from error
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        drawing = Drawing(figure.add_subplot())
        yield drawing
        text = io.StringIO()
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
        drawing.svg = _inline(text.getvalue())


def curve_chart(
    curves: pl.DataFrame,
    lines: Mapping[str, tuple[str, str]],
    references: Sequence[tuple[str, float]] = (),
    *,
    best: str | None = None,
    best_from: int = 0,
    highest_is_best: bool = True,
    in_steps: bool = False,
) -> str | None:
    """Columns of a run's record against its step; None where it has none of them.

    ``lines`` names column → (legend, colour); a column with a value at every logged step is drawn as a
    smoothed line over its raw one, one with few values as points. ``references`` are dashed levels,
    ``best`` the column whose best point from step ``best_from`` on is marked; ``in_steps`` draws values
    that stay until they jump.
    """
    present = {name: line for name, line in lines.items() if _values(curves, name)[0].size}
    if not present:
        return None
    with drawn() as drawing:
        axes = drawing.axes
        for name, (legend, colour) in present.items():
            step, value = _values(curves, name)
            if in_steps:
                axes.plot(step, value, color=colour, drawstyle="steps-post", label=legend)
            elif step.size > _FEW_POINTS:
                step, value = _averaged(step, value)
                axes.plot(step, value, color=colour, alpha=0.25, linewidth=1)
                axes.plot(step, _smoothed(value), color=colour, label=legend)
            else:
                axes.plot(step, value, color=colour, marker="o", markersize=4, label=legend)
            if name == best and (step >= best_from).any():
                at = step >= best_from
                _mark_best(axes, step[at], value[at], colour, highest_is_best=highest_is_best)
        for index, (legend, level) in enumerate(references):
            style = ("--", ":")[index % 2]
            axes.axhline(level, color=MUTED, linewidth=1.2, linestyle=style, label=f"{legend} {level:.4f}")
        _finish(axes, "step")
        axes.margins(y=0.15)
    return drawing.svg


def _mark_best(
    axes: Axes,
    step: NDArray[np.float64],
    value: NDArray[np.float64],
    colour: str,
    *,
    highest_is_best: bool,
) -> None:
    """Circle the best point of a line and write its value above it."""
    at = int(value.argmax() if highest_is_best else value.argmin())
    axes.plot(step[at], value[at], "o", color=colour, markersize=9, markerfacecolor="none")
    axes.annotate(
        f"{value[at]:.4f}",
        (float(step[at]), float(value[at])),
        (0, 9),
        textcoords="offset points",
        ha="center",
        color=colour,
    )


def calibration_chart(curve: pl.DataFrame) -> str | None:
    """Mean label against mean prediction per bin, with 95 % intervals; None without bins.

    Both axes are logarithmic where the predictions span more than a factor of 30.
    """
    if curve.is_empty():
        return None
    predicted, clicked = curve["prediction"].to_numpy(), curve["ctr"].to_numpy()
    low, high = _interval(clicked, curve["rows"].to_numpy())
    logarithmic = predicted.min() > 0 and predicted.max() / predicted.min() > _LOG_AXES_FROM
    with drawn(5.4, 4.9) as drawing:
        axes = drawing.axes
        if logarithmic:
            axes.set_xscale("log")
            axes.set_yscale("log")
            floor = 0.5 * min(predicted.min(), clicked[clicked > 0].min(initial=1.0))
            low, shown = np.maximum(low, floor), np.maximum(clicked, floor)
        else:
            floor, shown = 0.0, clicked
        ceiling = min(1.0, 1.1 * float(max(predicted.max(), high.max())))
        axes.plot(
            [floor, ceiling], [floor, ceiling], color=MUTED, linewidth=1.2, linestyle="--", label="perfect"
        )
        axes.fill_between(predicted, low, high, color=BLUE, alpha=0.15, linewidth=0, label="95 % interval")
        axes.plot(predicted, shown, color=BLUE, marker="o", markersize=4, label="this model")
        axes.set_xlim(floor, ceiling)
        axes.set_ylim(floor, ceiling)
        _finish(axes, "mean prediction")
        axes.set_ylabel("share of clicks")
        axes.legend(loc="upper left")
        if logarithmic:
            from matplotlib.ticker import FuncFormatter

            for axis in (axes.xaxis, axes.yaxis):
                axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    return drawing.svg


def _finish(axes: Axes, x_label: str) -> None:
    from matplotlib.ticker import EngFormatter

    axes.set_xlabel(x_label)
    axes.grid(visible=False, axis="x")
    if x_label == "step":
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        if axes.get_ylim()[1] >= _THOUSANDS_FROM:
            axes.yaxis.set_major_formatter(EngFormatter(sep=""))
    handles, _ = axes.get_legend_handles_labels()
    if handles:
        axes.legend(loc="best")


def _values(curves: pl.DataFrame, name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Steps and values where a column has finite ones."""
    if name not in curves.columns:
        return np.empty(0), np.empty(0)
    kept = curves.select("step", pl.col(name).cast(pl.Float64).alias("value")).drop_nulls()
    kept = kept.filter(pl.col("value").is_finite())
    return kept["step"].cast(pl.Float64).to_numpy(), kept["value"].to_numpy()


def _averaged(
    step: NDArray[np.float64], value: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Means of neighbouring points, at most ``MOST_POINTS`` of them."""
    width = -(-len(step) // MOST_POINTS)
    starts = np.arange(0, len(step), width)
    counts = np.diff(np.append(starts, len(step)))
    return np.add.reduceat(step, starts) / counts, np.add.reduceat(value, starts) / counts


def _smoothed(value: NDArray[np.float64]) -> NDArray[np.float64]:
    """Centred moving mean over a twentieth of the curve, over what there is at its ends."""
    half = max(1, len(value) // 40)
    total = np.concatenate(([0.0], np.cumsum(value)))
    at = np.arange(len(value))
    first, last = np.maximum(at - half, 0), np.minimum(at + half + 1, len(value))
    smooth: NDArray[np.float64] = (total[last] - total[first]) / (last - first)
    return smooth


def _interval(
    share: NDArray[np.float64], rows: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Wilson's 95 % interval of a share of rows."""
    z = 1.96
    middle = (share + z * z / (2 * rows)) / (1 + z * z / rows)
    half = z / (1 + z * z / rows) * np.sqrt(share * (1 - share) / rows + z * z / (4 * rows * rows))
    return middle - half, middle + half


def _inline(svg: str) -> str:
    """An SVG for the inside of a page: no prolog, the page's font and width, no ids that may clash."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    used = set(re.findall(r'(?:url\(#|href="#)([^")]+)', svg))

    def keep(match: re.Match[str]) -> str:
        return match.group(0) if match.group(1) in used else ""

    svg = re.sub(r' id="([^"]+)"', keep, svg)
    svg = re.sub(r"<style.*?</style>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r"font: ([\d.]+px)[^;\"]*", r"font-size: \1", svg)
    return re.sub(r" font-family: [^;\"]*;", "", svg)
