"""Charts of attention, as SVG text: maps of fields by fields, and weights by position."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from recsys.ranking.sheet import WIDTH, Sheet, scale, short, tick_text, ticks

_FAINTEST = 0.01


def heatmap(
    names: Sequence[str],
    values: NDArray[np.float64],
    full: float,
    *,
    width: float = WIDTH,
    hints: bool = True,
) -> str:
    """Values ``[n, n]`` from the names on the left to those above; full colour from ``full`` on.

    Where cells are large enough, they show their value in per cent. ``hints`` adds what a pointer over
    a cell shows.
    """
    n, most = len(names), 24
    longest = min(most, max(len(name) for name in names))
    left = 14 + 6.6 * longest
    cell = min(34.0, (width - left - 6) / n)
    font = min(12.0, max(5.0, cell - 1.5))
    top = 10 + 0.62 * font * longest
    sheet = Sheet()
    sheet.add(f"<g style='--font:{font:.1f}px' class='map'>")
    for at, name in enumerate(names):
        middle = cell * (at + 0.5) + font * 0.35
        sheet.text(left - 7, top + middle, short(name, most), "cell", "end", hint=name)
        sheet.text(left + middle, top - 5, short(name, most), "cell", turn=-90, hint=name)
    sheet.rect(left, top, cell * n, cell * n, "frame")
    for row, looking in enumerate(names):
        for column, seen in enumerate(names):
            value = float(values[row, column])
            strength = min(value / full, 1.0) if full > 0 else 0.0
            if strength < _FAINTEST:
                continue
            x, y = left + cell * column, top + cell * row
            hint = f"{looking} → {seen}: {100 * value:.1f} %" if hints else ""
            sheet.rect(x, y, cell, cell, "heat", hint=hint, opacity=strength)
            if cell >= 24:
                look = "value bright" if strength > 0.55 else "value"
                sheet.text(x + cell / 2, y + cell / 2 + 4, f"{100 * value:.0f}", look, "middle")
    sheet.add("</g>")
    return sheet.svg(left + cell * n + 6, top + cell * n + 6)


def position_chart(
    mean: NDArray[np.float64],
    deviation: NDArray[np.float64],
    events: NDArray[np.int64],
    show: Callable[[float], str],
) -> str:
    """Mean weight by position, the newest event first, with a line of one deviation up and down."""
    left, right, top, bottom = 66.0, WIDTH - 24.0, 14.0, 250.0
    low, high = float((mean - deviation).min()), float((mean + deviation).max())
    low, high = min(low, 0.0), max(high, 0.0)
    high = high if high > low else low + 1.0
    up = scale(low, high, bottom, top)
    step = (right - left) / len(mean)
    xs = [left + step * (at + 0.5) for at in range(len(mean))]
    sheet = Sheet()
    for tick in ticks(low, high):
        sheet.path([(left, up(tick)), (right, up(tick))], "axis" if tick == 0 else "grid")
        sheet.text(left - 6, up(tick) + 4, tick_text(tick), "muted small", "end")
    sheet.path([(x, up(float(value))) for x, value in zip(xs, mean, strict=True)], "series")
    every = max(1, -(-len(mean) // 25))
    for at, x in enumerate(xs):
        value, apart = float(mean[at]), float(deviation[at])
        sheet.path([(x, up(value - apart)), (x, up(value + apart))], "whisker")
        hint = f"position {at + 1}: {show(value)} ± {show(apart)}, {int(events[at]):,} events"
        sheet.dot(x, up(value), "categorical", hint=hint, radius=4 if step > 12 else 2.5)
        if at % every == 0:
            sheet.text(x, bottom + 16, str(at + 1), "muted small", "middle")
    sheet.text((left + right) / 2, bottom + 36, "position, 1 = newest event", "muted", "middle")
    return sheet.svg(WIDTH, bottom + 44)
