"""compare(): one answer from every kind of table, rows matched by order or key, runs on their test rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from recsys import compare, evaluate
from recsys.cli import app
from recsys.config import RatioSplit, TrainSettings
from recsys.errors import CheckpointError, ConfigError, DataError, SchemaError


def tables(rows: int = 1_000) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Two models' scores of the same clicks; the second is worse."""
    generator = np.random.default_rng(1)
    truth = generator.beta(1, 3, rows)
    good = pl.DataFrame(
        {
            "id": np.arange(rows),
            "user": [f"u{value}" for value in generator.integers(0, 60, rows)],
            "label": (generator.random(rows) < truth).astype(np.int8),
            "score": truth.astype(np.float32),
        }
    )
    noise = pl.Series(generator.random(rows), dtype=pl.Float32)
    return good, good.with_columns(score=(pl.col("score") + noise) / 2)


def test_any_kind_of_table_gives_the_same_comparison(tmp_path: Path) -> None:
    good, bad = tables()
    good.write_parquet(tmp_path / "good.parquet")
    bad.write_parquet(tmp_path / "bad.parquet")
    pairs: list[tuple[Any, Any]] = [
        (tmp_path / "good.parquet", str(tmp_path / "bad.parquet")),
        (good, bad),
        (good.lazy(), bad.lazy()),
        (good.to_pandas(), bad.to_pandas()),
        (good.to_arrow(), bad.to_arrow()),
        (good.to_pandas(), bad.to_arrow()),
    ]
    found = [compare(*pair, group="user") for pair in pairs]
    assert all(one.differences == found[0].differences for one in found[1:])
    for name in ("auc", "gauc", "logloss"):
        right = [evaluate(table, group="user").overall[name] for table in (good, bad)]
        assert [found[0].differences[name].first, found[0].differences[name].second] == pytest.approx(right)
    assert found[0].names == (str(tmp_path / "good.parquet"), str(tmp_path / "bad.parquet"))
    assert found[1].names == ("in-memory polars DataFrame (first)", "in-memory polars DataFrame (second)")
    assert found[0].sentence.startswith("A is better by ")


def test_rows_are_matched_by_key_whatever_their_order() -> None:
    good, bad = tables()
    shuffled = bad.sample(fraction=1.0, shuffle=True, seed=3)
    right = compare(good, bad, group="user")
    assert compare(good, shuffled, key="id", group="user") == right
    assert compare(good, shuffled, key=["user", "id"], group="user") == right
    nameless = [table.with_columns(pl.when(pl.col("id") > 0).then("id")) for table in (good, shuffled)]
    assert compare(nameless[0], nameless[1], key="id", group="user").differences == right.differences


def test_two_columns_of_scores_in_one_table() -> None:
    good, bad = tables()
    both = good.with_columns(other=bad["score"])
    assert compare(both, both, score=("score", "other")).differences == compare(good, bad).differences
    with pytest.raises(ConfigError, match="score: 3 columns"):
        compare(both, both, score=("score", "other", "id"))


def test_other_rows_are_refused_with_the_first_that_differs(tmp_path: Path) -> None:
    good, bad = tables(20)
    flipped = bad.with_columns(
        label=pl.when(pl.col("id") == 7).then(1 - pl.col("label")).otherwise("label")
    )
    with pytest.raises(
        DataError, match=r"'label' differs in 1 of 20 rows, first at .*row 7 \(.\) and .*row 7"
    ):
        compare(good, flipped)
    with pytest.raises(
        DataError, match=r"'label' differs in 1 of 20 rows, first at .*row 7 \(.\) and .*row 12"
    ):
        compare(good, flipped.reverse(), key="id")
    moved = bad.with_columns(user=pl.when(pl.col("id") == 3).then(pl.lit("x")).otherwise("user"))
    with pytest.raises(DataError, match=r"'user' differs in 1 of 20 rows, first at .*row 3 .*'x'"):
        compare(good, moved, group="user")
    with pytest.raises(DataError, match=r"has 20 rows, .* 19; give tables of the same rows, or name"):
        compare(good, bad.head(19))
    with pytest.raises(DataError, match=r"row 19: id 19 is not in .*so in 1 rows"):
        compare(good, bad.head(19), key="id")
    with pytest.raises(DataError, match=r"\(second\)|row 19: id 19 is not in"):
        compare(good.head(19), bad, key="id")
    twice = pl.concat([bad, bad.head(2)])
    with pytest.raises(DataError, match=r"row 20: id 0 stands in an earlier row already; so in 2 rows"):
        compare(good, twice, key="id")
    with pytest.raises(SchemaError, match=r"key column 'id' is Int64 in .* and String in"):
        compare(good, bad.with_columns(pl.col("id").cast(pl.String)), key="id")
    with pytest.raises(SchemaError, match="scre"):
        compare(good, bad, score="scre")
    with pytest.raises(ConfigError, match="did you mean 'logits'"):
        compare(good, bad, scores_are="logit")
    good.write_parquet(tmp_path / "a.parquet")
    broken = bad.with_columns(score=pl.lit(None, pl.Float32))
    with pytest.raises(DataError, match="20 of 20 values are missing"):
        compare(tmp_path / "a.parquet", broken)


def shown(*arguments: str | Path) -> str:
    result = CliRunner().invoke(app, ["compare", *(str(argument) for argument in arguments)])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_verb_shows_a_table_and_one_sentence(tmp_path: Path) -> None:
    good, bad = tables()
    good.write_parquet(tmp_path / "good.parquet")
    bad.reverse().write_parquet(tmp_path / "bad.parquet")
    text = shown(
        tmp_path / "good.parquet",
        tmp_path / "bad.parquet",
        "--key",
        "id",
        "--group",
        "user",
        "--bootstrap-auc",
    )
    difference = compare(good, bad).differences["auc"]
    for part in (
        f"{difference.first:.5f}",
        f"{difference.difference:+.5f}",
        "DeLong",
        "bootstrap of 60 groups",
    ):
        assert part in text
    assert "A is better by" in text
    assert f"B = {tmp_path / 'bad.parquet'}" in text
    written = tmp_path / "out" / "comparison.json"
    shown(tmp_path / "good.parquet", tmp_path / "good.parquet", "--output", written)
    assert json.loads(written.read_text())["differences"]["auc"]["difference"] == 0.0


# --- runs ----------------------------------------------------------------------------------------

SPLIT = RatioSplit(by="ratio", key="user_id", valid=0.2, test=0.3)


def click_log(rows: int = 3_000) -> pl.DataFrame:
    generator = np.random.default_rng(3)
    item, shop = generator.integers(0, 40, rows), generator.integers(0, 5, rows)
    return pl.DataFrame(
        {
            "user_id": generator.integers(0, 300, rows),
            "item_id": item,
            "shop": shop,
            "clicked": (generator.random(rows) < 0.2 + 0.5 * (item % 2)).astype(np.int8),
        }
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of two seeds on one dataset, one on a dataset without the item, one on another split."""
    pytest.importorskip("torchrec")
    from recsys import infer, prepare, train

    root = tmp_path_factory.mktemp("runs")
    click_log().write_parquet(root / "log.parquet")
    log = root / "log.parquet"
    schema = infer(log, label="clicked", group="user_id")
    prepare(log, schema, root / "dataset", split=SPLIT)
    prepare(log, schema, root / "poor", split=SPLIT, keep=["shop"])
    prepare(log, schema, root / "other", split=SPLIT.model_copy(update={"test": 0.2}))
    for name, dataset, seed in (
        ("a", "dataset", 1),
        ("b", "dataset", 2),
        ("c", "poor", 1),
        ("d", "other", 1),
    ):
        settings = TrainSettings(epochs=4, batch_size=100, seed=seed)
        train(root / dataset, root / name, model="lr", settings=settings)
    return root


def test_runs_are_scored_on_their_own_test_rows(runs: Path) -> None:
    from recsys.training.loaded import score_dataset

    found = compare(runs / "a", runs / "c")
    label = pl.read_parquet(runs / "dataset" / "test.parquet")
    scored = [label.with_columns(score=score_dataset(runs / name, "test")) for name in ("a", "c")]
    right = compare(scored[0], scored[1], label="__label__", group="__group__")
    assert found.differences == right.differences
    assert found.differences["auc"].better == "first"
    assert found.differences["auc"].difference < -0.1
    assert set(found.differences) == {"auc", "gauc", "logloss"}
    assert found.notes == ("A → B: without user_id, item_id, the plan",)
    seeds = compare(runs / "a", runs / "b")
    assert seeds.notes == ("A → B: train.seed: 1 → 2",)
    assert seeds.differences["auc"].better is None
    same = compare(runs / "a", runs / "a")
    assert same.differences["auc"].difference == 0.0
    assert "the same settings" in same.notes[0]
    text = shown(runs / "a", runs / "b")
    assert "train.seed: 1 → 2" in text


def test_runs_on_other_rows_are_refused(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"were split differently \(split.test: 0\.3 and 0\.2\)"):
        compare(runs / "a", runs / "d")
    for dataset in ("dataset", "other"):
        (runs / dataset / "stage.json").rename(tmp_path / dataset)
    try:
        with pytest.raises(
            DataError, match=r"test\.parquet has \d+ rows, .*test\.parquet \d+; runs are compared"
        ):
            compare(runs / "a", runs / "d")
    finally:
        for dataset in ("dataset", "other"):
            (tmp_path / dataset).rename(runs / dataset / "stage.json")


def test_test_rows_that_were_changed_since_are_refused(runs: Path) -> None:
    path = runs / "poor" / "test.parquet"
    before = path.read_bytes()
    rows = pl.read_parquet(path).with_row_index("row")
    flipped = rows.with_columns(
        __label__=pl.when(pl.col("row") == 5).then(1 - pl.col("__label__")).otherwise("__label__")
    )
    flipped.drop("row").write_parquet(path)
    try:
        with pytest.raises(DataError, match=r"the labels of 1 of \d+ rows differ, the first in row 5"):
            compare(runs / "a", runs / "c")
    finally:
        path.write_bytes(before)


def test_runs_and_tables_do_not_mix(runs: Path, tmp_path: Path) -> None:
    good, _ = tables(10)
    with pytest.raises(ConfigError, match=r"a is a run folder and a DataFrame is none"):
        compare(good, runs / "a")
    with pytest.raises(ConfigError, match="group: runs are compared on the columns of their dataset"):
        compare(runs / "a", runs / "b", group="user_id")
    with pytest.raises(ConfigError, match="runs give probabilities"):
        compare(runs / "a", runs / "b", scores_are="logits")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text((runs / "a" / "run.json").read_text())
    with pytest.raises(CheckpointError, match="training has not finished"):
        compare(tmp_path, runs / "b")
