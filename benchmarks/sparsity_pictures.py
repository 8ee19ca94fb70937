"""AUC against the share of weights that is kept, and what each part keeps over time, as PNG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

_MARKS = "osv^D*Px"
_LINEAR = 1e-3
"""Differences of AUC up to this are drawn to scale, larger ones by their logarithm."""
_TICKS = (-0.1, -0.03, -0.01, -0.003, -0.001, 0.0, 0.001)


def draw_shares(points: Mapping[str, Mapping[str, Sequence[tuple[float, float]]]], folder: Path) -> None:
    """Write ``sparsity-auc.png``: a panel per log.

    Args:
        points: by log and method, share of all weights and test AUC of each training; ``dense`` is one of
            the methods.
        folder: to write to.
    """
    figure, panels = _panels(len(points))
    marks = {
        name: at for at, name in enumerate(sorted({name for each in points.values() for name in each}))
    }
    for axes, (log, methods) in zip(panels, points.items(), strict=True):
        dense = fmean(auc for _, auc in methods["dense"])
        whole = [(share, auc - dense) for share, auc in methods["dense"]]
        axes.axhline(0, color="grey", linewidth=1)
        lowest = 0.0
        for method, runs in methods.items():
            found = [(share, auc - dense) for share, auc in runs]
            shares, aucs = zip(*found, strict=True)
            lowest = min(lowest, *aucs)
            at = marks[method]
            mark, colour = _MARKS[at % len(_MARKS)], colormaps["tab10"](at % 10)
            axes.plot(shares, aucs, mark, label=method, linestyle="none", alpha=0.8, color=colour)
            curve = found + whole if method == "ours" else found  # it ends in the whole model
            axes.plot(*_means(curve), linestyle="-", alpha=0.8, color=colour)
        axes.set_yscale("symlog", linthresh=_LINEAR)
        axes.set_yticks(_TICKS, [f"{tick:+g}" if tick else "0" for tick in _TICKS])
        axes.set_ylim(1.5 * min(lowest, -_LINEAR), 2 * _LINEAR)
        beside = f"test AUC above the dense mean, {dense:.4f}"
        _label(axes, f"{log}: smaller models by method", "share of all weights that is kept", beside)
        axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(folder / "sparsity-auc.png", dpi=110, metadata={"Software": None})


def draw_time(densities: Mapping[str, Mapping[str, Sequence[Any]]], folder: Path) -> None:
    """Write ``sparsity-time.png``: a panel per log.

    Args:
        densities: by log, ``step``, and share that is kept by part, layer and vocabulary.
        folder: to write to.
    """
    shown = {log: each for log, each in densities.items() if each}
    if not shown:
        return
    figure, panels = _panels(len(shown))
    for axes, (log, each) in zip(panels, shown.items(), strict=True):
        for at, (name, values) in enumerate((n, v) for n, v in each.items() if n != "step"):
            part = name.removeprefix("density/")
            axes.plot(
                each["step"],
                values,
                label=part,
                color=colormaps["tab20"](at % 20),
                linewidth=1.5 if "/" in part else 3,
                linestyle="--" if part.startswith("tables") else "-",
            )
        axes.set_ylim(0, 1.05)
        _label(axes, f"{log}, a fifth of all weights: who keeps how much", "steps", "share that is kept")
        axes.legend(fontsize=6, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(folder / "sparsity-time.png", dpi=110, metadata={"Software": None})


def _means(found: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    """Shares, to two digits, and the mean AUC at each."""
    by_share: dict[float, list[float]] = {}
    for share, auc in found:
        by_share.setdefault(round(share, 2), []).append(auc)
    shares = sorted(by_share)
    return shares, [fmean(by_share[share]) for share in shares]


def _panels(count: int) -> tuple[Figure, list[Axes]]:
    """A figure with so many panels, one below the other."""
    figure = Figure(figsize=(9, 4.5 * count), layout="constrained")
    return figure, list(figure.subplots(count, 1, squeeze=False)[:, 0])


def _label(axes: Axes, title: str, below: str, beside: str) -> None:
    axes.set_title(title)
    axes.set_xlabel(below)
    axes.set_ylabel(beside)
    axes.grid(alpha=0.3)
