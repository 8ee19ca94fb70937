"""What cannot be ranked is refused, with the exit code that says whose fault it is."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from recsys import Ranking, RankSettings, rank
from recsys.errors import ConfigError, DataError, SchemaError
from recsys.schema import Schema
from tests.ranking.test_rank import SCHEMA, make_log


def test_what_cannot_be_ranked_is_refused() -> None:
    log = make_log()
    with pytest.raises(DataError, match="60 train rows are too few"):
        rank(make_log(60), SCHEMA)
    with pytest.raises(DataError, match=r"clicked.*only 0"):
        rank(log.with_columns(clicked=pl.lit(0)), SCHEMA)
    with pytest.raises(DataError, match=r"row 5: label 'clicked' is None"):
        rank(
            log.with_columns(pl.when(pl.int_range(pl.len()) != 5).then("clicked").alias("clicked")), SCHEMA
        )
    with pytest.raises(DataError, match=r"4000 distinct values|at most 100"):
        rank(log.with_columns(clicked=pl.int_range(pl.len()).cast(pl.String)), SCHEMA)
    with pytest.raises(SchemaError, match="list of text"):
        rank(log, SCHEMA.keep(["strong"]), label="tags")
    with pytest.raises(ConfigError, match="keep must be at least 1"):
        rank(log, SCHEMA, keep=0)
    with pytest.raises(ConfigError, match="score"):
        RankSettings.parse(score="chi2")
    with pytest.raises(ConfigError, match="both choose columns"):
        RankSettings.parse(keep=3, bytes="1MB")
    with pytest.raises(ConfigError, match="needs a label"):
        rank(log.drop("clicked"))
    with pytest.raises(DataError, match="not a readable ranking"):
        Ranking.load("nowhere")


def test_a_folder_of_other_things_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    (tmp_path / "letters.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(DataError, match=r"holds files but no ranking\.parquet"):
        rank(tmp_path / "no such log.parquet", output=tmp_path)


@pytest.mark.parametrize("schema", [None, SCHEMA])
def test_a_label_that_is_not_there_is_wrong_usage(schema: Schema | None) -> None:
    with pytest.raises(ConfigError, match=r"no column 'cliked'.*did you mean 'clicked'") as refused:
        rank(make_log(200), schema, label="cliked")
    assert refused.value.exit_code == 2
