"""Progress: silent by default, plain lines without a terminal, a bar on one."""

from __future__ import annotations

import io
import time

import pytest
from rich.console import Console

from recsys import progress as module
from recsys.progress import Bar, Terminal, duration, progress, reporting, say, size


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "QUIET_SECONDS", 0.05)
    monkeypatch.setattr(module, "LINE_SECONDS", 0.05)


def terminal(*, is_terminal: bool) -> tuple[Terminal, io.StringIO]:
    text = io.StringIO()
    return Terminal(Console(file=text, force_terminal=is_terminal, width=120)), text


def wait_for(text: io.StringIO, wanted: str) -> None:
    until = time.monotonic() + 5
    while wanted not in text.getvalue():
        assert time.monotonic() < until, text.getvalue()
        time.sleep(0.01)


def test_python_callers_hear_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    say("hello")
    with progress("prepare", total=10) as bar:
        bar.advance(10)
    assert capfd.readouterr() == ("", "")


@pytest.mark.usefixtures("impatient")
def test_plain_lines_hold_rows_speed_and_time_left() -> None:
    reporter, text = terminal(is_terminal=False)
    with reporting(reporter), progress("prepare", total=4_000) as bar:
        bar.advance(2_000, note="loss 0.5")
        wait_for(text, "prepare: 2,000 of 4,000 rows, ")
    line = text.getvalue().splitlines()[0]
    assert "rows/s" in line
    assert line.endswith("left, loss 0.5")
    assert "\x1b" not in text.getvalue()


@pytest.mark.usefixtures("impatient")
def test_a_terminal_shows_the_inner_bar() -> None:
    reporter, text = terminal(is_terminal=True)
    with reporting(reporter), progress("chain"), progress("prepare", total=4_000) as bar:
        bar.advance(1_000)
        wait_for(text, "1,000 of 4,000 rows")
        assert "prepare" in text.getvalue()
        say("a line above the bar")
    assert "a line above the bar" in text.getvalue()


def test_short_work_shows_nothing() -> None:
    reporter, text = terminal(is_terminal=False)
    with reporting(reporter), progress("prepare", total=10) as bar:
        bar.advance(10)
    assert text.getvalue() == ""


@pytest.mark.usefixtures("impatient")
def test_quiet_work_shows_nothing() -> None:
    reporter, text = terminal(is_terminal=False)
    with reporting(reporter), progress("prepare", quiet=True):
        time.sleep(0.2)
    assert text.getvalue() == ""


def test_time_left_is_what_the_speed_says(monkeypatch: pytest.MonkeyPatch) -> None:
    bar = Bar("train", total=300, unit="rows")
    bar.advance(100)
    monkeypatch.setattr(Bar, "seconds", 10.0)
    assert bar.speed == 10
    assert bar.seconds_left == 20
    assert bar.line() == "train: 100 of 300 rows, 10 rows/s, 20.0 s left"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.0 s"), (59.94, "59.9 s"), (59.96, "1 min 0 s"), (3599, "59 min 59 s"), (7200, "2 h 0 min")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(("count", "text"), [(999, "999 B"), (1_000, "1.0 kB"), (5e12, "5.0 TB")])
def test_sizes(count: float, text: str) -> None:
    assert size(count) == text


def test_work_of_an_earlier_run_counts_as_done_but_not_as_speed() -> None:
    bar = Bar("train", total=2_000, unit="rows")
    bar.skip(1_000)
    assert bar.done == 1_000
    assert bar.speed == 0
    assert bar.seconds_left is None
    bar.advance(10)
    assert bar.speed * bar.seconds == pytest.approx(10, rel=0.1)
