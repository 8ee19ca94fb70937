"""Self-supervision on items: what is masked together, the loss by the formula, and a resume to the bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from torch.nn import functional

from recsys.config import TableOptimizer, TrainSettings
from recsys.data.batches import Batches
from recsys.data.columns import Columns, Ragged
from recsys.data.dataset import Dataset
from recsys.embeddings.plan import UpdatePath
from recsys.errors import ConfigError
from recsys.features.prepare import prepare
from recsys.models import build_model, parse_options
from recsys.models.statistics import BatchStatistics
from recsys.models.two_tower import TwoTower, TwoTowerConfig
from recsys.schema import Schema
from recsys.training.catalogue import Catalogue
from recsys.training.distributed import distributed
from recsys.training.feature_masks import FeatureMasks, mutual_information
from recsys.training.layout import layout_of
from recsys.training.retrieval import Retrieval
from recsys.training.self_supervision import SelfSupervision
from recsys.training.tables_of import build_tables
from recsys.training.train import train
from tests.training.retrieval_log import COLUMNS, made_log, made_retrieval_dataset, made_retrieval_plan
from tests.training.saved import saved_bytes

FEATURES = ("item_id", "genres", "price")
OPTIONS = {"negatives": 7, "ssl_weight": 0.7, "ssl_items": 20, "ssl_temperature": 0.3, "ssl_dropout": 0.5}
SETTINGS = TrainSettings(
    batch_size=128,
    monitor="recall",
    log_every=1,
    tables=TableOptimizer(lr=0.01, fused_lr=0.2, init_std=0.1),
)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return made_retrieval_dataset(tmp_path_factory.mktemp("log") / "log", rows=600)


def made_columns(items: int = 3_000) -> Columns:
    """Items whose maker settles their country and, most times, their price; tags hold the shelf."""
    draw = np.random.default_rng(1)
    maker, shelf, noise = (
        draw.integers(0, 40, items),
        draw.integers(0, 12, items),
        draw.integers(0, 9, items),
    )
    ids = np.column_stack([np.arange(items), maker, maker % 5, shelf, noise])
    tags = np.column_stack([100 + shelf, draw.integers(0, 50, items)]).ravel()
    return Columns(
        single=("item", "maker", "country", "shelf", "noise"),
        ids=ids,
        ragged={"tags": Ragged(tags, np.arange(items + 1) * 2)},
        numeric=("price",),
        numbers=(maker + draw.normal(0, 0.2, items)).astype(np.float32)[:, None],
        label=np.ones(items, np.float32),
        weight=None,
        group=None,
    )


NAMES = ("item", "maker", "country", "shelf", "noise", "tags", "price")


def test_the_information_is_that_beyond_chance() -> None:
    found = mutual_information(made_columns(), NAMES)
    between = {(one, other): found[i, j] for i, one in enumerate(NAMES) for j, other in enumerate(NAMES)}
    np.testing.assert_array_equal(found, found.T)
    # the entropy of a maker's country, less what 40 values tell of 5 by chance
    assert between["maker", "country"] == pytest.approx(np.log(5) - 39 * 4 / (2 * 3_000), abs=0.01)
    # half of the elements picked are the shelf
    assert between["shelf", "tags"] == pytest.approx(np.log(12) / 2, abs=0.05)
    assert between["maker", "price"] > 2.0
    for one, other in [("noise", "maker"), ("noise", "tags"), ("maker", "shelf"), ("item", "maker")]:
        assert abs(between[one, other]) <= 0.05
    assert (np.diag(found) == 0).all()


def test_what_tells_most_of_a_seed_is_masked_with_it() -> None:
    masks = FeatureMasks.correlated(NAMES, mutual_information(made_columns(), NAMES))
    assert masks.together is not None
    by_seed = dict(zip(NAMES, masks.together, strict=True))
    assert by_seed["maker"] > {"maker", "country", "price"}
    assert by_seed["country"] > {"maker", "country", "price"}
    assert by_seed["shelf"] > {"shelf", "tags"}
    draw = np.random.default_rng(0)
    assert {masks.draw(draw) for _ in range(200)} == set(masks.together)


@pytest.mark.parametrize(("count", "masked"), [(2, 1), (3, 2), (4, 3), (5, 3), (8, 5)])
def test_a_seed_has_half_of_the_features_as_partners_and_one_is_kept(count: int, masked: int) -> None:
    names = [f"f{at}" for at in range(count)]
    correlated = FeatureMasks.correlated(names, np.zeros((count, count)))
    random = FeatureMasks.random(names)
    draw = np.random.default_rng(0)
    assert {len(each) for each in correlated.together or ()} == {masked}
    drawn = [random.draw(draw) for _ in range(300)]
    assert {len(each) for each in drawn} == {masked}
    assert set().union(*drawn) == set(names) == set().union(*(set(names) - each for each in drawn))


def supervision(dataset: Dataset, options: dict[str, object], seed: int = 1) -> SelfSupervision:
    config = parse_options("two_tower", options)
    assert isinstance(config, TwoTowerConfig)
    with distributed("cpu") as ranks:
        return SelfSupervision(Catalogue.of(dataset), FEATURES, config, seed, ranks)


def test_items_are_distinct_and_lists_lose_elements(dataset: Dataset) -> None:
    """Which are a matter of seed and step, and as often any item of the catalogue as any other."""
    supervised = supervision(dataset, OPTIONS | {"ssl_items": 60})
    catalogue = Catalogue.of(dataset)
    times = np.zeros(len(catalogue), np.int64)
    left = total = 0
    for step in range(300):
        batch, views = supervised.items(step)
        places = catalogue.positions(batch.ids["item_id"])
        assert len(set(places.tolist())) == 60 == batch.rows == views.drawn
        times[places] += 1
        whole = catalogue.batch(places)
        left, total = left + len(batch.ids["genres"]), total + len(whole.ids["genres"])
        ends, starts = np.cumsum(batch.lengths["genres"]), np.cumsum(whole.lengths["genres"])
        for row in range(0, 60, 7):
            mine = batch.ids["genres"][ends[row] - batch.lengths["genres"][row] : ends[row]]
            theirs = whole.ids["genres"][starts[row] - whole.lengths["genres"][row] : starts[row]]
            assert set(mine.tolist()) <= set(theirs.tolist())
    expected = 300 * 60 / len(catalogue)
    assert abs(times - expected).max() < 5.5 * np.sqrt(expected)
    assert left / total == pytest.approx(0.5, abs=0.02)
    again, other = supervision(dataset, OPTIONS), supervision(dataset, OPTIONS, seed=2)
    drawn = [
        one.items(4)[0].ids["item_id"].tolist() for one in (supervision(dataset, OPTIONS), again, other)
    ]
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize(
    "extra", [{}, {"item_hidden": [6], "dim": 5, "normalise": False}, {"item_bias": True}]
)
def test_the_loss_is_the_formula_and_gradients_flow(dataset: Dataset, extra: dict[str, object]) -> None:
    options = {**OPTIONS, **extra}
    plan = made_retrieval_plan(dataset)
    model = build_model("two_tower", options, layout_of(dataset.features, plan), seed=1)
    assert isinstance(model, TwoTower)
    with distributed("cpu") as ranks:
        tables = build_tables(dataset, plan, SETTINGS, ranks)
        losses = []
        for weight in (0.0, 0.7):
            config = parse_options("two_tower", options | {"ssl_weight": weight})
            objective = Retrieval(dataset, config, SETTINGS, ranks)
            batch = next(Batches(dataset, "train", 30, seed=3).epoch())
            wide, known = objective.widen(batch)
            prepared = tables.prepare(wide)
            losses.append(objective.loss(model, tables(prepared), prepared, known))
        inputs = tables(prepared).part(slice(37, None))
        (losses[1] - losses[0]).backward()
    assert known.views is not None
    assert len(known.views.items) == 20
    views = []
    for kept in (set(FEATURES) - known.views.masked, known.views.masked):
        fields = model.item_tower.vectors
        parts = dict(zip(fields.names, torch.split(fields(inputs), list(fields.widths), 1), strict=True))
        shown = [part if name in kept else torch.zeros_like(part) for name, part in parts.items()]
        tower = model.item_tower
        if tower.mlp is None:
            vectors = torch.stack(shown).sum(0)
        else:
            assert tower.last is not None
            vectors = tower.last(tower.mlp(torch.cat(shown, 1)))
        views.append(vectors[:, 1:] if "item_bias" in extra else vectors)
    cosines = functional.cosine_similarity(views[0][:, None], views[1][None], dim=2) / 0.3
    expected = functional.cross_entropy(cosines, torch.arange(20))
    assert float((losses[1] - losses[0]).detach()) == pytest.approx(
        30 * 0.7 * float(expected.detach()), rel=1e-4
    )
    for name, weight in tables.dense_weights().items():
        assert weight.grad is not None
        of_items = name in ("item_id", "genres")
        assert (weight.grad.abs().sum() > 0.01) == of_items, name


def test_views_leave_running_averages_alone(dataset: Dataset) -> None:
    options = OPTIONS | {"item_hidden": [6], "batch_norm": True}
    plan = made_retrieval_plan(dataset)
    model = build_model("two_tower", options, layout_of(dataset.features, plan), seed=1)
    assert isinstance(model, TwoTower)
    supervised = supervision(dataset, options)
    with distributed("cpu") as ranks:
        tables = build_tables(dataset, plan, SETTINGS, ranks)
        batch, views = supervised.items(0)
        inputs = tables(batch)
    statistics = next(part for part in model.item_tower.modules() if isinstance(part, BatchStatistics))
    model.item(inputs)
    before = [buffer.clone() for buffer in statistics.buffers()]
    supervised.loss(model, inputs, views, "fp32")
    assert all(torch.equal(old, new) for old, new in zip(before, statistics.buffers(), strict=True))
    model.item(inputs)
    assert int(statistics.batches) == 2


@pytest.mark.parametrize(("path", "masking"), [("dense", "correlated"), ("fused", "random")])
def test_k_steps_then_resume_equals_one_run_to_the_bit(
    dataset: Dataset, tmp_path: Path, path: UpdatePath, masking: str
) -> None:
    plan = made_retrieval_plan(dataset, path)
    model = {"name": "two_tower", **OPTIONS, "ssl_masking": masking, "item_hidden": [8], "dropout": 0.2}
    runs = {}
    for name, steps in (("whole", [11]), ("parts", [4, 11])):
        for most in steps:
            settings = SETTINGS.model_copy(update={"max_steps": most})
            runs[name] = train(
                dataset, tmp_path / name, model=model, plan=plan, settings=settings, resume=most != steps[0]
            )
    assert saved_bytes(runs["whole"].folder) == saved_bytes(runs["parts"].folder)
    losses = [run.metrics["loss"].drop_nulls().to_list() for run in runs.values()]
    assert losses[0] == losses[1]


def test_items_with_one_feature_are_refused_before_training(tmp_path: Path) -> None:
    columns = {name: column for name, column in COLUMNS.items() if name not in ("genres", "price")}
    log = made_log(100).select(pl.all().exclude("genres", "price"))
    dataset = prepare(log, Schema(columns=columns), tmp_path / "dataset", positives_only=True)
    with pytest.raises(ConfigError, match=r"model\.ssl_weight: .*items have 'item_id' alone; give them"):
        train(dataset, tmp_path / "run", model={"name": "two_tower", "ssl_weight": 0.1}, settings=SETTINGS)
    assert not list((tmp_path / "run").glob("checkpoints/*"))
