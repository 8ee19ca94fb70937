"""Gates: their formula, gradient and L1, whose they are, and where they multiply."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from recsys.data.dataset import Dataset
from recsys.embeddings.gates import Gates, gates_of
from recsys.embeddings.plan import Plan
from tests.embeddings.table_cases import FEATURES, ROW_MAPS, SIZES, make_batch, make_plan, make_tables
from tests.training.made import hashed_plan, made_dataset, made_plan, shared_plan

pytestmark = pytest.mark.usefixtures("ranks")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return made_dataset(tmp_path_factory.mktemp("gates") / "dataset", rows=50)


def _gates(values: list[float]) -> Gates:
    gates = Gates({"a": 2, "b": len(values) - 2})
    with torch.no_grad():
        gates.theta.copy_(torch.tensor(values))
    return gates


def test_a_gate_is_the_sigmoid_of_its_tempered_weight_over_that_of_the_first_one() -> None:
    gates = _gates([0.5, -0.3, 2.0, 0.5])
    assert gates(torch.tensor([0, 3])).tolist() == pytest.approx([1.0, 1.0])
    gates.set_temperature(3.0)
    expected = [(1 / (1 + math.exp(-3 * theta))) / (1 / (1 + math.exp(-0.5))) for theta in (0.5, -0.3, 2.0)]
    assert gates(torch.arange(3)).tolist() == pytest.approx(expected)


def test_hard_gates_are_open_above_zero_and_learn_no_more() -> None:
    gates = _gates([1e-6, 0.0, -1e-6, 7.0])
    gates.set_temperature(math.inf)
    assert gates.hard
    values = gates(torch.tensor([0, 1, 2, 3, 3]))
    scale = 1 + math.exp(-0.5)
    assert values.tolist() == pytest.approx([scale, 0.0, 0.0, scale, scale])
    assert not values.requires_grad
    found = gates.open_values()
    assert found.open["a"].tolist() == [True, False]
    assert found.open["b"].tolist() == [False, True]
    assert found.counts() == {"a": (1, 2), "b": (1, 2)}
    assert gates.open_share() == 0.5


def test_the_l1_is_the_gradient_of_the_sum_of_all_soft_gates() -> None:
    gates = _gates([0.5, -0.3, 2.0, 0.1])
    gates.set_temperature(5.0)
    gates(torch.tensor([1, 1])).sum().backward()
    data = gates.theta.grad
    assert data is not None
    data = data.clone()
    gates.add_l1(0.25)
    free = gates.theta.detach().clone().requires_grad_()
    (0.25 * torch.sigmoid(5.0 * free).sum()).backward()
    assert free.grad is not None
    assert gates.theta.grad is not None
    torch.testing.assert_close(gates.theta.grad, data + free.grad)


@pytest.mark.parametrize("made", [made_plan, hashed_plan, shared_plan])
def test_a_value_has_a_gate_of_its_own_in_every_mode(dataset: Dataset, made: object) -> None:
    plan: Plan = made(dataset, "dense")  # type: ignore[operator]
    gates = gates_of(dataset, plan, buckets=1000, init=0.5)
    places = [gates.index_of(name, np.arange(info.size)) for name, info in plan.vocabularies.items()]
    assert np.concatenate(places).tolist() == list(range(len(gates.theta)))


def test_values_of_large_hashed_vocabularies_share_gates_by_key(dataset: Dataset) -> None:
    plan = shared_plan(dataset, "dense")
    gates = gates_of(dataset, plan, buckets=13, init=0.5)
    places = gates.index_of("item", np.arange(60)) - gates.index_of("item", np.arange(1))
    assert places[:2].tolist() == [0, 1]
    assert places[2:].min() >= 2
    assert places.max() < 13
    assert len(gates.index_of("tag", np.arange(9))) == len(set(gates.index_of("tag", np.arange(9))))
    rows = gates_of(dataset, plan, buckets=13, init=0.5).index_of("item", np.arange(60))
    np.testing.assert_array_equal(rows, gates.index_of("item", np.arange(60)))
    with torch.no_grad():
        gates.theta[gates.index_of("item", np.array([7]))] = -1.0
    assert (gates.open_values().open["item"] == (places != places[7])).all()


@pytest.mark.parametrize("path", ["dense", "fused"])
def test_every_element_s_vector_is_multiplied_after_the_lookup(path: str) -> None:
    """The inputs are those of tables whose values were multiplied one by one, bags and histories too."""
    plan, batch = make_plan(path), make_batch(20)  # type: ignore[arg-type]
    gates = Gates(SIZES)
    with torch.no_grad():
        gates.theta.copy_(torch.randn(gates.theta.shape, generator=torch.Generator().manual_seed(1)))
    gates.set_temperature(2.0)
    plain, gated = make_tables(plan), make_tables(plan, gates=gates)
    found = gated(batch)
    assert found.joined is None
    weights = {name: torch.from_numpy(plain.table(name)) for name in plan.tables}
    for feature in FEATURES:
        if feature.vocabulary is None:
            continue
        ids = batch.ids[feature.name]
        rows = ROW_MAPS.get(feature.vocabulary, np.arange(50))[ids]
        gate = gates(torch.from_numpy(gates.index_of(feature.vocabulary, ids))).detach()
        vectors = weights[feature.vocabulary][torch.from_numpy(rows)] * gate[:, None]
        if feature.kind == "categorical":
            torch.testing.assert_close(found.fields[feature.name], vectors)
            continue
        bags = torch.split(vectors, batch.lengths[feature.name].tolist())
        for row, bag in enumerate(bags):
            if feature.kind == "multi":
                mean = bag.mean(0) if len(bag) else torch.zeros(8)
                torch.testing.assert_close(found.fields[feature.name][row], mean)
            else:
                torch.testing.assert_close(found.sequences[feature.name][row, : len(bag)], bag)
                assert not found.sequences[feature.name][row, len(bag) :].any()


def test_a_batch_prepared_without_gates_is_refused(tmp_path: Path) -> None:
    plan, batch = make_plan("dense"), make_batch(3)
    with pytest.raises(ValueError, match="without gates"):
        make_tables(plan, gates=Gates(SIZES))(make_tables(plan).prepare(batch))
