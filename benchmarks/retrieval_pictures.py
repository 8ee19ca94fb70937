"""Recall against queries/s and recall against bytes per item, as PNG."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator
from retrieval_index import Point

_MARKS = "osv^D*Pxh<>"


def draw(points: list[Point], folder: Path, name: str, *, items: str, at_least: int) -> None:
    """Write ``NAME-speed.png``, whole curves, and ``NAME-memory.png``, one point per index.

    Args:
        points: of all indexes.
        folder: where to.
        name: of the files.
        items: how many there are, for the title.
        at_least: queries/s that a point of the picture of bytes has to reach.
    """
    for file, label in (
        (f"{name}-speed.png", "queries/s, one thread"),
        (
            f"{name}-memory.png",
            f"bytes in memory per item, best recall at {at_least:,} queries/s or more",
        ),
    ):
        figure = Figure(figsize=(9, 5.5), layout="constrained")
        axes = figure.add_subplot()
        for at, index in enumerate(dict.fromkeys(point.name for point in points)):
            own = sorted((each for each in points if each.name == index), key=lambda each: each.recall)
            if file.endswith("-speed.png"):
                _line(axes, index, _MARKS[at % len(_MARKS)], [(each.qps, each.recall) for each in own])
                continue
            fast = [each for each in own if each.qps >= at_least and each.bytes > 0]
            _line(axes, index, _MARKS[at % len(_MARKS)], [(each.bytes, each.recall) for each in fast[-1:]])
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.xaxis.set_minor_formatter("")
        axes.set_xlabel(label)
        axes.set_ylabel("recall@10")
        axes.set_ylim(0.5, 1.005)
        axes.set_title(f"{items} × 64 made vectors, queries from another distribution than items")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7)
        figure.savefig(folder / file, dpi=110, metadata={"Software": None})


def _line(axes: Axes, name: str, mark: str, points: list[tuple[float, float]]) -> None:
    """A curve of an index; nothing where it has no point."""
    if points:
        wide, size = (2.5, 8) if name == "ours" else (1, 5)
        x, y = zip(*points, strict=True)
        axes.plot(x, y, marker=mark, linewidth=wide, markersize=size, label=name)
