"""evaluate(): overall metrics, slices, files, and the same numbers from any kind of table."""

from __future__ import annotations

import datetime
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from recsys.errors import ConfigError, DataError, SchemaError
from recsys.evaluation import Evaluation, auc, calibration, evaluate, gauc, logloss, ne
from recsys.evaluation.slices import MISSING, MOST_VALUES, OTHER, QUANTILE_BINS, TOP_VALUES, cut
from recsys.stage import load_record


def scored_log(rows: int = 4000) -> pl.DataFrame:
    generator = np.random.default_rng(11)
    score = generator.random(rows).astype(np.float32)
    age = generator.integers(18, 80, rows)
    return pl.DataFrame(
        {
            "label": (generator.random(rows) < score).astype(np.int8),
            "score": score,
            "user": [f"u{value}" if value else None for value in generator.integers(0, 300, rows)],
            "importance": generator.random(rows),
            "age": pl.Series([None if value == 18 else int(value) for value in age]),
            "day": [f"2026-01-{value:02d}" for value in generator.integers(1, 4, rows)],
            "item": [f"i{value}" for value in generator.zipf(1.5, rows) % 500],
        }
    )


@pytest.mark.parametrize("weight", [None, "importance"])
def test_overall_and_slices_equal_the_metrics_of_the_rows(weight: str | None) -> None:
    log = scored_log()
    result = evaluate(log, group="user", weight=weight, by=["day", "age", "item"])
    pieces = {name: cut(log[name], name) for name in ("day", "age", "item")}
    frames = [(result.overall, log)]
    for row in result.slices.to_dicts():
        piece = pieces[row["column"]]
        frames.append((row, log.filter(piece.code == piece.values.index(row["value"]))))
    assert len(frames) == 1 + 3 + QUANTILE_BINS + 1 + TOP_VALUES + 1
    for found, part in frames:
        label, score = part["label"], part["score"]
        weights = None if weight is None else part[weight]
        grouped = gauc(label, score, part["user"], weights)
        assert (found["rows"], found["positives"]) == (len(part), label.sum())
        assert found["auc"] == pytest.approx(auc(label, score, weights), abs=1e-12)
        assert found["gauc"] == pytest.approx(grouped.value, abs=1e-12, nan_ok=True)
        assert found["gauc_rows_used"] == pytest.approx(grouped.rows_used, abs=1e-12)
        assert found["logloss"] == pytest.approx(logloss(label, score, weights), abs=1e-12)
        assert found["ne"] == pytest.approx(ne(label, score, weights), abs=1e-12)
        assert found["calibration"] == pytest.approx(calibration(label, score, weights), abs=1e-12)
    assert result.overall["gauc_groups"] == 300
    assert result.reasons == {}
    assert result.curve["rows"].sum() == 4000


def test_any_kind_of_table_gives_the_same_evaluation(tmp_path: Path) -> None:
    log = scored_log(500)
    path = tmp_path / "scored.parquet"
    log.write_parquet(path)
    tables: list[Any] = [path, str(path), log, log.lazy(), log.to_pandas(), log.to_arrow()]
    results = [evaluate(table, group="user", by=("day", "age")).to_dict() for table in tables]
    assert all(result == results[0] for result in results[1:])


def test_output_folder_and_its_reading_back(tmp_path: Path) -> None:
    log = scored_log(300)
    source = tmp_path / "scored.parquet"
    log.write_parquet(source)
    folder = tmp_path / "evaluation"
    result = evaluate(source, group="user", by=["day"], output=folder)
    assert sorted(path.name for path in folder.iterdir()) == [
        "metrics.json",
        "slices.parquet",
        "stage.json",
    ]
    assert json.loads((folder / "metrics.json").read_text())["overall"]["auc"] == result.overall["auc"]
    assert pl.read_parquet(folder / "slices.parquet").equals(result.slices)
    assert Evaluation.load(folder).to_dict() == result.to_dict()
    record = load_record(folder)
    assert record is not None
    assert (record.stage, record.rows, list(record.inputs)) == ("evaluate", 300, [str(source)])
    assert record.settings["by"] == ["day"]


def test_reading_back_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"metrics\.json: no such file"):
        Evaluation.load(tmp_path)
    (tmp_path / "metrics.json").write_text("{}")
    with pytest.raises(DataError, match="not metrics"):
        Evaluation.load(tmp_path)


def test_a_folder_of_something_else_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(DataError, match=r"holds files but no metrics\.json"):
        evaluate(scored_log(10), output=tmp_path)
    with pytest.raises(DataError, match=r"thesis\.txt: expected a folder"):
        evaluate(scored_log(10), output=tmp_path / "thesis.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    evaluate(scored_log(10), output=tmp_path / "new")
    evaluate(scored_log(20), output=tmp_path / "new")
    assert Evaluation.load(tmp_path / "new").overall["rows"] == 20


def test_metrics_that_rows_do_not_define_are_null_with_a_reason() -> None:
    log = pl.DataFrame({"label": [0, 0], "score": [0.1, 0.2], "user": [1, 2], "day": ["a", "b"]})
    result = evaluate(log, group="user", by=["day"])
    assert result.overall["auc"] is None
    assert result.overall["logloss"] == pytest.approx(-np.log(0.9 * 0.8) / 2)
    assert result.reasons["auc"] == result.reasons["ne"] == "every label is 0"
    assert result.reasons["gauc"] == "no 'user' has both labels"
    assert result.slices["auc"].to_list() == [None, None]
    assert result.slices["ne"].to_list() == [None, None]
    assert evaluate(log).reasons["gauc"] == "no group column was given"


def test_scores_outside_the_unit_interval_still_rank() -> None:
    log = pl.DataFrame({"label": [0, 1, 0, 1], "score": [-2.0, 0.5, 0.6, 3.0], "day": ["a", "a", "a", "b"]})
    result = evaluate(log, by=["day"])
    assert result.overall["auc"] == 0.75
    for name in ("logloss", "ne", "calibration", "prediction"):
        assert result.overall[name] is None
        assert "outside [0, 1]" in result.reasons[name]
    assert result.notes[0].startswith("2 of 4 values of 'score' lie outside [0, 1]")
    assert result.slices["logloss"].to_list() == [None, None]
    assert result.curve.is_empty()
    json.dumps(result.to_dict(), allow_nan=False)
    logits = evaluate(log, by=["day"], scores_are="logits")
    probability = 1 / (1 + np.exp(-log["score"].to_numpy()))
    assert logits.overall["logloss"] == pytest.approx(logloss(log["label"], probability))
    assert logits.overall["calibration"] == pytest.approx(probability.mean() / (2 / 4))
    assert logits.notes == ()


def test_missing_groups_are_noted() -> None:
    log = pl.DataFrame({"label": [0, 1, 0, 1], "score": [0.1, 0.4, 0.5, 0.8], "user": [None] * 4})
    assert evaluate(log, group="user").notes == (
        "4 rows have no value in 'user'; GAUC takes them as one group",
    )


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ([0.1, 0.9, 0.2, 0.8], r"AUC of 4 rows is exactly 1: .*a feature that holds the label"),
        ([0.3, 0.3, 0.3, 0.3], r"AUC of 4 rows is exactly 0\.5: .*one score for every row"),
        ([0.9, 0.1, 0.8, 0.2], r"AUC of 4 rows is exactly 0: .*0 and 1 are exchanged"),
        ([0.1, 0.4, 0.5, 0.8], None),
    ],
)
def test_an_auc_too_round_to_be_true_is_called_out(scores: list[float], message: str | None) -> None:
    notes = evaluate(pl.DataFrame({"label": [0, 1, 0, 1], "score": scores})).notes
    if message is None:
        assert notes == ()
    else:
        assert re.search(f"^warning: {message}", notes[0]) is not None


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"score": "scores"}, SchemaError, "no column 'scores'; did you mean 'score'"),
        ({"by": ["dya"]}, SchemaError, "no column 'dya'; did you mean 'day'"),
        ({"score": "spoilt"}, DataError, r"column 'spoilt': 1 of 2 .* first at row 1 \(nan\)"),
        ({"label": "score"}, DataError, r"column 'score': 2 of 2 values are not 0 or 1"),
        ({"by": "tags"}, DataError, "column 'tags': slices need one value per row, found List"),
        ({"group": "tags"}, DataError, "column 'tags': expected one value per row to group by"),
        ({"scores_are": "logit"}, ConfigError, "did you mean 'logits'"),
    ],
)
def test_bad_input(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    log = pl.DataFrame(
        {
            "label": [0, 1],
            "score": [0.1, 0.2],
            "spoilt": [0.1, float("nan")],
            "day": ["a", "b"],
            "tags": [["x"], ["y"]],
        }
    )
    with pytest.raises(error, match=message):
        evaluate(log, **arguments)


def test_the_folder_of_a_run_is_no_table(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"holds a run, and no table of scores: its metrics lie in "):
        evaluate(tmp_path)


def test_no_rows(tmp_path: Path) -> None:
    path = tmp_path / "empty.parquet"
    scored_log(10).clear().write_parquet(path)
    with pytest.raises(DataError, match=r"empty\.parquet.*no rows"):
        evaluate(path, output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_bad_score_in_a_folder_is_found_in_its_file(tmp_path: Path) -> None:
    for name, scores in (("a", [0.1, 0.2]), ("b", [0.3, float("inf")])):
        pl.DataFrame({"label": [0, 1], "score": scores}).write_parquet(tmp_path / f"{name}.parquet")
    with pytest.raises(DataError, match=r"column 'score': 1 of 4 .* first at .*b\.parquet, row 1 \(inf\)"):
        evaluate(tmp_path)


def test_partitions_and_dates_as_slices(tmp_path: Path) -> None:
    for day in ("2026-01-01", "2026-01-02"):
        (tmp_path / f"dt={day}").mkdir()
        log = pl.DataFrame(
            {"label": [0, 1], "score": [0.1, 0.2], "at": [datetime.date.fromisoformat(day)] * 2}
        )
        log.write_parquet(tmp_path / f"dt={day}" / "part.parquet")
    slices = evaluate(tmp_path, by=["dt", "at"]).slices
    assert slices["value"].to_list() == ["2026-01-01", "2026-01-02"] * 2
    assert slices["auc"].to_list() == [1.0] * 4


def test_cut_by_value_in_natural_order() -> None:
    piece = cut(pl.Series(["10", "9", None, "10"]), "hour")
    assert (piece.values, piece.code.tolist()) == (["9", "10", MISSING], [1, 0, 2, 1])
    piece = cut(pl.Series([0.5, float("nan"), 0.25]), "price")
    assert (piece.values, piece.code.tolist()) == (["0.25", "0.5", MISSING], [1, 2, 0])
    assert cut(pl.Series([True, False, True]), "seen").values == ["false", "true"]
    assert cut(pl.Series([None, None]), "nothing").values == [MISSING]


def test_cut_keeps_the_most_frequent_strings() -> None:
    names = [f"v{index:03d}" for index in range(MOST_VALUES + 5) for _ in range(index + 1)]
    piece = cut(pl.Series(names), "item")
    assert piece.values == [f"v{MOST_VALUES + 4 - index:03d}" for index in range(TOP_VALUES)] + [OTHER]
    for name, code in zip(names, piece.code, strict=True):
        assert piece.values[code] in (name, OTHER)


def test_cut_numbers_and_times_by_quantile() -> None:
    piece = cut(pl.Series([*range(1000), None]), "age")
    assert len(piece.values) == QUANTILE_BINS + 1
    assert (piece.values[0], piece.values[-2], piece.values[-1]) == ("0 … 99", "900 … 999", MISSING)
    assert np.bincount(piece.code).tolist() == [100] * QUANTILE_BINS + [1]
    late = cut(pl.Series([0] * 20_000 + list(range(60))), "level")
    assert len(late.values) < MOST_VALUES
    skewed = cut(pl.Series([0] * 900 + list(range(1, 101))), "clicks")
    assert skewed.values == ["0", "1 … 100"]
    first = datetime.date(2026, 1, 1)
    days = cut(pl.Series([first + datetime.timedelta(days=index) for index in range(100)]), "day")
    assert days.values[0] == "2026-01-01 … 2026-01-10"
