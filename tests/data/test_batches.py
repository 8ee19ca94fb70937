"""Batches: the same global sequence for every number of ranks, resumable anywhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recsys.data.batch import Batch
from recsys.data.batches import Batches, rank_slice
from recsys.data.dataset import Dataset, DatasetManifest, Feature
from recsys.data.prefetch import Prefetch
from recsys.errors import DataError
from recsys.schema import Column, Schema

ROWS = 103


def _dataset(folder: Path, row_group_size: int) -> Dataset:
    """A dataset whose columns all follow from the row number, so that any batch can be checked."""
    row = np.arange(ROWS)
    frame = pl.DataFrame(
        {
            "a": row,
            "b": row * 2,
            "tags": [[i] * (i % 4) for i in row.tolist()],
            "x": pl.Series([None if i % 10 == 0 else float(i) for i in row.tolist()], dtype=pl.Float32),
            "__label__": pl.Series(row % 2, dtype=pl.Float32),
            "__group__": row * 7,
        }
    )
    folder.mkdir(parents=True, exist_ok=True)
    frame.write_parquet(folder / "train.parquet", row_group_size=row_group_size)
    manifest = DatasetManifest(
        schema_=Schema(columns={"g": Column(kind="categorical", type="int64", roles=("group",))}),
        features=(
            Feature(name="a", kind="categorical", vocabulary="a"),
            Feature(name="b", kind="categorical", vocabulary="b"),
            Feature(name="tags", kind="multi", vocabulary="tags", max_length=3),
            Feature(name="x", kind="numeric"),
        ),
        vocabularies={},
        numerics={},
        rows={"train": ROWS},
        positives={"train": ROWS // 2},
    )
    return Dataset(folder, manifest)


def _check(batch: Batch) -> None:
    row = batch.ids["a"]
    np.testing.assert_array_equal(batch.ids["b"], row * 2)
    np.testing.assert_array_equal(batch.label, row % 2)
    np.testing.assert_array_equal(batch.lengths["tags"], row % 4)
    np.testing.assert_array_equal(batch.ids["tags"], np.repeat(row, row % 4))
    np.testing.assert_array_equal(np.isnan(batch.numerics["x"]), row % 10 == 0)
    assert batch.group is not None
    np.testing.assert_array_equal(batch.group, row * 7)


@pytest.mark.parametrize("shuffle_rows", [1000, 40, 10])
@pytest.mark.parametrize("shuffle", [True, False])
def test_an_epoch_holds_every_row_once_and_keeps_rows_together(
    tmp_path: Path, shuffle_rows: int, shuffle: bool
) -> None:
    dataset = _dataset(tmp_path, 10)
    batches = Batches(dataset, "train", 16, seed=3, shuffle_rows=shuffle_rows, shuffle=shuffle)
    seen = list(batches.epoch(1))
    for batch in seen:
        _check(batch)
    assert [batch.rows for batch in seen] == [16] * 6 + [7]
    assert [batch.index for batch in seen] == list(range(7, 14))
    order = np.concatenate([batch.ids["a"] for batch in seen])
    np.testing.assert_array_equal(np.sort(order), np.arange(ROWS))
    assert (order == np.arange(ROWS)).all() == (not shuffle)


def test_epochs_and_seeds_differ_and_repeat(tmp_path: Path) -> None:
    dataset = _dataset(tmp_path, 10)

    def order(seed: int, epoch: int) -> list[int]:
        batches = Batches(dataset, "train", 16, seed=seed).epoch(epoch)
        return [row for batch in batches for row in batch.ids["a"].tolist()]

    assert order(1, 0) == order(1, 0)
    assert order(1, 0) != order(1, 1)
    assert order(1, 0) != order(2, 0)


@pytest.mark.parametrize("shuffle_rows", [1000, 40])
@pytest.mark.parametrize("start", [1, 3, 6])
def test_an_epoch_started_late_equals_its_tail(tmp_path: Path, shuffle_rows: int, start: int) -> None:
    dataset = _dataset(tmp_path, 10)
    whole = list(Batches(dataset, "train", 16, shuffle_rows=shuffle_rows).epoch(2))
    tail = list(Batches(dataset, "train", 16, shuffle_rows=shuffle_rows).epoch(2, start))
    assert len(tail) == len(whole) - start
    for one, other in zip(whole[start:], tail, strict=True):
        assert one.index == other.index
        np.testing.assert_array_equal(one.ids["a"], other.ids["a"])


@pytest.mark.parametrize("world", [2, 3, 8])
@pytest.mark.parametrize("shuffle_rows", [1000, 25])
def test_ranks_cut_the_same_global_batches(tmp_path: Path, world: int, shuffle_rows: int) -> None:
    dataset = _dataset(tmp_path, 10)
    alone = list(Batches(dataset, "train", 16, shuffle_rows=shuffle_rows).epoch())
    ranks = [
        list(Batches(dataset, "train", 16, shuffle_rows=shuffle_rows, rank=r, world=world).epoch())
        for r in range(world)
    ]
    for step, batch in enumerate(alone):
        slices = [rank[step] for rank in ranks]
        for piece in slices:
            _check(piece)
            assert piece.global_rows == batch.rows
        np.testing.assert_array_equal(np.concatenate([p.ids["a"] for p in slices]), batch.ids["a"])


def test_a_rank_may_get_no_rows() -> None:
    assert rank_slice(3, 3, 4) == slice(3, 3)


def test_a_truncated_part_is_named(tmp_path: Path) -> None:
    dataset = _dataset(tmp_path, 10)
    path = dataset.part("train")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match=r"train\.parquet: cannot be read"):
        Batches(dataset, "train", 16)


def test_prefetch_hands_over_items_then_the_error() -> None:
    def items() -> object:
        yield 1
        yield 2
        raise ValueError("third")

    seen: list[int] = []
    with Prefetch(items()) as ahead, pytest.raises(ValueError, match="third"):  # type: ignore[arg-type]
        seen.extend(ahead)  # type: ignore[arg-type]
    assert seen == [1, 2]


def test_prefetch_can_be_left_early() -> None:
    with Prefetch(iter(range(10**9)), depth=2) as ahead:
        for item in ahead:
            if item == 3:
                break


@pytest.mark.parametrize("window", [1_000, 30])
@pytest.mark.parametrize("shuffle", [True, False])
def test_rows_of_a_batch_are_those_that_it_holds(tmp_path: Path, window: int, shuffle: bool) -> None:
    dataset = _dataset(tmp_path / "d", row_group_size=20)
    batches = Batches(dataset, "train", 16, seed=3, shuffle_rows=window, shuffle=shuffle)
    for epoch in (0, 1):
        for batch in batches.epoch(epoch):
            np.testing.assert_array_equal(batches.rows_of(batch.index), batch.ids["a"])
    assert batches.path == tmp_path / "d" / "train.parquet"


@pytest.mark.parametrize("world", [1, 3])
def test_a_given_order_is_followed(tmp_path: Path, world: int) -> None:
    dataset = _dataset(tmp_path, 10)
    orders = {epoch: np.random.default_rng(epoch).permutation(ROWS) for epoch in (1, 2)}
    ranks = [
        Batches(dataset, "train", 8, rank=rank, world=world, order=orders.get) for rank in range(world)
    ]
    plain = [batch.ids["a"] for batch in Batches(dataset, "train", 8).epoch(0)]
    for epoch, start in ((0, 0), (1, 0), (2, 5)):
        wanted = orders[epoch] if epoch else np.concatenate(plain)
        parts = [[batch.ids["a"] for batch in batches.epoch(epoch, start)] for batches in ranks]
        found = np.concatenate([rows for batch in zip(*parts, strict=True) for rows in batch])
        np.testing.assert_array_equal(found, wanted[8 * start :])
    steps = ranks[0].steps_per_epoch
    orders.clear()  # an error may be looked into when the next epoch has begun
    for epoch, batch in ((1, 12), (2, 0)):
        expected = np.random.default_rng(epoch).permutation(ROWS)[8 * batch : 8 * batch + 8]
        np.testing.assert_array_equal(ranks[0].rows_of(epoch * steps + batch), expected)
