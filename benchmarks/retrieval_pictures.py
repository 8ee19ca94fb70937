"""Recall against queries/s and recall against bytes per item, as PNG."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from retrieval_index import Point

_MARKS = "osv^D*Pxh<>"
_AT_LEAST = 10_000
"""Queries/s that a point of the picture of bytes has to reach."""


def draw(points: list[Point], folder: Path) -> None:
    """Write ``retrieval-speed.png``, whole curves, and ``retrieval-memory.png``, one point per index."""
    for file, label in (
        ("retrieval-speed.png", "queries/s, one thread"),
        (
            "retrieval-memory.png",
            f"bytes in memory per item, best recall at {_AT_LEAST:,} queries/s or more",
        ),
    ):
        figure = Figure(figsize=(9, 5.5), layout="constrained")
        axes = figure.add_subplot()
        for at, name in enumerate(dict.fromkeys(point.name for point in points)):
            own = sorted((each for each in points if each.name == name), key=lambda each: each.recall)
            if file == "retrieval-speed.png":
                _line(axes, name, _MARKS[at % len(_MARKS)], [(each.qps, each.recall) for each in own])
                continue
            fast = [each for each in own if each.qps >= _AT_LEAST and each.bytes > 0]
            _line(axes, name, _MARKS[at % len(_MARKS)], [(each.bytes, each.recall) for each in fast[-1:]])
        axes.set_xscale("log")
        axes.set_xlabel(label)
        axes.set_ylabel("recall@10")
        axes.set_ylim(0.5, 1.005)
        axes.set_title("1 M × 64 made vectors, queries from another distribution than items")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7)
        figure.savefig(folder / file, dpi=110, metadata={"Software": None})


def _line(axes: Axes, name: str, mark: str, points: list[tuple[float, float]]) -> None:
    """A curve of an index; nothing where it has no point."""
    if points:
        wide, size = (2.5, 8) if name == "ours" else (1, 5)
        x, y = zip(*points, strict=True)
        axes.plot(x, y, marker=mark, linewidth=wide, markersize=size, label=name)
