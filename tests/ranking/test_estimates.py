"""What is an estimate says so, and is close to what exact counting gives."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from recsys import Ranking, RankSettings, rank
from recsys.ranking import counting
from recsys.schema import Column, Schema

ROWS = 40_000
SCHEMA = Schema(
    columns={
        "user": Column(kind="categorical", type="string"),
        "label": Column(kind="numeric", type="int64", roles=("label",)),
    }
)


@pytest.mark.parametrize("missing", [0, 10_000])
def test_adjusted_information_of_a_share_of_the_values(
    missing: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = np.random.default_rng(0)
    number = generator.integers(0, 8_000, ROWS)
    taste = generator.normal(size=8_000)
    label = generator.random(ROWS) < 1 / (1 + np.exp(-taste[number]))
    users: list[str | None] = [f"u{each}" for each in number.tolist()]
    users[:missing] = [None] * missing
    log = pl.DataFrame({"user": users, "label": label.astype(np.int64)})

    def ranked() -> Ranking:
        return rank(log, SCHEMA, settings=RankSettings(order=1, report=False))

    exact = ranked().table.row(0, named=True)
    monkeypatch.setattr(counting, "MOST_VALUES", 3_000)
    monkeypatch.setattr(counting, "CHUNK_ROWS", 1_000)
    monkeypatch.setattr(counting, "_MERGED_AT", 500)
    shared = ranked().table.row(0, named=True)
    assert (exact["distinct_is_exact"], shared["distinct_is_exact"]) == (True, False)
    assert shared["distinct"] == pytest.approx(exact["distinct"], rel=0.05)
    ratio = exact["adjusted_mi"] / exact["score"]
    assert shared["adjusted_mi"] / shared["score"] == pytest.approx(ratio, rel=0.02)


def test_numbers_of_a_sampled_log_are_estimated() -> None:
    generator = np.random.default_rng(1)
    log = pl.DataFrame(
        {
            "wide": generator.normal(size=ROWS),
            "few": generator.integers(0, 9, ROWS).astype(np.float64),
            "label": generator.integers(0, 2, ROWS),
        }
    )
    names = {name: Column(kind="numeric", type="float64") for name in ("wide", "few")}
    schema = Schema(columns={**names, "label": SCHEMA.columns["label"]})
    for sample, is_exact in ((ROWS, True), (2_000, False)):
        table = rank(log, schema, settings=RankSettings(order=1, report=False, sample=sample)).table
        found = {
            name: (number, exact)
            for name, number, exact in table.select("column", "distinct", "distinct_is_exact").iter_rows()
        }
        assert found["few"] == (9, True)
        assert found["wide"][1] == is_exact
        assert found["wide"][0] == pytest.approx(
            ROWS, rel=0.0 if is_exact else 0.2
        )  # three standard errors
