"""Labels of few rows: classes that the sample does not hold, and numbers that are no classes."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from recsys import Ranking, RankSettings, rank
from recsys.errors import DataError
from recsys.schema import Column, Schema

ROWS = 60_000
SCHEMA = Schema(
    columns={
        "c": Column(kind="categorical", type="int64"),
        "d": Column(kind="categorical", type="int64"),
        "label": Column(kind="numeric", type="float64", roles=("label",)),
    }
)


def ranked(label: np.ndarray, rare: np.ndarray, sample: int = 1_000) -> Ranking:
    """``c`` is 4 in the rare rows, and seldom elsewhere."""
    generator = np.random.default_rng(0)
    c = generator.integers(0, 5, ROWS)
    c[rare] = 4
    log = pl.DataFrame({"c": c, "d": generator.integers(0, 5, ROWS), "label": label})
    return rank(log, SCHEMA, settings=RankSettings(sample=sample, report=False))


def test_numbers_that_the_sample_lacks_make_classes_all_the_same() -> None:
    generator = np.random.default_rng(1)
    rare = generator.choice(ROWS, 40, replace=False)
    label = np.zeros(ROWS)
    label[rare] = generator.normal(size=40) * 10 + 50
    ranking = ranked(label, rare)
    assert len(ranking.facts["classes"]) > 1
    assert ranking.table["column"][0] == "c"
    assert ranking.table["z"][0] > 10


def test_numbers_that_make_one_class_are_refused() -> None:
    label = 2**60 + np.arange(ROWS) % 30
    with pytest.raises(DataError, match=r"'label'.*float64.*one class"):
        ranked(label, np.arange(5))


def test_a_sample_with_hardly_a_positive_is_a_finding() -> None:
    rare = np.random.default_rng(2).choice(ROWS, 60, replace=False)
    label = np.zeros(ROWS, np.int64)
    label[rare] = 1
    ranking = ranked(label, rare)
    assert ranking.findings is not None
    found = ranking.findings.filter(kind="few_in_sample").row(0, named=True)
    assert found["severity"] == "warning"
    assert found["number"] < 10
    assert "1,000 of 60,000 rows" in found["sentence"]
    whole = ranked(label, rare, sample=ROWS)
    assert whole.findings is not None
    assert "few_in_sample" not in whole.findings["kind"].to_list()
