"""Transforms: a fold of the axis gains score, a rising one does not, and a line is told what it can use."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest

from recsys.ranking.transforms import TRANSFORMS, transforms

ROWS = 20_000


def table_of(values: np.ndarray, label: np.ndarray) -> dict[str, dict[str, float]]:
    found = transforms({"x": pl.Series(values)}, label.astype(np.int64), 2)
    return {row["transform"]: row for row in found.iter_rows(named=True)}


def test_linear_is_what_a_straight_line_can_use() -> None:
    generator = np.random.default_rng(0)
    label = generator.integers(0, 2, ROWS)
    values = generator.normal(size=ROWS) + 0.5 * label
    correlation = float(np.corrcoef(values, label)[0, 1])
    found = table_of(values, label)
    assert found["raw"]["linear"] == pytest.approx(-0.5 * math.log(1 - correlation**2), rel=1e-9)
    curve = generator.normal(size=ROWS)
    bent = table_of(curve, generator.random(ROWS) < 1 / (1 + np.exp(1 - curve**2)))
    assert bent["square"]["linear"] > 50 * bent["raw"]["linear"]
    assert bent["absolute"]["linear"] > 50 * bent["raw"]["linear"]


def test_rising_functions_score_as_the_raw_numbers() -> None:
    generator = np.random.default_rng(1)
    values = generator.lognormal(size=ROWS)
    found = table_of(values, generator.random(ROWS) < values / (1 + values))
    for name in ("log", "root", "square"):
        assert found[name]["score"] == pytest.approx(found["raw"]["score"], rel=0.02)
    assert found["log"]["linear"] > found["raw"]["linear"]


def test_a_rhythm_is_found() -> None:
    generator = np.random.default_rng(2)
    hours = generator.integers(0, 24 * 3_000, ROWS).astype(np.float64)
    found = table_of(hours, generator.random(ROWS) < np.where(hours % 24 < 6, 0.7, 0.3))
    assert found["modulo 24"]["score"] > 3 * found["raw"]["score"]
    assert max(found.values(), key=lambda row: row["score"])["transform"] == "modulo 24"


def test_missing_values_and_constants() -> None:
    label = np.tile([0, 1], 200)
    columns = {
        "empty": pl.Series([None] * 400, dtype=pl.Float64),
        "zero": pl.Series([0.0] * 400),
        "wild": pl.Series([1e300, -1e300, float("nan"), 0.0] * 100),
    }
    found = transforms(columns, label, 2)
    assert set(found["column"]) == {"zero", "wild"}
    assert found.filter(pl.col("column") == "zero")["transform"].to_list() == ["raw"]
    assert found["score"].is_finite().all()
    assert found["linear"].is_finite().all()
    assert set(found["transform"]) <= set(TRANSFORMS)
