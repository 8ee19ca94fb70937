"""Crossed columns: made from raw rows, never colliding, the same from checkpoint and bundle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from recsys.config import ModelSettings, RatioSplit, TrainSettings
from recsys.data.crosses import add_crosses, with_crosses
from recsys.data.source import open_source
from recsys.errors import ConfigError, SchemaError
from recsys.evaluation.metrics import auc
from recsys.features.prepare import prepare
from recsys.prediction import predict
from recsys.ranking.rank import rank
from recsys.schema import Column, Schema
from recsys.training.export import export
from recsys.training.train import train

TEXT = Column(kind="categorical", type="string")
SCHEMA = Schema(
    columns={
        "city": TEXT.model_copy(update={"side": "user"}),
        "hour": Column(kind="categorical", type="int64", side="context"),
        "price": Column(kind="numeric", type="float64"),
        "clicked": Column(kind="numeric", type="int64", roles=("label",)),
    }
)


def crossed(frame: pl.DataFrame, schema: Schema = SCHEMA) -> list[str]:
    source = with_crosses(open_source(frame), add_crosses(schema, [["city", "hour"]]))
    assert source.columns["city_x_hour"] == pl.String
    return source.lazy().select("city_x_hour").collect().to_series().to_list()


def test_values_are_readable_and_a_missing_one_counts() -> None:
    frame = pl.DataFrame({"city": ["berlin", None, r"\N", "a|b"], "hour": [7, 7, None, -1]})
    assert crossed(frame) == [r"berlin|7", r"\N|7", r"\\N|\N", r"a\|b|-1"]


def test_the_type_in_the_file_makes_no_difference() -> None:
    whole = pl.DataFrame({"city": ["x", "y"], "hour": [7, None]})
    as_float = whole.with_columns(pl.col("hour").cast(pl.Float64))
    assert crossed(whole) == crossed(as_float) == [r"x|7", r"y|\N"]


@given(st.lists(st.tuples(*[st.none() | st.text("|\\N1", max_size=4)] * 2), min_size=1, max_size=30))
def test_no_two_combinations_share_a_value(pairs: list[tuple[str | None, str | None]]) -> None:
    frame = pl.DataFrame(pairs, schema={"a": pl.String, "b": pl.String}, orient="row")
    schema = add_crosses(Schema(columns={"a": TEXT, "b": TEXT}), [["a", "b"]])
    made = with_crosses(open_source(frame), schema).lazy().select("a_x_b").collect().to_series()
    assert made.null_count() == 0
    assert made.n_unique() == len(set(pairs))


def test_a_log_may_hold_the_column_itself() -> None:
    frame = pl.DataFrame({"city": ["x"], "hour": [1], "city_x_hour": ["told"]})
    assert crossed(frame) == ["told"]


def test_schema_is_written_and_read(tmp_path: Path) -> None:
    schema = add_crosses(SCHEMA, [["city", "hour"]])
    assert schema.columns["city_x_hour"].side == "context"
    schema.save(tmp_path / "schema.yaml")
    assert Schema.load(tmp_path / "schema.yaml") == schema
    assert add_crosses(schema, [["city", "hour"]]) == schema  # asked for twice
    wider = Schema(columns={**schema.columns, "site": TEXT})
    again = add_crosses(wider, [["city_x_hour", "site"]])
    assert again.columns["city_x_hour_x_site"].crosses == ("city", "hour", "site")


def test_crossed_columns_are_ranked() -> None:
    log = _agreement(2_000)
    schema = Schema(
        columns={"a": TEXT, "b": TEXT, "clicked": Column(kind="numeric", type="int64", roles=("label",))}
    )
    ranking = rank(log, add_crosses(schema, [["a", "b"]]))
    assert ranking.table["column"][0] == "a_x_b"
    assert ranking.table["z"][0] > 100


def test_refusals_name_the_column() -> None:
    with pytest.raises(ConfigError, match=r"'ctiy'.*city"):
        add_crosses(SCHEMA, [["ctiy", "hour"]])
    with pytest.raises(ConfigError, match="'price' is numeric"):
        add_crosses(SCHEMA, [["city", "price"]])
    taken = Schema(columns={**SCHEMA.columns, "city_x_hour": TEXT})
    with pytest.raises(ConfigError, match="'city_x_hour' is taken"):
        add_crosses(taken, [["city", "hour"]])
    with pytest.raises(SchemaError, match=r"part of 'city_x_hour'.*no column 'hour'"):
        crossed(pl.DataFrame({"city": ["x"]}))
    with pytest.raises(SchemaError, match=r"'hour', part of 'city_x_hour'.*one value per row"):
        crossed(pl.DataFrame({"city": ["x"], "hour": [[1, 2]]}))
    with pytest.raises(ValidationError, match="crosses 'price'"):
        Schema(columns={**SCHEMA.columns, "p": TEXT.model_copy(update={"crosses": ("city", "price")})})


def test_a_linear_model_learns_what_only_the_combination_tells(tmp_path: Path) -> None:
    log = _agreement(4_000)
    schema = Schema(
        columns={"a": TEXT, "b": TEXT, "clicked": Column(kind="numeric", type="int64", roles=("label",))}
    )
    dataset = prepare(
        log.with_row_index("row"),
        schema,
        tmp_path / "dataset",
        split=RatioSplit(by="ratio", key="row", valid=0.1, test=0.1),
        combinations=[["a", "b"]],
    )
    assert dataset.manifest.vocabularies["a_x_b"].size == 2 + 9  # missing, unseen, three by three
    run = train(
        dataset,
        tmp_path / "run",
        model=ModelSettings(name="lr"),
        plan=None,
        settings=TrainSettings(epochs=8, batch_size=200, device="cpu"),
    )
    bundle = export(run, tmp_path / "bundle", dtype="float32")
    new = _agreement(1_000, seed=5).vstack(pl.DataFrame({"a": [None], "b": ["u"], "clicked": [0]}))
    by_checkpoint, by_bundle = (predict(folder, new)["score"] for folder in (run.folder, bundle.folder))
    np.testing.assert_allclose(by_checkpoint, by_bundle, atol=1e-5)
    assert auc(new["clicked"].to_numpy(), by_bundle.to_numpy()) > 0.85  # 0.5 without the combination


def _agreement(rows: int, seed: int = 0) -> pl.DataFrame:
    """Clicks nine times in ten where two columns agree, and once in ten where not."""
    generator = np.random.default_rng(seed)
    a, b = generator.integers(0, 3, (2, rows))
    clicked = generator.random(rows) < np.where(a == b, 0.9, 0.1)
    words = np.array(["u", "v", "w"])
    return pl.DataFrame({"a": words[a], "b": words[b], "clicked": clicked.astype(np.int64)})
