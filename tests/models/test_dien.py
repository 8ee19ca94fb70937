"""DIEN's interest evolution against its formulas, and where only the order of events tells."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from recsys.errors import ConfigError
from recsys.models import build_model
from recsys.models.initialise import initialise
from recsys.models.inputs import Inputs, Layout, SequenceLayout
from recsys.models.interest_evolution import GatedUnit, InterestEvolution
from tests.models.made import accuracy_after_training


def evolution(width: int = 5) -> InterestEvolution:
    made = InterestEvolution(4, 6, width)
    initialise(made, torch.Generator().manual_seed(1))
    return made.double()


def history(lengths: list[int], longest: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    query = torch.randn(len(lengths), 4, generator=generator, dtype=torch.float64)
    keys = torch.randn(len(lengths), longest, 6, generator=generator, dtype=torch.float64)
    return query, keys, torch.tensor(lengths)


def as_torchs(unit: GatedUnit) -> nn.GRUCell:
    """torch's own unit with the same weights; its update gate says what is kept, ours what is taken."""
    cell = nn.GRUCell(unit.of_input.weight.shape[1], unit.width).double()
    signs = torch.tensor([1.0, -1.0, 1.0]).repeat_interleave(unit.width).unsqueeze(1)
    for mine, its in ((unit.of_input, "ih"), (unit.of_state, "hh")):
        assert mine.bias is not None
        setattr(cell, f"weight_{its}", nn.Parameter(mine.weight * signs))
        setattr(cell, f"bias_{its}", nn.Parameter(mine.bias * signs.squeeze(1)))
    return cell


def written_out(model: InterestEvolution, query: Tensor, keys: Tensor, lengths: Tensor) -> Tensor:
    """Row by row and event by event; the second unit as the paper has it (eq. 15 and 16)."""
    read = as_torchs(model.extractor)
    u, w = model.evolution.of_state, model.evolution.of_input
    width = model.evolution.width
    found = query.new_zeros(len(query), width)
    for row, length in enumerate(lengths.tolist()):
        if not length:
            continue
        states = [read(keys[row, :1])]
        for at in range(1, length):
            states.append(read(keys[row, at : at + 1], states[-1]))
        interests = torch.cat(states)
        weights = torch.softmax(interests @ (model.attention.weight @ query[row]), 0)
        state = query.new_zeros(width)
        for weight, interest in zip(weights, interests, strict=True):
            by_state, by_input = u.weight @ state + u.bias, w.weight @ interest + w.bias
            reset = torch.sigmoid(by_state[:width] + by_input[:width])
            update = weight * torch.sigmoid((by_state + by_input)[width : 2 * width])
            candidate = torch.tanh(by_input[2 * width :] + reset * by_state[2 * width :])
            state = (1 - update) * state + update * candidate
        found[row] = state
    return found


@pytest.mark.parametrize("lengths", [[3, 0, 5, 1], [5, 5, 5, 5], [1, 2, 3, 4], [0, 0, 0, 2]])
def test_evolution_is_the_papers(lengths: list[int]) -> None:
    model = evolution()
    query, keys, counts = history(lengths, 5)
    for biases in (model.extractor, model.evolution):
        for linear in (biases.of_input, biases.of_state):
            assert linear.bias is not None
            nn.init.normal_(linear.bias, generator=torch.Generator().manual_seed(3))
    leaves = [query.requires_grad_(), keys.requires_grad_()]
    found, expected = model(query, keys, counts), written_out(model, query, keys, counts)
    torch.testing.assert_close(found, expected)
    for gradient, right in zip(
        torch.autograd.grad(found.sin().sum(), leaves),
        torch.autograd.grad(expected.sin().sum(), leaves),
        strict=True,
    ):
        torch.testing.assert_close(gradient, right)


def first_came_earlier(name: str) -> float:
    """Accuracy on rows whose label says which of two items came first in a history."""
    generator = torch.Generator().manual_seed(3)
    rows, items, longest = 1024, 6, 5
    events = torch.rand(rows, items, generator=generator).argsort(1)[:, :longest]
    both = torch.stack([(events == item).long().argmax(1) for item in (0, 1)])
    there = torch.stack([(events == item).any(1) for item in (0, 1)]).all(0)
    events, label = events[there], (both[0] < both[1])[there].float()
    table = nn.Parameter(0.5 * torch.randn(items, 8, generator=generator))
    layout = Layout({"item": 8}, (), {"items": SequenceLayout(8, "item")})
    model = build_model(name, {"hidden": [16]}, layout, 4)

    def inputs(part: slice) -> Inputs:
        count = len(events[part])
        return Inputs(
            fields={"item": table[:1].expand(count, -1)},
            sequences={"items": table[events[part]]},
            lengths={"items": torch.full((count,), longest)},
        )

    return accuracy_after_training(model, table, inputs, label, trained=512)


def test_evolution_sees_which_event_came_first() -> None:
    assert first_came_earlier("dien") > 0.95
    assert first_came_earlier("din") < 0.65


def test_without_attention_there_is_nothing_to_evolve_towards() -> None:
    layout = Layout({"item": 8}, (), {"items": SequenceLayout(8, "item")})
    with pytest.raises(ConfigError, match=r"model\.pooling"):
        build_model("dien", {"pooling": "mean"}, layout, 1)
