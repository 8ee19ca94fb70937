"""The verb: what it ranks right where others fail, what it refuses, and that layout does not matter."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import adjusted_mutual_info_score, mutual_info_score

from recsys import Ranking, RankSettings, infer, rank
from recsys.config import RatioSplit
from recsys.data.split import split_source
from recsys.errors import ConfigError
from recsys.ranking.shown import lines_of
from recsys.schema import Column, Schema
from tests.ranking.coded import clicks

ROWS = 4_000
QUICK = RankSettings(order=1, report=False)


def make_log(rows: int = ROWS, seed: int = 0) -> pl.DataFrame:
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


def categorical(*names: str, type: Any = "int64") -> Schema:
    columns = {name: Column(kind="categorical", type=type) for name in names}
    return Schema(columns={**columns, "label": Column(kind="categorical", type="string", roles=("label",))})


def by_name(ranking: Ranking, key: str = "score") -> dict[str, Any]:
    return dict(zip(ranking.table["column"], ranking.table[key], strict=True))


def assert_same(left: pl.DataFrame, right: pl.DataFrame) -> None:
    """Equal to 1e-12."""
    assert left.columns == right.columns
    assert left["column"].to_list() == right["column"].to_list()
    for name in left.columns:
        if left[name].dtype.is_float():
            np.testing.assert_allclose(left[name], right[name], rtol=1e-12, atol=1e-12)
        else:
            assert left[name].equals(right[name]), name


# --- what is found -------------------------------------------------------------------------------


def test_informative_columns_come_first_and_wide_noise_earns_nothing() -> None:
    ranking = rank(make_log(), SCHEMA)
    table = ranking.table
    assert table["column"].to_list()[-1] == "wide"
    assert set(table["column"]) == {"strong", "weak", "wide", "number", "tags"}
    z = by_name(ranking, "z")
    assert abs(z["wide"]) < 4
    assert min(z[name] for name in ("strong", "number", "tags")) > 10
    plain = by_name(ranking, "mi")
    assert plain["wide"] > plain["weak"]
    assert (table["low"] < table["score"]).all()
    assert (table["score"] < table["high"]).all()
    assert by_name(ranking, "bins")["strong"] is None
    assert 2 <= by_name(ranking, "bins")["number"] <= 1024
    assert by_name(ranking, "coverage")["weak"] == pytest.approx(0.8, abs=0.03)


def test_the_numbers_are_those_of_scikit_learn() -> None:
    log = make_log()
    ranking = rank(log, SCHEMA, settings=QUICK)
    for name in ("strong", "wide"):
        expected = mutual_info_score(log["clicked"], log[name])
        assert by_name(ranking, "mi")[name] == pytest.approx(expected, abs=1e-12)
        adjusted = adjusted_mutual_info_score(log["clicked"], log[name])
        assert by_name(ranking, "adjusted_mi")[name] == pytest.approx(adjusted, abs=1e-9)


def test_row_order_and_kind_of_input_do_not_matter(tmp_path: Path) -> None:
    log = make_log()
    log.write_parquet(tmp_path / "log.parquet", row_group_size=700)
    expected = rank(log, SCHEMA).table
    shuffled = log.sample(fraction=1.0, shuffle=True, seed=1)
    assert_same(rank(shuffled, SCHEMA).table, expected)
    for data in (tmp_path / "log.parquet", log.to_pandas(), log.to_arrow(), log.lazy()):
        assert_same(rank(data, SCHEMA).table, expected)
    (tmp_path / "parts").mkdir()
    for number, start in enumerate(range(0, ROWS, 1_500)):
        log[start : start + 1_500].write_parquet(tmp_path / "parts" / f"{number}.parquet")
    assert_same(rank(tmp_path / "parts", SCHEMA).table, expected)


def test_only_train_rows_are_read() -> None:
    log = make_log()
    split = RatioSplit(by="ratio", key="user", valid=0.2, test=0.2)
    train = split_source(split, log).lazy("train").collect()
    assert_same(rank(log, SCHEMA, split=split).table, rank(train, SCHEMA).table)


def test_more_rows_than_the_sample_give_the_same_single_scores() -> None:
    log = make_log(6_000)
    sampled = rank(log, SCHEMA, settings=RankSettings(sample=2_000, report=False))
    whole = rank(log, SCHEMA, settings=QUICK)
    for name in ("strong", "weak", "wide", "tags"):
        assert by_name(sampled)[name] == pytest.approx(by_name(whole)[name], abs=1e-12)
    assert by_name(sampled)["number"] == pytest.approx(by_name(whole)["number"], rel=0.1)
    assert sampled.facts["sampled"] == 2_000


# --- traps ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["groups of 1 + 3", "sorted", "alternating"])
def test_the_layout_of_labels_does_not_hide_a_copy_of_them(layout: str) -> None:
    generator = np.random.default_rng(0)
    rows = 16_384
    label = {
        "groups of 1 + 3": np.tile([1, 0, 0, 0], rows // 4),
        "sorted": np.repeat([0, 1], rows // 2),
        "alternating": np.tile([0, 1], rows // 2),
    }[layout]
    flipped = label ^ (generator.random(rows) < 0.1)
    log = pl.DataFrame({"copy": flipped * 7 + generator.integers(0, 7, rows), "label": label})
    shuffled = log.sample(fraction=1.0, shuffle=True, seed=0)
    schema = categorical("copy")
    score = by_name(rank(log, schema, settings=QUICK))["copy"]
    assert score == pytest.approx(by_name(rank(shuffled, schema, settings=QUICK))["copy"], abs=1e-12)
    assert score > 0.25


def test_equal_sums_of_codes_do_not_switch_the_correction_off() -> None:
    generator = np.random.default_rng(1)
    values = generator.integers(0, 1_000, 16_384)
    log = pl.DataFrame({"noise": generator.permutation(values), "label": (values >= 500).astype(int)})
    found = rank(log, categorical("noise"), settings=QUICK)
    assert abs(by_name(found, "z")["noise"]) < 4
    assert by_name(found, "mi")["noise"] > 0.02


def test_pairs_of_texts_are_not_glued_together() -> None:
    generator = np.random.default_rng(2)
    first, second = generator.integers(0, 2, (2, 8_000)).astype(bool)
    log = pl.DataFrame(
        {
            "a": np.where(first, "1", "11").tolist(),
            "b": np.where(second, "1", "11").tolist(),
            "label": (first & ~second).astype(int),
        }
    )
    ranking = rank(log, categorical("a", "b", type="string"), settings=RankSettings(report=False))
    assert ranking.pairs is not None
    truth = -(0.25 * np.log(0.25) + 0.75 * np.log(0.75))
    assert ranking.pairs["joint"][0] == pytest.approx(truth, abs=0.02)


def test_two_columns_that_tell_only_together_surface_and_can_be_combined() -> None:
    generator = np.random.default_rng(3)
    rows = 12_000
    x, y, copy = generator.integers(0, 2, (3, rows))
    label = (
        ((x ^ y) == 1) ^ (generator.random(rows) < 0.25) ^ ((copy == 1) & (generator.random(rows) < 0.2))
    )
    log = pl.DataFrame(
        {
            "x": x,
            "y": y,
            "single": copy,
            "again": copy,
            "noise": generator.integers(0, 3_000, rows),
            "label": label.astype(int),
        }
    )
    settings = RankSettings(combine=2, keep=3, report=False)
    ranking = rank(log, categorical("x", "y", "single", "again", "noise"), settings=settings)
    assert ranking.combinations == (("x", "y"),)
    assert {"x", "y"} < set(ranking.kept)
    assert "noise" not in ranking.kept
    assert len({"single", "again"} & set(ranking.kept)) == 1
    redundant = by_name(ranking, "redundant_with")
    assert {redundant["single"], redundant["again"]} & {"single", "again"}


def test_a_parity_of_three_columns_is_kept_whole() -> None:
    generator = np.random.default_rng(2)
    x, y, z = generator.integers(0, 2, (3, 12_000))
    label = (x ^ y ^ z) ^ (generator.random(12_000) < 0.15)
    log = pl.DataFrame({"x": x, "noise": generator.integers(0, 5, 12_000), "y": y, "z": z, "label": label})
    schema = categorical("x", "y", "z", "noise")
    for choice in ({"keep": 3}, {"keep_until_loss": 0.01}, {"bytes": 1_000}):
        settings = RankSettings.parse(order=3, report=False, **choice)
        assert set(rank(log, schema, settings=settings).kept) == {"x", "y", "z"}


def test_a_history_that_matters_only_near_the_candidate_surfaces() -> None:
    """Sets of elements hardly occur twice: by them alone, the history would look like noise."""
    generator, rows = np.random.default_rng(4), 8_000
    item, history = generator.integers(0, 200, rows), generator.integers(0, 200, (rows, 12))
    near = generator.random(rows) < 0.3
    history[near, 3] = item[near]
    there = (history == item[:, None]).any(1)
    frame = pl.DataFrame(
        {
            "item": item,
            "history": pl.Series(history.tolist()),
            "weather": generator.integers(0, 5, rows),
            "label": (generator.random(rows) < 0.2 + 0.2 * there).astype(np.int64),
        }
    )
    columns = {
        "item": Column(kind="categorical", type="int64"),
        "history": Column(kind="sequence", type="int64", vocabulary="item"),
        "weather": Column(kind="categorical", type="int64"),
        "label": Column(kind="numeric", type="int64", roles=("label",)),
    }
    found = rank(frame, Schema(columns=columns), settings=RankSettings(report=False, keep=2))
    assert set(found.kept) == {"item", "history"}
    assert found.pairs is not None
    (pair,) = found.pairs.filter(a="item", b="history").iter_rows(named=True)
    share = there.mean()
    entropies = [-p * np.log(p) - (1 - p) * np.log(1 - p) for p in (0.2, 0.4, 0.2 + 0.2 * share)]
    told = entropies[2] - (1 - share) * entropies[0] - share * entropies[1]
    assert pair["gain"] == pytest.approx(told, abs=3 * pair["gain"] / pair["gain_z"])
    assert pair["gain_z"] > 10
    columns["history"] = Column(kind="sequence", type="int64")
    apart = rank(frame, Schema(columns=columns), settings=RankSettings(report=False)).pairs
    assert apart is not None
    assert abs(apart.filter(a="item", b="history")["gain_z"][0]) < 4


def test_all_missing_is_a_finding_and_tells_nothing() -> None:
    log = make_log().with_columns(empty=pl.lit(None, pl.Int64))
    schema = Schema(columns={**SCHEMA.columns, "empty": Column(kind="categorical", type="int64")})
    ranking = rank(log, schema)
    assert by_name(ranking)["empty"] == 0.0
    assert by_name(ranking, "coverage")["empty"] == 0.0
    assert ranking.findings is not None
    found = ranking.findings.filter(pl.col("column") == "empty").row(0, named=True)
    assert (found["kind"], found["severity"]) == ("all_missing", "error")


@pytest.mark.parametrize("given", ["nothing", "a schema", "a file"])
def test_columns_that_no_schema_takes_as_features_are_warned_of(given: str, tmp_path: Path) -> None:
    log = make_log().with_columns(
        empty=pl.lit(None, pl.Int64), same=pl.lit("k"), row=pl.int_range(pl.len()), day=pl.lit("2026-01-01")
    )
    schema: Any = None
    if given != "nothing":
        schema = infer(log, label="clicked")
    if given == "a file":
        schema.save(tmp_path / "schema.yaml")
        schema = tmp_path / "schema.yaml"
    findings = rank(log, schema, label="clicked", settings=QUICK).findings
    assert findings is not None
    found = {row["column"]: row for row in findings.iter_rows(named=True)}
    kinds = {"empty": "all_missing", "same": "constant", "row": "row_id"}
    assert {name: found[name]["kind"] for name in kinds} == kinds
    assert {found[name]["severity"] for name in kinds} == {"warning"}
    assert found["same"]["sentence"] == "'same' is not a feature, it has the same value in every row."


# --- labels --------------------------------------------------------------------------------------


def test_labels_of_every_kind() -> None:
    log = make_log()
    schema = SCHEMA.keep(["strong", "wide", "number"])
    binary = by_name(rank(log, schema, settings=QUICK))

    def ranked(label: pl.Expr) -> Ranking:
        return rank(log.with_columns(target=label), schema, label="target", settings=QUICK)

    clicked = pl.col("clicked")
    for label in (clicked == 1, clicked.cast(pl.Float32), pl.when(clicked == 1).then(7).otherwise(-3)):
        assert by_name(ranked(label)) == pytest.approx(binary)
    text = ranked(pl.when(clicked == 1).then(pl.lit("yes")).otherwise(pl.lit("no")))
    assert text.facts["classes"] == ["no", "yes"]
    assert by_name(text)["strong"] == pytest.approx(binary["strong"])
    several = ranked(pl.col("strong") % 3)
    assert several.facts["classes"] == ["0", "1", "2"]
    assert by_name(several)["strong"] == pytest.approx(np.log(3), abs=0.02)
    number = ranked(pl.col("number").fill_nan(0.0) * 3 + pl.col("strong"))
    assert 5 <= len(number.facts["classes"]) <= 10
    assert by_name(number)["strong"] > 20 * abs(by_name(number)["wide"])


def test_a_text_label_needs_no_schema() -> None:
    log = make_log().with_columns(
        target=pl.when(pl.col("clicked") == 1).then(pl.lit("b")).otherwise(pl.lit("a"))
    )
    ranking = rank(log.drop("tags"), label="target", settings=QUICK)
    assert by_name(ranking)["clicked"] == pytest.approx(0.693, abs=0.05)
    assert ranking.findings is not None
    assert "leak" in ranking.findings["kind"].to_list()


# --- choosing ------------------------------------------------------------------------------------


def test_keep_marks_the_best_and_the_ranking_can_be_read_back(tmp_path: Path) -> None:
    ranking = rank(make_log(), SCHEMA, keep=3, output=tmp_path / "ranking")
    assert len(ranking.kept) == 3
    assert "wide" not in ranking.kept
    again = Ranking.load(tmp_path / "ranking")
    assert again.table.equals(ranking.table)
    assert again.findings is not None
    assert ranking.findings is not None
    assert again.findings.equals(ranking.findings)
    assert again.facts == ranking.facts
    choice = json.loads((tmp_path / "ranking" / "ranking.json").read_text(encoding="utf-8"))
    assert choice == {"kept": ranking.kept, "combinations": []}
    assert (tmp_path / "ranking" / "report.html").is_file()
    assert (tmp_path / "ranking" / "stage.json").is_file()


def test_a_budget_of_bytes_and_a_share_of_loss() -> None:
    log = make_log()
    tight = rank(log, SCHEMA, settings=RankSettings(bytes="4KB", report=False))
    assert tight.kept
    assert "wide" not in tight.kept
    with pytest.raises(ConfigError, match="no column's table fits"):
        rank(log, SCHEMA, settings=RankSettings(bytes=10, report=False))
    half = rank(log, SCHEMA, settings=RankSettings(keep_until_loss=0.5, report=False)).kept
    most = rank(log, SCHEMA, settings=RankSettings(keep_until_loss=0.01, report=False)).kept
    assert 1 <= len(half) < len(most) <= 4


def test_two_wide_columns_that_tell_different_things_are_both_kept() -> None:
    generator = np.random.default_rng(4)
    rows = 20_000
    user, item = generator.integers(0, 3_000, rows), generator.integers(0, 1_000, rows)
    narrow = generator.integers(0, 4, rows)
    logit = generator.normal(size=3_000)[user] + generator.normal(size=1_000)[item] + 0.05 * narrow
    label = generator.random(rows) < 1 / (1 + np.exp(-logit))
    log = pl.DataFrame({"user": user, "item": item, "narrow": narrow, "label": label.astype(int)})
    ranking = rank(log, categorical("user", "item", "narrow"), settings=RankSettings(keep=2, report=False))
    assert set(ranking.kept) == {"user", "item"}


def test_a_list_that_a_wide_column_determines_is_worth_more_than_noise() -> None:
    """Every item has a list of its own, which as a whole tells the item; by its elements it tells less, and
    more than the rows of one item let learn. No column takes more from it than it tells by its elements."""
    generator = np.random.default_rng(5)
    item = generator.integers(0, 3_000, 40_000)
    lists = generator.integers(0, 40, (3_000, 5))
    of_tags, of_items = generator.normal(0, 0.5, 40), generator.normal(0, 0.6, 3_000)
    label = clicks(of_tags[lists].sum(1)[item] / 2 + of_items[item], generator)
    frame = pl.DataFrame(
        {
            "item": item,
            "tags": lists[item].tolist(),
            "coin": generator.integers(0, 2, 40_000),
            "label": label,
        }
    )
    columns = categorical("item", "coin").columns | {"tags": Column(kind="multi", type="int64")}
    ranking = rank(frame, Schema(columns=columns), settings=RankSettings(keep=2, report=False))
    gains, alone = by_name(ranking, "gain"), by_name(ranking, "alone")
    assert 0 < gains["tags"] < alone["tags"]
    assert gains["coin"] < gains["tags"]
    assert by_name(ranking, "kept") == {"item": True, "tags": True, "coin": False}


def test_given_columns_stay_and_their_copies_add_nothing() -> None:
    log = make_log().with_columns(again=pl.col("strong") * 2)
    schema = Schema(columns={**SCHEMA.columns, "again": Column(kind="categorical", type="int64")})
    ranking = rank(log, schema, settings=RankSettings(given=("strong",), keep=2, report=False))
    added = by_name(ranking, "given_score")
    assert added["strong"] is None
    assert added["number"] > 10 * abs(added["again"])
    assert "strong" in ranking.kept
    assert "again" not in ranking.kept
    assert len(ranking.kept) == 2
    with pytest.raises(ConfigError, match=r"given.*did you mean 'strong'"):
        rank(log, schema, settings=RankSettings(given=("stronk",)))


def test_other_scores_rank_by_themselves() -> None:
    log = make_log(20_000)
    for score, column in (("mi", "mi"), ("adjusted", "adjusted_mi"), ("outrank", "outrank")):
        settings = RankSettings.parse(score=score, order=1, report=False)
        table = rank(log, SCHEMA, settings=settings).table
        assert table[column].to_list() == sorted(table[column], reverse=True)
    plain = rank(log, SCHEMA, settings=RankSettings(score="mi", order=1, report=False))
    assert plain.table["column"][0] in ("strong", "tags")


def test_the_terminal_shows_what_was_kept_and_warns_first() -> None:
    log = make_log().with_columns(leak=pl.col("clicked") * 3, long=pl.lit("x" * 50))
    schema = SCHEMA.columns | {name: Column(kind="categorical", type="string") for name in ("leak", "long")}
    ranking = rank(log, Schema(columns=schema), keep=2, settings=RankSettings(report=False))
    lines = lines_of(ranking)
    assert max(len(line) for line in lines) < 150
    assert lines[0].split()[:3] == ["kept", "column", "kind"]
    assert lines[1].split()[:2] == ["✓", "leak"]
    assert "4,000 train rows" in "".join(lines)
    assert "2 of 7 columns kept" in "".join(lines)
    marks = [line[0] for line in lines if line[:2] in ("! ", "· ")]
    assert marks == sorted(marks)
    assert "!" in marks
    assert sum("'leak'" in line for line in lines) >= 1
