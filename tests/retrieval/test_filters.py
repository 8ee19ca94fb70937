"""Filters: what each of them keeps, and what cannot be one."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest

from recsys.errors import ConfigError
from recsys.retrieval.build import index
from recsys.retrieval.index import Index
from tests.retrieval.made import made_vectors

ROWS = 40
VECTORS = made_vectors(ROWS)
PRICE = pl.col("price")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Index:
    """Prices 0 to 19 in the base and 20 to 39 in the delta; three kinds of tags, or none."""
    items = pl.DataFrame(
        {
            "id": np.arange(ROWS),
            "price": np.arange(float(ROWS)),
            "name": [f"n{row % 4}" for row in range(ROWS)],
            "tags": [([], None, ["a"], ["a", "b"])[row % 4] for row in range(ROWS)],
        }
    )
    folder = tmp_path_factory.mktemp("filters") / "index"
    opened = index(VECTORS[:20], folder, ids=items[:20], attributes=["price", "name", "tags"])
    opened.upsert(items[20:], VECTORS[20:])
    return opened


def kept(made: Index, filter: Any) -> list[int]:
    return sorted(made.search(VECTORS[0], ROWS, filter=filter).ids[0].to_list())


@pytest.mark.parametrize(
    ("filter", "rows"),
    [
        ({"tags": ["a", "b"]}, [row for row in range(ROWS) if row % 4 > 1]),
        ({"tags": ["b", "c"]}, range(3, ROWS, 4)),
        ({"tags": "b"}, range(3, ROWS, 4)),
        ({"tags": ["x"]}, []),
        ({"tags": None}, range(1, ROWS, 4)),
        ({"price": [3, 30]}, [3, 30]),
        ({"name": "n1", "price": {"<": 6}}, [1, 5]),
        (PRICE.is_between(19, 20), [19, 20]),
        (pl.col("tags").list.len() > 1, range(3, ROWS, 4)),
        (pl.when(PRICE > 38).then(True).otherwise(pl.col("name").str.ends_with("9")), [39]),
        ("price > 38 OR name IS NULL", [39]),
    ],
)
def test_a_filter_keeps_what_it_says_in_base_and_delta(made: Index, filter: Any, rows: Any) -> None:
    assert kept(made, filter) == list(rows)


@pytest.mark.parametrize(
    "filter",
    [
        PRICE.max() == PRICE,
        "price = max(price)",
        PRICE.mean().over("name") < PRICE,
        PRICE.rank() < 3,
        PRICE.shift(1) > 3,
        PRICE.cum_sum() < 9,
        pl.col("name").is_first_distinct(),
        pl.int_range(pl.len()) < 3,
    ],
)
def test_a_filter_that_looks_at_other_items_is_refused(made: Index, filter: Any) -> None:
    with pytest.raises(ConfigError, match="filter: expected a condition on each item alone"):
        made.search(VECTORS[0], 3, filter=filter)


@pytest.mark.parametrize(
    ("filter", "message"),
    [
        (5, "filter: expected an SQL predicate, a polars expression or a mapping, found 5"),
        (["price"], r"found \['price'\]"),
        (
            {"price": ["x"]},
            r"column 'price' is Float64, and cannot be asked for col\(.price.\).is_in\(\[\[.x.\]\]\)",
        ),
        ({"price": "x"}, "column 'price' is Float64, and cannot be asked for .* == "),
        ({"price": {"<": "x"}, "name": "n1"}, "column 'price' is Float64, and cannot be asked for .* < "),
        ("name = 'n1' AND price < 'x'", "column 'price' is Float64, and cannot be asked for .* < "),
        ({"name": 3}, "column 'name' is String, and cannot be asked for .* == "),
        ({"name": ["a", 3]}, "column 'name' is String, and cannot be compared with"),
        ({"tags": [3]}, r"column 'tags' is List\(String\), and cannot be asked for"),
        ({"tag": ["a"]}, "no column 'tag'; did you mean 'tags'"),
        ({"price": {"~": 3}}, "no operator '~'"),
        (PRICE + 1, "expected true or false for each item"),
    ],
)
def test_what_is_no_filter_is_said_so(made: Index, filter: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as refused:
        made.search(VECTORS[0], 3, filter=filter)
    assert len(str(refused.value).splitlines()) == 1
