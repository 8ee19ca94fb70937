"""DIN against its formulas, and where attention must beat pooling."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from recsys.errors import ConfigError
from recsys.models import build_model
from recsys.models.activation_unit import ActivationUnit
from recsys.models.din import histories
from recsys.models.initialise import initialise
from recsys.models.inputs import Inputs, Layout, SequenceLayout
from tests.models.made import layouts, make_inputs, padded


def unit_of(**settings: Any) -> ActivationUnit:
    unit = ActivationUnit(4, (6, 5), **{"activation": "dice", "dropout": 0.0, "softmax": False} | settings)
    initialise(unit, torch.Generator().manual_seed(1))
    return unit.double()


def history(lengths: list[int], longest: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    rows = len(lengths)
    query = torch.randn(rows, 4, generator=generator, dtype=torch.float64)
    keys = torch.randn(rows, longest, 4, generator=generator, dtype=torch.float64)
    counts = torch.tensor(lengths)
    return query, keys * (torch.arange(longest) < counts.unsqueeze(1)).unsqueeze(2), counts


def dice(x: Tensor) -> Tensor:
    """Dice with alpha 0 over all rows given."""
    return x * torch.sigmoid((x - x.mean(0)) / torch.sqrt(x.var(0, correction=0) + 1e-8))


def written_out(
    unit: ActivationUnit, query: Tensor, keys: Tensor, lengths: Tensor, softmax: bool
) -> Tensor:
    """The paper's pooling, event by event; statistics over all events of the batch."""
    events = [(row, at) for row, length in enumerate(lengths.tolist()) for at in range(length)]
    q = torch.stack([query[row] for row, _ in events])
    k = torch.stack([keys[row, at] for row, at in events])
    first, second = unit.linears
    hidden = dice(torch.cat([q, k, q - k, q * k], 1) @ first.weight.T + first.bias)
    hidden = dice(hidden @ second.weight.T + second.bias)  # type: ignore[operator, union-attr]
    scores = (hidden @ unit.score.weight.T + unit.score.bias).squeeze(1)  # type: ignore[operator]
    pooled = torch.zeros_like(query)
    for row in range(len(query)):
        mine = [number for number, (owner, _) in enumerate(events) if owner == row]
        if mine:
            weights = torch.softmax(scores[mine], 0) if softmax else scores[mine]
            pooled[row] = weights @ k[mine]
    return pooled


@pytest.mark.parametrize("softmax", [False, True])
@pytest.mark.parametrize("lengths", [[3, 0, 5, 1], [5, 5, 5, 5]])
def test_pooling_is_the_papers(softmax: bool, lengths: list[int]) -> None:
    unit = unit_of(softmax=softmax)
    query, keys, counts = history(lengths, 5)
    query.requires_grad_(), keys.requires_grad_()
    found = unit(query, keys, counts)
    expected = written_out(unit, query, keys, counts, softmax)
    torch.testing.assert_close(found, expected)
    leaves = [query, keys, *(p for name, p in unit.named_parameters() if "alpha" not in name)]
    # softmax does not see the scores' common offset: its gradient is zero but for rounding
    for gradient, right in zip(
        torch.autograd.grad(found.sin().sum(), leaves),
        torch.autograd.grad(expected.sin().sum(), leaves),
        strict=True,
    ):
        torch.testing.assert_close(gradient, right, rtol=1e-7, atol=1e-9)


def test_statistics_are_those_of_events() -> None:
    short, long = unit_of(), unit_of()
    query, keys, counts = history([3, 0, 5, 1], 5)
    short(query, keys, counts)
    long(query, torch.cat([keys, keys.new_zeros(4, 20, 4)], 1), counts)
    for first, second in zip(short.buffers(), long.buffers(), strict=True):
        torch.testing.assert_close(first, second)


def test_aligned_sequences_are_one_history() -> None:
    layout = layouts("din")["mixed"]
    assert histories(layout) == (("items", "shops"),)
    model = build_model("din", {}, layout, 1)
    assert model.units[0].linears[0].weight.shape == (64, 4 * 12)  # type: ignore[union-attr, index]
    apart = Layout(
        layout.fields, (), {"items": layout.sequences["items"], "shops": SequenceLayout(4, "shop")}
    )
    assert histories(apart) == (("items",), ("shops",))


def test_mean_pooling_is_the_same_model_with_attention_off() -> None:
    layout = layouts("din")["mixed"]
    attending, pooling = (build_model("din", {"pooling": way}, layout, 1) for way in ("attention", "mean"))
    shapes = {name: p.shape for name, p in attending.named_parameters() if not name.startswith("units")}
    assert shapes == {name: p.shape for name, p in pooling.named_parameters()}
    inputs = make_inputs(layout, 5, 4)
    pooling.eval()
    torch.testing.assert_close(pooling(padded(inputs, 3)), pooling(inputs))


def candidate_in_history(pooling: str) -> float:
    """Accuracy on rows whose label says whether the candidate is among ten of forty items.

    With eight dimensions for forty items, a mean cannot hold which ten they were.
    """
    generator = torch.Generator().manual_seed(3)
    rows, items, longest = 1024, 40, 10
    picked = torch.rand(rows, items, generator=generator).argsort(1)
    label = (torch.arange(rows) % 2).float()
    events, other = picked[:, :longest], picked[:, longest]
    candidate = torch.where(label > 0, events[:, 3], other)
    table = nn.Parameter(0.5 * torch.randn(items, 8, generator=generator))
    layout = Layout({"item": 8}, (), {"items": SequenceLayout(8, "item")})
    model = build_model("din", {"pooling": pooling, "hidden": [16]}, layout, 4)
    optimiser = torch.optim.Adam([*model.parameters(), table], lr=0.01)
    lengths = torch.full((rows,), longest)

    def inputs(part: slice) -> Inputs:
        return Inputs(
            fields={"item": table[candidate[part]]},
            sequences={"items": table[events[part]]},
            lengths={"items": lengths[part]},
        )

    train, test = slice(0, 768), slice(768, None)
    for _ in range(80):
        loss = nn.functional.binary_cross_entropy_with_logits(model(inputs(train)), label[train])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        return float(((model.eval()(inputs(test)) > 0).float() == label[test]).float().mean())


def test_attention_finds_the_candidate_in_the_history() -> None:
    assert candidate_in_history("attention") > 0.85
    assert candidate_in_history("mean") < 0.75


def test_a_candidate_of_another_width_is_refused() -> None:
    layout = Layout({"item": 4}, (), {"items": SequenceLayout(8, "item")})
    with pytest.raises(ConfigError, match=r"'items' is 8 wide, its candidate 'item' 4"):
        build_model("din", {}, layout, 1)
