"""AUC against the share of weights that is kept, and what each part keeps over time, as PNG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

_MARKS = "osv^D*Px"


def draw(
    points: Mapping[str, Sequence[tuple[float, float]]],
    densities: Mapping[str, Sequence[Any]],
    folder: Path,
) -> None:
    """Write ``sparsity-auc.png`` and, where a run's densities are given, ``sparsity-time.png``.

    Args:
        points: share of all weights and test AUC of each training, by method; ``dense`` is one of them.
        densities: ``step``, and share that is kept by part, layer and vocabulary.
        folder: to write to.
    """
    figure, axes = _axes("share of all weights that is kept", "test AUC")
    dense = max(auc for _, auc in points["dense"])
    axes.axhline(dense, color="grey", linewidth=1)
    for at, (method, found) in enumerate(points.items()):
        shares, aucs = zip(*sorted(found), strict=True)
        axes.plot(shares, aucs, _MARKS[at % len(_MARKS)], label=method, linestyle="-", alpha=0.8)
    axes.set_title("Frappe_x1, AutoInt+: smaller models by method")
    axes.legend(fontsize=8)
    figure.savefig(folder / "sparsity-auc.png", dpi=110, metadata={"Software": None})
    if densities:
        figure, axes = _axes("steps", "share that is kept")
        for at, (name, values) in enumerate((n, v) for n, v in densities.items() if n != "step"):
            part = name.removeprefix("density/")
            axes.plot(
                densities["step"],
                values,
                label=part,
                color=colormaps["tab20"](at % 20),
                linewidth=1.5 if "/" in part else 3,
                linestyle="--" if part.startswith("tables") else "-",
            )
        axes.set_ylim(0, 1.05)
        axes.set_title("Frappe_x1, AutoInt+, a fifth of all weights: who keeps how much")
        axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
        figure.savefig(folder / "sparsity-time.png", dpi=110, metadata={"Software": None})


def _axes(below: str, beside: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(9, 5.5), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel(below)
    axes.set_ylabel(beside)
    axes.grid(alpha=0.3)
    return figure, axes
