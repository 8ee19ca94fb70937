"""Which combinations become columns, and that what cannot is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import recsys.ranking.together as module
from recsys import Ranking, RankSettings, rank
from recsys.ranking.together import originals, told_once
from recsys.schema import Column, Schema
from tests.ranking.coded import clicks

ROWS = 8_000


def _ranked(columns: dict[str, np.ndarray[Any, Any]], label: np.ndarray[Any, Any], combine: int) -> Ranking:
    """Columns of fractions are numeric, others categorical."""
    schema = {
        name: Column(kind="numeric", type="float64")
        if values.dtype.kind == "f"
        else Column(kind="categorical", type="int64")
        for name, values in columns.items()
    }
    schema["label"] = Column(kind="numeric", type="int64", roles=("label",))
    settings = RankSettings(combine=combine, report=False)
    return rank(pl.DataFrame(columns | {"label": label}), Schema(columns=schema), settings=settings)


def _sentences(ranking: Ranking) -> list[str]:
    assert ranking.findings is not None
    return ranking.findings.filter(pl.col("kind") == "combine")["sentence"].to_list()


def test_numeric_columns_do_not_hide_categorical_combinations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "COMBINATIONS", 2)
    generator = np.random.default_rng(0)
    numbers = {f"n{number}": generator.normal(size=ROWS) for number in range(4)}
    x, y, z = generator.integers(0, 2, (3, ROWS))
    signs = [values > 0 for values in numbers.values()]
    logit = 4.0 * (signs[0] ^ signs[1]) + 3.0 * (signs[2] ^ signs[3]) + 1.5 * (x ^ y) - 4
    columns = numbers | {"x": x, "copy": 1 - x, "y": y, "z": z}
    ranking = _ranked(columns, clicks(logit, generator), 1)
    assert ranking.combinations == (("x", "y"),)
    assert _sentences(ranking) == [
        "Numeric columns and lists cannot be crossed, so combinations with them become no columns, though "
        "they tell more than their parts (2): 'n0 × n1', 'n2 × n3'."
    ]


def test_fewer_combinations_than_asked_for_are_a_finding() -> None:
    generator = np.random.default_rng(1)
    x, y, z = generator.integers(0, 2, (3, ROWS))
    ranking = _ranked({"x": x, "y": y, "z": z}, clicks(2.0 * (x ^ y) - 1, generator), 3)
    assert ranking.combinations == (("x", "y"),)
    assert _sentences(ranking) == [
        "Combinations asked for: 3; of categorical columns, those that tell more than their parts beyond "
        "chance: 1."
    ]
    assert _sentences(_ranked({"x": x, "y": y, "z": z}, clicks(2.0 * (x ^ y) - 1, generator), 0)) == []


def test_a_copy_makes_no_combination_of_its_own() -> None:
    table = pl.DataFrame(
        {
            "column": ["x", "copy", "again", "half", "y"],
            "distinct": [4, 4, 4, 2, 4],
            "redundant_with": [None, "x", "copy", "x", None],
            "redundancy": [1.0, 1.0, 1.0, 1.0, 0.1],
        }
    )
    assert originals(table) == {"x": "x", "copy": "x", "again": "x", "half": "half", "y": "y"}
    pairs = pl.DataFrame(
        [("copy", "y"), ("x", "y"), ("x", "copy"), ("again", "y"), ("half", "y")],
        schema=["a", "b"],
        orient="row",
    )
    assert told_once(pairs, table).rows() == [("copy", "y"), ("half", "y")]


def test_every_column_that_is_written_stands_in_the_docs() -> None:
    docs = (Path(__file__).parents[2] / "docs" / "rank.md").read_text(encoding="utf-8")
    generator = np.random.default_rng(2)
    x, y, z, n = generator.integers(0, 2, (4, 2_000))
    label = clicks(2.0 * (x ^ y ^ z) + 0.3 * n - 1, generator)
    log = pl.DataFrame({"x": x, "y": y, "z": z, "n": n, "label": label})
    names = {name: Column(kind="categorical", type="int64") for name in "xyzn"}
    schema = Schema(columns=names | {"label": Column(kind="categorical", type="int64", roles=("label",))})
    settings = RankSettings(order=3, given=("n",), score="outrank", report=False)
    ranking = rank(log, schema, settings=settings)
    assert ranking.pairs is not None
    assert "c" in ranking.pairs.columns
    written = {"outrank", "given_z", "works_with"} | set(ranking.table.columns) | set(ranking.pairs.columns)
    assert {name for name in written if f"`{name}`" not in docs} == set()
