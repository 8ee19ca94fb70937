"""Hard negatives: pools hold the first items without positives, count by the formula, and are resumed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from numpy.typing import NDArray

from recsys.data.batch import Batch
from recsys.data.batches import Batches
from recsys.data.dataset import Dataset
from recsys.embeddings.tables import Tables
from recsys.features.prepare import prepare
from recsys.models import build_model, parse_options
from recsys.models.two_tower import TwoTower
from recsys.retrieval.restored import restored
from recsys.schema import Column, Schema
from recsys.training.catalogue import Catalogue
from recsys.training.distributed import Distributed, distributed
from recsys.training.layout import layout_of
from recsys.training.query_keys import query_keys
from recsys.training.retrieval import Retrieval
from recsys.training.run_folder import Run
from recsys.training.tables_of import build_tables
from recsys.training.train import train
from tests.training.retrieval_log import made_retrieval_dataset, made_retrieval_plan
from tests.training.saved import saved_bytes, saved_tensors
from tests.training.test_retrieval import SETTINGS

HARD: dict[str, object] = {"negatives": 7, "hard_negatives": 4, "hard_pool": 10, "hard_from": 1}
POOLS = "hard.places"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return made_retrieval_dataset(tmp_path_factory.mktemp("log") / "log", rows=600)


@contextmanager
def mined(dataset: Dataset, options: dict[str, object]) -> Iterator[tuple[Retrieval, TwoTower, Tables]]:
    """An objective whose pools were mined by towers that have learnt nothing, and those."""
    plan = made_retrieval_plan(dataset)
    model = build_model("two_tower", options, layout_of(dataset.features, plan), seed=1)
    assert isinstance(model, TwoTower)
    with distributed("cpu") as ranks:
        tables = build_tables(dataset, plan, SETTINGS, ranks)
        objective = made_objective(dataset, options, ranks)
        objective.begin(1, model, tables)
        yield objective, model, tables


def made_objective(dataset: Dataset, options: dict[str, object], ranks: Distributed) -> Retrieval:
    return Retrieval(dataset, parse_options("two_tower", options), SETTINGS, ranks)


def batches(dataset: Dataset, epoch: int, size: int = SETTINGS.batch_size) -> Iterator[Batch]:
    return Batches(dataset, "train", size, seed=3).epoch(epoch)


@pytest.mark.parametrize(("skip", "code_bytes"), [(0, None), (6, None), (6, 3)])
def test_pools_hold_the_first_items_that_are_no_positives(
    dataset: Dataset, skip: int, code_bytes: int | None
) -> None:
    options = HARD | {"hard_skip": skip, "query_hidden": [6], "hard_from_codes": code_bytes}
    with mined(dataset, options) as (objective, model, tables):
        pools = objective.tensors()[POOLS].numpy()
        batch = next(Batches(dataset, "train", 600, shuffle=False).epoch())
        assert batch.group is not None
        catalogue = Catalogue.of(dataset)
        with torch.no_grad():
            queries = model.query(tables(tables.prepare(batch))).double().numpy()
            rows = tables.prepare(catalogue.batch(np.arange(len(catalogue))))
            items = model.item(tables(rows)).numpy()
        if code_bytes is not None:
            known, items = items, restored(items, code_bytes, SETTINGS.seed)
            assert 0.05 < np.square(items - known).sum() / np.square(known).sum() < 0.5
    keys = query_keys(batch, ["user_id", "history", "hour"])
    first = np.sort(np.unique(keys, return_index=True)[1])
    assert pools.shape == (len(first), 10)
    for pool, row in zip(pools, first, strict=True):
        scores = items.astype(np.float64) @ queries[row]
        taken = catalogue.positions(batch.ids["item_id"][batch.group == batch.group[row]])
        scores[taken[taken >= 0]] = -np.inf
        assert pool.tolist() == sorted(np.argsort(-scores, kind="stable")[skip : skip + 10].tolist())


@pytest.mark.parametrize("correction", ["logq", "none"])
def test_a_hard_negative_stands_for_its_share_of_the_pool(dataset: Dataset, correction: str) -> None:
    options = HARD | {"correction": correction, "temperature": 0.3, "hard_weight": 0.7}
    with mined(dataset, options) as (objective, model, tables):
        wide, known = objective.widen(next(batches(dataset, 1, 30)))
        prepared = tables.prepare(wide)
        inputs = tables(prepared)
        found = float(objective.loss(model, inputs, prepared, known).detach())
        with torch.no_grad():
            queries, items = model.query(inputs).numpy(), model.item(inputs).numpy()
    assert known.hard is not None
    ids, at = wide.ids["item_id"], known.hard.at.numpy().reshape(30, 4) + len(known.items)
    share = np.bincount(pl.read_parquet(dataset.part("train"))["item_id"], minlength=ids.max() + 1) / 600
    catalogue, expected = len(Catalogue.of(dataset)), 0.0
    for row in range(30):
        right = queries[row] @ items[row] / 0.3
        whole = np.exp(right)
        for other in range(37):
            if ids[other] != ids[row]:
                often = 29 * share[ids[other]] + 7 / catalogue
                whole += np.exp(queries[row] @ items[other] / 0.3) / (often if correction == "logq" else 1)
        for other in at[row]:
            stands_for = 0.7 * (10 / 4 if correction == "logq" else 1)
            whole += stands_for * np.exp(queries[row] @ items[other] / 0.3)
        expected -= np.log(np.exp(right) / whole)
    assert found == pytest.approx(expected, rel=1e-4)


def test_every_item_of_a_pool_is_drawn_as_often(dataset: Dataset) -> None:
    """Each batch draws 4 of a pool's 10 for each row; 0.4 of a row's batches hold an item of its pool."""
    with mined(dataset, HARD) as (objective, _, _):
        hard = objective._hard
        assert hard is not None
        batch = next(batches(dataset, 1, 50))
        pools = objective.tensors()[POOLS].numpy()[hard._queries_of(batch)]
        counts = np.zeros((50, len(Catalogue.of(dataset))))
        for index in range(10, 410):
            batch.index = index
            drawn = hard.draw(batch)
            assert drawn is not None
            assert np.allclose(np.exp(drawn.lift), 10 / 4)
            np.add.at(counts, (np.arange(50)[:, None], drawn.places), 1)
    in_pool = np.take_along_axis(counts, pools.astype(np.int64), 1)
    assert counts.sum() == in_pool.sum() == 50 * 400 * 4
    assert abs(in_pool / 400 - 0.4).max() < 5 * np.sqrt(0.4 * 0.6 / 400)


def test_short_pools_and_rows_without_a_group(tmp_path: Path) -> None:
    """Users 0 and 1 took all items but one and all items: their pools hold one and none."""
    users = [0] * 7 + [1] * 8 + [2] * 2
    log = pl.DataFrame({"user": users, "item": [*range(7), *range(8), 0, 1]})
    columns = {
        "user": Column(kind="categorical", type="int64", roles=("feature", "group"), side="user"),
        "item": Column(kind="categorical", type="int64", side="item"),
    }
    options = HARD | {"hard_negatives": 3, "hard_pool": 5}
    for grouped in (True, False):
        roles = ("feature", "group") if grouped else ("feature",)
        schema = Schema(columns=columns | {"user": columns["user"].model_copy(update={"roles": roles})})
        dataset = prepare(log, schema, tmp_path / str(grouped), positives_only=True)
        with mined(dataset, options) as (objective, _, _):
            pools = objective.tensors()[POOLS].numpy()
            hard = objective._hard
            assert hard is not None
            batch = next(Batches(dataset, "train", 17, shuffle=False).epoch(60))
            drawn = hard.draw(batch)
        assert (pools >= 0).sum(1).tolist() == [1, 0, 5]  # of the 6 that user 2 did not take
        assert drawn is not None
        catalogue = Catalogue.of(dataset)
        last = catalogue.positions(batch.ids["item"][14:15])[0]
        assert pools[0].tolist() == [last, -1, -1, -1, -1]
        assert (drawn.places[:7] == last).all()
        np.testing.assert_allclose(np.exp(drawn.lift[:, 0]), [1 / 3] * 7 + [0] * 8 + [5 / 3] * 2, rtol=1e-6)


def test_pools_follow_the_towers_from_their_epoch_on(dataset: Dataset, tmp_path: Path) -> None:
    def trained(name: str, **options: object) -> Run:
        return train(
            dataset,
            tmp_path / name,
            model={"name": "two_tower", "negatives": 7, **options},
            plan=made_retrieval_plan(dataset),
            settings=SETTINGS.model_copy(update={"epochs": 4, "keep_checkpoints": 9}),
        )

    plain = trained("plain").metrics["loss"].drop_nulls().to_list()
    run = trained("hard", hard_negatives=3, hard_pool=10, hard_from=2, hard_every=5)
    losses = run.metrics["loss"].drop_nulls().to_list()
    assert losses[:10] == plain[:10]
    assert all(mine > theirs for mine, theirs in zip(losses[10:], plain[10:], strict=True))
    often = trained("often", hard_negatives=3, hard_pool=10, hard_from=2)
    assert often.metrics["loss"].drop_nulls().to_list()[:15] == losses[:15]
    pools = [saved_tensors(each.folder)[f"objective.{POOLS}"] for each in (run, often)]
    assert (pools[0] != pools[1]).any()


@pytest.mark.parametrize("more", [{}, {"batches": "walk", "hard_from_codes": 3, "hard_every": 2}])
def test_a_resumed_run_draws_from_the_pools_of_its_epoch(
    dataset: Dataset, tmp_path: Path, more: dict[str, object]
) -> None:
    """5 batches an epoch: steps 7 and 13 are inside the second and the third, step 10 is between them."""

    def trained(name: str, steps: int) -> Run:
        return train(
            dataset,
            tmp_path / name,
            model={"name": "two_tower", **HARD, "item_hidden": [6], "dropout": 0.2, **more},
            plan=made_retrieval_plan(dataset),
            settings=SETTINGS.model_copy(update={"max_steps": steps}),
            resume=True,
        )

    whole = trained("whole", 21)
    for steps in (3, 7, 10, 13):
        trained("parts", steps)
    parts = trained("parts", 21)
    assert (saved_tensors(whole.folder)[f"objective.{POOLS}"] >= 0).all()
    assert saved_bytes(whole.folder) == saved_bytes(parts.folder)
    losses = [run.metrics["loss"].drop_nulls().to_list() for run in (whole, parts)]
    assert losses[0] == losses[1]


def made_batch(group: list[int] | None = None, **ids: list[int]) -> Batch:
    """Two rows with features a and b, a list l and a number n."""
    return Batch(
        index=0,
        global_rows=2,
        label=np.ones(2, np.float32),
        ids={
            name: np.array(values)
            for name, values in ({"a": [1, 1], "b": [2, 2], "l": [5, 6, 5, 6]} | ids).items()
        },
        lengths={"l": np.array([2, 2])},
        numerics={"n": np.array([0.5, 0.5], np.float32)},
        group=None if group is None else np.array(group),
    )


def test_keys_tell_queries_apart() -> None:
    def keys(batch: Batch) -> NDArray[np.uint64]:
        return query_keys(batch, ["a", "b", "l", "n"])

    assert len(set(keys(made_batch()))) == 1
    assert len(set(keys(made_batch(group=[3, 4])))) == 2
    assert len(set(keys(made_batch(a=[1, 2], b=[2, 1])))) == 2
    assert len(set(keys(made_batch(l=[5, 6, 6, 5])))) == 2
    longer = made_batch(l=[5, 6, 5])
    longer.lengths["l"] = np.array([2, 1])
    assert len(set(keys(longer))) == 2
    other = made_batch()
    other.numerics["n"][1] = np.nan
    assert len(set(keys(other))) == 2
