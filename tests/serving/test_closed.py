"""Bundles of models with gates: closed values are exact zeros, and what they took is gone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from recsys.embeddings.open_values import OpenValues
from recsys.embeddings.plan import ServeDtype
from recsys.serving.bundle import Bundle
from recsys.serving.dense import dense_inputs
from recsys.serving.encode import encode
from recsys.summary import show_bundle
from recsys.training.bundle_writer import Trained, write_bundle
from tests.serving import made
from tests.serving.test_score_bundle import run_script

SCALE = 1.5
CLOSED = {"user": [2, 5], "item": [1, 3, 8], "tag": [0, 4], "day": [1], "mark": [0, 1, 2, 3, 4]}
"""Ids; items are known by key, users keep closed keys as new users count, marks are gone altogether."""


def gates() -> OpenValues:
    is_open = {name: np.ones(len(values) + 2, np.bool_) for name, (_, values) in made.VALUES.items()}
    for name, ids in CLOSED.items():
        is_open[name][ids] = False
    return OpenValues(is_open, SCALE)


def gated(folder: Path, raw: pl.DataFrame) -> tuple[Trained, NDArray[np.float64]]:
    """A model with gates, and the right scores of a log."""
    plain = made.trained(folder, raw)
    weights = {name: array * gates().of(name, np.arange(len(array)))[:, None] for name, array in
               plain.tables.items()}  # fmt: skip
    right = made.expected(raw, weights)
    return replace(plain, gates=gates(), sample_scores=right[:64].astype(np.float32)), right


def test_scores_are_those_of_a_loop_in_which_closed_values_are_zeros(tmp_path: Path) -> None:
    raw = made.log(400, seed=3)
    raw.write_parquet(tmp_path / "log.parquet")
    trained, right = gated(tmp_path / "dataset", raw)
    write_bundle(trained, tmp_path / "bundle", dtype="float32")
    found = Bundle.load(tmp_path / "bundle").scorer().score(raw)
    assert np.abs(found - right).max() < 1e-6
    done = run_script(tmp_path / "bundle", tmp_path / "log.parquet", tmp_path / "scored.parquet")
    assert done.returncode == 0, done.stderr
    scored = pl.read_parquet(tmp_path / "scored.parquet")["score"].to_numpy()
    assert np.abs(scored - right).max() < 1e-6


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8", "int4"])
def test_a_closed_value_is_exactly_zero_and_an_open_one_is_not(tmp_path: Path, dtype: ServeDtype) -> None:
    raw = made.log(60)
    trained, _ = gated(tmp_path / "dataset", raw)
    bundle = write_bundle(trained, tmp_path / "bundle", dtype=dtype)
    scorer = bundle.scorer()
    frame = pl.DataFrame(
        {
            "user": [made.USERS[0], made.USERS[1], made.USERS[3], "nobody"],
            "item": [made.ITEMS[1], made.ITEMS[0], 999, None],
            "history": [[made.ITEMS[0], made.ITEMS[1]], [made.ITEMS[6]], [], [999, made.ITEMS[0]]],
            "tags": [[made.TAGS[2]], [made.TAGS[0]], [None], ["new"]],
            "day": [made.DAYS[0], made.DAYS[1], None, made.DAYS[0]],
            "mark": [made.MARKS[0], None, made.MARKS[2], 77.0],
            "price": [1.0] * 4,
            "age": [30] * 4,
        },
        schema_overrides={"item": pl.Int64, "history": pl.List(pl.Int64), "tags": pl.List(pl.String)},
    )
    rows = encode(frame, scorer.features, scorer.numerics, scorer.vocabularies)
    inputs = dense_inputs(rows, scorer.features, scorer.tables)
    is_zero = {name: ~inputs[name].any(axis=-1) for name in made.VOCABULARY}
    assert is_zero["user"].tolist() == [True, False, True, False]
    assert is_zero["item"].tolist() == [True, False, True, False]
    assert is_zero["history"].tolist() == [[False, True], [True, True], [True, True], [True, False]]
    assert is_zero["tags"].tolist() == [True, False, True, False]
    assert is_zero["mark"].all()
    assert inputs["history.lengths"].tolist() == [2, 1, 0, 2]


def test_what_is_closed_leaves_the_bundle_and_the_manifest_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = made.log(60)
    trained, _ = gated(tmp_path / "dataset", raw)
    plain = write_bundle(replace(trained, gates=None, sample_scores=made.expected(raw.head(64), dict(
        trained.tables)).astype(np.float32)), tmp_path / "plain", dtype="float32")  # fmt: skip
    bundle = write_bundle(trained, tmp_path / "bundle", dtype="float32")
    rows = {name: table.rows for name, table in bundle.manifest.tables.items()}
    assert rows == {"user": 5, "item": 6, "tag": 3, "day": 3, "mark": 1}
    listed = {name: len(vocabulary.keys) for name, vocabulary in bundle.vocabularies.items()}
    assert listed == {"user": 5, "item": 5, "tag": 3, "day": 1 + 1, "mark": 0}
    found = bundle.manifest.gates
    assert found is not None
    assert {name: each.closed for name, each in found.vocabularies.items()} == {
        name: len(ids) for name, ids in CLOSED.items()
    }
    assert found.rows == sum(len(ids) for ids in CLOSED.values()) - 1
    assert found.kept_share == pytest.approx(1 - 13 / 30)
    tables = sum(table.nbytes for table in plain.tables.values())
    left = tables - sum(table.nbytes for table in bundle.tables.values())
    assert found.bytes == left + 5 * 12
    assert plain.manifest.gates is None
    assert bundle.manifest.version == 7
    assert plain.manifest.bytes["total"] - bundle.manifest.bytes["total"] > 0
    show_bundle(bundle)
    shown = capsys.readouterr().out
    assert "56.7% of values kept" in shown
    assert ["item", "9", "3", "66.7%"] in [line.split() for line in shown.splitlines()]


def test_a_row_below_zero_is_refused_without_gates(tmp_path: Path) -> None:
    """The mark of a closed value means nothing in a bundle of a model without gates."""
    raw = made.log(60)
    trained, _ = gated(tmp_path / "dataset", raw)
    bundle = write_bundle(trained, tmp_path / "bundle", dtype="float32")
    assert (bundle.vocabularies["user"].rows == -1).sum() == 2
    assert bundle.vocabularies["item"].unseen_row == -1
