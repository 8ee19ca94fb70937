"""What long work tells a person: lines, and a bar with rows per second and time left.

The library never prints. A stage reports to the reporter of its context, which is silent until the
command line (or you) sets one:

>>> with reporting(Terminal()), progress("prepare", total=1_000) as bar:
...     bar.advance(1_000)

Nothing is drawn for work that ends within two seconds. On a terminal it is a bar; elsewhere it is a
plain line every ten seconds.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

QUIET_SECONDS = 2.0
LINE_SECONDS = 10.0


class Bar:
    """How far one piece of work has come; made by ``progress``."""

    def __init__(self, name: str, total: int | None, unit: str) -> None:
        self.name, self.total, self.unit = name, total, unit
        self.done = 0
        self.note = ""
        self._skipped = 0
        self._started = time.monotonic()

    def advance(self, count: int = 1, note: str | None = None) -> None:
        """Count work that is done; ``note`` is a short text beside the bar, such as the loss."""
        self.done += count
        if note is not None:
            self.note = note

    def skip(self, count: int) -> None:
        """Count work that an earlier run did; it says nothing about the speed of this one."""
        self.done += count
        self._skipped += count

    @property
    def seconds(self) -> float:
        """Seconds since the work began."""
        return time.monotonic() - self._started

    @property
    def speed(self) -> float:
        """Units per second so far."""
        return (self.done - self._skipped) / max(self.seconds, 1e-9)

    @property
    def seconds_left(self) -> float | None:
        """Seconds to go at the speed so far; None while that cannot be told."""
        if self.total is None or self.done == self._skipped:
            return None
        return max(self.total - self.done, 0) / self.speed

    def line(self) -> str:
        """The state as one line of text.

        >>> bar = Bar("prepare", total=200, unit="rows")
        >>> bar.line()
        'prepare: 0 of 200 rows'
        """
        parts = []
        if self.total is not None:
            parts.append(f"{self.done:,} of {self.total:,} {self.unit}")
        elif self.done:
            parts.append(f"{self.done:,} {self.unit}")
        if self.done:
            parts.append(f"{self.speed:,.0f} {self.unit}/s")
        left = self.seconds_left
        parts.append(f"{duration(left)} left" if left is not None else f"{duration(self.seconds)} so far")
        if self.done == 0 and self.total is not None:
            parts.pop()
        if self.note:
            parts.append(self.note)
        return f"{self.name}: {', '.join(parts)}"


class Reporter(Protocol):
    """Where progress goes."""

    def say(self, text: str) -> None:
        """Take one line for a person."""

    def open(self, bar: Bar) -> None:
        """Begin to show a bar; a bar opened later covers the earlier ones."""

    def close(self, bar: Bar) -> None:
        """Stop showing a bar."""


class Silent:
    """Says nothing; what Python callers get."""

    def say(self, text: str) -> None:
        return

    def open(self, bar: Bar) -> None:
        return

    def close(self, bar: Bar) -> None:
        return


class Terminal:
    """Bars on a terminal, plain lines where there is none; on stderr, so that stdout holds results."""

    def __init__(self, console: Console | None = None) -> None:
        from rich.console import Console

        self.console = console if console is not None else Console(stderr=True)
        self._bars: list[Bar] = []
        self._lock = threading.Lock()
        self._stop: threading.Event | None = None
        self._thread: threading.Thread | None = None

    def say(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def open(self, bar: Bar) -> None:
        with self._lock:
            self._bars.append(bar)
            if len(self._bars) > 1:
                return
        self._stop = threading.Event()
        draw = self._draw_bars if self.console.is_terminal else self._write_lines
        self._thread = threading.Thread(target=draw, args=(self._stop,), name="progress", daemon=True)
        self._thread.start()

    def close(self, bar: Bar) -> None:
        with self._lock:
            self._bars.remove(bar)
            if self._bars:
                return
        if self._stop is not None and self._thread is not None:
            self._stop.set()
            self._thread.join()

    def _top(self) -> Bar | None:
        with self._lock:
            return self._bars[-1] if self._bars else None

    def _write_lines(self, stop: threading.Event) -> None:
        wait = QUIET_SECONDS
        while not stop.wait(wait):
            bar = self._top()
            if bar is not None:
                self.say(bar.line())
            wait = LINE_SECONDS

    def _draw_bars(self, stop: threading.Event) -> None:
        if stop.wait(QUIET_SECONDS):
            return
        with _rich_progress(self.console) as display:
            tasks: dict[int, TaskID] = {}
            while True:
                bar = self._top()
                if bar is not None:
                    _show(display, tasks, bar)
                if stop.wait(0.1):
                    return


def _rich_progress(console: Console) -> Progress:
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[state]}", markup=False),
        console=console,
        transient=True,
    )


def _show(display: Progress, tasks: dict[int, TaskID], bar: Bar) -> None:
    """Show one bar and hide the others."""
    state = bar.line().partition(": ")[2]
    if id(bar) not in tasks:
        tasks[id(bar)] = display.add_task(bar.name, total=bar.total, state=state)
    shown = tasks[id(bar)]
    for task in tasks.values():
        display.update(task, visible=task == shown)
    display.update(shown, completed=bar.done, total=bar.total, state=state)


_reporter: ContextVar[Reporter] = ContextVar("recsys_reporter", default=Silent())  # noqa: B039


def say(text: str) -> None:
    """Tell the person who waits one line; silent unless a reporter is set."""
    _reporter.get().say(text)


@contextmanager
def progress(
    name: str, total: int | None = None, unit: str = "rows", *, quiet: bool = False
) -> Iterator[Bar]:
    """Show a bar while the block runs; call ``advance`` on what this yields.

    ``total`` may be unknown (None), and may be set on the bar once it is known. ``quiet`` shows
    nothing, for processes other than the first.
    """
    reporter = Silent() if quiet else _reporter.get()
    bar = Bar(name, total, unit)
    reporter.open(bar)
    try:
        yield bar
    finally:
        reporter.close(bar)


@contextmanager
def reporting(reporter: Reporter) -> Iterator[None]:
    """Send what this context says and shows to a reporter."""
    token = _reporter.set(reporter)
    try:
        yield
    finally:
        _reporter.reset(token)


def duration(seconds: float) -> str:
    """Seconds in the unit a person would use.

    >>> duration(3.21), duration(75), duration(7260)
    ('3.2 s', '1 min 15 s', '2 h 1 min')
    """
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"


def size(count: float) -> str:
    """Bytes in the unit a person would use.

    >>> size(512), size(2_048_000)
    ('512 B', '2.0 MB')
    """
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
