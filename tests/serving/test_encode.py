"""The bundle's encoding against ``prepare``'s on the same raw rows, and raw rows told back from ids."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recsys.config import RatioSplit
from recsys.data.check import typed_columns
from recsys.data.dataset import Dataset
from recsys.data.source import open_source
from recsys.embeddings.planner import plan
from recsys.embeddings.rows import row_maps
from recsys.errors import SchemaError
from recsys.features.encoder import Encoder
from recsys.features.prepare import prepare
from recsys.schema import Schema
from recsys.serving.dense import EncodedRows
from recsys.serving.encode import Vocabulary, encode
from recsys.serving.selftest import read_rows, store_rows
from recsys.training.bundle_writer import bundle_features
from recsys.training.raw_rows import encoded_rows, raw_rows
from tests.serving import made


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """``prepare`` of a log, a third of which tests; values of the others are partly unseen."""
    folder = tmp_path_factory.mktemp("prepared") / "dataset"
    raw = made.log(600, seed=3).with_row_index("row")
    split = RatioSplit(by="ratio", key="row", valid=0.1, test=0.3)
    return prepare(raw, made.schema(), folder, split=split, min_count=20)


def own_encoding(dataset: Dataset, raw: pl.DataFrame) -> EncodedRows:
    """Raw rows as a bundle of a dataset encodes them, rows being ids."""
    made_plan = plan(dataset)
    vocabularies = {}
    for name in dataset.manifest.vocabularies:
        values = dataset.values(name)
        keys = values["key"].to_numpy()
        order = np.argsort(keys)
        vocabularies[name] = Vocabulary(keys[order], values["id"].to_numpy()[order], 0, 1)
    source = open_source(raw)
    frame = source.lazy().select(typed_columns(source.columns, dataset.manifest.schema_, label=False))
    features = bundle_features(dataset, made_plan)
    return encode(frame.collect(), features, dataset.manifest.numerics, vocabularies)


def assert_same(found: EncodedRows, expected: pl.DataFrame, dataset: Dataset) -> None:
    assert found.count == expected.height > 0
    for feature in dataset.features:
        name = feature.name
        column = expected[name]
        if feature.kind == "numeric":
            numbers = column.fill_null(np.nan).to_numpy()
            np.testing.assert_array_equal(found.numerics[name], numbers)
        elif feature.kind == "categorical":
            assert found.single[name].tolist() == column.to_list()
        else:
            lists = found.ragged[name]
            assert lists.lengths.tolist() == column.list.len().to_list()
            assert lists.values.tolist() == [i for row in column.to_list() for i in row]


def test_raw_rows_are_encoded_as_prepare_does(prepared: Dataset) -> None:
    raw = made.log(400, seed=9)
    expected = Encoder.load(prepared).encode(raw)
    for name in ("user", "item", "day", "mark"):
        assert {0, 1, 2} <= set(expected[name].to_list())
    assert_same(own_encoding(prepared, raw), expected, prepared)


def test_text_and_floats_are_converted_as_prepare_does(prepared: Dataset) -> None:
    raw = made.log(200, seed=10)
    odd = raw.with_columns(
        item=pl.col("item").cast(pl.Float64),
        age=pl.col("age").cast(pl.String),
        day=pl.col("day").dt.to_string("%Y-%m-%d %H:%M:%S%.6f"),
        user=pl.col("user").cast(pl.Categorical),
    )
    expected = Encoder.load(prepared).encode(odd)
    assert_same(own_encoding(prepared, odd), expected, prepared)
    assert_same(own_encoding(prepared, raw), expected, prepared)


def test_rows_told_back_from_ids_encode_to_the_same_ids(prepared: Dataset) -> None:
    told = raw_rows(prepared, "test", 150)
    assert told.height == 150
    frame = pl.read_parquet(prepared.part("test")).head(150)
    again = Encoder.load(prepared).encode(told)
    for feature in prepared.features:
        if feature.kind == "numeric":
            numbers = frame[feature.name].fill_null(np.nan).to_numpy()
            found = again[feature.name].fill_null(np.nan).to_numpy()
            np.testing.assert_allclose(found, numbers, rtol=1e-6, atol=1e-6)
        else:
            assert again[feature.name].to_list() == frame[feature.name].to_list()


def test_rows_of_a_part_come_as_table_rows(prepared: Dataset) -> None:
    maps = row_maps(plan(prepared), prepared)
    pieces = list(encoded_rows(prepared, "test", maps, 100))
    assert sum(rows.count for rows, _ in pieces) == 100
    expected = pl.read_parquet(prepared.part("test")).head(100)
    assert_same(pieces[0][0], expected, prepared)
    assert pieces[0][1].tolist() == expected["__label__"].to_list()
    doubled = {"item": np.arange(prepared.manifest.vocabularies["item"].size) * 2}
    rows, _ = next(encoded_rows(prepared, "test", doubled, 100))
    assert rows.single["item"].tolist() == (expected["item"] * 2).to_list()
    assert rows.single["user"].tolist() == expected["user"].to_list()


def test_stored_rows_come_back_in_the_types_of_the_schema(prepared: Dataset) -> None:
    features = bundle_features(prepared, plan(prepared))
    raw = made.log(100, seed=11)
    back = read_rows(store_rows(raw, features), features)
    assert back["user"].to_list() == raw["user"].to_list()
    assert back["day"].to_list() == [None if d is None else made.microseconds(d) for d in raw["day"]]
    assert back["tags"].to_list() == [tags or [] for tags in raw["tags"].to_list()]
    assert_same(own_encoding(prepared, raw), Encoder.load(prepared).encode(raw), prepared)


def test_sequences_declared_aligned_must_be(tmp_path: Path) -> None:
    raw = made.log(300).select("label", "user", "history").with_columns(ages="history")
    columns = {name: column for name, column in made.schema().columns.items() if name in raw.columns}
    columns["ages"] = columns["history"].model_copy(update={"aligned_with": "history", "vocabulary": None})
    dataset = prepare(raw, Schema(columns=columns), tmp_path / "dataset")
    assert own_encoding(dataset, raw).count == 300
    cut = raw.with_columns(pl.col("ages").list.head(1))
    with pytest.raises(SchemaError, match=r"'ages'.*another length than 'history'"):
        own_encoding(dataset, cut)
    with pytest.raises(SchemaError, match="'ages'"):
        Encoder.load(dataset).encode(cut)


def test_an_empty_vocabulary_knows_only_missing_and_unseen() -> None:
    empty = Vocabulary(np.empty(0, np.uint64), np.empty(0, np.int64), missing_row=0, unseen_row=1)
    assert empty.lookup(np.array([0, 5, 2**64 - 1], np.uint64)).tolist() == [0, 1, 1]
    one = Vocabulary(np.array([5], np.uint64), np.array([9]), missing_row=0, unseen_row=1)
    assert one.lookup(np.array([0, 5, 2**64 - 1, 4], np.uint64)).tolist() == [0, 9, 1, 1]
