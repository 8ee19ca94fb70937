"""The split: parts are disjoint, complete, in order, stable, and the same for every kind of input."""

from __future__ import annotations

import datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import xxhash

from recsys.config import FilesSplit, RatioSplit, TimeSplit
from recsys.data.dataset import PARTS
from recsys.data.split import Parts, hash_keys, split_source
from recsys.errors import ConfigError, DataError, SchemaError

ROWS = 1_000


def log() -> pl.DataFrame:
    generator = np.random.default_rng(0)
    day = np.sort(generator.integers(0, 12, ROWS))
    return pl.DataFrame(
        {
            "n": np.arange(ROWS),
            "user": generator.integers(0, 200, ROWS),
            "name": [f"u{value}" for value in generator.integers(0, 200, ROWS)],
            "maybe": [None if value == 0 else int(value) for value in generator.integers(0, 50, ROWS)],
            "day": day,
            "at": [datetime.datetime(2026, 1, 1) + datetime.timedelta(days=int(d)) for d in day],
            "text": [str(d) for d in day],
            "date": [datetime.date(2026, 1, 1) + datetime.timedelta(days=int(d)) for d in day],
            "score": day / 2,
        }
    )


def numbers(parts: Parts) -> dict[str, list[int]]:
    return {part: parts.lazy(part).collect(engine="streaming")["n"].to_list() for part in PARTS}


def time_split(column: str, valid_from: str | float, test_from: str | float) -> TimeSplit:
    return TimeSplit(by="time", column=column, valid_from=valid_from, test_from=test_from)


@pytest.mark.parametrize(
    ("column", "valid_from", "test_from"),
    [
        ("day", 8, 10),
        ("day", "8", 10.0),
        ("score", 4, "5.0"),
        ("at", "2026-01-09", "2026-01-11T00:00:00"),
        ("at", "2026-01-09T01:00:00+01:00", "2026-01-11"),
        ("date", "2026-01-09", "2026-01-11"),
        ("text", 8, "10"),
    ],
)
def test_time_split_compares_in_the_columns_type(
    column: str, valid_from: str | float, test_from: str | float
) -> None:
    frame = log()
    found = numbers(split_source(time_split(column, valid_from, test_from), frame))
    assert found["train"] == frame.filter(pl.col("day") < 8)["n"].to_list()
    assert found["valid"] == frame.filter(pl.col("day").is_between(8, 9))["n"].to_list()
    assert found["test"] == frame.filter(pl.col("day") >= 10)["n"].to_list()


@pytest.mark.parametrize(("key", "bounds"), [("dt", ("2026-01-09", "2026-01-11")), ("day", (8, 10))])
def test_time_split_on_a_hive_partition_chooses_files(
    tmp_path: Path, key: str, bounds: tuple[str | int, str | int]
) -> None:
    frame = log()
    for (day,), rows in frame.group_by("day", maintain_order=True):
        value = f"2026-01-{int(day) + 1:02}" if key == "dt" else str(day)  # day=9 < day=10
        (tmp_path / f"{key}={value}").mkdir()
        rows.select("n", "user").write_parquet(tmp_path / f"{key}={value}" / "f.parquet")
    parts = split_source(time_split(key, *bounds), tmp_path)
    found = numbers(parts)
    if key == "day":  # files are in the order of their names, so day=10 is read before day=2
        frame = frame.sort("text", maintain_order=True)
    assert found["train"] == frame.filter(pl.col("day") < 8)["n"].to_list()
    assert found["test"] == frame.filter(pl.col("day") >= 10)["n"].to_list()
    assert len(parts.source("test").files) == 2
    assert parts.rows("test") == len(found["test"])
    assert len(parts.files) == 12


def test_text_that_is_no_number_is_compared_as_text() -> None:
    frame = log().with_columns(text=pl.format("d{}", pl.col("text").str.zfill(2)))
    found = numbers(split_source(time_split("text", "d08", "d10"), frame))
    assert found["test"] == frame.filter(pl.col("day") >= 10)["n"].to_list()


@pytest.mark.parametrize(
    ("column", "bounds", "error", "message"),
    [
        ("dya", (1, 2), SchemaError, "no column 'dya'; did you mean 'day'"),
        ("day", (10, 8), ConfigError, "valid_from 10 is after test_from 8"),
        ("text", (10, 8), ConfigError, "valid_from 10 is after test_from 8"),
        ("name", ("u5", "u2"), ConfigError, "valid_from 'u5' is after"),
        ("at", ("2026-02-01", "2026-01-01"), ConfigError, "is after test_from"),
        ("at", ("soon", "2026-01-01"), ConfigError, "valid_from: expected a date or time .* found 'soon'"),
        ("at", (8, 10), ConfigError, "expected a date or time .* is timestamp; found 8"),
        ("day", ("x", 10), ConfigError, "split.valid_from: expected a number"),
        ("day", (8.5, 10), ConfigError, "split.valid_from: expected an integer"),
        ("day", (0, 5), DataError, "leaves no train rows: column 'day' goes from 0 to 11"),
        ("day", (5, 5), DataError, "leaves no valid rows"),
        ("day", (5, 50), DataError, "leaves no test rows"),
    ],
)
def test_time_splits_that_cannot_be(
    column: str, bounds: tuple, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        split_source(time_split(column, *bounds), log()).rows("train")


def test_rows_without_a_time_are_named() -> None:
    frame = log()
    first = frame["maybe"].is_null().arg_max()
    message = (
        f"row {first}: split column 'maybe' holds None; {frame['maybe'].null_count()} rows have no time"
    )
    with pytest.raises(DataError, match=message):
        split_source(time_split("maybe", 10, 20), frame).lazy("train")
    nan = frame.with_columns(score=pl.when(pl.col("n") != 7).then("score").otherwise(float("nan")))
    with pytest.raises(DataError, match="split column 'score' holds nan; 1 rows have no time"):
        split_source(time_split("score", 1, 2), nan).lazy("train")


def test_ratio_split_follows_the_documented_hash() -> None:
    """The rule written out with the reference xxhash: splitmix64(xxh3_64(salt) ^ xxh3_64(value))."""

    def splitmix64(word: int) -> int:
        mask = (1 << 64) - 1
        word = (word + 0x9E3779B97F4A7C15) & mask
        word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & mask
        word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & mask
        return word ^ (word >> 31)

    def share(value: int) -> float:
        key = xxhash.xxh3_64_intdigest(value.to_bytes(8, "little", signed=True))
        return splitmix64(xxhash.xxh3_64_intdigest(b"pepper") ^ key) / 2**64

    frame = log()
    found = numbers(
        split_source(RatioSplit(by="ratio", key="user", valid=0.2, test=0.3, salt="pepper"), frame)
    )
    expected: dict[str, list[int]] = {part: [] for part in PARTS}
    for number, user in frame.select("n", "user").iter_rows():
        value = share(user)
        expected["test" if value < 0.3 else "valid" if value < 0.5 else "train"].append(number)
    assert found == expected


@pytest.mark.parametrize("key", ["user", "name", "maybe", "at", ("user", "name"), ("day", "maybe")])
def test_ratio_split_is_the_same_for_every_input(tmp_path: Path, key: str | tuple[str, ...]) -> None:
    frame = log()
    frame.write_parquet(tmp_path / "log.parquet", row_group_size=37)
    split = RatioSplit(by="ratio", key=key, valid=0.3, test=0.3)
    found = numbers(split_source(split, tmp_path / "log.parquet"))
    assert sorted(number for rows in found.values() for number in rows) == list(range(ROWS))
    assert all(rows == sorted(rows) for rows in found.values())
    for table in (frame, frame.lazy(), frame.to_arrow(), frame.to_pandas()):
        assert numbers(split_source(split, table)) == found
    narrow = frame.with_columns(pl.col("user", "maybe").cast(pl.Int16))
    assert numbers(split_source(split, narrow)) == found


def test_a_rows_part_does_not_change_as_the_log_grows() -> None:
    frame = log()
    split = RatioSplit(by="ratio", key="user")
    before = numbers(split_source(split, frame.head(500)))
    after = numbers(split_source(split, frame))
    assert all(before[part] == [number for number in after[part] if number < 500] for part in PARTS)
    other = numbers(split_source(RatioSplit(by="ratio", key="user", salt="x"), frame))
    assert other != after


def test_shares_are_close_to_those_asked_for() -> None:
    hashed = hash_keys([pl.Series(range(200_000))], "")
    assert abs((hashed < np.uint64(int(0.1 * 2**64))).mean() - 0.1) < 0.003
    assert len(np.unique(hashed)) == 200_000


@pytest.mark.parametrize(
    ("split", "error", "message"),
    [
        (RatioSplit(by="ratio", key="usr"), SchemaError, "split.key.: no column 'usr'; did you"),
        (RatioSplit(by="ratio", key="user", valid=0.5, test=0.5), ConfigError, "leave nothing to train on"),
        (RatioSplit(by="ratio", key=()), ConfigError, "name at least one column"),
        (RatioSplit(by="ratio", key="one"), DataError, "leaves no .* too few different values of one"),
        (RatioSplit(by="ratio", key="list"), SchemaError, "'list' is a list of int64; it cannot be hashed"),
    ],
)
def test_ratio_splits_that_cannot_be(split: RatioSplit, error: type[Exception], message: str) -> None:
    frame = log().with_columns(one=pl.lit(1), list=pl.concat_list("n"))
    with pytest.raises(error, match=message):
        split_source(split, frame).rows("train")


def test_a_share_of_zero_leaves_its_part_empty() -> None:
    parts = split_source(RatioSplit(by="ratio", key="user", valid=0, test=0.5), log())
    assert parts.rows("valid") == 0
    assert parts.lazy("valid").collect().shape == (0, 9)


def test_without_a_rule_every_row_trains() -> None:
    parts = split_source(None, log())
    assert parts.rows("train") == ROWS
    assert parts.lazy("test").collect().schema == log().lazy().select(pl.all()).collect_schema() | {
        "date": pl.Datetime("us")
    }
    assert parts.source("valid").rows() == 0
    with pytest.raises(ConfigError, match="no part 'tets'"):
        parts.lazy("tets")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="no data"):
        split_source(None, None)


def write_parts(folder: Path, **frames: pl.DataFrame) -> FilesSplit:
    for part, frame in frames.items():
        frame.write_parquet(folder / f"{part}.parquet")
    return FilesSplit(by="files", train="train.parquet", valid="valid.parquet", test="test.parquet")


def test_given_files_are_the_parts(tmp_path: Path) -> None:
    frame = log()
    columns = list(reversed(frame.columns))
    split = write_parts(
        tmp_path,
        train=frame.slice(0, 600),
        valid=frame.slice(600, 200).select(columns),
        test=frame.slice(800, 200).with_columns(pl.col("n").cast(pl.Int16)),
    )
    parts = split_source(split, None, tmp_path)
    found = numbers(parts)
    assert [len(found[part]) for part in PARTS] == [600, 200, 200]
    assert parts.lazy("valid").collect().columns == frame.columns
    assert parts.lazy("test").collect().schema["n"] == pl.Int64
    assert parts.all().collect()["n"].to_list() == list(range(ROWS))
    assert len(parts.fingerprints()) == 3
    assert parts.source("valid").locate(5).endswith("valid.parquet, row 5")
    assert parts.whole.locate(605).endswith("valid.parquet, row 5")


def test_given_files_that_cannot_be(tmp_path: Path) -> None:
    frame = log()
    split = write_parts(tmp_path, train=frame, valid=frame, test=frame.drop("user"))
    with pytest.raises(SchemaError, match=r"test.parquet: no column 'user', which .*train.parquet has"):
        split_source(split, None, tmp_path)
    with pytest.raises(ConfigError, match="'files' names the rows itself"):
        split_source(split, frame)
    same = split.model_copy(update={"test": "valid.parquet"})
    with pytest.raises(DataError, match=r"valid.parquet: stands in both split.valid and split.test"):
        split_source(same, None, tmp_path)
    with pytest.raises(DataError, match=r"did you mean 'test\.parquet'"):
        split_source(split.model_copy(update={"test": "tset.parquet"}), None, tmp_path)


def test_dates_may_stand_unquoted_in_yaml() -> None:
    split = TimeSplit.model_validate(
        {"by": "time", "column": "at", "valid_from": datetime.date(2026, 1, 9), "test_from": "2026-01-11"}
    )
    assert split.valid_from == "2026-01-09"


def test_a_bad_value_in_a_part_is_found_at_its_row_of_the_file() -> None:
    from recsys.data.check import check_label

    frame = log().with_columns(y=pl.when(pl.col("n") == 950).then(2).otherwise(pl.col("n") % 2))
    source = split_source(time_split("day", 8, 10), frame).source("test")
    with pytest.raises(DataError, match=r"row 950: label 'y'"):
        check_label(source.lazy(), "y", source.name, source)


def test_reading_footers_is_all_that_opening_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log().write_parquet(tmp_path / "log.parquet")
    parts = split_source(RatioSplit(by="ratio", key="user"), tmp_path / "log.parquet")

    def fail(*args: object, **kwargs: object) -> None:
        raise AssertionError("rows were read")

    monkeypatch.setattr(pl.LazyFrame, "collect", fail)
    assert len(parts.fingerprints()) == 1
    with pytest.raises(AssertionError, match="rows were read"):
        parts.lazy("train")
