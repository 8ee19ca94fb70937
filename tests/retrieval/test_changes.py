"""The life of an index: items come and go, versions are swapped, readers see one or the other."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recsys.errors import BundleError, ConfigError, DataError, RetrievalError, SchemaError
from recsys.retrieval.build import IndexSettings, index
from recsys.retrieval.index import Index
from recsys.retrieval.versions import read_current
from tests.retrieval.made import exact_ids, made_index, made_items, made_queries, made_vectors

ROWS = 500
VECTORS, ITEMS, QUERIES = made_vectors(ROWS), made_items(ROWS), made_queries()
IDS = ITEMS["item_id"].to_numpy()


def changed_by_hand() -> tuple[np.ndarray, np.ndarray, pl.DataFrame, list[int]]:
    """Vectors, ids, new rows and deleted ids after 30 items came, 20 were replaced and 40 went."""
    new = made_vectors(50, seed=9) * 1.5
    ids = np.concatenate([np.arange(30) * 2, IDS[:20]])
    items = pl.DataFrame({"item_id": ids, "price": np.full(50, 0.5), "brand": ["new"] * 50})
    gone = [*IDS[100:135].tolist(), *ids[:5].tolist()]
    stay = ~np.isin(IDS, [*gone, *ids])
    new_stay = ~np.isin(ids, gone)
    vectors = np.concatenate([VECTORS[stay], new[new_stay]])
    return vectors, np.concatenate([IDS[stay], ids[new_stay]]), items, gone


@pytest.mark.parametrize("codes", [False, True])
def test_items_come_and_go_and_are_merged(tmp_path: Path, codes: bool) -> None:
    made = made_index(tmp_path / "index", IndexSettings(codes=codes, dtype="float32"), ROWS)
    vectors, ids, items, gone = changed_by_hand()
    right = exact_ids(vectors, ids, QUERIES, 10)
    before = made.search(QUERIES, 10)
    reader = Index.open(made.folder)
    made.upsert(items, made_vectors(50, seed=9) * 1.5)
    made.delete(gone)
    assert [line.to_list() for line in made.search(QUERIES, 10, exact=True).ids] == right
    assert len(made) == len(ids)
    assert reader.search(QUERIES, 10).frame().equals(before.frame())
    assert reader.refresh()
    assert not reader.refresh()
    assert reader.version == made.version != before.version
    new = made.search(QUERIES, 3, filter="brand = 'new'", exclude=[int(ids[-1])])
    assert set(new.frame()["item_id"].to_list()) <= set(items["item_id"].to_list()) - {*gone, int(ids[-1])}
    made.compact()
    assert made.manifest.rows == len(ids)
    assert read_current(made.folder).delta is None
    assert [line.to_list() for line in made.search(QUERIES, 10, exact=True).ids] == right
    assert made.search(QUERIES, 3, filter="brand = 'new'").frame().height == 60
    assert (made.manifest.coarse is not None) == codes


def test_a_compaction_keeps_codebooks_and_given_queries(tmp_path: Path) -> None:
    settings = IndexSettings(codes=True, recall=0.9)
    made = index(VECTORS, tmp_path / "index", settings=settings, queries=made_queries(300))
    assert made.manifest.measured is not None
    first = made.manifest.files["quantiser.safetensors"]
    made.delete([0])
    made.compact()
    assert made.manifest.files["quantiser.safetensors"] == first
    assert made.manifest.measured.queries_from == "given"
    assert made.manifest.measured.wanted_recall == 0.9
    made.compact(retrain=True)
    assert made.manifest.files["quantiser.safetensors"] != first


@pytest.mark.parametrize("asked", [20.0, None])
def test_new_codes_take_the_bytes_that_were_asked_for(tmp_path: Path, asked: float | None) -> None:
    settings = IndexSettings(codes=True, bytes_per_item=asked, recall=0.5)
    made = made_index(tmp_path / "index", settings, ROWS)
    assert made.manifest.coarse is not None
    first = made.manifest.coarse
    assert first.code_bytes == (4 if asked is None else 3)
    made.delete([1_000])
    for retrain in (False, True):
        made.compact(retrain=retrain)
        assert made.manifest.coarse.bytes_per_item == first.bytes_per_item == asked
        assert made.manifest.coarse.code_bytes == first.code_bytes


def test_what_cannot_be_changed_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    made = made_index(tmp_path / "index", rows=ROWS)
    version = made.version
    one = pl.DataFrame({"item_id": [1], "price": [0.5], "brand": ["x"]})
    with pytest.raises(RetrievalError, match=r"no item 3 to delete \(1 of 2 ids"):
        made.delete([1_000, 3])
    with pytest.raises(RetrievalError, match="expected int64"):
        made.delete(["1000"])
    with pytest.raises(RetrievalError, match="these are all its items"):
        made.delete(IDS)
    with pytest.raises(DataError, match="vectors of 3 numbers; the index holds 16"):
        made.upsert(one, VECTORS[:1, :3])
    with pytest.raises(DataError, match="id 1 stands in rows 0 and 1"):
        made.upsert(pl.concat([one, one]), VECTORS[:2])
    with pytest.raises(DataError, match="row 0: number 2 of the vector is nan"):
        made.upsert(one, np.where(np.arange(16) == 2, np.nan, VECTORS[:1]))
    with pytest.raises(SchemaError, match="brand"):
        made.upsert(one.drop("brand"), VECTORS[:1])
    with pytest.raises(
        SchemaError, match="row 0: attribute 'price' is 'cheap', which does not fit"
    ) as refused:
        made.upsert(one.with_columns(price=pl.lit("cheap")), VECTORS[:1])
    assert len(str(refused.value).splitlines()) == 1
    with pytest.raises(SchemaError, match="attribute 'price' holds list of int64, which does not fit"):
        made.upsert(one.with_columns(price=pl.lit([1])), VECTORS[:1])
    with pytest.raises(ConfigError, match=r"vectors: expected a path or a numpy array .* found list"):
        made.upsert(one, VECTORS[:1].tolist())  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="ids: upsert needs them"):
        made.upsert(None, VECTORS[:1])  # type: ignore[arg-type]
    assert Index.open(made.folder).version == version
    assert sorted(path.name for path in made.folder.iterdir()) == [".lock", "CURRENT", "version-000001"]


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    from recsys.retrieval.versions import one_writer

    made = made_index(tmp_path / "index", rows=ROWS)
    with one_writer(made.folder), pytest.raises(RetrievalError, match="another process is writing"):
        made.delete([1_000])


ONE, TWO = "1" * 64, "2" * 64
"""Fingerprints of query towers."""


def test_a_query_tower_of_another_version_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "index"
    index(VECTORS, folder, tower=ONE)
    assert Index.open(folder, tower=ONE).manifest.dense.tower == ONE
    with pytest.raises(RetrievalError, match="for query tower 111111111111, asked was 222222222222"):
        Index.open(folder, tower=TWO)
    reader = Index.open(folder, tower=ONE)
    with pytest.raises(RetrievalError, match=TWO[:12]):
        reader.upsert([9_999], VECTORS[:1], tower=TWO)
    before = reader.search(QUERIES, 3)
    index(VECTORS[::-1].copy(), folder, tower=TWO)
    with pytest.raises(RetrievalError, match=ONE[:12]):
        reader.refresh()
    assert reader.search(QUERIES, 3).frame().equals(before.frame())


@pytest.mark.parametrize("tower", ["nofolder", "1" * 63, "g" * 64, "A" * 64])
def test_what_is_no_query_tower_is_none(tmp_path: Path, tower: str) -> None:
    with pytest.raises(ConfigError, match=f"tower: expected the folder of a bundle, .* found '{tower}'"):
        index(VECTORS, tmp_path / "index", tower=tower)
    assert not (tmp_path / "index").exists()
    made = index(VECTORS, tmp_path / "index")
    with pytest.raises(ConfigError, match="tower: expected"):
        Index.open(made.folder, tower=tower)
    with pytest.raises(ConfigError, match="tower: expected"):
        made.upsert([1], VECTORS[:1], tower=tower)
    with pytest.raises(BundleError, match="not a bundle"):
        Index.open(made.folder, tower=tmp_path)


def test_two_hundred_swaps_under_load_are_never_mixed(tmp_path: Path) -> None:
    """Each version has its own ids and its own scale of scores; an answer shows both, and one of each."""
    versions = 200
    vectors = made_vectors(60)
    numbers = np.arange(60)

    def publish(number: int) -> None:
        scale = np.float32(2.0 ** (number % 8))
        index(vectors * scale, tmp_path / "index", ids=numbers + 1_000 * number)

    publish(0)
    reader = Index.open(tmp_path / "index")
    expected = reader.search(QUERIES[:4], 5)
    done, answers, failures = threading.Event(), [0], list[BaseException]()

    def ask() -> None:
        try:
            while not done.is_set():
                found = reader.search(QUERIES[:4], 5).frame()
                version = found["id"] // 1_000
                assert version.n_unique() == 1
                assert (found["id"] % 1_000).to_list() == expected.frame()["id"].to_list()
                scale = 2.0 ** (version[0] % 8)
                np.testing.assert_allclose(found["score"], expected.frame()["score"] * scale, rtol=1e-5)
                answers[0] += 1
        except BaseException as error:  # noqa: BLE001 - whatever it is, the test must see it
            failures.append(error)

    def follow() -> None:
        try:
            while not done.is_set():
                reader.refresh()
        except BaseException as error:  # noqa: BLE001
            failures.append(error)

    threads = [threading.Thread(target=work) for work in (ask, ask, follow)]
    for thread in threads:
        thread.start()
    for number in range(1, versions + 1):
        publish(number)
    done.set()
    for thread in threads:
        thread.join()
    assert not failures, failures[0]
    assert answers[0] > versions // 10
    assert len(list((tmp_path / "index").glob("version-*"))) == 2
