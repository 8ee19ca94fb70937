"""Infer: the schema that a person would write, facts that are counted right, and the user's word."""

from __future__ import annotations

import datetime
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from recsys.config import ColumnSettings, FilesSplit, TimeSplit
from recsys.errors import ConfigError, DataError, SchemaError
from recsys.features.infer import infer
from recsys.schema import Column, Schema
from recsys.stage import StageRecord, load_record, why_redo

ROWS = 3_000
REAL = Path(__file__).parents[3] / "shared" / "data"


def log(rows: int = ROWS) -> pl.DataFrame:
    """A log in which every column's right reading is known."""
    random = np.random.default_rng(1)
    items = random.integers(10**9, 2**60, 500)
    start = datetime.datetime(2026, 1, 1)
    return pl.DataFrame(
        {
            "clicked": random.integers(0, 2, rows),
            "user_id": random.integers(0, 400, rows),
            "item_id": items[random.integers(0, 500, rows)],
            "brand": [f"b{value}" for value in random.integers(0, 30, rows)],
            "is_new": random.integers(0, 2, rows).astype(bool),
            "price": np.exp(random.normal(3, 1, rows)).round(2),
            "sold": np.exp(random.normal(5, 1.5, rows)).astype(int),
            "hour": random.integers(0, 24, rows),
            "tags": [[f"t{tag}" for tag in random.integers(0, 20, n)] for n in random.integers(0, 4, rows)],
            "history": [list(items[random.integers(0, 400, n)]) for n in random.integers(0, 60, rows)],
            "at": [start + datetime.timedelta(seconds=int(s)) for s in random.integers(0, 10**6, rows)],
            "unix_ts": random.integers(1_767_000_000, 1_768_000_000, rows),
            "dt": [f"2026-01-{day:02}" for day in random.integers(1, 9, rows)],
            "request": [f"{value:08x}" for value in random.permutation(10**6)[:rows]],
            "same": ["x"] * rows,
            "nothing": pl.Series([None] * rows, dtype=pl.Float64),
        }
    )


def plain(schema: Schema) -> dict[str, tuple[Any, ...]]:
    return {
        name: (column.kind, column.type, column.roles, column.vocabulary, column.max_length)
        for name, column in schema.columns.items()
    }


def test_every_column_is_read_as_a_person_would() -> None:
    schema = infer(log())
    feature = ("feature",)
    assert plain(schema) == {
        "clicked": ("numeric", "int64", ("label",), None, None),
        "user_id": ("categorical", "int64", ("feature", "group"), None, None),
        "item_id": ("categorical", "int64", feature, None, None),
        "brand": ("categorical", "string", feature, None, None),
        "is_new": ("categorical", "int64", feature, None, None),
        "price": ("numeric", "float64", feature, None, None),
        "sold": ("numeric", "float64", feature, None, None),
        "hour": ("categorical", "int64", feature, None, None),
        "tags": ("multi", "string", feature, None, 3),
        "history": ("sequence", "int64", feature, "item_id", 59),
        "at": ("numeric", "datetime", ("timestamp",), None, None),
        "unix_ts": ("numeric", "int64", (), None, None),
        "dt": ("numeric", "datetime", (), None, None),
        "request": ("categorical", "string", ("row_id",), None, None),
        "same": ("categorical", "string", (), None, None),
        "nothing": ("numeric", "float64", (), None, None),
    }
    assert schema.rows == ROWS
    notes = "\n".join(schema.notes)
    for line in (
        "clicked: taken for the label",
        "user_id: taken for the group",
        "at: taken for the time of the event",
        "unix_ts: not a feature, it is a time",
        "request: not a feature, it has a different value in every row",
        "same: not a feature, it has the same value in every row",
        "nothing: not a feature, it holds no value",
        "history: shares the vocabulary of item_id, which holds",
    ):
        assert line in notes
    assert schema.columns["user_id"].side == "user"
    assert schema.columns["item_id"].side == "item"
    assert schema.columns["brand"].side is None


def test_facts_are_those_of_a_count_by_hand() -> None:
    frame = pl.DataFrame(
        {
            "y": [0, 1, 0, 1],
            "x": [1.5, float("nan"), float("inf"), None],
            "c": ["a", "b", None, "a"],
            "l": [["a", "b", "b"], [], None, ["c"]],
        }
    )
    columns = infer(frame, label="y").columns
    assert columns["y"].facts is None
    x, c, tags = (columns[name].facts for name in ("x", "c", "l"))
    assert x is not None
    assert c is not None
    assert tags is not None
    assert (x.distinct, x.missing, x.not_finite, x.minimum, x.maximum) == (1, 0.75, 2, 1.5, 1.5)
    assert (c.distinct, c.missing, c.not_finite, c.minimum) == (2, 0.25, 0, None)
    assert (tags.distinct, tags.missing, tags.length_max) == (3, 0.5, 3)
    assert tags.length_mean == pytest.approx(4 / 3, abs=1e-3)
    assert all(found.distinct_is_exact for found in (x, c, tags))


def test_every_kind_of_input_gives_the_same_schema(tmp_path: Path) -> None:
    frame = log(1_500).with_columns(
        maybe=pl.when(pl.col("hour") > 3).then("user_id"),
        flag=pl.when(pl.col("hour") > 3).then("is_new"),
    )
    frame.write_parquet(tmp_path / "log.parquet", row_group_size=100)
    expected = infer(tmp_path / "log.parquet")
    assert expected.columns["maybe"].type == "int64"
    (tmp_path / "parts").mkdir()
    for index in range(3):
        frame.slice(500 * index, 500).write_parquet(tmp_path / "parts" / f"{index}.parquet")
    for data in (frame, frame.lazy(), frame.to_arrow(), frame.to_pandas(), tmp_path / "parts"):
        assert infer(data) == expected


def test_partitions_are_the_same_for_folder_glob_and_list(tmp_path: Path) -> None:
    frame = log(1_500)
    for (day,), rows in frame.group_by("dt", maintain_order=True):
        part = tmp_path / f"dt={day}" / f"hour={len(str(day)):02}"
        part.mkdir(parents=True)
        rows.drop("dt", "hour").write_parquet(part / "f.parquet")
    expected = infer(tmp_path)
    assert expected.columns["dt"] == infer(frame).columns["dt"]
    assert infer(f"{tmp_path}/*/*/*.parquet") == expected
    assert infer(sorted(tmp_path.rglob("*.parquet"))) == expected


def test_long_logs_are_estimated_where_exact_counts_would_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    exact = infer(log())
    monkeypatch.setattr("recsys.features.survey.EXACT_ROWS", 100)
    monkeypatch.setattr("recsys.features.survey.EXACT_DISTINCT", 300)
    schema = infer(log())
    for name, column in schema.columns.items():
        facts, known = column.facts, exact.columns[name].facts
        if facts is None or known is None:
            continue
        if facts.distinct_is_exact:
            assert facts.distinct == known.distinct
        else:
            assert known.distinct > 300
            assert facts.distinct == pytest.approx(known.distinct, rel=0.15)
    assert plain(schema) == plain(exact)
    item = schema.columns["item_id"].facts
    assert item is not None
    assert not item.distinct_is_exact
    assert schema.columns["request"].roles == ("row_id",)


def integers(name: str, values: Any) -> Column:
    return infer(pl.DataFrame({name: values}), label=None).columns[name]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("position", "numeric"),
        ("viewCount", "numeric"),
        ("item_price", "numeric"),
        ("Age", "numeric"),
        ("shopId", "categorical"),
        ("userid", "categorical"),
        ("campaign", "categorical"),
        ("country", "categorical"),
        ("x", "categorical"),
    ],
)
def test_names_decide_for_evenly_spread_integers(name: str, kind: str) -> None:
    assert integers(name, np.arange(20_000) % 500).kind == kind


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (lambda random: random.integers(0, 5_000, 20_000), "categorical"),
        (lambda random: random.integers(0, 2**31, 500)[random.integers(0, 500, 20_000)], "categorical"),
        (lambda random: random.permutation(4_000)[random.zipf(1.2, 20_000) % 4_000], "categorical"),
        (lambda random: random.integers(0, 60, 20_000), "categorical"),
        (lambda random: np.exp(random.normal(5, 1.5, 20_000)).astype(int), "numeric"),
        (lambda random: random.normal(0, 1_000, 20_000).astype(int), "numeric"),
    ],
)
def test_the_spread_decides_where_the_name_does_not(values: Any, kind: str) -> None:
    found = values(np.random.default_rng(0))
    assert integers("x", found).kind == kind
    assert integers("x", found.astype(float)).kind == kind


def test_numbered_siblings_follow_their_majority() -> None:
    random = np.random.default_rng(0)
    frame = {f"I{index}": np.exp(random.normal(5, 1.5, 2_000)).astype(int) for index in range(1, 5)}
    frame |= {"I5": random.integers(0, 6, 2_000), "J5": random.integers(0, 6, 2_000)}
    columns = infer(pl.DataFrame(frame)).columns
    assert {name: column.kind for name, column in columns.items()} == {
        **{f"I{index}": "numeric" for index in range(1, 6)},
        "J5": "categorical",
    }


def test_histories_find_their_item_and_no_accident() -> None:
    random = np.random.default_rng(0)
    rows = 4_000
    columns: dict[str, Any] = {
        "user_id": random.integers(1, 1_200, rows),
        "item_id": random.integers(1, 801, rows),
        "cate_id": random.integers(1, 31, rows),
        "history": [random.integers(1, 601, 6) for _ in range(rows)],
        "hist_cate_ids": [random.integers(1, 31, 6) for _ in range(rows)],
        "recent": [random.integers(1, 801, 3) for _ in range(rows)],
        "item_attributes": [random.integers(1, 300, 3) for _ in range(rows)],
        "levels": [random.integers(1, 5, 2) for _ in range(rows)],
    }
    schema = infer(pl.DataFrame(columns))
    shared = {name: column.vocabulary for name, column in schema.columns.items() if column.is_ragged}
    assert shared == {
        "history": "item_id",
        "hist_cate_ids": "cate_id",
        "recent": "item_id",
        "item_attributes": None,
        "levels": None,
    }
    assert schema.columns["hist_cate_ids"].aligned_with == "history"
    assert schema.columns["recent"].aligned_with is None
    assert schema.columns["item_attributes"].kind == "multi"


def test_text_histories_share_by_content_alone() -> None:
    random = np.random.default_rng(0)
    frame = pl.DataFrame(
        {
            "thing": [f"v{value}" for value in random.integers(0, 900, 3_000)],
            "other": [f"w{value}" for value in random.integers(0, 900, 3_000)],
            "seq": [[f"v{value}" for value in random.integers(0, 300, 3)] for _ in range(3_000)],
            "sizes": [[str(value) for value in random.integers(0, 300, 3)] for _ in range(3_000)],
        }
    )
    schema = infer(frame)
    assert schema.columns["seq"].vocabulary == "thing"
    assert schema.columns["sizes"].vocabulary is None


def test_sharing_is_found_on_a_sample_of_the_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recsys.features.sharing._SAMPLE", 100)
    assert infer(log()).columns["history"].vocabulary == "item_id"


def test_long_lists_are_sequences_and_lists_of_fractions_no_features() -> None:
    frame = pl.DataFrame(
        {
            "basket": [[value] * 20 for value in range(50)],
            "vector": [[0.5, 1.5]] * 49 + [[2.5]],
            "gaps": [[1.0, 2.0, None]] * 49 + [[3.0]],
            "times": [[datetime.datetime(2026, 1, 1)]] * 50,
            "tower": [{"a": 1}] * 50,
            "empty": [[]] * 50,
        },
        schema_overrides={"empty": pl.List(pl.Int64)},
    )
    schema = infer(frame)
    assert schema.columns["basket"].kind == "sequence"
    assert (schema.columns["gaps"].kind, schema.columns["gaps"].type) == ("multi", "int64")
    assert [name for name, column in schema.columns.items() if not column.roles] == [
        "vector",
        "times",
        "empty",
    ]
    assert "tower" not in schema.columns
    assert "tower: left out, a struct cannot be used" in schema.notes


def test_long_histories_keep_their_newest_hundred() -> None:
    assert infer(pl.DataFrame({"history": [[1, 2] * 90]})).columns["history"].max_length == 100


def test_the_users_word_comes_last() -> None:
    stated = {
        "hour": ColumnSettings(kind="numeric"),
        "price": ColumnSettings(kind="categorical"),
        "sold": ColumnSettings(kind="categorical", side="item"),
        "tags": ColumnSettings(kind="sequence", max_length=2),
        "history": ColumnSettings(vocabulary="history", max_length=7),
        "brand": ColumnSettings(roles=()),
        "user_id": ColumnSettings(type="string"),
        "request": ColumnSettings(roles=("feature",)),
    }
    columns = infer(log(), label="clicked", columns=stated, ignore=["dt"]).columns
    assert (columns["hour"].kind, columns["hour"].type) == ("numeric", "float64")
    assert columns["hour"].facts is not None
    assert columns["hour"].facts.maximum == 23
    assert (columns["price"].kind, columns["price"].type) == ("categorical", "string")
    assert (columns["sold"].type, columns["sold"].side) == ("int64", "item")
    assert (columns["tags"].kind, columns["tags"].max_length) == ("sequence", 2)
    assert (columns["history"].vocabulary, columns["history"].max_length) == ("history", 7)
    assert columns["brand"].roles == ()
    assert columns["user_id"].type == "string"
    assert columns["user_id"].roles == ("feature", "group")
    assert columns["request"].roles == ("feature",)
    assert "dt" not in columns


def test_given_roles_are_taken_and_not_guessed() -> None:
    frame = log().with_columns(is_click=pl.col("is_new"), w=pl.lit(0.5))
    schema = infer(frame, label="is_click", group="brand", weight="w", timestamp="hour")
    assert (schema.label, schema.group, schema.weight, schema.timestamp) == (
        "is_click",
        "brand",
        "w",
        "hour",
    )
    assert schema.columns["hour"].roles == ("timestamp",)
    assert schema.columns["clicked"].roles == ("feature",)
    assert schema.columns["user_id"].roles == ("feature",)


def test_the_column_of_a_split_by_time_is_no_feature() -> None:
    split = TimeSplit(by="time", column="hour", valid_from=20, test_from=22)
    schema = infer(log(), split=split)
    assert schema.columns["hour"].roles == ()
    assert any(note.startswith("hour: not a feature") for note in schema.notes)


def test_labels_are_not_read(tmp_path: Path) -> None:
    frame = log()
    expected = infer(frame, label="clicked")
    odd = frame.with_columns(clicked=pl.lit(7) * pl.col("clicked"))
    assert infer(odd, label="clicked") == expected


def test_guessed_labels_hold_nothing_but_0_and_1() -> None:
    assert infer(pl.DataFrame({"label": [0, 1, 2], "click": [0, 1, 1]})).label == "click"
    assert infer(pl.DataFrame({"label": [0.0, None, 1.0]})).label == "label"
    schema = infer(pl.DataFrame({"label": ["a", "b"], "x": [1, 2]}))
    assert schema.label is None
    assert "no label was given or found" in schema.notes[0]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"label": "click"}, SchemaError, r"\(label\): no column 'click'; did you mean 'clicked'"),
        ({"group": "usr_id"}, SchemaError, r"\(group\): no column 'usr_id'; did you mean 'user_id'"),
        (
            {"label": "brand"},
            SchemaError,
            "label 'brand' must be an integer, boolean or float .* found text",
        ),
        ({"group": "tags"}, SchemaError, "group 'tags' is a list of text; one value per row is needed"),
        ({"ignore": ["pirce"]}, SchemaError, r"\(ignore\): no column 'pirce'; did you mean 'price'"),
        ({"label": "clicked", "ignore": ["clicked"]}, ConfigError, "'clicked' is ignored and used"),
        ({"label": "clicked", "weight": "clicked"}, ConfigError, "cannot be both label and weight"),
        (
            {"columns": {"pirce": ColumnSettings()}},
            SchemaError,
            r"\(columns\): no column 'pirce'; did you mean 'price'",
        ),
        (
            {"columns": {"brand": ColumnSettings(kind="sequence")}},
            SchemaError,
            r"columns.brand.kind: sequence is stated, but the column holds one value per row \(text\)",
        ),
        (
            {"columns": {"tags": ColumnSettings(kind="categorical")}},
            SchemaError,
            r"columns.tags.kind: categorical is stated, but the column holds lists \(list of text\)",
        ),
        (
            {"columns": {"brand": {"knid": "multi"}}},
            ConfigError,
            "columns.brand.knid: unknown key; did you mean 'kind'",
        ),
        (
            {"columns": {"history": ColumnSettings(vocabulary="brand")}},
            SchemaError,
            "columns.history: type int64, but other columns of vocabulary 'brand' are string",
        ),
        (
            {"columns": {"history": ColumnSettings(aligned_with="histroy")}},
            SchemaError,
            "columns.history.aligned_with: no column 'histroy'; did you mean 'history'",
        ),
        (
            {"label": "clicked", "columns": {"brand": ColumnSettings(roles=("label",))}},
            SchemaError,
            "one column at most has the role 'label'",
        ),
        (
            {"columns": {"brand": ColumnSettings(max_length=3)}},
            SchemaError,
            "columns.brand: .*max_length is for multi and sequence columns",
        ),
    ],
)
def test_what_cannot_be_is_named(arguments: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        infer(log(), **arguments)


def test_integers_beyond_int64_are_named_and_can_be_text(tmp_path: Path) -> None:
    frame = pl.DataFrame({"y": [0, 1], "hash": pl.Series([1, 2**63], dtype=pl.UInt64)})
    frame.write_parquet(tmp_path / "log.parquet")
    message = (
        r"log.parquet, row 1: column 'hash' holds 9223372036854775808, beyond int64; set columns.hash.type"
    )
    with pytest.raises(SchemaError, match=message):
        infer(tmp_path / "log.parquet")
    schema = infer(frame, columns={"hash": ColumnSettings(kind="categorical", type="string")})
    assert schema.columns["hash"].type == "string"
    lists = pl.DataFrame({"tags": [[1], [2**63]]}, schema={"tags": pl.List(pl.UInt64)})
    with pytest.raises(SchemaError, match="row 1: column 'tags'"):
        infer(lists)
    assert infer(pl.DataFrame({"id": [2**62, 2**40, 5] * 2})).columns["id"].type == "int64"


def test_output_is_a_schema_and_its_record(tmp_path: Path) -> None:
    log().write_parquet(tmp_path / "log.parquet")
    schema = infer(tmp_path / "log.parquet", label="clicked", output=tmp_path / "schema")
    assert Schema.load(tmp_path / "schema" / "schema.yaml") == schema
    record = load_record(tmp_path / "schema")
    assert record is not None
    assert record.stage == "infer"
    assert record.rows == ROWS
    assert list(record.inputs) == [str((tmp_path / "log.parquet").resolve())]
    wanted = StageRecord(stage="infer", version=1, inputs=record.inputs, settings=record.settings)
    assert why_redo(tmp_path / "schema", wanted) is None
    with pytest.raises(SchemaError):
        infer(tmp_path / "log.parquet", label="nope", output=tmp_path / "other")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log.parquet", "schema"]


def test_three_given_files_are_read_as_one(tmp_path: Path) -> None:
    frame = log()
    for part, start in (("train", 0), ("valid", 1_000), ("test", 2_000)):
        frame.slice(start, 1_000).write_parquet(tmp_path / f"{part}.parquet")
    split = FilesSplit(by="files", train="train.parquet", valid="valid.parquet", test="test.parquet")
    assert infer(None, split=split, root=tmp_path) == infer(frame)


def test_eight_digits_are_dates_only_where_the_name_says_so() -> None:
    days = ["19990101", "20010203"] * 50
    columns = infer(
        pl.DataFrame({"zip": days, "dt": days, "opened": [f"{d[:4]}-01-01" for d in days]})
    ).columns
    assert (columns["zip"].kind, columns["zip"].type) == ("categorical", "string")
    assert (columns["dt"].kind, columns["dt"].type) == ("numeric", "datetime")
    assert (columns["opened"].kind, columns["opened"].type) == ("numeric", "datetime")


def test_reserved_names_are_refused() -> None:
    with pytest.raises(SchemaError, match="'__label__' is reserved"):
        infer(pl.DataFrame({"__label__": [1]}))


def test_torch_is_not_needed() -> None:
    code = "import sys, recsys.features.infer, recsys.data.split; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_empty_log_is_an_error() -> None:
    with pytest.raises(DataError, match="no rows"):
        infer(log().head(0))


# --- real logs, where they are at hand ---------------------------------------------------------------


def real(folder: str) -> Schema:
    if not (REAL / folder).is_dir():
        pytest.skip(f"needs {REAL / folder}")
    parts = {part: f"{folder}/{part}.parquet" for part in ("train", "valid", "test")}
    return infer(None, split=FilesSplit(by="files", **parts), root=REAL)


def test_frappe() -> None:
    schema = real("frappe_x1")
    assert (schema.label, schema.group, schema.rows) == ("label", "user", 288_609)
    assert len(schema.features) == 10
    assert {(column.kind, column.type) for column in schema.features.values()} == {("categorical", "int64")}
    facts = [column.facts for column in schema.features.values()]
    assert sum(found.distinct for found in facts if found) == 5_382


def test_movielens() -> None:
    schema = real("ml1m_ctr")
    kinds = {name: (column.kind, column.type) for name, column in schema.features.items()}
    assert kinds == {
        "user_id": ("categorical", "int64"),
        "movie_id": ("categorical", "int64"),
        "gender": ("categorical", "string"),
        "age": ("categorical", "int64"),
        "occupation": ("categorical", "int64"),
        "zipcode": ("categorical", "string"),
        "year": ("categorical", "int64"),
        "genres": ("multi", "string"),
        "position": ("numeric", "float64"),
    }
    assert (schema.label, schema.group) == ("label", "user_id")
    assert schema.columns["genres"].max_length == 6


def test_amazon_beauty() -> None:
    schema = real("amazon_beauty/din")
    history, attributes = schema.columns["history"], schema.columns["item_attributes"]
    assert (history.kind, history.vocabulary, history.max_length) == ("sequence", "item_id", 50)
    assert (attributes.kind, attributes.vocabulary) == ("multi", None)
    assert schema.group == "user_id"


def test_criteo() -> None:
    if not (REAL / "criteo_sample").is_dir():
        pytest.skip(f"needs {REAL / 'criteo_sample'}")
    schema = infer(REAL / "criteo_sample", label="label")
    assert {name for name, column in schema.features.items() if column.kind == "numeric"} == {
        f"I{index}" for index in range(1, 14)
    }
    assert len(schema.features) == 39
