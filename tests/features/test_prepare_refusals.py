"""What prepare refuses: each error names column, row and value, and leaves nothing half-written."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq
import pytest

from recsys.config import TimeSplit
from recsys.data.dataset import Dataset
from recsys.errors import ConfigError, DataError, RecsysError, SchemaError
from recsys.features.encoder import Encoder
from recsys.features.prepare import prepare
from recsys.schema import Column, Schema

FRAME = pl.DataFrame(
    {
        "y": [0, 1, 0, 1],
        "w": [1.0, 2.0, 0.5, 1.0],
        "c": [1, 2, 3, None],
        "s": [[1, 2], [3], [], [4]],
        "t": [["a", "b"], ["c"], [], ["d"]],
        "n": [0.5, 1.5, None, 2.0],
    }
)
COLUMNS: dict[str, Column] = {
    "y": Column(kind="numeric", type="int64", roles=("label",)),
    "w": Column(kind="numeric", type="float64", roles=("weight",)),
    "c": Column(kind="categorical", type="int64"),
    "s": Column(kind="sequence", type="int64"),
    "t": Column(kind="sequence", type="string", aligned_with="s"),
    "n": Column(kind="numeric", type="float64"),
}

Change = Callable[[], dict[str, Any]]


def column(name: str, **changes: Any) -> dict[str, Any]:
    """The schema with one column changed."""
    changed = Column.model_validate(COLUMNS[name].model_dump() | changes)
    return {"schema": Schema(columns=COLUMNS | {name: changed})}


def values(**columns: list[Any]) -> dict[str, Any]:
    """The rows with some columns replaced."""
    return {"data": FRAME.with_columns(**{name: pl.Series(v) for name, v in columns.items()})}


CASES: dict[str, tuple[Change, type[RecsysError], str]] = {
    "value of another type": (
        lambda: values(c=[1.0, 2.0, 2.5, None]),
        SchemaError,
        r"row 2: column 'c': expected int64, found 2\.5",
    ),
    "id beyond int64": (
        lambda: {"data": FRAME.with_columns(c=pl.Series([1, 2**63, 3, 4], dtype=pl.UInt64))},
        SchemaError,
        r"row 1: column 'c': expected int64, found 9223372036854775808",
    ),
    "text that is no number": (
        lambda: values(n=["1", "2", "x", None]),
        SchemaError,
        r"row 2: column 'n': expected float64, found 'x'",
    ),
    "element of another type": (
        lambda: values(s=[[1.0, 2.0], [3.5], [], [4.0]]),
        SchemaError,
        r"row 1: column 's': expected int64, found \[3\.5\]",
    ),
    "list where a scalar was declared": (
        lambda: values(c=[[1], [2], [3], [4]]),
        SchemaError,
        r"'c': the schema declares categorical \(one value per row\), found list of",
    ),
    "scalar where a list was declared": (
        lambda: values(s=[1, 2, 3, 4]),
        SchemaError,
        "'s': the schema decl",
    ),
    "missing column": (
        lambda: {"data": FRAME.rename({"c": "cc"})},
        SchemaError,
        "no column 'c'; did you mean 'cc'",
    ),
    "lengths of aligned sequences": (
        lambda: values(t=[["a", "b"], ["c", "c"], [], ["d"]]),
        SchemaError,
        "row 1: column 't' is declared aligned_with 's', but its list of 2 values",
    ),
    "label of 2": (lambda: values(y=[0, 1, 2, 1]), DataError, "row 2: label 'y' must be 0 or 1"),
    "no label": (lambda: values(y=[0, 1, None, 1]), DataError, "row 2: label 'y' must be 0 or 1"),
    "one class": (lambda: values(y=[1, 1, 1, 1]), DataError, "label 'y' holds only 1 in all 4 rows"),
    "one class in train": (
        lambda: {
            "split": TimeSplit(by="time", column="w", valid_from=0.9, test_from=1.5),
            **values(y=[1, 1, 0, 0], w=[1.0, 2.0, 0.5, 0.6]),
        },
        DataError,
        r"train rows\): label 'y' holds only 0 in all 2 rows",
    ),
    "negative weight": (
        lambda: values(w=[1.0, -2.0, 1.0, 1.0]),
        DataError,
        r"row 1: weight 'w' must be a number from 0 to 1,000,000,000 .* found -2\.0",
    ),
    "weight beyond float32": (lambda: values(w=[1.0, 1.0, 1e308, 1.0]), DataError, "row 2: weight 'w'"),
    "weight of NaN": (lambda: values(w=[1.0, 2.0, 1.0, float("nan")]), DataError, "row 3: weight 'w'"),
    "no weight": (lambda: values(w=[1.0, 2.0, None, 1.0]), DataError, "row 2: weight 'w'.* found None"),
    "nothing but null": (
        lambda: {
            "data": pl.DataFrame({"y": [0, 1], "c": [None, None]}),
            "schema": Schema(columns={name: COLUMNS[name] for name in ("y", "c")}),
        },
        SchemaError,
        "no feature has any value in the train rows",
    ),
    "no rows": (lambda: {"data": FRAME.clear()}, DataError, "no rows"),
    "no label in the schema": (lambda: column("y", roles=()), SchemaError, "declares no label"),
    "label as feature": (
        lambda: column("y", roles=("label", "feature")),
        SchemaError,
        "'y' is label and feature at once",
    ),
    "types in one vocabulary": (
        lambda: column("t", vocabulary="s"),
        SchemaError,
        r"columns 's' \(int64\) and 't' \(string\) share the vocabulary 's'",
    ),
    "lengths of aligned columns": (
        lambda: {
            "schema": Schema(
                columns=COLUMNS
                | {
                    name: COLUMNS[name].model_copy(update={"max_length": n})
                    for n, name in ((3, "s"), (5, "t"))
                }
            )
        },
        SchemaError,
        r"'t' \(max_length 5\) and 's' \(max_length 3\) are aligned",
    ),
    "list as group": (
        lambda: column("s", roles=("group",)),
        SchemaError,
        "'s' is a list; group and weight",
    ),
    "unknown kept feature": (lambda: {"keep": ["c", "m"]}, SchemaError, "keep: no feature 'm'"),
    "label kept": (lambda: {"keep": ["y"]}, SchemaError, "keep: no feature 'y'"),
    "min_count of 0": (lambda: {"min_count": 0}, ConfigError, "min_count: expected at least 1, found 0"),
}


@pytest.mark.parametrize("case", CASES)
def test_each_fault_is_named_and_nothing_is_written(case: str, tmp_path: Path) -> None:
    change, error, message = CASES[case]
    output = tmp_path / "out" / "dataset"
    asked: dict[str, Any] = {"data": FRAME, "schema": Schema(columns=COLUMNS)} | change()
    with pytest.raises(error, match=message):
        prepare(asked.pop("data"), asked.pop("schema"), output, **asked)
    assert not (tmp_path / "out").exists() or not any((tmp_path / "out").iterdir())


def test_the_unchanged_case_passes(tmp_path: Path) -> None:
    made = prepare(FRAME, Schema(columns=COLUMNS), tmp_path / "dataset")
    assert made.manifest.rows["train"] == 4


def test_a_fault_names_file_and_row_of_that_file(tmp_path: Path) -> None:
    FRAME.write_parquet(tmp_path / "a.parquet")
    FRAME.with_columns(y=pl.Series([0, 1, 7, 0])).write_parquet(tmp_path / "b.parquet")
    with pytest.raises(DataError, match=r"b\.parquet, row 2: label 'y' must be 0 or 1"):
        prepare(tmp_path / "*.parquet", Schema(columns=COLUMNS), tmp_path / "dataset")


def test_a_full_disk_leaves_the_old_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = prepare(FRAME, Schema(columns=COLUMNS), tmp_path / "dataset")

    def full(*arguments: object, **settings: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pq.ParquetWriter, "write_table", full)
    with pytest.raises(DataError, match="dataset: cannot be written: No space left"):
        prepare(FRAME[:2], Schema(columns=COLUMNS), tmp_path / "dataset")
    assert Dataset.load(tmp_path / "dataset") == made
    assert [path.name for path in tmp_path.iterdir()] == ["dataset"]


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    pl.concat([FRAME] * 3000).write_parquet(path, compression="uncompressed")
    whole = path.read_bytes()
    path.write_bytes(whole[:100] + bytes(len(whole) // 3) + whole[100 + len(whole) // 3 :])
    with pytest.raises(DataError, match=r"log\.parquet: cannot be read, it may be truncated or damaged"):
        prepare(path, Schema(columns=COLUMNS), tmp_path / "dataset")


def test_a_folder_that_is_no_dataset_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    FRAME.write_parquet(tmp_path / "logs" / "log.parquet")
    for output in (tmp_path / "logs", tmp_path, tmp_path / "logs" / "log.parquet"):
        with pytest.raises(DataError, match=r"does not replace it|expected a folder to write"):
            prepare(tmp_path / "logs", Schema(columns=COLUMNS), output)
    assert (tmp_path / "logs" / "log.parquet").exists()


def test_new_rows_that_do_not_fit(tmp_path: Path) -> None:
    prepare(FRAME, Schema(columns=COLUMNS), tmp_path / "dataset")
    encoder = Encoder.load(tmp_path / "dataset")
    with pytest.raises(SchemaError, match="no column 'c'"):
        encoder.encode(FRAME.drop("c"))
    with pytest.raises(SchemaError, match=r"row 0: column 'c': expected int64, found 'one'"):
        encoder.encode(FRAME.with_columns(c=pl.lit("one")))
    with pytest.raises(DataError, match="no vocabulary 'cc': did you mean 'c'"):
        encoder.raw_values("cc")


def test_a_damaged_dataset_is_named(tmp_path: Path) -> None:
    made = prepare(FRAME, Schema(columns=COLUMNS), tmp_path / "dataset")
    made.values("c")[:1].write_parquet(made.vocabulary("c"))
    with pytest.raises(DataError, match=r"c\.parquet: expected 3 values, found 1; redo"):
        Encoder.load(made)
    made.vocabulary("c").write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"c\.parquet: not a readable vocabulary"):
        made.values("c")
    with pytest.raises(DataError, match="no vocabulary 'd'"):
        made.vocabulary_info("d")
    with pytest.raises(DataError, match="not a prepared dataset"):
        Encoder.load(tmp_path)
