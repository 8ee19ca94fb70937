"""One page about a search: which settings were tried, what each reached, and what mattered."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

from recsys.progress import duration
from recsys.report.charts import BLUE, MUTED, ORANGE, drawn
from recsys.report.page import Field, card, figure, key_figure, notes, page, table
from recsys.stage import file_aside
from recsys.tuning.trial import Trial, Tuning, shown_score

_ADVICE = (
    "The best of many trials was partly lucky: what it reaches on validation rows is higher than what it "
    "will reach elsewhere. Train best.yaml with several seeds before a difference is believed."
)


def write_tune_report(path: Path, found: Tuning) -> None:
    """Write one self-contained HTML page; raises InstallationError without matplotlib."""
    text = page(f"{found.name}: search", _body(found))
    with file_aside(path) as aside:
        aside.write_text(text, encoding="utf-8")


def _body(found: Tuning) -> Iterator[str]:
    best = found.best
    yield f"<header><h1>{escape(found.name)}: search</h1>"
    yield f"<p>{len(found.trials)} trials, judged by {found.monitor} on validation rows</p>"
    yield f'<div class="keys">{"".join(_keys(found))}</div></header>'
    yield notes([_ADVICE])
    charts = [figure("Trials", history_chart(found), "The line is the best finished trial so far.")]
    for setting in found.paths:
        charts.append(
            figure(setting, setting_chart(found, setting), "One point per trial; hollow: pruned.")
        )
    yield f'<section><h2>Charts</h2><div class="charts">{"".join(charts)}</div></section>'
    yield f"<section><h2>Trials</h2>{card('', _table(found))}</section>"
    rows = [(key, _text(value)) for key, value in best.values.items()]
    fields = (Field("setting", align="text"), Field("value", align="text"))
    settings = card("", table(rows, fields))
    yield f"<section><h2>Best settings</h2><div class='narrow'>{settings}</div></section>"
    today = datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M")
    yield f"<footer>Written by recsys, {today}</footer>"


def _keys(found: Tuning) -> Iterator[str]:
    states = [trial.state for trial in found.trials]
    yield key_figure(f"Best {found.monitor}", _score(found, found.best), f"trial {found.best.number}")
    yield key_figure("Finished", str(states.count("finished")), f"of {len(states)} trials")
    yield key_figure("Pruned", str(states.count("pruned")), "ended early, behind the others")
    if "failed" in states:
        yield key_figure("Failed", str(states.count("failed")), "settings that do not train")
    yield key_figure("Training", duration(sum(trial.seconds for trial in found.trials)), "all trials")


def _table(found: Tuning) -> str:
    fields = [
        Field("trial"),
        Field("", align="text"),
        Field(found.monitor, lambda value: f"{value:.5f}", "bar", start=None),
        Field("evaluations"),
        Field("time", duration),
        *(Field(path, _text, align="text") for path in found.paths),
    ]
    rows = [
        (
            trial.number,
            trial.reason if trial.state == "failed" else trial.state,
            found.shown(trial.score),
            trial.evaluations,
            trial.seconds,
            *trial.values.values(),
        )
        for trial in found.ranked
    ]
    return table(rows, fields)


def history_chart(found: Tuning) -> str:
    """The metric of every trial in the order in which they ran, and the best so far, as SVG."""
    with drawn() as drawing:
        from matplotlib.ticker import MaxNLocator

        axes = drawing.axes
        _points(axes, found, [float(trial.number) for trial in found.trials])
        steps: list[int] = []
        levels: list[float] = []
        best: float | None = None
        for trial in found.trials:
            if trial.state == "finished" and trial.score is not None:
                best = trial.score if best is None else max(best, trial.score)
            if best is not None:
                steps.append(trial.number)
                levels.append(shown_score(found.monitor, best))
        axes.plot(steps, levels, color=ORANGE, drawstyle="steps-post", label="best so far", zorder=1)
        axes.set_xlabel("trial")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_ylabel(found.monitor)
        axes.grid(visible=False, axis="x")
        axes.legend(loc="best")
        axes.margins(y=0.15)
    return drawing.svg


def setting_chart(found: Tuning, path: str) -> str:
    """The metric of every trial by the value of one setting, as SVG."""
    values = [trial.values[path] for trial in found.trials]
    is_number = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    with drawn() as drawing:
        axes = drawing.axes
        if is_number:
            places = [float(value) for value in values]
            _points(axes, found, places)
            if min(places) > 0 and max(places) / min(places) >= 10:
                axes.set_xscale("log")
        else:
            labels = sorted({_text(value) for value in values})
            _points(axes, found, [float(labels.index(_text(value))) for value in values])
            axes.set_xticks(range(len(labels)), labels)
            axes.margins(x=0.2)
        axes.set_xlabel(path)
        axes.set_ylabel(found.monitor)
        axes.grid(visible=False, axis="x")
        axes.margins(y=0.15)
    return drawing.svg


def _points(axes: Any, found: Tuning, places: list[float]) -> None:
    """Trials as points: finished ones full, pruned ones hollow."""
    for state, colour, fill in (("finished", BLUE, BLUE), ("pruned", MUTED, "none")):
        chosen = [
            (place, found.shown(trial.score))
            for place, trial in zip(places, found.trials, strict=True)
            if trial.state == state and trial.score is not None
        ]
        if chosen:
            x, y = zip(*chosen, strict=True)
            axes.plot(x, y, "o", color=colour, markerfacecolor=fill, markersize=5, label=state, zorder=2)


def _score(found: Tuning, trial: Trial) -> str:
    return f"{found.shown(trial.score):.5f}"


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
