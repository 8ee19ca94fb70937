"""What a search finds: the right items, under filters and exclusions, for every metric and type."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recsys.errors import ConfigError, DataError
from recsys.retrieval.build import IndexSettings, index
from recsys.retrieval.dense import DenseDtype, Metric
from recsys.retrieval.index import Index
from tests.retrieval.made import exact_ids, made_index, made_items, made_queries, made_vectors

VECTORS, ITEMS, QUERIES = made_vectors(), made_items(), made_queries()
IDS = ITEMS["item_id"].to_numpy()


@pytest.fixture(scope="module")
def exact(tmp_path_factory: pytest.TempPathFactory) -> Index:
    return made_index(tmp_path_factory.mktemp("exact") / "index")


@pytest.fixture(scope="module")
def coded(tmp_path_factory: pytest.TempPathFactory) -> Index:
    folder, settings = (
        tmp_path_factory.mktemp("coded") / "index",
        IndexSettings(codes=True, dtype="float32"),
    )
    return made_index(folder, settings, queries=made_queries(1_500, seed=3))


@pytest.mark.parametrize("metric", ["ip", "cosine", "l2"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
def test_an_exact_search_finds_the_right_items(tmp_path: Path, metric: Metric, dtype: DenseDtype) -> None:
    found = made_index(tmp_path / "index", IndexSettings(metric=metric, dtype=dtype)).search(QUERIES, 10)
    right = exact_ids(VECTORS, IDS, QUERIES, 10, metric)
    shared = [len(set(ids.to_list()) & set(line)) for ids, line in zip(found.ids, right, strict=True)]
    assert np.mean(shared) >= {"float32": 10, "float16": 9.9, "int8": 9.5}[dtype]
    if dtype == "float32":
        assert [ids.to_list() for ids in found.ids] == right


def test_codes_reach_the_wanted_recall_and_say_so(coded: Index) -> None:
    right = exact_ids(VECTORS, IDS, QUERIES, 10)
    found = coded.search(QUERIES, 10)
    assert coded.manifest.coarse is not None
    assert coded.manifest.measured is not None
    assert coded.manifest.measured.recall >= 0.95
    shared = [len(set(ids.to_list()) & set(line)) for ids, line in zip(found.ids, right, strict=True)]
    assert np.mean(shared) >= 9
    assert [ids.to_list() for ids in coded.search(QUERIES, 10, exact=True).ids] == right


@pytest.mark.parametrize("which", ["exact", "coded"])
@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("price < 0.01", ITEMS["price"] < 0.01),
        ("brand = 'acme' AND price > 0.5", (ITEMS["brand"] == "acme") & (ITEMS["price"] > 0.5)),
        (
            {"brand": ["acme", "zeta"], "price": {">=": 0.9}},
            ITEMS["brand"].is_not_null() & (ITEMS["price"] >= 0.9),
        ),
        ({"brand": None}, ITEMS["brand"].is_null()),
        (pl.col("item_id") % 14 == 6, ITEMS["item_id"] % 14 == 6),
    ],
)
def test_a_filter_loses_nothing(
    request: pytest.FixtureRequest, which: str, given: object, kept: pl.Series
) -> None:
    index: Index = request.getfixturevalue(which)
    mask = kept.fill_null(False).to_numpy()
    right = exact_ids(VECTORS[mask], IDS[mask], QUERIES, 5)
    found = index.search(QUERIES, 5, filter=given)  # type: ignore[arg-type]
    assert [ids.to_list() for ids in found.ids] == right


def test_a_filter_that_keeps_fewer_than_k_gives_those(exact: Index) -> None:
    found = exact.search(QUERIES, 10, filter=pl.col("item_id").is_in([1_000, 1_007]))
    assert all(sorted(ids.to_list()) == [1_000, 1_007] for ids in found.ids)
    assert found.frame().height == 2 * len(QUERIES)
    assert exact.search(QUERIES, 3, filter="price > 2").frame().height == 0


@pytest.mark.parametrize("which", ["exact", "coded"])
def test_excluded_items_are_not_found_and_others_take_their_place(
    request: pytest.FixtureRequest, which: str
) -> None:
    index: Index = request.getfixturevalue(which)
    right = exact_ids(VECTORS, IDS, QUERIES, 30)
    seen = [line[:20] if at % 2 else [] for at, line in enumerate(right)]
    found = index.search(QUERIES, 10, exclude=pl.Series(seen), exact=True)
    for at, ids in enumerate(found.ids):
        assert ids.to_list() == (right[at][20:] if at % 2 else right[at][:10])
    for line, ids in zip(seen, index.search(QUERIES, 10, exclude=seen).ids, strict=True):
        assert len(ids) == 10
        assert not set(ids.to_list()) & set(line)
    everyone = index.search(QUERIES[:1], 10, exclude=[*right[0][:3], -5], exact=True)
    assert everyone.ids[0].to_list() == right[0][3:13]


@pytest.mark.parametrize("which", ["exact", "coded"])
def test_several_interests_give_each_item_its_best_score(
    request: pytest.FixtureRequest, which: str
) -> None:
    index: Index = request.getfixturevalue(which)
    interests = QUERIES.reshape(5, 4, -1)
    best = np.einsum("qid,nd->qin", interests.astype(np.float64), VECTORS.astype(np.float64)).max(axis=1)
    right = [IDS[np.argsort(-line)[:10]].tolist() for line in best]
    found = index.search(interests, 10, exact=True)
    assert [ids.to_list() for ids in found.ids] == right
    near = index.search(interests, 10)
    assert np.mean([len(set(a.to_list()) & set(b)) for a, b in zip(near.ids, right, strict=True)]) >= 9
    assert all(ids.n_unique() == 10 for ids in near.ids)


def test_a_batch_equals_its_queries_one_by_one(coded: Index) -> None:
    together = coded.search(QUERIES, 7)
    for at, query in enumerate(QUERIES):
        alone = coded.search(query, 7)
        assert alone.ids[0].to_list() == together.ids[at].to_list()
        np.testing.assert_allclose(alone.scores[0], together.scores[at], rtol=1e-5)


def test_codes_are_searched_where_the_index_has_them(coded: Index) -> None:
    """Not only where the catalogue is large: what the manifest measured is what a search does."""
    right = exact_ids(VECTORS, IDS, QUERIES, 10)
    assert [ids.to_list() for ids in coded.search(QUERIES, 10).ids] != right


@pytest.mark.parametrize("k", [10, 50, 200, 1_000])
def test_recall_does_not_fall_where_more_is_asked(coded: Index, k: int) -> None:
    right = exact_ids(VECTORS, IDS, QUERIES, k)
    found = coded.search(QUERIES, k).ids
    shared = [len(set(ids.to_list()) & set(line)) / k for ids, line in zip(found, right, strict=True)]
    assert np.mean(shared) >= 0.93
    nearest = exact_ids(VECTORS, IDS, QUERIES, k + 10)
    rest = coded.search(QUERIES, 10, exclude=[line[:k] for line in nearest]).ids
    shared = [len(set(ids.to_list()) & set(line[k:])) for ids, line in zip(rest, nearest, strict=True)]
    assert np.mean(shared) >= 9


@pytest.mark.parametrize("name", ["rank", "query", "score"])
def test_a_frame_of_an_index_whose_ids_are_called_as_its_columns(tmp_path: Path, name: str) -> None:
    ids = pl.DataFrame({name: np.arange(50)})
    made = index(made_vectors(50), tmp_path / "index", ids=ids, id_column=name)
    assert made.search(QUERIES[:2], 3).frame().columns == ["query", "rank", "id", "score"]


def test_ids_may_be_text(tmp_path: Path) -> None:
    from recsys.retrieval.build import index

    names = [f"ä{row}" for row in range(50)]
    made = index(VECTORS[:50], tmp_path / "index", ids=names)
    right = exact_ids(VECTORS[:50], np.arange(50), QUERIES, 3)
    assert [ids.to_list() for ids in made.search(QUERIES, 3).ids] == [
        [names[row] for row in line] for line in right
    ]
    kept = made.search(QUERIES[:1], 3, exclude=[names[right[0][0]], "unknown"])
    assert names[right[0][0]] not in kept.ids[0].to_list()
    np.testing.assert_array_equal(made.vectors(["ä7"]), VECTORS[7:8])


@pytest.mark.parametrize(
    ("asked", "error", "message"),
    [
        ({"k": 0}, ConfigError, "at least 1; found 0"),
        ({"k": 2.5}, ConfigError, r"at least 1; found 2\.5"),
        ({"queries": [[1.0], [1.0, 2.0]]}, DataError, "as many for every vector"),
        ({"queries": [["a"] * 16]}, DataError, "expected numbers"),
        ({"queries": np.full((2, 16), 1e300)}, DataError, "row 0: a number that is not finite"),
        ({"k": ITEMS.height + 1}, ConfigError, f"holds {ITEMS.height} items"),
        ({"filter": "prise < 2"}, ConfigError, "did you mean 'price'"),
        ({"filter": "price <"}, ConfigError, "not an SQL predicate"),
        ({"filter": {"price": {"=<": 1}}}, ConfigError, "no operator '=<'"),
        ({"filter": pl.col("price").sum() > 1}, ConfigError, "a condition on each item alone"),
        ({"exclude": [[1], [2]]}, ConfigError, "2 lists for 20 queries"),
        ({"queries": QUERIES[:, :5]}, DataError, "expected vectors of 16 numbers"),
        ({"queries": np.where(np.arange(20)[:, None] == 3, np.nan, QUERIES)}, DataError, "row 3"),
    ],
)
def test_a_search_without_an_answer_is_refused(
    exact: Index, asked: dict[str, object], error: type[Exception], message: str
) -> None:
    given = {"queries": QUERIES} | asked
    with pytest.raises(error, match=message):
        exact.search(**given)  # type: ignore[arg-type]
