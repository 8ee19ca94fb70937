"""Tables of one process, against plain torch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from recsys.embeddings.plan import Plan, UpdatePath
from recsys.embeddings.tables import Tables
from recsys.errors import CheckpointError, DataError, PlanError
from tests.embeddings.table_cases import (
    FEATURES,
    ROW_MAPS,
    SIZES,
    loss_of,
    make_batch,
    make_plan,
    make_tables,
    plain_inputs,
)

pytestmark = pytest.mark.usefixtures("ranks")

PATHS: list[UpdatePath] = ["dense", "fused"]
MIXED: dict[str, UpdatePath] = {
    "day": "dense",
    "item.id": "fused",
    "tags": "dense",
    "site": "fused",
    "items": "dense",
}


def plain_weights(tables: Tables, names: Plan) -> dict[str, Tensor]:
    return {name: torch.from_numpy(tables.table(name)).requires_grad_() for name in names.tables}


@pytest.mark.parametrize("paths", [*PATHS, MIXED], ids=["dense", "fused", "mixed"])
@pytest.mark.parametrize("dim", [1, 8, 10])
@pytest.mark.parametrize("rows", [1, 13])
def test_vectors_are_those_of_plain_embeddings(paths: UpdatePath, dim: int, rows: int) -> None:
    plan = make_plan(paths, dim)
    tables = make_tables(plan)
    batch = make_batch(rows)
    found, expected = tables(batch), plain_inputs(plain_weights(tables, plan), batch)
    for part in ("fields", "numerics", "missing", "sequences", "lengths"):
        mine, theirs = getattr(found, part), getattr(expected, part)
        assert list(mine) == list(theirs)
        for name, value in theirs.items():
            assert mine[name].dtype == value.dtype
            torch.testing.assert_close(mine[name], value, rtol=0, atol=1e-7)


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam, torch.optim.Adagrad])
@pytest.mark.parametrize("dim", [8, 10])
def test_dense_path_updates_like_plain_embeddings(optimizer: type, dim: int) -> None:
    plan = make_plan("dense", dim)
    tables = make_tables(plan)
    plain = plain_weights(tables, plan)
    ours = optimizer(list(tables.dense_weights().values()), lr=0.05)
    theirs = optimizer(list(plain.values()), lr=0.05)
    for step in range(3):
        batch = make_batch(9, index=step)
        ours.zero_grad()
        theirs.zero_grad()
        loss_of(tables(batch), 9).backward()
        loss_of(plain_inputs(plain, batch), 9).backward()
        ours.step()
        theirs.step()
    for name, weights in plain.items():
        np.testing.assert_allclose(tables.table(name), weights.detach().numpy(), rtol=0, atol=2e-6)


@pytest.mark.parametrize("dim", [1, 8, 10])
def test_fused_path_is_row_wise_adagrad_of_the_true_dim(dim: int) -> None:
    plan = make_plan("fused", dim)
    tables = make_tables(plan, fused_lr=0.1)
    plain = plain_weights(tables, plan)
    sums = {name: torch.zeros(len(weights)) for name, weights in plain.items()}
    for step, lr in enumerate([0.1, 0.1, 0.02, 0.02]):
        batch = make_batch(9, index=step)
        tables.set_fused_lr(lr / 0.1)
        loss_of(tables(batch), 9).backward()
        loss_of(plain_inputs(plain, batch), 9).backward()
        for name, weights in plain.items():
            gradient = weights.grad
            assert gradient is not None
            sums[name] += gradient.square().mean(1)
            with torch.no_grad():
                weights -= lr * gradient / (sums[name].sqrt() + 1e-8).unsqueeze(1)
            weights.grad = None
    for name, weights in plain.items():
        np.testing.assert_allclose(tables.table(name), weights.detach().numpy(), rtol=0, atol=2e-6)


def test_shared_rows_of_one_step_are_updated_once_with_the_summed_gradient() -> None:
    plan = make_plan("fused", 4)
    tables = make_tables(plan, fused_lr=0.5)
    batch = make_batch(2)
    batch.ids["item"][:] = 5
    batch.ids["history"], batch.lengths["history"] = np.full(3, 5), np.array([1, 2])
    before = tables.table("item.id")
    inputs = tables(batch)
    (inputs.fields["item"].sum() + inputs.sequences["history"].sum()).backward()
    # Five lookups of row 5 sum to a gradient of 5 per element: its size cancels in Adagrad's first step.
    np.testing.assert_allclose(before[5] - tables.table("item.id")[5], np.full(4, 0.5), atol=1e-6)
    accumulator = tables.state()["item.id.accumulator"].to_local()
    assert accumulator[5].item() == 25.0
    assert accumulator.sum().item() == 25.0


def test_l2_adds_the_gradient_of_half_the_squared_norm_to_whole_tables() -> None:
    plan = make_plan(MIXED, 10)
    tables = make_tables(plan)
    plain = plain_weights(tables, plan)
    batch = make_batch(6)
    loss_of(tables(batch), 6).backward()
    tables.add_l2(0.3)
    norm = sum(plain[name].square().sum() for name in tables.dense_weights())
    (loss_of(plain_inputs(plain, batch), 6) + 0.15 * norm).backward()
    assert set(tables.dense_weights()) == {"day", "tags", "items"}
    for name, weight in tables.dense_weights().items():
        torch.testing.assert_close(weight.grad, plain[name].grad, rtol=0, atol=1e-6)


def test_l2_of_tables_without_a_gradient() -> None:
    tables = make_tables(make_plan("dense", 4))
    tables.add_l2(0.5)
    for weight in tables.dense_weights().values():
        torch.testing.assert_close(weight.grad, weight.detach() * 0.5)


def test_nothing_looked_up_with_gradients_changes_when_gradients_are_off() -> None:
    tables = make_tables(make_plan("fused"))
    before = tables.table("item.id")
    with torch.no_grad():
        assert not tables(make_batch(4)).fields["item"].requires_grad
    np.testing.assert_array_equal(before, tables.table("item.id"))


def test_first_weights_follow_from_the_seed_alone() -> None:
    plan = make_plan(MIXED, 10)
    torch.manual_seed(1)
    one, state = make_tables(plan), torch.random.get_rng_state()
    torch.manual_seed(1)
    assert torch.equal(state, torch.random.get_rng_state())
    two, other = make_tables(plan), make_tables(plan, seed=4)
    for name in plan.tables:
        np.testing.assert_array_equal(one.table(name), two.table(name))
        assert (one.table(name)[2:] != other.table(name)[2:]).all()
        assert not one.table(name)[:2].any()
    weights = np.concatenate([one.table(name)[2:].ravel() for name in plan.tables])
    assert weights.std() == pytest.approx(0.1, rel=0.1)
    assert abs(weights.mean()) < 0.02


def test_the_pad_stays_zero() -> None:
    plan = make_plan("fused", 10)
    tables = make_tables(plan)
    for step in range(3):
        loss_of(tables(make_batch(9, index=step)), 9).backward()
    for name in plan.tables:
        stored = tables._home[name].weight(name)
        assert stored.shape[1] == 12
        assert not stored[:, 10:].any()
        assert tables.state()[f"{name}.weight"].shape == (plan.tables[name].rows, 10)


@pytest.mark.parametrize("rows", [0, 1])
def test_batches_without_values(rows: int) -> None:
    tables = make_tables(make_plan(MIXED))
    batch = make_batch(rows)
    for name in ("history", "tags"):
        batch.ids[name], batch.lengths[name] = np.empty(0, np.int64), np.zeros(rows, np.int64)
    inputs = tables(batch)
    assert inputs.sequences["history"].shape == (rows, 0, 8)
    assert inputs.fields["tags"].shape == (rows, 8)
    assert not inputs.fields["tags"].any()
    loss_of(inputs, 1).backward()


@pytest.mark.parametrize(
    ("feature", "identity"), [("item", 23), ("history", -1), ("site", 40), ("day_before", 2**40)]
)
def test_ids_outside_the_vocabulary_are_refused(feature: str, identity: int) -> None:
    tables = make_tables(make_plan("dense"))
    batch = make_batch(5, index=7)
    batch.ids[feature], batch.lengths[feature] = batch.ids[feature].copy(), np.array([0, 0, 3, 0, 0])
    if feature == "history":
        batch.ids[feature] = np.array([1, 2, 3])
    batch.ids[feature][2] = identity
    with pytest.raises(
        DataError, match=rf"'{feature}': value 2 of batch 7 has id {identity}, expected 0 to"
    ):
        tables.prepare(batch)


def test_plans_that_do_not_fit_are_refused() -> None:
    plan = make_plan("dense")
    with pytest.raises(PlanError, match="'site' is hashed, but the rows of its ids were not given"):
        make_tables(plan, row_maps={})
    with pytest.raises(PlanError, match=r"expected 40 rows within \[0, 13\).*found 39 rows"):
        make_tables(plan, row_maps={"site": ROW_MAPS["site"][:39]})
    with pytest.raises(PlanError, match=r"found 40 rows within \[3, 13\]"):
        make_tables(plan, row_maps={"site": ROW_MAPS["site"] + 1})
    fewer = {name: vocabulary for name, vocabulary in plan.features.items() if name != "day"}
    with pytest.raises(PlanError, match="feature 'day' is not in the plan"):
        make_tables(plan.model_copy(update={"features": fewer}))
    small = plan.tables | {"day": plan.tables["day"].model_copy(update={"rows": SIZES["day"] - 1})}
    with pytest.raises(PlanError, match="'day' has 7 ids, its table 'day' only 6 rows"):
        make_tables(plan.model_copy(update={"tables": small}))


def test_a_second_run_is_equal_to_the_bit() -> None:
    plan = make_plan(MIXED)
    runs = []
    for _ in range(2):
        tables = make_tables(plan)
        optimizer = torch.optim.Adam(tables.dense_weights().values(), lr=0.01, fused=True)
        for step in range(3):
            optimizer.zero_grad()
            loss_of(tables(make_batch(300, index=step)), 300).backward()
            optimizer.step()
        runs.append({name: tables.table(name) for name in plan.tables})
    for name in plan.tables:
        np.testing.assert_array_equal(runs[0][name], runs[1][name])


def test_features_of_a_kind_alone() -> None:
    plan = make_plan("dense")
    only = [feature for feature in FEATURES if feature.name == "price"]
    inputs = Tables(plan, only)(make_batch(3))
    assert list(inputs.numerics) == ["price"]
    assert not inputs.fields
    history = [feature for feature in FEATURES if feature.name == "history"]
    batch = replace(make_batch(4), numerics={})
    assert list(Tables(plan, history)(batch).sequences) == ["history"]


def test_arrays_that_cannot_be_written_to_are_read() -> None:
    tables = make_tables(make_plan("dense"))
    batch = replace(make_batch(4), weight=np.ones(4, np.float32))
    before = tables(batch).fields["item"]
    arrays = [
        batch.label,
        batch.weight,
        *batch.ids.values(),
        *batch.lengths.values(),
        *batch.numerics.values(),
    ]
    for array in arrays:
        assert array is not None
        array.flags.writeable = False
    prepared = tables.prepare(batch)
    assert prepared.weight is not None
    assert torch.equal(tables(prepared).fields["item"], before)
    assert (prepared.index, prepared.global_rows, prepared.rows) == (0, 4, 4)


def test_a_state_can_be_copied_into_other_tables() -> None:
    plan = make_plan(MIXED, 10)
    tables, other = make_tables(plan), make_tables(plan, seed=8)
    loss_of(tables(make_batch(9)), 9).backward()
    assert not np.array_equal(tables.table("site"), other.table("site"))
    other.load_state(tables.state())
    for name in plan.tables:
        np.testing.assert_array_equal(tables.table(name), other.table(name))
    for key, value in tables.state().items():
        assert torch.equal(value.to_local(), other.state()[key].to_local())
    assert set(tables.state()) == {f"{name}.weight" for name in plan.tables} | {
        "item.id.accumulator",
        "site.accumulator",
    }
    with pytest.raises(CheckpointError, match=r"expected \['day.weight', .* found \['day.accumulator'"):
        other.load_state(make_tables(make_plan("fused", 10)).state())
    with pytest.raises(
        CheckpointError, match=r"table day.weight: expected shape \(7, 10\), found \(7, 8\)"
    ):
        other.load_state(make_tables(make_plan(MIXED, 8)).state())


def test_tables_need_a_process_group() -> None:
    torch.distributed.destroy_process_group()
    try:
        with pytest.raises(RuntimeError, match="no process group"):
            make_tables(make_plan("dense"))
    finally:
        torch.distributed.init_process_group(
            "gloo", store=torch.distributed.HashStore(), rank=0, world_size=1
        )
