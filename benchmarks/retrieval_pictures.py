"""Recall against queries/s and recall against bytes per item, as PNG."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure
from retrieval_index import Point

_MARKS = "osv^D*Pxh<>"


def draw(points: list[Point], folder: Path) -> None:
    """Write ``retrieval-speed.png`` and ``retrieval-memory.png``."""
    for file, label, value in (
        ("retrieval-speed.png", "queries/s, one thread", lambda point: point.qps),
        ("retrieval-memory.png", "bytes in memory per item", lambda point: point.bytes),
    ):
        figure = Figure(figsize=(9, 5.5), layout="constrained")
        axes = figure.add_subplot()
        for at, name in enumerate(dict.fromkeys(point.name for point in points)):
            own = sorted((each for each in points if each.name == name), key=lambda each: each.recall)
            axes.plot(
                [value(each) for each in own],
                [each.recall for each in own],
                marker=_MARKS[at % len(_MARKS)],
                linewidth=2.5 if name == "ours" else 1,
                markersize=5,
                label=name,
            )
        axes.set_xscale("log")
        axes.set_xlabel(label)
        axes.set_ylabel("recall@10")
        axes.set_ylim(0.5, 1.005)
        axes.set_title("1 M × 64 made vectors, queries from another distribution than items")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7)
        figure.savefig(folder / file, dpi=110, metadata={"Software": None})
