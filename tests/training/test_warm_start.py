"""Growing data: an enlarged plan, and a training that begins with what an earlier one learnt."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from recsys.config import (
    DenseOptimizer,
    PlanSettings,
    TableOptimizer,
    TableSettings,
    TimeSplit,
    TrainSettings,
)
from recsys.data.batches import Batches
from recsys.data.dataset import Dataset
from recsys.embeddings.plan import Plan
from recsys.embeddings.planner import plan as make_plan
from recsys.errors import CheckpointError, ConfigError, PlanError
from recsys.features.prepare import prepare
from recsys.models import build_model
from recsys.schema import Column, Schema
from recsys.settings.gates import GateSettings
from recsys.training.distributed import distributed
from recsys.training.layout import layout_of
from recsys.training.loaded import score_dataset
from recsys.training.run_folder import Run
from recsys.training.scoring import score_part
from recsys.training.tables_of import build_tables
from recsys.training.train import train
from recsys.training.warm_start import Earlier, carried, warm_start

SPLIT = TimeSplit(by="time", column="time", valid_from=300, test_from=350)
SCHEMA = Schema(
    columns={
        "time": Column(kind="numeric", type="int64", roles=("timestamp",)),
        "clicked": Column(kind="numeric", type="int64", roles=("label",)),
        "user": Column(kind="categorical", type="int64"),
        "item": Column(kind="categorical", type="string"),
        "history": Column(kind="sequence", type="string", vocabulary="item", max_length=4),
    }
)
DNN = {"name": "dnn", "hidden": [8]}
OLD_ROWS, NEW_ROWS = 300, 250
PLANS = {
    "full": PlanSettings(embedding_dim=4),
    "hash": PlanSettings(
        embedding_dim=4,
        lookups=2,
        tables={name: TableSettings(mode="hash", rows=30) for name in ("user", "item")},
    ),
    "unified": PlanSettings(
        mode="unified", embedding_dim=4, lookups=2, tables={"unified": TableSettings(rows=45, path="fused")}
    ),
}  # fmt: skip


def _log(rows: int, users: range, items: range, time: NDArray[np.int64], seed: int) -> pl.DataFrame:
    draw = np.random.default_rng(seed)
    names = [f"item-{i}" for i in items]
    return pl.DataFrame(
        {
            "time": time,
            "clicked": draw.integers(0, 2, rows),
            "user": draw.choice(users, rows),
            "item": draw.choice(names, rows),
            "history": [draw.choice(names, n).tolist() for n in draw.integers(0, 5, rows)],
        }
    )


@dataclass(frozen=True)
class Days:
    """A dataset, and the one that the same log gives later: the same train rows first, then new ones."""

    first: Dataset
    second: Dataset


@pytest.fixture(scope="module")
def days(tmp_path_factory: pytest.TempPathFactory) -> Days:
    folder = tmp_path_factory.mktemp("days")
    old = _log(400, range(40), range(25), np.arange(400), seed=1)
    new = _log(NEW_ROWS, range(30, 70), range(20, 60), np.full(NEW_ROWS, OLD_ROWS - 1), seed=2)
    later = pl.concat([old[:OLD_ROWS], new, old[OLD_ROWS:]])
    return Days(
        prepare(old, SCHEMA, folder / "first", split=SPLIT),
        prepare(later, SCHEMA, folder / "second", split=SPLIT),
    )


def _settings(**changes: object) -> TrainSettings:
    values: dict[str, object] = {
        "epochs": 1,
        "batch_size": 50,
        "tables": TableOptimizer(lr=0.05, fused_lr=0.3, init_std=0.3),
        "dense": DenseOptimizer(lr=0.02),
    }
    return TrainSettings.model_validate(values | changes)


def _first_run(days: Days, folder: Path, mode: str, **changes: object) -> Run:
    plan = make_plan(days.first, settings=PLANS[mode])
    return train(days.first, folder, model=DNN, plan=plan, settings=_settings(**changes))


@dataclass(frozen=True)
class Begun:
    """A model that begins with an earlier run's weights."""

    scores: NDArray[np.float32]
    """Of the train rows of the later dataset."""
    users: NDArray[np.float32]
    """The table of users, where there is one."""


def _begun(days: Days, plan: Plan, earlier: Path | None, hidden: int = 8) -> Begun:
    settings = _settings(seed=99)
    with distributed("cpu") as ranks:
        tables = build_tables(days.second, plan, settings, ranks)
        model = build_model("dnn", {"hidden": [hidden]}, layout_of(days.second.features, plan), seed=99)
        if earlier is not None:
            warm_start(earlier, days.second, plan, model, tables, ranks)
        scores = score_part(model, tables, Batches(days.second, "train", 64, shuffle=False), 1)
        users = tables.table("user") if "user" in plan.tables else np.empty((0, 4), np.float32)
    assert scores is not None
    return Begun(scores, users)


def _grown(days: Days, run: Run) -> Plan:
    return make_plan(days.second, settings=PlanSettings(grow=run.folder))


@pytest.mark.parametrize("mode", PLANS)
def test_old_rows_score_as_they_did_under_the_enlarged_plan(days: Days, tmp_path: Path, mode: str) -> None:
    run = _first_run(days, tmp_path / "run", mode)
    plan = _grown(days, run)
    assert plan.vocabularies["user"].size > run.plan.vocabularies["user"].size
    for name, table in run.plan.tables.items():
        rows = days.second.vocabulary_info(name).size if mode == "full" else table.rows
        assert plan.tables[name] == table.model_copy(update={"rows": rows})
    values = [each.values("item", ("value",))["value"].to_list() for each in (days.first, days.second)]
    assert values[1][: len(values[0])] != values[0]  # the same values have other ids now
    scores = _begun(days, plan, run.folder).scores[:OLD_ROWS]
    # Batches differ, and with them the order in which matrix products add up.
    np.testing.assert_allclose(scores, score_dataset(run.folder, "train"), rtol=0, atol=2e-7)
    assert np.ptp(scores) > 0.1


def test_new_values_begin_as_any(days: Days, tmp_path: Path) -> None:
    run = _first_run(days, tmp_path / "run", "full")
    plan = _grown(days, run)
    fresh, found = (_begun(days, plan, earlier).users for earlier in (None, run.folder))
    known = days.first.values("user", ("key",))["key"].to_list()
    keys = days.second.values("user", ("key",))["key"].to_list()
    is_new = np.array([key not in known for key in keys])
    assert 20 < is_new.sum() < len(keys) - 20
    np.testing.assert_array_equal(found[2:][is_new], fresh[2:][is_new])
    assert (found[2:][~is_new] != fresh[2:][~is_new]).any(axis=1).all()


def test_a_hashed_table_of_more_rows_gets_the_vectors_of_its_values(days: Days, tmp_path: Path) -> None:
    """In so many rows no two values meet, so that every one keeps what it shared before."""
    run = _first_run(days, tmp_path / "run", "hash")
    tables = {name: TableSettings(mode="hash", rows=50_000) for name in ("user", "item")}
    plan = make_plan(days.second, settings=PLANS["hash"].model_copy(update={"tables": tables}))
    scores = _begun(days, plan, run.folder).scores[:OLD_ROWS]
    np.testing.assert_allclose(scores, score_dataset(run.folder, "train"), atol=1e-6)


def test_what_gates_closed_begins_with_zeros(days: Days, tmp_path: Path) -> None:
    gates = GateSettings(epochs=2, lr=0.08, l1=2e-3)
    run = _first_run(days, tmp_path / "run", "full", gates=gates)
    kept, size = np.array(list(run.result.kept_values.values())).sum(0)
    assert 0 < kept < size
    scores = _begun(days, _grown(days, run), run.folder).scores[:OLD_ROWS]
    np.testing.assert_allclose(scores, score_dataset(run.folder, "train"), atol=1e-6)


@pytest.mark.parametrize("mode", PLANS)
def test_values_of_another_type_have_other_keys_and_are_refused(days: Days, mode: str) -> None:
    vocabularies = days.second.manifest.vocabularies
    user = vocabularies["user"].model_copy(update={"type": "string"})
    manifest = days.second.manifest.model_copy(update={"vocabularies": {**vocabularies, "user": user}})
    before, plan = (make_plan(each, settings=PLANS[mode]) for each in (days.first, days.second))
    tables = {name: np.zeros((t.rows, t.dim), np.float32) for name, t in before.tables.items()}
    later = replace(days.second, manifest=manifest)
    with pytest.raises(PlanError, match="'user' are of type int64 in the earlier run and string here"):
        carried(Earlier(days.first, before, tables, None), later, plan, plan.table_of("user"))


def test_products_of_rows_cannot_be_carried(days: Days) -> None:
    settings = PlanSettings(embedding_dim=4, tables={"user": TableSettings(mode="quotient", rows=30)})
    before, plan = (make_plan(each, settings=settings) for each in (days.first, days.second))
    tables = {name: np.zeros((t.rows, t.dim), np.float32) for name, t in before.tables.items()}
    earlier = Earlier(days.first, before, tables, None)
    with pytest.raises(PlanError, match="'user' \\(mode quotient, multiply\\) cannot be carried"):
        carried(earlier, days.second, plan, "user")
    assert carried(earlier, days.second, plan, "item").known.any()


def test_a_run_file_s_training_begins_there_and_resumes_without_it(days: Days, tmp_path: Path) -> None:
    first = _first_run(days, tmp_path / "first", "full")
    plan = _grown(days, first)
    settings = _settings(warm_start=first.folder, log_every=1)
    cold = train(days.second, tmp_path / "cold", model=DNN, plan=plan, settings=_settings(log_every=1))
    warm = train(days.second, tmp_path / "warm", model=DNN, plan=plan, settings=settings)
    losses = [run.metrics["loss"].drop_nulls()[0] for run in (cold, warm)]
    assert losses[1] < losses[0] - 0.01
    (first.folder / "run.json").unlink()
    longer = settings.model_copy(update={"epochs": 2})
    again = train(days.second, tmp_path / "warm", model=DNN, plan=plan, settings=longer, resume=True)
    assert again.result.epochs == 2


def test_features_that_differ_are_named(days: Days, tmp_path: Path) -> None:
    """Also where only their order does: a layer's weights go by where a feature stands."""
    run = _first_run(days, tmp_path / "run", "full")
    for name, change, message in (
        ("order", lambda features: features[::-1], "their order differs"),
        ("fewer", lambda features: features[1:], "gone: "),
    ):
        folder = tmp_path / name
        shutil.copytree(days.second.folder, folder)
        manifest = json.loads((folder / "dataset.json").read_text())
        manifest["features"] = change(manifest["features"])
        (folder / "dataset.json").write_text(json.dumps(manifest))
        dataset = Dataset.load(folder)
        plan = make_plan(dataset, settings=PlanSettings(embedding_dim=4))
        with pytest.raises(PlanError, match=message):
            train(
                dataset, tmp_path / "next", model=DNN, plan=plan, settings=_settings(warm_start=run.folder)
            )
        assert not (tmp_path / "next").exists()


def test_what_cannot_be_carried_is_refused(days: Days, tmp_path: Path) -> None:
    run = _first_run(days, tmp_path / "run", "full")
    plan = make_plan(days.second, settings=PlanSettings(embedding_dim=4))
    with pytest.raises(CheckpointError, match=r"the model of .* is not the one to be trained"):
        _begun(days, plan, run.folder, hidden=9)
    with pytest.raises(CheckpointError, match="not a run folder"):
        _begun(days, plan, tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="is the run to be written"):
        train(days.second, run.folder, model=DNN, settings=_settings(warm_start=run.folder))
    with pytest.raises(PlanError, match=r"plan\.grow: .*nowhere: no run folder"):
        make_plan(days.second, settings=PlanSettings(grow=tmp_path / "nowhere"))
    overrides = {"user": TableSettings(dim=6), "item": TableSettings(dim=3)}
    widths = PlanSettings(embedding_dim=4, tables=overrides)
    other = make_plan(days.second, settings=widths)  # 6 + 3 + 3 numbers, as many as 4 + 4 + 4
    with pytest.raises(PlanError, match="'user' has 4 numbers in the earlier run and 6 here"):
        _begun(days, other, run.folder)
