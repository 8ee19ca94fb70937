"""Several files that are one table, and files of the wrong kind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recsys.errors import DataError, SchemaError
from recsys.retrieval import changes
from recsys.retrieval.build import index
from tests.retrieval.made import made_index, made_vectors

VECTORS = made_vectors(40)


def part(first: int, **columns: object) -> pl.DataFrame:
    made = {
        "item_id": np.arange(first, first + 20),
        "price": np.arange(20) / 2,
        "vector": VECTORS[first : first + 20].tolist(),
    }
    return pl.DataFrame(made | columns)


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (part(20).drop("vector"), "b.parquet: no column 'vector'"),
        (part(20).drop("price"), "b.parquet: no column 'price'"),
        (
            part(20, vector=np.arange(20)),
            "b.parquet: column 'vector': expected lists of numbers, found int64",
        ),
        (
            part(20, vector=[["x"]] * 20),
            "b.parquet: column 'vector': expected lists of numbers, found list of",
        ),
        (
            part(20, item_id=[f"i{row}" for row in range(20)]),
            "b.parquet: column 'item_id' holds text, in the files before it int64",
        ),
        (
            part(20, price=["x"] * 20),
            "b.parquet: column 'price' holds text, in the files before it float64",
        ),
    ],
)
def test_a_file_that_differs_is_named(tmp_path: Path, second: pl.DataFrame, message: str) -> None:
    folder = tmp_path / "items"
    folder.mkdir()
    part(0).write_parquet(folder / "a.parquet")
    second.write_parquet(folder / "b.parquet")
    with pytest.raises(SchemaError, match=message):
        index(folder, tmp_path / "index", attributes=["price"])
    assert not (tmp_path / "index").exists()


@pytest.mark.parametrize("beside", [False, True])
def test_numbers_of_several_types_are_one_column(tmp_path: Path, beside: bool) -> None:
    folder = tmp_path / "items"
    folder.mkdir()
    part(0, price=np.arange(20)).write_parquet(folder / "a.parquet")
    second = part(20, item_id=np.arange(20, 40, dtype=np.int32)).select("vector", "price", "item_id")
    second.with_columns(pl.col("vector").list.to_array(16)).write_parquet(folder / "b.parquet")
    if beside:
        made = index(VECTORS, tmp_path / "index", ids=folder, attributes=["price"])
    else:
        made = index(folder, tmp_path / "index", attributes=["price"])
    items = pl.read_parquet(tmp_path / "index" / "version-000001" / "items.parquet")
    assert items["item_id"].to_list() == list(range(40))
    assert items["price"].to_list() == [*range(20), *(np.arange(20) / 2)]
    np.testing.assert_array_equal(made.vectors(list(range(40))), VECTORS)


def test_csv_is_said_to_be_none_of_these(tmp_path: Path) -> None:
    (tmp_path / "ids.csv").write_text("item_id\n1000\n")
    made = made_index(tmp_path / "index", rows=40)
    asks = (
        lambda: index(VECTORS, tmp_path / "new", ids=tmp_path / "ids.csv"),
        lambda: index(tmp_path / "ids.csv", tmp_path / "new"),
        lambda: changes.delete(made.folder, tmp_path / "ids.csv"),
    )
    for ask in asks:
        with pytest.raises(DataError, match=r"ids.csv: expected Parquet, found CSV"):
            ask()
