"""Opening a log: the same rows whatever names them, and errors that say which file and why."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recsys.data.source import Source, open_source
from recsys.errors import ConfigError, DataError, SchemaError

FRAME = pl.DataFrame(
    {
        "clicked": [0, 1, 1, 0, 1, 0],
        "user": ["a", "b", None, "a", "ü", ""],
        "price": [1.5, None, 3.0, 4.0, 5.25, 6.0],
        "tags": [["x", "y"], [], None, ["z"], ["x"], ["y"]],
        "item": pl.Series([5, 2**40, None, 7, 5, 1], dtype=pl.Int64),
    }
)


def rows(source: Source) -> pl.DataFrame:
    return source.lazy().collect(engine="streaming")


@pytest.fixture
def hive(tmp_path: Path) -> Path:
    """Three files in partitions, with things beside them that are no data."""
    folder = tmp_path / "log"
    for index, (day, hour) in enumerate([("2026-01-01", "03"), ("2026-01-01", "10"), ("2026-01-02", "03")]):
        part = folder / f"dt={day}" / f"hour={hour}"
        part.mkdir(parents=True)
        FRAME.slice(2 * index, 2).write_parquet(part / "part[0].parquet")
    (folder / "_SUCCESS").write_text("")
    (folder / "README.md").write_text("no data")
    (folder / ".part.parquet.crc").write_text("x")
    (folder / "_temporary").mkdir()
    (folder / "_temporary" / "half.parquet").write_bytes(b"PAR1")
    return folder


def test_in_memory_tables_equal_the_file(tmp_path: Path) -> None:
    FRAME.write_parquet(tmp_path / "log.parquet")
    expected = rows(open_source(tmp_path / "log.parquet"))
    assert expected.equals(FRAME)
    for table in (FRAME, FRAME.lazy(), FRAME.to_arrow()):
        assert rows(open_source(table)).equals(expected)
    pandas = open_source(FRAME.to_pandas())
    assert rows(pandas).drop("item").equals(expected.drop("item"))
    assert rows(pandas)["item"].cast(pl.Int64).equals(expected["item"])
    assert pandas.files == []
    assert pandas.fingerprints() == {}
    assert pandas.rows() == 6


def test_folder_glob_list_and_file_give_the_same_partitions(hive: Path) -> None:
    by_folder = open_source(hive)
    assert by_folder.columns["dt"] == pl.String
    assert rows(by_folder)["hour"].to_list() == ["03", "03", "10", "10", "03", "03"]
    assert rows(by_folder).drop("dt", "hour").equals(FRAME)
    files = sorted(hive.glob("dt=*/*/*.parquet"))
    same = [
        open_source(f"{hive}/dt=*/hour=*/*.parquet"),
        open_source(f"{hive}/**/*.parquet"),
        open_source(f"{hive}/dt=*"),
        open_source(list(reversed(files))),
        open_source("log", root=hive.parent),
        open_source("log/dt=*", root=hive.parent),
    ]
    for source in same:
        assert rows(source).equals(rows(by_folder))
        assert source.fingerprints() == by_folder.fingerprints()
    singles = [rows(open_source(file)) for file in files]
    assert pl.concat(singles).equals(rows(by_folder))


def test_partition_values_are_decoded_text(tmp_path: Path) -> None:
    for value in ("a%3Ab", "x=y", "__HIVE_DEFAULT_PARTITION__", "ü"):
        part = tmp_path / f"k={value}"
        part.mkdir()
        pl.DataFrame({"a": [value], "k": [1]}).write_parquet(part / "f.parquet")
    found = rows(open_source(tmp_path))
    decoded = {"a%3Ab": "a:b", "x=y": "x=y", "__HIVE_DEFAULT_PARTITION__": None, "ü": "ü"}
    assert dict(found.select("a", "k").iter_rows()) == decoded


def test_many_partitions_keep_their_order(tmp_path: Path) -> None:
    count = 700  # beyond the number of scans that polars takes in one query without a warning
    for day in range(count):
        part = tmp_path / f"day={day:04}"
        part.mkdir()
        pl.DataFrame({"a": [2 * day, 2 * day + 1]}).write_parquet(part / "f.parquet")
    found = rows(open_source(tmp_path))
    assert found["a"].to_list() == list(range(2 * count))
    assert found["day"].to_list() == [f"{day:04}" for day in range(count) for _ in range(2)]


def test_order_of_rows_is_stable_when_streamed(tmp_path: Path) -> None:
    frame = pl.DataFrame({"n": np.arange(600_000)})
    for index in range(3):
        frame.slice(200_000 * index, 200_000).write_parquet(
            tmp_path / f"{index}.parquet", row_group_size=9_000
        )
    kept = open_source(tmp_path).lazy().filter(pl.col("n") % 3 == 0).collect(engine="streaming")
    assert kept["n"].to_list() == list(range(0, 600_000, 3))


def test_safe_widening_across_files(tmp_path: Path) -> None:
    pl.DataFrame({"a": pl.Series([1], dtype=pl.Int32), "b": [None], "c": [[1]]}).write_parquet(
        tmp_path / "1.parquet"
    )
    pl.DataFrame(
        {"c": [[]], "b": ["x"], "a": [2**40]}, schema_overrides={"c": pl.List(pl.Null)}
    ).write_parquet(tmp_path / "2.parquet")
    pl.DataFrame({"a": pl.Series([3], dtype=pl.UInt8), "b": ["y"], "c": [[2]]}).write_parquet(
        tmp_path / "3.parquet"
    )
    found = rows(open_source(tmp_path))
    assert found.to_dict(as_series=False) == {
        "a": [1, 2**40, 3],
        "b": [None, "x", "y"],
        "c": [[1], [], [2]],
    }
    assert found.schema == {"a": pl.Int64, "b": pl.String, "c": pl.List(pl.Int64)}


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ({"a": [1]}, "2.parquet: no column 'b'"),
        ({"a": [1], "b": [1], "c": [1]}, "2.parquet: column 'c' is not in .*1.parquet"),
        ({"a": ["x"], "b": [1]}, "2.parquet: column 'a': found text, expected int64 as in .*1.parquet"),
        ({"a": [[1]], "b": [1]}, "2.parquet: column 'a': found list of int64"),
        ({"a": [1.5], "b": [1]}, "2.parquet: column 'a': found float64"),
    ],
)
def test_files_that_disagree_are_named(tmp_path: Path, second: dict, message: str) -> None:
    pl.DataFrame({"a": [1], "b": [1]}).write_parquet(tmp_path / "1.parquet")
    pl.DataFrame(second).write_parquet(tmp_path / "2.parquet")
    with pytest.raises(SchemaError, match=message):
        open_source(tmp_path)


def test_partition_keys_must_agree(tmp_path: Path) -> None:
    (tmp_path / "dt=1").mkdir()
    FRAME.write_parquet(tmp_path / "dt=1" / "a.parquet")
    FRAME.write_parquet(tmp_path / "b.parquet")
    with pytest.raises(SchemaError, match="'dt' is in one path only"):
        open_source(tmp_path)


def test_locate_names_file_and_row(hive: Path) -> None:
    source = open_source(hive)
    assert source.locate(3).endswith("hour=10/part[0].parquet, row 1")
    assert open_source(FRAME).locate(3) == "in-memory polars DataFrame, row 3"


def test_unusable_paths_and_files_are_named(tmp_path: Path) -> None:
    FRAME.write_parquet(tmp_path / "train.parquet")
    whole = (tmp_path / "train.parquet").read_bytes()
    (tmp_path / "cut.parquet").write_bytes(whole[:-20])
    (tmp_path / "zero.parquet").write_bytes(b"")
    (tmp_path / "nothing").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "empty").mkdir()
    FRAME.head(0).write_parquet(tmp_path / "headless.parquet")
    cases = [
        ("trian.parquet", "did you mean 'train.parquet'"),
        ("empty", "empty: no Parquet or CSV file in this folder"),
        ("*.orc", "no Parquet or CSV file matches"),
        ("cut.parquet", "cut.parquet: not a readable Parquet file, it may be truncated"),
        ("zero.parquet", r"zero.parquet: the file is empty \(0 bytes\)"),
        ("nothing", r"nothing: the file is empty \(0 bytes\)"),
        ("notes.txt", "notes.txt: neither a Parquet file nor"),
        ("headless.parquet", "headless.parquet: no rows in the file"),
        ("s3://bucket/log", "only local files"),
        ("no/such/folder", "no such file or folder"),
    ]
    for path, message in cases:
        with pytest.raises(DataError, match=message):
            open_source(path, root=tmp_path)
    with pytest.raises(DataError, match=r"train.parquet: named twice"):
        open_source([tmp_path / "train.parquet", tmp_path / "t*.parquet"])
    with pytest.raises(DataError, match="empty list"):
        open_source([])
    with pytest.raises(DataError, match="no rows"):
        open_source(FRAME.head(0))
    with pytest.raises(ConfigError, match="cannot read a builtins dict"):
        open_source({"a": 1})  # type: ignore[arg-type]


def test_an_empty_file_among_others_is_no_error(tmp_path: Path) -> None:
    FRAME.head(0).write_parquet(tmp_path / "0.parquet")
    FRAME.write_parquet(tmp_path / "1.parquet")
    assert rows(open_source(tmp_path)).equals(FRAME)


def test_damage_inside_a_file_is_named_when_it_is_read(tmp_path: Path) -> None:
    from recsys.data.check import reading

    for name in ("a", "b"):
        FRAME.write_parquet(tmp_path / f"{name}.parquet")
    damaged = bytearray((tmp_path / "b.parquet").read_bytes())
    damaged[10:60] = bytes(50)
    (tmp_path / "b.parquet").write_bytes(damaged)
    source = open_source(tmp_path)
    with pytest.raises(DataError, match=r"b\.parquet: cannot be read"), reading(source):
        source.lazy().collect()


def test_parquet_without_a_suffix_is_known_by_its_first_bytes(tmp_path: Path) -> None:
    FRAME.write_parquet(tmp_path / "000000_0")
    assert rows(open_source(tmp_path)).equals(FRAME)


CSV = """\
clicked,user,price,day,at
0,a,1,2026-01-01,2026-01-01 10:00:00
1,,2.5,2026-01-02,
1,"b,c",,2026-01-03,
"""


def test_csv_types_are_found_over_all_rows_of_all_files(tmp_path: Path) -> None:
    (tmp_path / "1.csv").write_text(CSV)
    (tmp_path / "2.csv.gz").write_bytes(gzip.compress(b"clicked,user,price,day,at\n0,7,,2026-01-04,\n"))
    source = open_source(tmp_path)
    assert source.columns == {
        "clicked": pl.Int64,
        "user": pl.String,
        "price": pl.Float64,
        "day": pl.Datetime("us"),
        "at": pl.Datetime("us"),
    }
    assert rows(source)["user"].to_list() == ["a", None, "b,c", "7"]
    assert rows(source)["price"].to_list() == [1.0, 2.5, None, None]
    assert source.locate(3).endswith("2.csv.gz, row 0")
    assert [file.name for file in source.files] == ["1.csv", "2.csv.gz"]


def test_csv_files_in_partitions_under_odd_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "we ird#%20?[x]~" / "log"
    for day in ("1", "2"):
        (folder / f"dt={day}").mkdir(parents=True)
        (folder / f"dt={day}" / "f.csv").write_text(f"a\n{day}\n")
    monkeypatch.chdir(folder)
    expected = [(1, "1"), (2, "2")]
    for spec in (".", "dt=*/f.csv", "../log/**/*.csv", ["../log/dt=2/f.csv", "dt=1/f.csv"], folder):
        assert rows(open_source(spec)).rows() == expected
    monkeypatch.chdir(folder / "dt=2")
    assert rows(open_source("f.csv")).rows() == [(2, "2")]


def test_one_late_value_makes_a_csv_column_text(tmp_path: Path) -> None:
    lines = "".join(f"{number}\n" for number in range(20_000))
    (tmp_path / "log.csv").write_text(f"a\n{lines}x\n")
    assert rows(open_source(tmp_path / "log.csv"))["a"].to_list()[-2:] == ["19999", "x"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"the file is empty \(0 bytes\)"),
        (b"a,b\n", "no rows"),
        (b"a,b\n1,2\n1,2,3\n", "not a readable CSV file"),
        (b"a,a\n1,2\n", "column 'a' stands twice"),
        (b"a\n\xff\xfe\n", "not a readable CSV file"),
    ],
)
def test_unusable_csv_files_are_named(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "log.csv").write_bytes(content)
    with pytest.raises(DataError, match=message) as raised:
        open_source(tmp_path / "log.csv")
    assert "log.csv" in str(raised.value)


def test_truncated_gzip_and_mixed_formats_are_named(tmp_path: Path) -> None:
    (tmp_path / "log.csv.gz").write_bytes(gzip.compress(CSV.encode() * 100)[:60])
    with pytest.raises(DataError, match=r"log.csv.gz: not a readable CSV"):
        open_source(tmp_path / "log.csv.gz")
    FRAME.write_parquet(tmp_path / "log.parquet")
    with pytest.raises(DataError, match="Parquet and CSV files are mixed"):
        open_source(tmp_path)


def test_a_full_disk_is_named_and_nothing_half_written_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "log.csv").write_text(CSV)
    temporary = tmp_path / "tmp"
    temporary.mkdir()

    def full(self: pl.LazyFrame, path: Path) -> None:
        path.write_bytes(b"half")
        raise pl.exceptions.ComputeError("underlying IO error: No space left on device (os error 28)")

    monkeypatch.setattr("recsys.data.conversion._folder", lambda: temporary)
    monkeypatch.setattr(pl.LazyFrame, "sink_parquet", full)
    with pytest.raises(
        DataError, match=r"log.csv: cannot be converted to Parquet in .*No space left.*TMPDIR"
    ):
        open_source(tmp_path / "log.csv")
    assert list(temporary.iterdir()) == []


def test_a_frame_of_unequal_pandas_objects_is_refused() -> None:
    pd = pytest.importorskip("pandas")
    with pytest.raises(DataError, match="in-memory pandas DataFrame: cannot be read"):
        open_source(pd.DataFrame({"a": [1, "x"]}))
