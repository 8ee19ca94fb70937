"""Dynamic sparse learning: the budget holds, what is out is out, a resumed run goes on to the bit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import polars as pl
import pytest
import torch

from recsys.config import PlanSettings, TrainSettings
from recsys.data.dataset import Dataset
from recsys.embeddings.plan import Plan, TablePlan, UpdatePath, VocabularyPlan
from recsys.embeddings.planner import plan as make_plan
from recsys.embeddings.pool import pooled
from recsys.errors import CheckpointError, ConfigError, PlanError
from recsys.evaluation.metrics import auc
from recsys.models import build_model
from recsys.models.cross import CrossNetwork
from recsys.models.units import hidden_layers
from recsys.training.export import export
from recsys.training.layout import layout_of
from recsys.training.loaded import load_trained, score_dataset
from recsys.training.run_folder import Run
from recsys.training.scoring import labels_of
from recsys.training.sparsity.size import Size
from recsys.training.train import train
from tests.training.made import made_dataset, made_plan
from tests.training.retrieval_log import made_retrieval_dataset, made_retrieval_plan
from tests.training.saved import checkpoint_tensors, stopped_at

DNN = {"name": "dnn", "hidden": [48, 32], "dropout": 0.1}
HEADS = {
    "name": "autoint_plus", "layers": 2, "heads": 4, "head_dim": 3, "layer_norm": True, "scale": True,
    "attention_dropout": 0.1, "hidden": [24],
}  # fmt: skip
BOTH = {"budget": 0.5, "dense": 0.5, "tables": 0.4, "pieces": 2, "interval": 5, "updates": 4}
PUBLISHED = {"budget": 0.3, "method": "dsl", "interval": 5, "updates": 4, "drop": 0.5}
ONE_DIAL = {"budget": 0.25, "interval": 5, "updates": 4}
DENSE_ONLY = {"budget": 0.3, "dense": 0.3, "tables": 1.0, "interval": 5, "updates": 4}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return made_dataset(tmp_path_factory.mktemp("made") / "dataset", rows=1_280)


def _train(
    dataset: Dataset,
    folder: Path,
    sparsity: Mapping[str, Any] | None,
    *,
    model: Mapping[str, Any] = DNN,
    path: UpdatePath = "dense",
    resume: bool = False,
    **changes: Any,
) -> Run:
    values = {
        "max_steps": 30,
        "batch_size": 64,
        "log_every": 1,
        "checkpoint_every": 8,
        "keep_checkpoints": 9,
        "tables": {"lr": 0.01, "fused_lr": 0.1},
        "dense": {"lr": 0.005},
        "sparsity": sparsity,
    }
    settings = TrainSettings.model_validate(values | changes)
    plan = made_plan(dataset, path)
    return train(dataset, folder, model=model, plan=plan, settings=settings, resume=resume)


def _require_equal(left: Path, right: Path) -> None:
    mine, theirs = checkpoint_tensors(left), checkpoint_tensors(right)
    assert set(mine) == set(theirs)
    for key, value in mine.items():
        assert torch.equal(value, theirs[key]), key


@pytest.mark.parametrize("allocation", ["worth", "erk", "uniform"])
def test_the_dense_part_is_as_small_as_asked(dataset: Dataset, tmp_path: Path, allocation: str) -> None:
    whole = _train(dataset, tmp_path / "whole", None)
    small = _train(dataset, tmp_path / "small", {**DENSE_ONLY, "allocation": allocation})
    assert small.result.parameters <= 0.3 * whole.result.parameters
    assert small.result.parameters > 0.25 * whole.result.parameters  # layers of few units are coarse
    densities = small.metrics.drop_nulls("density/dense")
    assert densities["step"].to_list() == [5, 10, 15, 20]
    assert densities["density/dense"].is_sorted(descending=True)
    assert small.result.best_step >= 20


def test_the_dense_part_begins_with_twice_what_it_keeps(dataset: Dataset, tmp_path: Path) -> None:
    """Or with all it has, where it is to keep more than half."""
    for kept, begun in ((0.3, 0.6), (0.6, 1.0)):
        sparsity = {**DENSE_ONLY, "budget": kept, "dense": kept}
        run = _train(dataset, tmp_path / f"{kept}", sparsity, max_steps=21)
        first = run.metrics["density/dense"].drop_nulls()[0]
        after_a_quarter = kept + (begun - kept) * 0.75**3
        assert 0.9 * after_a_quarter < first <= after_a_quarter


def test_weights_bundle_and_moments_of_units_that_are_out_are_gone(
    dataset: Dataset, tmp_path: Path
) -> None:
    small = _train(dataset, tmp_path / "small", DENSE_ONLY)
    widths = [layer.width for layer in hidden_layers(load_trained(small.folder).model)]
    saved = checkpoint_tensors(_checkpoint(small, 30))
    matrix = "model.mlp.layers.4.weight"
    assert saved[matrix].shape == (widths[1], widths[0])
    assert saved["optimiser.dense.mlp.layers.4.weight.exp_avg_sq"].shape == (widths[1], widths[0])
    assert not any(key.startswith("sparsity.") for key in saved)
    export(small, tmp_path / "bundle")
    graph = onnx.load(tmp_path / "bundle" / "dense.onnx").graph
    assert (widths[1], widths[0]) in {tuple(array.dims) for array in graph.initializer}


def test_heads_that_are_out_are_gone(dataset: Dataset, tmp_path: Path) -> None:
    """From checkpoint, moments, graph and multiplications; what is left scores in the graph as in torch."""
    small = _train(dataset, tmp_path / "small", DENSE_ONLY, model=HEADS)
    model = load_trained(small.folder).model
    heads = [layer.width for layer in hidden_layers(model)[:2]]
    assert 2 <= sum(heads) < 8
    whole = build_model(
        small.file.model, small.file.options, layout_of(dataset.features, small.plan), seed=1
    )
    size = Size(whole, hidden_layers(whole))
    kept = [layer.width for layer in hidden_layers(model)]
    assert size.attention(kept) <= max(0.3 * size.attention([4, 4, 24]), size.attention([1, 1, 1]))
    assert 0.25 * size.whole < small.result.parameters <= 0.3 * size.whole
    saved = checkpoint_tensors(_checkpoint(small, 30))
    shape = (4 * 3 * heads[1], 3 * heads[0])
    matrix = "attention.layers.layers.1.projection"
    assert saved[f"model.{matrix}"].shape == saved[f"optimiser.dense.{matrix}.exp_avg"].shape == shape
    export(small, tmp_path / "bundle")  # compares the graph's scores with the model's
    stored = {
        tuple(array.dims) for array in onnx.load(tmp_path / "bundle" / "dense.onnx").graph.initializer
    }
    assert stored & {shape, shape[::-1]}


@pytest.mark.parametrize("structure", ["parallel", "stacked"])
def test_crossed_outputs_that_are_out_are_gone(dataset: Dataset, tmp_path: Path, structure: str) -> None:
    """From checkpoint, moments and graph; columns without one are what they were a layer before."""
    model = {"name": "dcnv2", "cross_layers": 2, "hidden": [24], "structure": structure}
    run = _train(dataset, tmp_path / "run", DENSE_ONLY, model=model)
    network = load_trained(run.folder).model.cross
    assert isinstance(network, CrossNetwork)
    x = torch.randn(5, network.layers[0].weight.shape[1], generator=torch.Generator().manual_seed(1))
    expected = x
    saved = checkpoint_tensors(_checkpoint(run, 30))
    for number, layer in enumerate(network.layers):
        columns, weight = layer.columns, layer.weight
        assert 0 < len(columns) < weight.shape[1]
        assert len(weight) == len(layer.bias) == len(columns)
        key = f"cross.layers.{number}"
        assert torch.equal(saved[f"model.{key}.columns"], columns)
        assert saved[f"optimiser.dense.{key}.weight.exp_avg"].shape == weight.shape
        whole = torch.zeros(weight.shape[1], weight.shape[1]).index_copy(0, columns, weight)
        bias = torch.zeros(weight.shape[1]).index_copy(0, columns, layer.bias)
        expected = x * (expected @ whole.t() + bias) + expected
    torch.testing.assert_close(network(x), expected)
    export(run, tmp_path / "bundle")  # compares the graph's scores with the model's
    assert 0.25 < run.result.parameters / _dense_parameters(dataset, model) <= 0.3


def _dense_parameters(dataset: Dataset, model: Mapping[str, Any]) -> int:
    options = {key: value for key, value in model.items() if key != "name"}
    whole = build_model(
        str(model["name"]), options, layout_of(dataset.features, made_plan(dataset, "dense")), seed=1
    )
    return sum(parameter.numel() for parameter in whole.parameters())


def test_towers_are_half_as_large(tmp_path: Path) -> None:
    """Hidden units among what goes; users without a vector are exported like others."""
    log = made_retrieval_dataset(tmp_path / "log", rows=500)
    plan = made_retrieval_plan(log)
    model = {"name": "two_tower", "item_hidden": [12], "negatives": 5}
    sparsity = {"budget": 0.5, "dense": 0.5, "tables": 0.5, "pieces": 2, "interval": 5, "updates": 4}
    sizes = []
    for name, chosen in (("whole", None), ("small", sparsity)):
        settings = TrainSettings.model_validate(
            {"max_steps": 30, "batch_size": 97, "monitor": "ndcg", "sparsity": chosen}
        )
        run = train(log, tmp_path / name, model=model, plan=plan, settings=settings)
        sizes.append((run.result.parameters, sum(t.rows * t.dim for t in run.plan.tables.values())))
    (dense, tables), (few, rows) = sizes
    assert 0.4 * dense < few <= 0.5 * dense
    assert abs(rows - 0.5 * tables) <= 4 * 3
    empty = load_trained(run.folder).row_maps["user_id"]
    users = export(run, tmp_path / "bundle", embeddings=("user_id",)).manifest
    assert (empty == 0).all(1).any()
    assert users.towers is not None


@pytest.mark.parametrize("step", [8, 24], ids=["exploring", "settled"])
@pytest.mark.parametrize(
    ("sparsity", "model", "path", "average"),
    [
        (BOTH, DNN, "dense", None),
        (BOTH, DNN, "fused", None),
        (PUBLISHED, DNN, "dense", None),
        (BOTH, HEADS, "dense", None),
        (BOTH, DNN, "dense", 0.9),
        (BOTH, {"name": "dcnv2", "cross_layers": 2, "hidden": [24]}, "dense", None),
        (ONE_DIAL, DNN, "dense", None),
        ({**ONE_DIAL, "budget": 0.4, "pieces": 2}, HEADS, "fused", None),
    ],
    ids=[
        "both-dense",
        "both-fused",
        "published",
        "heads",
        "averaged",
        "crossed",
        "one-dial",
        "one-dial-fused",
    ],
)
def test_a_resumed_run_goes_on_to_the_bit(
    dataset: Dataset,
    tmp_path: Path,
    sparsity: dict[str, Any],
    model: dict[str, Any],
    path: UpdatePath,
    average: float | None,
    step: int,
) -> None:
    whole = _train(dataset, tmp_path / "whole", sparsity, model=model, path=path, average=average)
    parts = stopped_at(whole.folder, tmp_path / "parts", step)
    resumed = _train(dataset, parts, sparsity, model=model, path=path, average=average, resume=True)
    _require_equal(*(_checkpoint(run, 30) for run in (whole, resumed)))
    kept = [run.metrics.select(pl.selectors.starts_with("density/")) for run in (whole, resumed)]
    assert kept[0].equals(kept[1])


def test_averages_begin_anew_when_what_is_kept_changes(dataset: Dataset, tmp_path: Path) -> None:
    """And are cut with the layers."""
    run = _train(dataset, tmp_path / "run", BOTH, average=0.9, monitor="auc")
    tensors = checkpoint_tensors(_checkpoint(run, 30))
    assert tensors["average.updates"] == 30 - BOTH["interval"] * BOTH["updates"]
    learning = [key for key in tensors if key.startswith("learning.")]
    averages = [key.removeprefix("learning.") for key in learning]
    assert {key.split(".")[0] for key in averages} == {"model", "tables"}
    for ours, theirs in zip(averages, learning, strict=True):
        assert tensors[ours].shape == tensors[theirs].shape
        assert not torch.equal(tensors[ours], tensors[theirs])
    label, _ = labels_of(dataset, "valid")
    assert auc(label, score_dataset(run.folder, "valid")) == pytest.approx(run.result.best_value, abs=1e-9)


def test_units_that_are_out_do_not_learn(dataset: Dataset, tmp_path: Path) -> None:
    """Between updates at steps 5 and 10, the rows of units that are out stay as they were at step 5."""
    run = _train(dataset, tmp_path / "run", DENSE_ONLY, checkpoint_every=1, keep_checkpoints=30)
    states = [checkpoint_tensors(_checkpoint(run, step)) for step in (5, 9)]
    out = states[0]["sparsity.units.mlp.0.mask"] == 0
    assert out.any()
    assert torch.equal(out, states[1]["sparsity.units.mlp.0.mask"] == 0)
    weights = [state["model.mlp.layers.0.weight"] for state in states]
    assert torch.equal(weights[0][out], weights[1][out])
    assert not torch.equal(weights[0][~out], weights[1][~out])
    moments = states[0]["optimiser.dense.mlp.layers.0.weight.exp_avg"]
    assert not moments[out].any()


SHORT = {"interval": 5, "updates": 2}


@pytest.mark.parametrize(
    ("sparsity", "model", "message"),
    [
        ({"budget": 0.3, "interval": 10, "updates": 3}, DNN, r"end at step 30, the run at step 30"),
        (
            {"budget": 0.001, "dense": 0.001, "tables": 1.0, "interval": 5, "updates": 2},
            DNN,
            "every layer keeps one unit",
        ),
        (
            {"budget": 0.3, "dense": 0.3, "tables": 1.0, "interval": 5, "updates": 2},
            {"name": "fm"},
            "no hidden units or heads to drop",
        ),
        (
            {"budget": 0.01, "tables": 1.0, **SHORT},
            DNN,
            "is used up by the tables, of which 1 stays; raise",
        ),
        (
            {"budget": 0.3, "dense": 0.5, **SHORT},
            {"name": "fm"},
            r"sparsity\.dense: FM has no hidden units",
        ),
        ({"budget": 0.003, **SHORT}, DNN, "is used up by the dense part, of which every layer keeps one"),
        ({"budget": 0.09, **SHORT}, {"name": "dnn", "hidden": [2]}, "vocabularies; raise"),
        ({**BOTH, "pieces": 3}, DNN, "expected a multiple of the 3"),
        (
            {"budget": 0.9, "dense": 0.9, "tables": 0.01, "interval": 5, "updates": 2},
            DNN,
            "for 3 vocabularies",
        ),
    ],
)
def test_what_cannot_be_met_is_said_before_training(
    dataset: Dataset, tmp_path: Path, sparsity: dict[str, Any], model: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        _train(dataset, tmp_path / "run", sparsity, model=model)
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.parametrize(
    ("sparsity", "message"),
    [
        ({"budget": 0}, "greater than 0"),
        ({"budget": 1}, "keeps everything"),
        ({"budget": 0.5, "dense": 0.5, "start": 0.2}, "below the share"),
        ({"budget": 0.5}, "needs a row per value"),
    ],
)
def test_densities_that_make_no_sense_are_refused(sparsity: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainSettings.model_validate({"sparsity": sparsity, "tables": {"l2_rows": 1.0}})


@pytest.mark.parametrize("path", ["dense", "fused"])
@pytest.mark.parametrize("allocation", ["worth", "erk", "uniform"])
def test_a_pool_keeps_its_rows_and_moves_them(
    dataset: Dataset, tmp_path: Path, path: UpdatePath, allocation: str
) -> None:
    sparsity = {**BOTH, "dense": 1.0, "allocation": allocation}
    run = _train(dataset, tmp_path / "run", sparsity, path=path, checkpoint_every=1, keep_checkpoints=30)
    slots = {step: checkpoint_tensors(_checkpoint(run, step))["slots.pool"] for step in (4, 5, 9, 20, 30)}
    rows = run.plan.tables["pool"].rows
    for held in slots.values():
        assert held[held > 0].sort().values.tolist() == list(range(1, rows))
    assert torch.equal(slots[5], slots[9])
    assert torch.equal(slots[20], slots[30])
    changed = slots[4] != slots[5]
    assert changed.any()
    new = slots[5][changed & (slots[5] > 0)].long()
    after = checkpoint_tensors(_checkpoint(run, 5))
    assert not after["tables.pool.weight"][new].any()
    state = "tables.pool.accumulator" if path == "fused" else "optimiser.tables.pool.exp_avg_sq"
    assert not after[state][new].any()
    assert after[state].any()


def test_values_without_rows_add_nothing_and_leave_the_bundle(dataset: Dataset, tmp_path: Path) -> None:
    run = _train(dataset, tmp_path / "run", {**BOTH, "pieces": 1, "dense": 1.0})
    trained = load_trained(run.folder)
    assert not trained.tables["pool"][0].any()
    bundle = export(run, tmp_path / "bundle", dtype="int8", embeddings=("item",))
    assert bundle.manifest.tables["pool"].rows == run.plan.tables["pool"].rows
    assert not bundle.tables["pool"].lookup(np.zeros(1, np.int64)).any()
    rows = trained.row_maps["item"]
    assert len(bundle.vocabularies["item"].keys) == np.count_nonzero(rows[2:]) < len(rows) - 2
    vectors = pl.read_parquet(tmp_path / "bundle" / "embeddings" / "item.parquet")["embedding"].to_numpy()
    assert np.array_equal(vectors.any(axis=1), rows[2:] > 0)


def test_a_bundle_puts_pieces_together_where_that_is_smaller(dataset: Dataset, tmp_path: Path) -> None:
    """Vectors of eight: a piece of four is as large in float16 as in int8, the whole vector is not."""
    run = _train(dataset, tmp_path / "run", {**BOTH, "dense": 1.0, "tables": 0.9})
    trained = load_trained(run.folder)
    bundle = export(run, tmp_path / "bundle", dtype="int8", embeddings=("item",))
    assert bundle.manifest.vocabularies["item"].table == "pool_whole"
    assert bundle.manifest.tables["pool_whole"].dim == 2 * run.plan.tables["pool"].dim
    expected = trained.tables["pool"][trained.row_maps["item"]].reshape(-1, 8)[2:]
    vectors = pl.read_parquet(tmp_path / "bundle" / "embeddings" / "item.parquet")["embedding"].to_numpy()
    assert np.array_equal(vectors, expected)
    keys = bundle.vocabularies["item"]
    known = dataset.values("item").filter(pl.Series(expected.any(axis=1))).sort("key")
    assert np.array_equal(keys.keys, known["key"].to_numpy())
    served = bundle.tables["pool_whole"].lookup(keys.rows)
    allowed = bundle.manifest.tables["pool_whole"].max_error
    assert np.abs(served - expected[known["id"].to_numpy() - 2]).max() <= allowed


def test_a_pool_leaves_tables_their_names() -> None:
    tables = {name: TablePlan(rows=9, dim=4, path="dense", serve_dtype="int8") for name in ("pool", "user")}
    vocabularies = {
        "pool": VocabularyPlan(mode="hash", table="pool", size=30),
        "user": VocabularyPlan(mode="full", table="user", size=9),
    }
    plan = Plan(tables=tables, vocabularies=vocabularies, features={"pool": "pool", "user": "user"})
    found = pooled(plan, 0.5, 1)
    assert {name: (info.mode, info.table) for name, info in found.vocabularies.items()} == {
        "pool": ("hash", "pool"),
        "user": ("pool", "pool_"),
    }


def test_published_masks_keep_their_counts_and_zeros(dataset: Dataset, tmp_path: Path) -> None:
    run = _train(dataset, tmp_path / "run", PUBLISHED, checkpoint_every=1, keep_checkpoints=30)
    states = [checkpoint_tensors(_checkpoint(run, step)) for step in (4, 5, 30)]
    for key in ("dense/mlp.layers.0.weight", "tables/item"):
        masks = [state[f"sparsity.masks.{key}"] for state in states]
        assert len({int(mask.sum()) for mask in masks}) == 1
        assert not torch.equal(masks[0], masks[1])
        part, name = key.split("/")
        weights = states[2][f"model.{name}" if part == "dense" else f"tables.{name}.weight"]
        assert not weights[~masks[2]].any()
        assert weights[masks[2]].any()


def test_a_finished_run_stands_where_its_successor_is_refused(dataset: Dataset, tmp_path: Path) -> None:
    """What cannot be met is said before an earlier run is cleared away, also if it is to be replaced."""
    folder = _train(dataset, tmp_path / "run", None).folder
    kept = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    for sparsity in (
        {"budget": 0.3, "interval": 10, "updates": 3},
        {"budget": 0.3, "dense": 1e-4, **SHORT},
    ):
        settings = TrainSettings.model_validate({"max_steps": 30, "batch_size": 64, "sparsity": sparsity})
        with pytest.raises(ConfigError):
            train(
                dataset,
                folder,
                model=DNN,
                plan=made_plan(dataset, "dense"),
                settings=settings,
                overwrite=True,
            )
        assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == kept
        assert (folder / "checkpoints" / "best").exists()


@pytest.mark.parametrize(
    ("sparsity", "model", "message"),
    [
        ({"budget": 0.3, "tables": 0.3, **SHORT}, DNN, r"sparsity\.tables: no table of the plan has a row"),
        ({"budget": 0.3, **SHORT}, {"name": "fm"}, r"FM has no hidden units .*, and no table"),
    ],
)
def test_rows_that_values_share_are_no_rows_to_drop(
    dataset: Dataset, tmp_path: Path, sparsity: dict[str, Any], model: dict[str, Any], message: str
) -> None:
    tables = {name: {"mode": "hash", "rows": 5} for name in ("colour", "item", "tag")}
    plan = make_plan(dataset, settings=PlanSettings.parse(embedding_dim=8, tables=tables))
    settings = TrainSettings.model_validate({"max_steps": 30, "batch_size": 64, "sparsity": sparsity})
    with pytest.raises(ConfigError, match=message):
        train(dataset, tmp_path / "run", model=model, plan=plan, settings=settings)
    assert not (tmp_path / "run").exists()


def test_a_sparse_run_cannot_be_pruned_or_begun_with(dataset: Dataset, tmp_path: Path) -> None:
    """It has chosen its values already, and its layers are cut."""
    run = _train(dataset, tmp_path / "run", BOTH)
    with pytest.raises(ConfigError, match="prune cuts values that have a row of their own"):
        export(run, tmp_path / "bundle", prune=0.3)
    assert not (tmp_path / "bundle").exists()
    with pytest.raises(CheckpointError, match=r"its layers were cut by train\.sparsity"):
        _train(dataset, tmp_path / "next", None, warm_start=run.folder)
    whole = _train(dataset, tmp_path / "whole", None)
    with pytest.raises(PlanError, match=r"keeps them for some values only here"):
        _train(dataset, tmp_path / "later", BOTH, warm_start=whole.folder)


def test_published_masks_fit_a_model_that_is_all_tables(tmp_path: Path) -> None:
    log = made_retrieval_dataset(tmp_path / "log", rows=300)
    settings = TrainSettings.model_validate(
        {"max_steps": 30, "batch_size": 97, "monitor": "ndcg", "sparsity": PUBLISHED}
    )
    model = {"name": "two_tower", "negatives": 5}
    run = train(log, tmp_path / "run", model=model, plan=made_retrieval_plan(log), settings=settings)
    kept = run.metrics["density/tables"].drop_nulls()
    assert kept.to_numpy() == pytest.approx(0.3, abs=0.05)


def test_published_masks_need_gradients(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="on the fused path"):
        _train(dataset, tmp_path / "run", PUBLISHED, path="fused")


def _checkpoint(run: Run, step: int) -> Path:
    return run.folder / "checkpoints" / f"step-{step:08d}"


def test_one_dial_is_shared_out_and_holds(dataset: Dataset, tmp_path: Path) -> None:
    """Units and rows share a quarter of all weights; the bundle holds no row that is spare."""
    whole = _train(dataset, tmp_path / "whole", None)
    small = _train(dataset, tmp_path / "small", ONE_DIAL)
    weights = whole.result.parameters + _weights(whole.plan)
    maps = load_trained(small.folder).row_maps
    rows = len(np.unique(np.concatenate([rows.ravel() for rows in maps.values()]))) - 1  # and that of zeros
    kept = small.result.parameters + rows * small.plan.tables["pool"].dim
    assert 0.24 * weights < kept <= 0.25 * weights
    assert rows < small.plan.tables["pool"].rows - 1
    bundle = export(small, tmp_path / "bundle", dtype="float32")
    assert bundle.manifest.tables["pool"].rows == rows + 1


def test_a_small_dense_part_may_keep_a_larger_share_than_the_budget(
    dataset: Dataset, tmp_path: Path
) -> None:
    """Half of it cannot go, as one of two units stays: the tables pay."""
    run = _train(
        dataset, tmp_path / "run", {**ONE_DIAL, "budget": 0.2}, model={"name": "dnn", "hidden": [2]}
    )
    kept = run.metrics.select("density/dense", "density/tables").drop_nulls().row(-1)
    assert kept[0] >= 0.5
    assert kept[1] < 0.2


@pytest.mark.parametrize("allocation", ["erk", "uniform"])
def test_without_worth_both_parts_keep_equally_many(
    dataset: Dataset, tmp_path: Path, allocation: str
) -> None:
    """An eighth of all weights each; the tables have more than that."""
    whole = _train(dataset, tmp_path / "whole", None)
    small = _train(dataset, tmp_path / "small", {**ONE_DIAL, "allocation": allocation})
    eighth = (whole.result.parameters + _weights(whole.plan)) / 8
    assert min(whole.result.parameters, _weights(whole.plan)) > eighth
    assert eighth - 8 <= _weights(small.plan) <= eighth + 8  # whole rows of 8, and the row of zeros
    assert 0.9 * eighth < small.result.parameters <= eighth  # whole units


def _weights(plan: Plan) -> int:
    return sum(table.rows * table.dim for table in plan.tables.values())
