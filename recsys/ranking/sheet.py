"""SVG in the making: shapes, text, scales and round numbers for the ranking report's charts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape

WIDTH = 1156
"""Pixels inside a card of the page; charts shrink with the page."""
KINDS = ("categorical", "numeric", "multi", "sequence")
STYLE = """
:root {
  color-scheme: light dark; --heat: #0072b2; --alarm: #d55e00; --categorical: #0072b2; --numeric: #d55e00;
  --multi: #009e73; --sequence: #b0508a; --other: #6b7280; --faint: #f1f3f6; --halo: #ffffff;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ink: #e7eaf0; --muted: #9aa3b2; --line: #353c49; --paper: #1a1f29; --ground: #12161d; --blue: #56b4e9;
    --bar: #234263; --heat: #56b4e9; --alarm: #f0883e; --categorical: #56b4e9; --numeric: #f0883e;
    --multi: #2fc495; --sequence: #e39ac5; --other: #9aa3b2; --faint: #262c37; --halo: #1a1f29;
  }
  ul.notes { background: #2b2416; border-color: #5a4a22; }
}
td { border-bottom-color: var(--faint); }
figure .scroll { overflow-x: auto; }
svg text { fill: var(--ink); font-size: 12px; }
svg text.muted { fill: var(--muted); }
svg text.small { font-size: 10.5px; }
svg text.strong { font-weight: 650; }
svg text.halo { paint-order: stroke; stroke: var(--halo); stroke-width: 3px; }
svg .grid { stroke: var(--line); stroke-width: 1; }
svg .axis { stroke: var(--muted); stroke-width: 1; }
svg .whisker { stroke: var(--ink); stroke-width: 1.3; fill: none; }
svg .tree { stroke: var(--muted); stroke-width: 1; fill: none; }
svg .frame { fill: none; stroke: var(--line); }
svg text.cell { font-size: var(--font); }
svg text.value { font-size: 10.5px; pointer-events: none; }
svg text.bright { fill: var(--paper); }
svg .series { stroke: var(--categorical); stroke-width: 1.4; fill: none; opacity: 0.5; }
svg .heat { fill: var(--heat); }
svg .alarm { fill: var(--alarm); }
svg .faint { fill: var(--faint); }
svg .own { fill: var(--line); }
svg .empty { fill: none; stroke: var(--line); stroke-dasharray: 2 2; }
""" + "\n".join(f"svg .{kind} {{ fill: var(--{kind}); }}" for kind in (*KINDS, "other"))


class Sheet:
    """An SVG in the making; coordinates in pixels."""

    def __init__(self) -> None:
        self._pieces: list[str] = []

    def add(self, piece: str) -> None:
        self._pieces.append(piece)

    def text(
        self,
        x: float,
        y: float,
        text: str,
        look: str = "",
        anchor: str = "start",
        *,
        hint: str = "",
        turn: int = 0,
    ) -> None:
        """Text on its baseline; ``hint`` is what a pointer over it shows."""
        turned = f' transform="rotate({turn} {x:.1f} {y:.1f})"' if turn else ""
        look = f' class="{look}"' if look else ""
        inside = escape(text) + hinted(hint)
        self.add(f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{look}{turned}>{inside}</text>')

    def rect(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        look: str,
        *,
        hint: str = "",
        opacity: float = 1.0,
    ) -> None:
        self.add(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width, 0):.1f}" height="{height:.1f}"'
            + f' class="{look}"'
            + (f' opacity="{opacity:.2f}"' if opacity < 1 else "")
            + (f">{hinted(hint)}</rect>" if hint else "/>")
        )

    def path(self, points: Sequence[tuple[float, float]], look: str) -> None:
        line = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
        self.add(f'<path d="{line}" class="{look}" fill="none"/>')

    def dot(self, x: float, y: float, look: str, *, hint: str = "", radius: float = 4.5) -> None:
        self.add(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" class="{look}">{hinted(hint)}</circle>')

    def svg(self, width: float, height: float) -> str:
        style = f"max-width:{width:.0f}px;min-width:{min(width, 640):.0f}px"
        size = f'viewBox="0 0 {width:.0f} {height:.0f}" style="{style}"'
        return f'<div class="scroll"><svg {size}>{"".join(self._pieces)}</svg></div>'


def short(name: str, most: int) -> str:
    """A name of at most this many characters; what is cut is in the middle."""
    if len(name) <= most:
        return name
    head = (most - 1) * 2 // 3
    return f"{name[:head]}…{name[len(name) - (most - 1 - head) :]}"


def hinted(text: str) -> str:
    return f"<title>{escape(text)}</title>" if text else ""


def scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    span = (high - low) or 1.0
    return lambda value: start + (end - start) * (value - low) / span


def root(value: float) -> float:
    return math.copysign(math.sqrt(abs(value)), value)


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers between two values."""
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(step * at, 12) for at in range(first, math.floor(high / step + 1e-9) + 1)]


def root_ticks(high: float) -> list[float]:
    """Round numbers from 0 up that stand apart on a square-root scale."""
    power = 10.0 ** math.floor(math.log10(high))
    return [0.0, *(factor * power for factor in (0.02, 0.1, 0.3, 1, 2, 4, 7) if factor * power <= high)]


def tick_text(value: float) -> str:
    return f"{value:.10f}".rstrip("0").rstrip(".") if value else "0"
