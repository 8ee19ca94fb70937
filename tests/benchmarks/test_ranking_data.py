"""The logs that the ranking benchmark makes follow their law, whatever their length."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import polars as pl
import pytest

from tests.benchmarks.scripts import script


@pytest.fixture(scope="module")
def made() -> ModuleType:
    return script("ranking_data")


def test_a_short_log_begins_a_long_one(
    made: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(made, "PIECE", 4_000)
    log = made.wide_log(10_000)
    frame = log.frame()
    assert frame.columns == [*log.names, "label"]
    assert made.wide_log(9_000).frame().equals(frame.head(9_000))
    assert pl.read_parquet(log.write_parquet(tmp_path / "log.parquet")).equals(frame)
    assert [path.name for path in tmp_path.iterdir()] == ["log.parquet"]
    folder = log.write_csv(tmp_path / "csv")
    assert pl.read_csv(folder / "data.csv").cast(frame.schema).equals(frame)


def test_values_and_labels_follow_the_law(made: ModuleType) -> None:
    log = made.wide_log(60_000)
    frame = log.frame()
    for name, size, power in (("c01_k3_id", 3, -0.3), ("c06_k100_id", 100, -1.1)):
        weights = np.arange(1, size + 1) ** power
        shares = frame[name].value_counts().sort(name)["count"].to_numpy() / frame.height
        np.testing.assert_allclose(shares, weights / weights.sum(), atol=0.008)
    first, second = (log.names[column] for column in log.xor)
    rates = frame.group_by(pl.col(first) == pl.col(second)).agg(pl.col("label").mean()).sort(first)["label"]
    assert rates[0] > 2 * rates[1]
    assert log.informative == log.names[:12]
    spread = {
        name: frame.group_by(name)
        .agg(pl.len(), pl.col("label").mean())
        .filter(pl.col("len") > 1_000)["label"]
        for name in (log.names[3], log.names[15])
    }
    assert spread[log.names[3]].std() > 5 * spread[log.names[15]].std()
