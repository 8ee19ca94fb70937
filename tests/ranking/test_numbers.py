"""Numeric columns beside others: what is said of them but their score does not depend on the label."""

from __future__ import annotations

import numpy as np
import polars as pl

from recsys import Ranking, RankSettings, rank
from recsys.schema import Column, Schema

ROWS = 20_000
QUIET = RankSettings(report=False)


def ranked(columns: dict[str, np.ndarray], label: np.ndarray, day: np.ndarray | None = None) -> Ranking:
    kinds = {name: Column(kind="numeric", type="float64") for name in columns}
    log = pl.DataFrame({**columns, "label": label.astype(np.int64)})
    if day is not None:
        kinds["day"] = Column(kind="categorical", type="string", roles=("timestamp",))
        log = log.with_columns(day=pl.Series([f"2026-01-{number + 1:02d}" for number in day.tolist()]))
    kinds["label"] = Column(kind="numeric", type="int64", roles=("label",))
    return rank(log, Schema(columns=kinds), settings=QUIET)


def test_numbers_of_the_same_sign_are_no_copies() -> None:
    generator = np.random.default_rng(0)
    a = generator.normal(size=ROWS)
    b = np.sign(a) * generator.lognormal(size=ROWS)
    for effect in (0.0, 0.3):  # both columns get two bins
        label = generator.random(ROWS) < 0.2 + effect * (a > 0)
        ranking = ranked({"a": a, "b": b}, label)
        assert ranking.findings is not None
        assert not {"near_duplicate", "duplicate", "follows"} & set(ranking.findings["kind"])
        assert ranking.table["redundancy"].max() < 0.5


def test_a_copy_of_a_number_is_found_whatever_the_label() -> None:
    generator = np.random.default_rng(1)
    a = generator.normal(size=ROWS)
    ranking = ranked({"a": a, "b": 3 * a + 1}, generator.integers(0, 2, ROWS))
    assert ranking.findings is not None
    assert ranking.findings["kind"].to_list() == ["duplicate"]


def test_drift_of_a_number_is_seen_and_the_label_has_no_say() -> None:
    generator = np.random.default_rng(2)
    day = np.sort(generator.integers(0, 10, ROWS))
    x = generator.normal(size=ROWS) * np.where(day == 7, 8, 1)
    noise = ranked({"x": x}, generator.integers(0, 2, ROWS), day)
    told = ranked({"x": x}, generator.random(ROWS) < np.where(np.abs(x) > 1.5, 0.8, 0.1), day)
    assert noise.drift is not None
    assert told.drift is not None
    assert noise.drift.equals(told.drift)
    assert noise.drift["psi_day"].to_list() == ["2026-01-08"]
    assert noise.drift["psi"][0] > 1
    assert noise.findings is not None
    assert "drift" in noise.findings["kind"].to_list()


def test_two_numbers_that_tell_only_together_still_surface() -> None:
    generator = np.random.default_rng(3)
    columns = {f"n{number}": generator.normal(size=ROWS) for number in range(6)}
    apart = (columns["n0"] > 0) != (columns["n1"] > 0)
    ranking = ranked(columns, generator.random(ROWS) < np.where(apart, 0.5, 0.2))
    assert ranking.pairs is not None
    best = ranking.pairs.sort("synergy", descending=True).row(0, named=True)
    assert (best["a"], best["b"]) == ("n0", "n1")
    assert best["synergy_z"] > 10
