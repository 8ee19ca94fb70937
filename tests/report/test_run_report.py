"""The report: complete, self-contained, escaped, and honest about what is missing."""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import polars as pl
import pytest

from recsys.errors import DataError, InstallationError
from recsys.evaluation import Evaluation, evaluate
from recsys.report import StageTime, write_run_report
from recsys.report.charts import MOST_POINTS, calibration_chart, curve_chart
from recsys.report.page import Field, table
from recsys.seeds import SeedRun, SeedRuns
from recsys.serving.manifest import BundleGates, ClosedValues

pytest.importorskip("matplotlib")

VOID = {"meta", "br", "hr", "img", "link", "input"}


class Outline(HTMLParser):
    """Checks that tags nest, and keeps text and attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.words: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def outline(page: str) -> Outline:
    parsed = Outline()
    parsed.feed(page)
    assert parsed.open == []
    return parsed


def evaluation() -> Evaluation:
    generator = np.random.default_rng(1)
    score = 1 / (1 + np.exp(-generator.normal(-2, 1.5, 2000)))
    log = {
        "label": generator.random(2000) < score,
        "score": score,
        "user": generator.integers(0, 150, 2000),
        "day": [f"<b>day {value}</b>" for value in generator.integers(1, 4, 2000)],
    }
    return evaluate(pl.DataFrame(log), group="user", by=["day"])


def record() -> list[dict[str, Any]]:
    steps: list[dict[str, Any]] = [
        {
            "step": step,
            "loss": 0.5 - step / 1e4,
            "lr_scale": 1.0,
            "rows_per_second": 2e4,
            "data_wait_share": 0.03,
        }
        for step in range(10, 1010, 10)
    ]
    auc = {200: 0.70, 400: 0.74, 600: 0.73}
    return steps + [{"step": step, "valid/auc": value, "valid/logloss": 0.4} for step, value in auc.items()]


def test_a_full_report_holds_everything_and_loads_nothing(tmp_path: Path) -> None:
    result = evaluation()
    path = tmp_path / "report.html"
    write_run_report(
        path,
        title="run <one> & only",
        evaluation=result,
        curves=record(),
        tables=pl.DataFrame(
            {
                "table": ["user"],
                "rows": [1000],
                "dim": [16],
                "bytes": [64_000],
                "path": ["dense"],
                "mode": ["full"],
            }
        ),
        stages=[StageTime("train", 75.0, 21_000.0, "made"), StageTime("plan", 0.2)],
        references={"attainable": {"auc": 0.9, "logloss": 0.2}},
        settings={"train.seed": 7},
        notes=["user is hashed"],
    )
    page = path.read_text(encoding="utf-8")
    parsed = outline(page)
    text = " ".join(parsed.words)
    for wanted in (
        "run <one> & only",
        f"{result.overall['auc']:.4f}",
        f"{result.overall['gauc']:.4f}",
        f"{0.9 - result.overall['auc']:.4f} below attainable",  # type: ignore[operator]
        "<b>day 2</b>",
        "64.0 kB",
        "1 min 15 s",
        "21,000",
        "train.seed",
        "user is hashed",
        "3.0% of the time went to waiting",
        "0.7400",
    ):
        assert wanted in text, wanted
    for title in ("Learning", "Calibration", "Slices", "Embedding tables", "Stages", "Settings"):
        assert f"<h2>{title}</h2>" in page
    assert page.count("<svg") == 5
    for name, value in parsed.attributes:
        if name in ("src", "href", "xlink:href", "srcset", "data"):
            assert (value or "").startswith("#")
    assert re.findall(r"url\((?!#)", page) == []
    assert "<script" not in page
    assert "@import" not in page
    assert list(tmp_path.iterdir()) == [path]
    ids = [value for name, value in parsed.attributes if name == "id"]
    assert len(page) < 300_000
    assert all(value in page.replace(f'id="{value}"', "") for value in ids)


def test_absent_parts_are_left_out(tmp_path: Path) -> None:
    write_run_report(tmp_path / "bare.html", title="bare")
    page = (tmp_path / "bare.html").read_text(encoding="utf-8")
    assert "<h2>" not in page
    outline(page)
    log = pl.DataFrame({"label": [0, 0], "score": [0.1, 3.0]})
    write_run_report(tmp_path / "report.html", title="one class", evaluation=evaluate(log))
    text = " ".join(outline((tmp_path / "report.html").read_text(encoding="utf-8")).words)
    for wanted in ("every label is 0", "no group column was given", "lie outside [0, 1]", "–"):
        assert wanted in text
    assert "Calibration curve" not in text


def test_a_report_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "none").write_text("a file where a folder is wanted")
    with pytest.raises(DataError, match=r"none/report\.html: cannot be written"):
        write_run_report(tmp_path / "none" / "report.html", title="lost")


def test_without_matplotlib_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(InstallationError, match="pip install matplotlib"):
        calibration_chart(evaluation().curve)


def test_charts_are_well_formed_and_stay_small() -> None:
    steps = np.arange(50_000)
    curves = pl.DataFrame({"step": steps, "loss": np.random.default_rng(1).random(50_000)})
    svg = curve_chart(curves, {"loss": ("training", "#000000")}, [("floor", 0.1)])
    assert svg is not None
    root = ElementTree.fromstring(svg)
    longest = max(path.get("d", "").count("L") for path in root.iter() if path.tag.endswith("path"))
    assert 100 < longest <= MOST_POINTS
    assert "floor 0.1000" in "".join(root.itertext())
    assert root.get("width") is None
    assert curve_chart(curves, {"absent": ("nothing", "#000000")}) is None
    assert curve_chart(curves, {"loss": ("training", "#000000")}, [("floor", 0.1)]) == svg
    not_finite = pl.DataFrame({"step": [1, 2], "loss": [float("nan"), None]})
    assert curve_chart(not_finite, {"loss": ("training", "#000000")}) is None


def test_calibration_chart_of_few_and_of_rare_clicks() -> None:
    assert calibration_chart(evaluation().curve.clear()) is None
    for score in (0.5, 1e-5):
        curve = evaluate(pl.DataFrame({"label": [0, 1, 0], "score": [score, score, 0.9]})).curve
        svg = calibration_chart(curve)
        assert svg is not None
        ElementTree.fromstring(svg)


def test_table_bars_and_gaps() -> None:
    fields = (Field("name", align="text"), Field("size", lambda value: f"{value:.1f}", "bar"))
    text = table([("a", 1.0), ("b", 4.0), ("c", None)], fields, total=("all", 5.0))
    assert re.findall(r"width:([\d.]+)%", text) == ["25.0", "100.0"]
    assert re.findall(r">([^<>]+)</div>|>([^<>]+)</td>", text) == [
        ("", "a"),
        ("1.0", ""),
        ("", "b"),
        ("4.0", ""),
        ("", "c"),
        ("", "–"),
        ("", "all"),
        ("", "5.0"),
    ]


def test_closed_values_stand_beside_the_kept_ones(tmp_path: Path) -> None:
    vocabularies = {"item": ClosedValues(values=200, closed=150), "day": ClosedValues(values=50, closed=0)}
    path = tmp_path / "report.html"
    write_run_report(path, title="t", gates=BundleGates(vocabularies=vocabularies, rows=150, bytes=2_000))
    text = " ".join(outline(path.read_text(encoding="utf-8")).words)
    assert "item 200 150 25.00% day 50 0 100.00% all 250 150 40.00%" in text
    assert "2.0 kB, are not in the bundle" in text
    grown = BundleGates(vocabularies=vocabularies, rows=150, bytes=-3_000)
    write_run_report(path, title="t", gates=grown)
    assert "The bundle grew by 3.0 kB" in " ".join(outline(path.read_text(encoding="utf-8")).words)


def test_what_was_kept_is_drawn_and_listed(tmp_path: Path) -> None:
    lines = [
        {"step": 1, "loss": 0.5},
        {"step": 5, "density/dense": 0.6, "density/dense/mlp.0": 0.5, "density/tables": 0.2},
        {"step": 10, "density/dense": 0.2, "density/dense/mlp.0": 0.125, "density/tables": 0.2},
    ]
    write_run_report(tmp_path / "report.html", title="sparse", curves=lines)
    words = outline((tmp_path / "report.html").read_text()).words
    at = words.index("dense/mlp.0")
    assert words[at + 1 : at + 3] == ["50.0%", "12.5%"]
    assert "Density" in words


def test_seeds_stand_beside_each_other_with_their_spread(tmp_path: Path) -> None:
    runs = SeedRuns(
        tuple(
            SeedRun(seed, tmp_path, {"auc": auc}, {"auc": auc - 0.125} if seed < 3 else {})
            for seed, auc in ((1, 0.625), (2, 0.75), (3, 0.875))
        )
    )
    path = tmp_path / "report.html"
    write_run_report(path, title="t", seeds=runs)
    text = " ".join(outline(path.read_text(encoding="utf-8")).words)
    assert "3 seeds" in text
    assert "validation AUC 0.75000 ± 0.12500 0.62500 0.75000 0.87500" in text
    assert "test AUC – 0.50000 0.62500 –" in text
    assert "of seed 1, the first" in text
    write_run_report(path, title="t")
    assert "seeds" not in path.read_text(encoding="utf-8")
