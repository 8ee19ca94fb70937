"""The ranking report's charts, drawn as SVG text.

They are written by hand, not by a plotting library, because ranking has to start fast and because text and
colours then follow the page into dark mode. Colours are Okabe and Ito's, which colour-blind readers can
tell apart; nothing is said by colour alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys.ranking.clustering import Merge, average_linkage
from recsys.ranking.sheet import KINDS, WIDTH, Sheet, root, root_ticks, scale, short, tick_text, ticks


class Bar(NamedTuple):
    """A named number with its interval."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    kind: str = "other"
    is_kept: bool = False


class Point(NamedTuple):
    """A named place in a scatter chart."""

    name: str
    x: float
    y: float
    kind: str = "other"
    low: float | None = None


# --- bars ----------------------------------------------------------------------------------------


def bar_chart(bars: Sequence[Bar], show: Callable[[float], str]) -> str:
    """Horizontal bars with their intervals, one colour a kind; kept ones stand out.

    A few bars that dwarf all others are cut short, with an arrow, so that the others can be told apart.
    """
    left, right, step, top = 214.0, WIDTH - 84.0, 21.0, 30.0
    end = _readable_end(bars)
    start = min(0.0, *(bar.value if bar.low is None else bar.low for bar in bars))
    start = max(start, -0.5 * end)
    at = scale(start, end, left, right)
    sheet, bottom = Sheet(), top + step * len(bars)
    _legend(sheet, [bar.kind for bar in bars], left, kept=any(not bar.is_kept for bar in bars))
    for tick in ticks(start, end):
        sheet.path([(at(tick), top - 4), (at(tick), bottom)], "axis" if tick == 0 else "grid")
        sheet.text(at(tick), bottom + 15, tick_text(tick), "muted small", "middle")
    for row, bar in enumerate(bars):
        y = top + step * row
        interval = (
            "" if bar.low is None or bar.high is None else f", 95 % {show(bar.low)} to {show(bar.high)}"
        )
        hint = f"{bar.name} ({bar.kind}): {show(bar.value)}{interval}"
        look = "strong" if bar.is_kept else "muted"
        sheet.text(left - 8, y + 14, short(bar.name, 26), look, "end", hint=bar.name)
        x0, x1 = sorted((at(max(0.0, start)), at(min(max(bar.value, start), end))))
        kind = bar.kind if bar.kind in KINDS else "other"
        sheet.rect(x0, y + 3, x1 - x0, step - 7, kind, hint=hint, opacity=1.0 if bar.is_kept else 0.4)
        if bar.value > end:
            sheet.text(x1 + 1, y + 14.5, "▸", anchor="start")
        elif bar.low is not None and bar.high is not None:
            low, high, middle = at(max(bar.low, start)), at(min(bar.high, end)), y + step / 2 - 0.5
            sheet.path([(low, middle), (high, middle)], "whisker")
            for x in (low, high):
                sheet.path([(x, middle - 3), (x, middle + 3)], "whisker")
        sheet.text(WIDTH - 4, y + 14, show(bar.value), "" if bar.is_kept else "muted", "end")
    return sheet.svg(WIDTH, bottom + 22)


def _readable_end(bars: Sequence[Bar]) -> float:
    """Where the axis of bars ends: the largest value, but at most three giants are cut short.

    Only for the sake of bars whose interval is above zero: chance need not be seen in detail.
    """
    certain = sorted((bar.value for bar in bars if bar.low is None or bar.low > 0), reverse=True)
    for giants in range(min(3, len(certain) - 1), 0, -1):
        if certain[giants] > 0 and certain[giants - 1] > 5 * certain[giants]:
            return 1.3 * certain[giants]
    largest = max(certain[:1] or [bar.value for bar in bars])
    return max(
        [largest, *(bar.high for bar in bars if bar.high is not None and bar.high < 2 * largest), 1e-9]
    )


def _legend(sheet: Sheet, kinds: Sequence[str], x: float, *, kept: bool) -> None:
    for kind in (*KINDS, "other"):
        if kind in kinds:
            sheet.rect(x, 4, 11, 11, kind)
            sheet.text(x + 16, 14, kind, "muted")
            x += 34 + 6.6 * len(kind)
    if kept:
        sheet.text(x + 4, 14, "strong colour and bold name: kept", "muted")


# --- redundancy ----------------------------------------------------------------------------------


def cluster_map(names: Sequence[str], values: NDArray[np.float64], show: Callable[[float], str]) -> str:
    """Symmetric values [n, n] between 0 and 1 as a map, like beside like, with their tree."""
    n = len(names)
    values = np.clip(np.nan_to_num(values), 0.0, 1.0)
    order, merges = average_linkage(1.0 - values)
    left, tree = 186.0, 96.0
    cell = min(30.0, (WIDTH - left - tree) / n)
    font = min(12.0, cell - 1.5)
    longest = min(24, max(len(name) for name in names))
    top = 10 + 0.62 * font * longest
    sheet = Sheet()
    sheet.add(f"<g style='--font:{font:.1f}px' class='map'>")
    for row, at in enumerate(order):
        y = top + cell * row
        sheet.text(
            left - 7, y + cell / 2 + font * 0.35, short(names[at], 26), "cell", "end", hint=names[at]
        )
        x = left + cell * (row + 0.5) + font * 0.35
        sheet.text(x, top - 5, short(names[at], 24), "cell", turn=-90, hint=names[at])
    sheet.rect(left, top, cell * n, cell * n, "frame")
    for row, first in enumerate(order):
        for column, second in enumerate(order):
            value = float(values[first, second])
            x, y = left + cell * column, top + cell * row
            if row == column:
                sheet.rect(x, y, cell, cell, "own")
            elif value >= 0.02:
                hint = f"{names[first]} and {names[second]}: {show(value)}"
                sheet.rect(x, y, cell, cell, "heat", hint=hint, opacity=value)
                if cell >= 24 and value >= 0.05:
                    look = "value bright" if value > 0.55 else "value"
                    sheet.text(x + cell / 2, y + cell / 2 + 4, f"{100 * value:.0f}", look, "middle")
    _tree(sheet, order, merges, left + cell * n + 6, tree - 10, top, cell)
    sheet.add("</g>")
    return sheet.svg(WIDTH if cell < 30 else left + cell * n + tree, top + cell * n + 8)


def _tree(
    sheet: Sheet,
    order: Sequence[int],
    merges: Sequence[Merge],
    x: float,
    width: float,
    top: float,
    cell: float,
) -> None:
    """The merges beside the map: the further right two branches meet, the less they share."""
    place = {at: (x, top + cell * (row + 0.5)) for row, at in enumerate(order)}
    for step, merge in enumerate(merges):
        (x1, y1), (x2, y2) = place[merge.first], place[merge.second]
        meet = x + width * min(merge.distance, 1.0)
        if merge.distance < 0.98:
            sheet.path([(x1, y1), (meet, y1), (meet, y2), (x2, y2)], "tree")
        place[len(order) + step] = (meet, (y1 + y2) / 2)


# --- coverage and score --------------------------------------------------------------------------


def scatter(points: Sequence[Point], x_label: str, y_label: str, show: Callable[[float], str]) -> str:
    """Points named where there is room, from the highest down; y on a square-root scale, x in per cent."""
    left, right, top, bottom = 66.0, WIDTH - 24.0, 34.0, 430.0
    lowest = min(point.x for point in points)
    start = max(0.0, math.floor(lowest * 20 - 0.5) / 20)
    across = scale(start, 1.0 + 0.01 * (1 - start), left + 12, right)
    high = _readable_end([Bar(point.name, point.y, point.low) for point in points])
    low = max(min(0.0, min(point.y for point in points)), -0.25 * high)
    rooted = scale(root(low), root(high), bottom - 10, top + 6)
    sheet = Sheet()
    _legend(sheet, [point.kind for point in points], left, kept=False)
    for tick in root_ticks(high):
        y = rooted(root(tick))
        sheet.path([(left, y), (right, y)], "axis" if tick == 0 else "grid")
        sheet.text(left - 6, y + 4, tick_text(tick), "muted small", "end")
    for tick in ticks(start, 1.0):
        sheet.text(across(tick), bottom + 15, f"{100 * tick:.0f} %", "muted small", "middle")
    sheet.text((left + right) / 2, bottom + 34, x_label, "muted", "middle")
    sheet.text(14, (top + bottom) / 2, y_label, "muted", "middle", turn=-90)
    ordered = sorted(points, key=lambda point: -point.y)
    spots = [(across(point.x), rooted(root(min(max(point.y, low), high)))) for point in ordered]
    for point, (x, y) in zip(ordered, spots, strict=True):
        hint = f"{point.name}: {100 * point.x:.1f} % covered, {show(point.y)}"
        sheet.dot(x, y, point.kind if point.kind in KINDS else "other", hint=hint)
    named = [
        (short(point.name, 26) + (f" ▲ {show(point.y)}" if point.y > high else ""), spot)
        for point, spot in zip(ordered, spots, strict=True)
        # where half the columns have no gaps, their names would bury those that matter
        if point.x < 0.98 or point.low is None or point.low > 0
    ]
    _name_points(sheet, named, spots, (left, top - 6, WIDTH - 2, bottom))
    return sheet.svg(WIDTH, bottom + 42)


Box = tuple[float, float, float, float]
_ASIDE = tuple(
    (far, 4.0 + lift, side, anchor)
    for far in (26.0, 60.0, 120.0, 200.0)
    for lift in (-13.0, 13.0, -26.0, 26.0, -39.0, 39.0, -52.0)
    for side, anchor in ((-1.0, "end"), (1.0, "start"))
)
"""Places for a name further from its point, the nearest first; a thin line leads there."""


def _name_points(
    sheet: Sheet,
    named: Sequence[tuple[str, tuple[float, float]]],
    spots: Sequence[tuple[float, float]],
    room: Box,
) -> None:
    """Write each name where it hits neither another name nor a point; a name without room is left out."""
    texts: list[tuple[float, float, str, str]] = []
    taken: list[Box] = [(x - 5, y - 5, x + 5, y + 5) for x, y in spots]
    for name, (x, y) in named:
        wide = 6.1 * len(name)
        choices = [
            (x + 8, y + 4, "start"),
            (x - 8, y + 4, "end"),
            (x, y - 9, "middle"),
            (x, y + 18, "middle"),
            *((x + side * far, y + dy, anchor) for far, dy, side, anchor in _ASIDE),
        ]
        for at_x, at_y, anchor in choices:
            start = at_x - wide * {"start": 0.0, "middle": 0.5, "end": 1.0}[anchor]
            box = (start - 2, at_y - 10, start + wide + 2, at_y + 3)
            inside = box[0] >= room[0] and box[1] >= room[1] and box[2] <= room[2] and box[3] <= room[3]
            if inside and not any(_overlap(box, other) for other in taken):
                if abs(at_x - x) > 20:
                    sheet.path([(x, y), (at_x + (3 if anchor == "end" else -3), at_y - 4)], "grid")
                texts.append((at_x, at_y, name, anchor))
                taken.append(box)
                break
    # after all lines, so that no line crosses a name
    for at_x, at_y, name, anchor in texts:
        sheet.text(at_x, at_y, name, "small halo", anchor)


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


# --- days ----------------------------------------------------------------------------------------


def day_map(
    names: Sequence[str],
    days: Sequence[str],
    values: NDArray[np.float64],
    full: float,
    show: Callable[[float], str],
) -> str:
    """Values [columns, days] as a map, full colour from ``full`` on; NaN (too few rows) is dashed."""
    left, top, step, side = 214.0, 24.0, 20.0, 84.0
    wide = min(60.0, (WIDTH - left - side) / len(days))
    sheet, bottom = Sheet(), top + step * len(names)
    sheet.text(left + wide * len(days) + 10, top - 8, "largest", "muted small")
    for row, name in enumerate(names):
        y = top + step * row
        sheet.text(left - 8, y + 14, short(name, 28), "", "end", hint=name)
        for column, value in enumerate(values[row]):
            x, hint = left + wide * column, f"{name}, {days[column]}: "
            if np.isnan(value):
                sheet.rect(x + 1, y + 1, wide - 2, step - 2, "empty", hint=hint + "too few rows")
            else:
                strength = min(max(float(value), 0.0) / full, 1.0)
                sheet.rect(x, y, wide - 1, step - 1, "faint")
                alarm = "alarm" if value > full else "heat"
                sheet.rect(x, y, wide - 1, step - 1, alarm, hint=hint + show(value), opacity=strength)
        known = values[row][~np.isnan(values[row])]
        if known.size:
            sheet.text(left + wide * len(days) + 10, y + 14, show(float(known.max())), "muted small")
    _day_names(sheet, days, [left + wide * (at + 0.5) for at in range(len(days))], bottom + 14)
    return sheet.svg(WIDTH, bottom + 24)


def day_line(
    days: Sequence[str], columns: Mapping[str, NDArray[np.float64]], show: Callable[[float], str]
) -> str:
    """``share`` of each day with its interval ``low`` to ``high``, and the dashed mean over ``rows``."""
    left, right, top, bottom = 66.0, WIDTH - 24.0, 14.0, 240.0
    share, low, high = columns["share"], columns["low"], columns["high"]
    start, end = float(low.min()), float(high.max())
    room = 0.12 * ((end - start) or abs(end) or 1.0)
    up = scale(max(start - room, 0.0) if start >= 0 else start - room, end + room, bottom, top)
    wide = (right - left) / len(days)
    xs = [left + wide * (at + 0.5) for at in range(len(days))]
    sheet = Sheet()
    for tick in ticks(start - room, end + room):
        if top <= up(tick) <= bottom:
            sheet.path([(left, up(tick)), (right, up(tick))], "grid")
            sheet.text(left - 6, up(tick) + 4, show(tick), "muted small", "end")
    mean = float((share * columns["rows"]).sum() / columns["rows"].sum())
    sheet.add(f'<path d="M{left} {up(mean):.1f}H{right}" class="axis" stroke-dasharray="5 4"/>')
    sheet.path([(x, up(float(value))) for x, value in zip(xs, share, strict=True)], "series")
    for at, x in enumerate(xs):
        hint = (
            f"{days[at]}: {show(float(share[at]))} ({show(float(low[at]))} to {show(float(high[at]))}), "
            f"{int(columns['rows'][at]):,} rows"
        )
        sheet.path([(x, up(float(low[at]))), (x, up(float(high[at])))], "whisker")
        sheet.dot(x, up(float(share[at])), "categorical", hint=hint, radius=4)
    _day_names(sheet, days, xs, bottom + 18)
    return sheet.svg(WIDTH, bottom + 28)


def _day_names(sheet: Sheet, days: Sequence[str], xs: Sequence[float], y: float) -> None:
    """As many day names as fit in a row."""
    width = 6.4 * max(len(day) for day in days) + 14
    step = max(1, math.ceil(width / (xs[1] - xs[0]))) if len(xs) > 1 else 1
    for at in range(0, len(days), step):
        sheet.text(xs[at], y, short(days[at], 20), "muted small", "middle")
