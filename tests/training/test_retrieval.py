"""Two towers: they learn from positive rows, by the formula, and refuse what does not fit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from torch.nn import functional

from recsys.config import ModelSettings, Plateau, TableOptimizer, TrainSettings
from recsys.data.batches import Batches
from recsys.data.dataset import Dataset
from recsys.embeddings.plan import UpdatePath
from recsys.errors import ConfigError, DataError
from recsys.evaluation.retrieval import ItemLists
from recsys.models import build_model, parse_options
from recsys.models.two_tower import TwoTower
from recsys.schema import Column
from recsys.training.catalogue import Catalogue
from recsys.training.distributed import distributed
from recsys.training.layout import layout_of
from recsys.training.retrieval import Retrieval
from recsys.training.tables_of import build_tables
from recsys.training.train import train
from recsys.training.vectors import Queries
from tests.training.retrieval_log import COLUMNS, made_log, made_retrieval_dataset, made_retrieval_plan

SETTINGS = TrainSettings(
    epochs=6,
    batch_size=128,
    monitor="recall",
    monitor_k=10,
    log_every=1,
    plateau=Plateau(factor=0.99, stop_after=99),  # an evaluation without luck does not end the learning
    tables=TableOptimizer(lr=0.01, fused_lr=0.2, init_std=0.1),
)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return made_retrieval_dataset(tmp_path_factory.mktemp("log") / "log")


@pytest.mark.parametrize(
    ("options", "path"),
    [
        ({"negatives": 20}, "dense"),
        ({"query_hidden": [16], "item_hidden": [16], "dim": 6, "normalise": False}, "fused"),
    ],
)
def test_it_learns(
    dataset: Dataset, tmp_path: Path, options: Mapping[str, object], path: UpdatePath
) -> None:
    run = train(
        dataset,
        tmp_path / "run",
        model={"name": "two_tower", **options, "temperature": 0.2},
        plan=made_retrieval_plan(dataset, path),
        settings=SETTINGS,
    )
    recall = run.metrics["valid/recall"].drop_nulls()
    # By chance 10 of 150 items; nine rows of ten are of the 30 items of the user's circle.
    assert len(recall) == 6
    assert recall[-1] > 0.2
    assert run.result.best_value == recall.max()


@pytest.mark.parametrize("in_batch", [True, False])
@pytest.mark.parametrize("correction", ["logq", "none"])
def test_the_loss_of_a_batch_is_the_formula(dataset: Dataset, in_batch: bool, correction: str) -> None:
    options = {"negatives": 7, "in_batch": in_batch, "correction": correction, "temperature": 0.3}
    plan = made_retrieval_plan(dataset)
    layout = layout_of(dataset.features, plan)
    model = build_model("two_tower", options, layout, seed=1)
    assert isinstance(model, TwoTower)
    with distributed("cpu") as ranks:
        tables = build_tables(dataset, plan, SETTINGS, ranks)
        objective = Retrieval(dataset, parse_options("two_tower", options), SETTINGS, ranks)
        batch = next(Batches(dataset, "train", 30, seed=3).epoch())
        wide, known = objective.widen(batch)
        prepared = tables.prepare(wide)
        found = float(objective.loss(model, tables(prepared), prepared, known).detach())
        inputs = tables(prepared)
        with torch.no_grad():
            queries, items = model.query(inputs).numpy(), model.item(inputs).numpy()
    rows = pl.read_parquet(dataset.part("train"))["item_id"].to_numpy()
    count = np.bincount(rows, minlength=wide.ids["item_id"].max() + 1)
    catalogue = len(np.unique(rows))
    ids = wide.ids["item_id"]
    assert len(ids) == 37
    expected = 0.0
    for row in range(30):
        right = queries[row] @ items[row] / 0.3
        whole = np.exp(right)
        for other in range(0 if in_batch else 30, 37):
            if ids[other] == ids[row]:
                continue
            often = 29 * in_batch * count[ids[other]] / len(rows) + 7 / catalogue
            logit = queries[row] @ items[other] / 0.3
            whole += np.exp(logit - (np.log(often) if correction == "logq" else 0.0))
        expected -= np.log(np.exp(right) / whole)
    assert found == pytest.approx(expected, rel=1e-4)


def test_the_same_seed_draws_the_same_negatives(dataset: Dataset) -> None:
    batch = next(Batches(dataset, "train", 30, seed=3).epoch())
    with distributed("cpu") as ranks:
        drawn = [
            Retrieval(
                dataset,
                parse_options("two_tower", {"negatives": 50}),
                SETTINGS.model_copy(update={"seed": seed}),
                ranks,
            )
            .widen(batch)[0]
            .ids["item_id"][30:]
            for seed in (1, 1, 2)
        ]
    assert drawn[0].tolist() == drawn[1].tolist() != drawn[2].tolist()


def test_queries_are_groups_and_do_not_see_answers_twice(dataset: Dataset) -> None:
    catalogue = Catalogue.of(dataset)
    queries = Queries.of(dataset, "test", catalogue, ("train", "valid"))
    parts = {part: pl.read_parquet(dataset.part(part)) for part in ("train", "valid", "test")}
    groups = parts["test"]["__group__"].unique(maintain_order=True)
    assert queries.columns.rows == len(groups)
    assert queries.seen is not None
    for at, group in enumerate(groups):
        rows = {part: frame.filter(pl.col("__group__") == group) for part, frame in parts.items()}
        seen = (set(rows["train"]["item_id"]) | set(rows["valid"]["item_id"])) - {1}
        assert items(queries.relevant, at, catalogue) == set(rows["test"]["item_id"]) - {1} - seen
        assert items(queries.seen, at, catalogue) == seen
        assert queries.unknown[at] == (rows["test"]["item_id"] == 1).sum()
        assert queries.columns.ids[at, 0] == rows["test"]["user_id"][0]


def items(lists: ItemLists, query: int, catalogue: Catalogue) -> set[int]:
    return set(catalogue.ids[lists.items[lists.offsets[query] : lists.offsets[query + 1]]].tolist())


def test_the_catalogue_has_every_item_with_its_features(dataset: Dataset) -> None:
    catalogue = Catalogue.of(dataset)
    train_rows = pl.read_parquet(dataset.part("train"))
    assert catalogue.ids.tolist() == sorted(train_rows["item_id"].unique())
    for at, item in enumerate(catalogue.ids[:5]):
        rows = train_rows.filter(pl.col("item_id") == item)
        assert catalogue.rows["genres"][at].to_list() == rows["genres"][0].to_list()
        assert catalogue.rows["price"][at] == rows["price"][0]
        assert catalogue.counts[item] == rows.height
    assert catalogue.rows["user_id"].to_list() == [0] * len(catalogue)


def sided(**changes: str | None) -> dict[str, Column]:
    """The columns with other sides."""
    return {
        name: column.model_copy(update={"side": changes[name]}) if name in changes else column
        for name, column in COLUMNS.items()
    }


REFUSED: dict[str, tuple[dict[str, object], dict[str, Column], str]] = {
    "no item side": (
        {},
        sided(item_id="user", genres="user", price="user"),
        "no feature describes the item, and each tower needs one",
    ),
    "no item id": ({}, sided(item_id="user"), "no categorical feature describes the item, .*tells items"),
    "no side": ({}, sided(hour=None), "feature 'hour' has no side"),
    "no user side": (
        {},
        sided(user_id="item", history="item", hour="item"),
        "which of|no feature describes",
    ),
    "two ids": ({}, sided(user_id="item"), "which of 'user_id', 'item_id' tells items apart"),
    "unknown id": ({"item": "item"}, COLUMNS, "model.item: 'item' is no categorical .*'item_id'"),
    "no negatives": ({"in_batch": False}, COLUMNS, "negatives must be 1 or more"),
    "no room for a bias": ({"dim": 1, "item_bias": True}, COLUMNS, "takes one number of a vector"),
    "no room to draw": (
        {"hard_negatives": 9, "hard_pool": 8},
        COLUMNS,
        "hard_pool: 8 items, fewer than the 9 to draw",
    ),
    "no hard items": (
        {"hard_negatives": 4, "hard_pool": 60, "hard_skip": 30},
        COLUMNS,
        r"model\.hard_pool: .* are 90 items together, and the train rows hold \d\d;",
    ),
    "no epoch for them": (
        {"hard_negatives": 4, "hard_pool": 8, "hard_from": 6},
        COLUMNS,
        r"model\.hard_from: 6 epochs before the first .* train\.epochs is 6",
    ),
    "no pools to walk by": ({"batches": "walk"}, COLUMNS, "batches: walk .* set hard_negatives: 1 or more"),
    "no negatives to make hard": (
        {"batches": "snowball", "hard_negatives": 1, "in_batch": False, "negatives": 1},
        COLUMNS,
        "batches: snowball .* set in_batch, or leave batches out",
    ),
    "no pools to make of codes": (
        {"hard_from_codes": 4},
        COLUMNS,
        "hard_from_codes: there are no pools; set hard_negatives",
    ),
    "no room for codes": (
        {"hard_negatives": 4, "hard_pool": 8, "hard_from_codes": 5, "dim": 8},
        COLUMNS,
        r"model\.hard_from_codes: codes of 5 bytes .* vectors are 10 wide or more; there are \d+, 8 wide",
    ),
    "no temperature": ({"temperature": 0}, COLUMNS, r"model\.temperature"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(tmp_path: Path, name: str) -> None:
    options, columns, message = REFUSED[name]
    dataset = _prepared(tmp_path, columns)
    with pytest.raises(ConfigError, match=message):
        train(dataset, tmp_path / "run", model={"name": "two_tower", **options}, settings=SETTINGS)


def test_local_batches_of_a_log_that_does_not_fit_are_refused(dataset: Dataset, tmp_path: Path) -> None:
    options = {"hard_negatives": 4, "hard_pool": 8, "batches": "walk"}
    settings = SETTINGS.model_copy(update={"shuffle_rows": 1_499})
    with pytest.raises(ConfigError, match=r"train\.shuffle_rows is 1,499 of 1,500 train rows; raise it"):
        train(dataset, tmp_path / "run", model={"name": "two_tower", **options}, settings=settings)


def _prepared(folder: Path, columns: dict[str, Column]) -> Dataset:
    from recsys.features.prepare import prepare
    from recsys.schema import Schema

    return prepare(made_log(100), Schema(columns=columns), folder / "dataset", positives_only=True)


def test_rows_of_label_0_and_metrics_of_clicks_are_refused(tmp_path: Path, dataset: Dataset) -> None:
    from recsys.features.prepare import prepare
    from recsys.schema import Schema

    label = {"bought": Column(kind="numeric", type="int64", roles=("label",))}
    schema = Schema(columns=COLUMNS | label)
    log = made_log(100).with_columns(bought=(pl.int_range(100) != 7).cast(pl.Int64))
    with pytest.raises(DataError, match=r"row 7: label 'bought' is 0, expected 1"):
        prepare(log, schema, tmp_path / "dataset", positives_only=True)
    assert not (tmp_path / "dataset").exists()
    clicks = prepare(log, schema, tmp_path / "dataset")
    with pytest.raises(DataError, match="1 of 100 train rows have label 0"):
        train(clicks, tmp_path / "run", model="two_tower", settings=SETTINGS)
    with pytest.raises(ConfigError, match="'auc' is not measured of 'two_tower'; take recall or ndcg"):
        train(dataset, tmp_path / "run", model="two_tower")
    with pytest.raises(ConfigError, match="'recall' is not measured of 'lr'"):
        train(dataset, tmp_path / "run", model="lr", settings=SETTINGS)
    assert ModelSettings(name="two_tower").retrieves


@torch.no_grad()
def test_a_score_is_a_cosine_and_with_a_bias_more(dataset: Dataset) -> None:
    plan = made_retrieval_plan(dataset)
    layout = layout_of(dataset.features, plan)
    plain, biased = (
        build_model("two_tower", {"temperature": 0.2, "item_bias": bias}, layout, seed=1)
        for bias in (False, True)
    )
    assert isinstance(plain, TwoTower)
    assert isinstance(biased, TwoTower)
    with distributed("cpu") as ranks:
        tables = build_tables(dataset, plan, SETTINGS, ranks)
        inputs = tables(next(Batches(dataset, "train", 30, seed=3).epoch()))
    query, item = plain.query(inputs), plain.item(inputs)
    for each in (query, item):
        torch.testing.assert_close(each.norm(dim=1), torch.ones(30))
    torch.testing.assert_close(plain(inputs), functional.cosine_similarity(query, item) / 0.2)
    query, item = biased.query(inputs), biased.item(inputs)
    assert (query[:, 0] == 1).all()
    cosine = functional.cosine_similarity(query[:, 1:], item[:, 1:])
    torch.testing.assert_close(item[:, 1:].norm(dim=1), torch.ones(30))
    torch.testing.assert_close(biased(inputs), cosine / 0.2 + item[:, 0] / 0.2)
    assert item[:, 0].std() > 0
