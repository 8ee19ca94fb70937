"""Queries of several vectors each, from Parquet: an item counts with its best interest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recsys.errors import DataError, SchemaError
from recsys.retrieval.batch import Asked, search
from recsys.retrieval.build import index
from recsys.retrieval.index import Index
from recsys.retrieval.sources import open_vectors
from tests.retrieval.made import made_queries, made_vectors

VECTORS = made_vectors(300)
QUERIES = made_queries(40)
COUNTS = [1, 3, 2, 9, 1, 1, 20, 3]
INTERESTS = [part.tolist() for part in np.split(QUERIES, np.cumsum(COUNTS)[:-1])]


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Index:
    return index(VECTORS, tmp_path_factory.mktemp("index") / "index")


def answers(opened: Index, folder: Path, queries: pl.DataFrame, asked: Asked) -> pl.DataFrame:
    queries.write_parquet(folder / "queries.parquet", row_group_size=3)
    return pl.read_parquet(
        search(opened, folder / "queries.parquet", folder / "answers.parquet", asked=asked)
    )


def test_an_item_counts_with_its_best_interest(opened: Index, tmp_path: Path) -> None:
    seen = [[row, row + 1] if row % 2 else None for row in range(8)]
    queries = pl.DataFrame({"user_id": np.arange(8) + 70, "vector": INTERESTS, "seen": seen})
    found = answers(opened, tmp_path, queries, Asked(5, exclude_column="seen"))
    assert found["user_id"].to_list() == queries["user_id"].to_list()
    for row, interests in enumerate(INTERESTS):
        scores = (np.array(interests) @ VECTORS.T.astype(np.float64)).max(axis=0)
        scores[seen[row] or []] = -np.inf
        best = np.argsort(-scores)[:5]
        assert found["ids"][row].to_list() == best.tolist()
        np.testing.assert_allclose(found["scores"][row].to_numpy(), scores[best], rtol=1e-5)


@pytest.mark.parametrize("kind", ["lists", "arrays of arrays", "lists of arrays", "one vector"])
def test_lists_of_any_kind_give_the_answers_of_python(opened: Index, tmp_path: Path, kind: str) -> None:
    vectors = pl.Series("vector", QUERIES.reshape(10, 4, -1).tolist(), pl.List(pl.List(pl.Float32)))
    asked = QUERIES.reshape(10, 4, -1)
    if kind == "one vector":
        vectors, asked = vectors.list.first(), asked[:, 0]
    elif kind == "arrays of arrays":
        vectors = vectors.cast(pl.Array(pl.Array(pl.Float32, 16), 4))
    elif kind == "lists of arrays":
        vectors = vectors.cast(pl.List(pl.Array(pl.Float32, 16)))
    found = answers(opened, tmp_path, pl.DataFrame([vectors]), Asked(7))
    right = opened.search(asked, 7)
    assert found["id"].to_list() == list(range(10))
    assert found["ids"].to_list() == right.ids.to_list()
    assert found["scores"].to_list() == right.scores.to_list()


def test_a_row_of_many_interests_does_not_swell_the_others(tmp_path: Path) -> None:
    pl.DataFrame({"vector": INTERESTS}).write_parquet(tmp_path / "queries.parquet")
    source = open_vectors(tmp_path / "queries.parquet", need_ids=False, interests=True)
    chunks = list(source.chunks(1))
    assert [len(chunk.vectors) for chunk in chunks] == [1] * 8
    chunks = list(source.chunks(8))  # has room for 64 interests, and eight times twenty are more
    assert [chunk.vectors.shape[:2] for chunk in chunks] == [(4, 9), (2, 1), (2, 20)]
    assert [row for chunk in chunks for row in chunk.items["id"]] == list(range(8))


def spoilt(row: int, value: object) -> pl.DataFrame:
    rows: list[object] = list(INTERESTS)
    rows[row] = value
    return pl.DataFrame({"wishes": pl.Series(rows, dtype=pl.List(pl.List(pl.Float64)))})


@pytest.mark.parametrize(
    ("queries", "message"),
    [
        (
            spoilt(3, [[1.0] * 16, [1.0] * 15]),
            r"queries.parquet, row 3, column 'wishes': a vector of 15 numbers, expected 16",
        ),
        (spoilt(6, [[1.0] * 16, None]), "row 6, column 'wishes': the vector is missing"),
        (spoilt(4, []), r"queries.parquet, row 4, column 'wishes': a list without vectors, .*at least one"),
        (spoilt(0, None), "row 0, column 'wishes': a list without vectors"),
        (
            spoilt(7, [[1.0] * 16, [1.0] * 9 + [float("nan")] + [1.0] * 6]),
            r"queries.parquet, row 7, column 'wishes': number 9 of vector 1 is nan",
        ),
        (pl.DataFrame({"wishes": [[[]], [[]]]}, {"wishes": pl.List(pl.List(pl.Float32))}), "no vectors"),
    ],
)
def test_rows_that_are_no_interests_are_named(
    opened: Index, tmp_path: Path, queries: pl.DataFrame, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        answers(opened, tmp_path, queries, Asked(3))
    assert not (tmp_path / "answers.parquet").exists()


def test_items_have_one_vector_each(tmp_path: Path) -> None:
    pl.DataFrame({"id": np.arange(8), "vector": INTERESTS}).write_parquet(tmp_path / "items.parquet")
    with pytest.raises(SchemaError, match="expected one column of vectors, found none"):
        index(tmp_path / "items.parquet", tmp_path / "index")
