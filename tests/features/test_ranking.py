"""Ranking: the correction is exact, counts merge, order of rows and kind of input do not matter."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import mutual_info_score
from sklearn.metrics.cluster import contingency_matrix, expected_mutual_information

from recsys.config import RatioSplit
from recsys.errors import ConfigError, DataError
from recsys.features.counts import joint_counts
from recsys.features.ranking import Ranking, rank, score_counts
from recsys.schema import Column, Schema

ROWS = 4_000


def _log(rows: int = ROWS, seed: int = 0) -> pl.DataFrame:
    """``strong`` and ``weak`` move the label, ``wide`` is noise of 2,000 values, ``number`` is a curve."""
    generator = np.random.default_rng(seed)
    strong = generator.integers(0, 20, rows)
    weak = generator.integers(0, 5, rows)
    number = generator.normal(size=rows)
    logit = (strong % 7) * 0.6 - 2.5 + (weak == 1) * 0.7 + np.abs(number)
    clicked = generator.random(rows) < 1 / (1 + np.exp(-logit))
    return pl.DataFrame(
        {
            "strong": strong,
            "weak": [f"w{value}" if value else None for value in weak.tolist()],
            "wide": generator.integers(0, 2_000, rows),
            "number": pl.Series([float("nan") if abs(x) > 2.5 else x for x in number.tolist()]),
            "tags": [
                ["hot"] * int(click) + ["a", "b"][: int(pick)]
                for click, pick in zip(clicked, generator.integers(0, 3, rows), strict=True)
            ],
            "user": generator.integers(0, 300, rows),
            "clicked": clicked.astype(np.int8),
        }
    )


SCHEMA = Schema(
    columns={
        "strong": Column(kind="categorical", type="int64"),
        "weak": Column(kind="categorical", type="string"),
        "wide": Column(kind="categorical", type="int64"),
        "number": Column(kind="numeric", type="float64"),
        "tags": Column(kind="multi", type="string"),
        "user": Column(kind="categorical", type="int64", roles=("group",)),
        "clicked": Column(kind="numeric", type="int64", roles=("label",)),
    }
)


def test_informative_columns_come_first_and_wide_noise_earns_nothing() -> None:
    table = rank(_log(), SCHEMA).table
    assert table["column"].to_list()[-1] == "wide"
    assert set(table["column"]) == {"strong", "weak", "wide", "number", "tags"}
    scores = dict(zip(table["column"], table["z"], strict=True))
    assert abs(scores["wide"]) < 4
    assert min(scores[name] for name in ("strong", "number", "tags")) > 10
    plain = dict(zip(table["column"], table["mi"], strict=True))
    assert plain["wide"] > plain["weak"]


@given(
    st.lists(st.tuples(st.integers(0, 8), st.booleans()), min_size=2, max_size=80).filter(
        lambda pairs: len({label for _, label in pairs}) == 2
    )
)
def test_mi_and_its_expectation_are_those_of_scikit_learn(pairs: list[tuple[int, bool]]) -> None:
    values, labels = zip(*pairs, strict=True)
    frame = (
        pl.DataFrame({"value": values, "label": labels})
        .group_by("value")
        .agg(rows=pl.len().cast(pl.Int64), positives=pl.col("label").cast(pl.Int64).sum())
    )
    from recsys.features.counts import JointCounts

    scores = score_counts(JointCounts(frame))
    table = contingency_matrix(labels, values)
    assert scores["mi"] == pytest.approx(mutual_info_score(labels, values), abs=1e-12)
    assert scores["expected_mi"] == pytest.approx(expected_mutual_information(table, len(values)), abs=1e-9)


def test_counts_of_two_halves_merge_to_the_counts_of_both() -> None:
    log = _log()
    schema = SCHEMA.keep(["strong", "weak", "wide", "tags"])
    whole = joint_counts(log.lazy(), schema, "clicked")
    halves = [joint_counts(part.lazy(), schema, "clicked") for part in (log[:1500], log[1500:])]
    for name, counts in whole.items():
        merged = halves[0][name].merge(halves[1][name]).frame.sort("value", nulls_last=False)
        assert merged.equals(counts.frame.sort("value", nulls_last=False))


def test_row_order_and_kind_of_input_do_not_matter(tmp_path: Path) -> None:
    log = _log()
    log.write_parquet(tmp_path / "log.parquet")
    expected = rank(log, SCHEMA).table
    shuffled = rank(log.sample(fraction=1.0, shuffle=True, seed=1), SCHEMA).table
    assert shuffled["column"].to_list() == expected["column"].to_list()
    np.testing.assert_allclose(shuffled["score"], expected["score"], rtol=1e-9)
    for data in (tmp_path / "log.parquet", log.to_pandas(), log.to_arrow(), log.lazy()):
        assert rank(data, SCHEMA).table.equals(expected)


def test_only_train_rows_are_read() -> None:
    log = _log()
    split = RatioSplit(by="ratio", key="user", valid=0.2, test=0.2)
    from recsys.data.split import split_source

    train = split_source(split, log).lazy("train").collect()
    assert rank(log, SCHEMA, split=split).table.equals(rank(train, SCHEMA).table)


def test_keep_marks_the_best_and_the_ranking_can_be_read_back(tmp_path: Path) -> None:
    ranking = rank(_log(), SCHEMA, keep=3, output=tmp_path / "ranking")
    assert ranking.kept == ranking.table["column"].to_list()[:3]
    assert Ranking.load(tmp_path / "ranking").table.equals(ranking.table)


def test_what_cannot_be_ranked_is_refused() -> None:
    with pytest.raises(DataError, match="60 train rows are too few"):
        rank(_log(60), SCHEMA)
    with pytest.raises(DataError, match=r"(?s)clicked.*only 0|clicked.*one class"):
        rank(_log().with_columns(clicked=pl.lit(0)), SCHEMA)
    with pytest.raises(ConfigError, match="keep must be at least 1"):
        rank(_log(), SCHEMA, keep=0)
    with pytest.raises(DataError, match="not a readable ranking"):
        Ranking.load("nowhere")
