"""Ids that callers and files give: none is taken for another, and what cannot be one is named."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from recsys.errors import DataError, RecsysError, RetrievalError, SchemaError
from recsys.retrieval import changes
from recsys.retrieval.build import index
from recsys.retrieval.index import Index
from tests.retrieval.made import made_index, made_queries, made_vectors

ROWS = 300


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Index:
    return made_index(tmp_path_factory.mktemp("made") / "index", rows=ROWS)


@pytest.mark.parametrize(
    ("ids", "found"),
    [
        ([1_007.5], "found 1007.5 (Float64)"),
        (np.array([1_007.0]), "found 1007.0 (Float64)"),
        ([True], "found True (Boolean)"),
        (["1007"], "found '1007' (String)"),
        ([1_007, True], "found [1007, True]"),
        ([[1_007]], "found [[1007]]"),
        ([1_007, "a"], "found [1007, 'a']"),
        ([2**200], "expected a list of integers"),
        ([2**64], f"no item {2**64}"),
        ([None], "no item None"),
        (1_007, "found 1007"),
        (None, "found None"),
        ("1007", "found '1007'"),
    ],
)
def test_what_is_no_id_finds_and_deletes_nothing(made: Index, ids: Any, found: str) -> None:
    for ask in (made.vectors, made.delete):
        with pytest.raises((DataError, RetrievalError), match=re.escape(found)) as refused:
            ask(ids)
        assert len(str(refused.value).splitlines()) == 1
    assert len(Index.open(made.folder)) == ROWS


def test_items_come_with_ids_of_the_kind_that_is_there(tmp_path: Path) -> None:
    plain = index(made_vectors(40), tmp_path / "index")
    given: list[Any] = [5, [1.5], [True], [[1]], [2**64], ["a"], None, {}, [1, "a"]]
    for ids in given:
        with pytest.raises(RecsysError, match=r"\bids?\b") as refused:
            plain.upsert(ids, made_vectors(1))
        assert len(str(refused.value).splitlines()) == 1
    assert len(Index.open(plain.folder)) == 40


def test_categories_are_text_ids(tmp_path: Path) -> None:
    names = [f"i{row}" for row in range(40)]
    plain = index(made_vectors(40), tmp_path / "index", ids=names)
    wanted = pl.Series("any", ["i3", "i1"], dtype=pl.Categorical)
    np.testing.assert_array_equal(plain.vectors(wanted), made_vectors(40)[[3, 1]])
    with pytest.raises(RetrievalError, match=r"expected string, .* found 3"):
        plain.vectors([3])


@pytest.mark.parametrize("dtype", [pl.Int32, pl.UInt64])
def test_ids_of_any_integer_type_are_found(made: Index, dtype: type[pl.DataType]) -> None:
    ids = pl.Series("any", [1_014, 1_000], dtype=dtype)
    np.testing.assert_array_equal(made.vectors(ids), made.vectors([1_014, 1_000]))


@pytest.mark.parametrize(
    ("ids", "error", "message"),
    [
        ([1_007.5], SchemaError, "gone.parquet: ids in column 'item_id' are Float64"),
        ([True], SchemaError, "gone.parquet: ids in column 'item_id' are Boolean"),
        (["1007"], RetrievalError, "gone.parquet, column 'item_id': expected int64, .* found '1007'"),
        ([1_007, None], DataError, "gone.parquet, row 1: the id in column 'item_id' is missing"),
    ],
)
def test_a_file_of_what_is_no_id_deletes_nothing(
    made: Index, tmp_path: Path, ids: list[Any], error: type[RecsysError], message: str
) -> None:
    pl.DataFrame({"item_id": ids}).write_parquet(tmp_path / "gone.parquet")
    with pytest.raises(error, match=message):
        changes.delete(made.folder, tmp_path / "gone.parquet")
    assert len(Index.open(made.folder)) == ROWS


QUERIES = made_queries(2)


@pytest.mark.parametrize("kind", ["arrays", "ragged arrays", "matrix", "column", "fixed", "mixed"])
def test_lists_of_excluded_ids_may_be_of_any_kind(made: Index, kind: str) -> None:
    plain = made.search(QUERIES, 3).ids.to_list()
    lists: list[list[int]] = [plain[0], plain[1]]
    given: dict[str, Any] = {
        "arrays": [np.array(each) for each in lists],
        "ragged arrays": [np.array(lists[0]), np.array([])],
        "matrix": np.array(lists),
        "column": pl.Series(lists),
        "fixed": pl.Series(lists, dtype=pl.Array(pl.Int64, 3)),
        "mixed": [tuple(lists[0]), None],
    }
    if kind in ("ragged arrays", "mixed"):
        lists[1] = []
    found = made.search(QUERIES, 3, exclude=given[kind]).ids.to_list()
    assert found == made.search(QUERIES, 3, exclude=lists).ids.to_list()
    for answers, excluded in zip(found, lists, strict=True):
        assert not set(answers) & set(excluded)


@pytest.mark.parametrize(
    ("exclude", "message"),
    [
        ([[1], ["a"]], "exclude: expected a list of integers or of text"),
        ([1, "a"], "exclude: expected a list of integers or of text"),
        ([[1_000], [1_007.5]], "exclude: expected a list of integers or of text"),
        ([[1], 2], "exclude: expected ids, or a list of ids for each query"),
        ([[1]], "1 lists for 2 queries"),
        (5, "exclude: expected a list of integers or of text, found 5"),
        (pl.Series("seen", [["a"], ["b"]]), "exclude, column 'seen': expected int64, .* found 'a'"),
        ([[1.5], [2.5]], "exclude: expected int64, .* found 1.5"),
    ],
)
def test_excluded_ids_that_are_none_are_named(made: Index, exclude: Any, message: str) -> None:
    with pytest.raises(RecsysError, match=message) as refused:
        made.search(QUERIES, 3, exclude=exclude)
    assert len(str(refused.value).splitlines()) == 1
