"""DIN against its formulas, and where attention must beat pooling."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from recsys.data.dataset import Feature
from recsys.embeddings.plan import Plan, TablePlan, VocabularyPlan
from recsys.errors import ConfigError
from recsys.models import build_model
from recsys.models.activation_unit import ActivationUnit
from recsys.models.din import histories
from recsys.models.initialise import initialise
from recsys.models.inputs import Inputs, Layout, SequenceLayout
from recsys.training.layout import layout_of
from tests.models.made import accuracy_after_training, doubled, layouts, make_inputs, padded


def unit_of(**settings: Any) -> ActivationUnit:
    unit = ActivationUnit(4, (6, 5), **{"activation": "dice", "dropout": 0.0, "softmax": False} | settings)
    initialise(unit, torch.Generator().manual_seed(1))
    return unit.double()


def history(lengths: list[int], longest: int, more: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    rows = len(lengths)
    query = torch.randn(rows, 4, generator=generator, dtype=torch.float64)
    keys = torch.randn(rows, longest, 4 + more, generator=generator, dtype=torch.float64)
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
    k, more = torch.stack([keys[row, at] for row, at in events]).tensor_split([query.shape[1]], 1)
    first, second = unit.linears
    hidden = dice(torch.cat([q, k, q - k, q * k, more], 1) @ first.weight.T + first.bias)
    hidden = dice(hidden @ second.weight.T + second.bias)  # type: ignore[operator, union-attr]
    scores = (hidden @ unit.score.weight.T + unit.score.bias).squeeze(1)  # type: ignore[operator]
    pooled = keys.new_zeros(len(query), keys.shape[2])
    for row in range(len(query)):
        mine = [number for number, (owner, _) in enumerate(events) if owner == row]
        if mine:
            weights = torch.softmax(scores[mine], 0) if softmax else scores[mine]
            pooled[row] = weights @ torch.cat([k, more], 1)[mine]
    return pooled


@pytest.mark.parametrize("more", [0, 3])
@pytest.mark.parametrize("softmax", [False, True])
@pytest.mark.parametrize("lengths", [[3, 0, 5, 1], [5, 5, 5, 5]])
def test_pooling_is_the_papers(softmax: bool, lengths: list[int], more: int) -> None:
    unit = unit_of(softmax=softmax, more=more)
    query, keys, counts = history(lengths, 5, more)
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


def watched() -> Layout:
    """Items with their shops and how long each was watched, which no candidate has."""
    return Layout(
        {"item": 8, "shop": 4},
        ("age",),
        {
            "seconds": SequenceLayout(3, None, aligned_with="items"),
            "items": SequenceLayout(8, "item"),
            "shops": SequenceLayout(4, "shop", aligned_with="items"),
            "words": SequenceLayout(6, None),
        },
    )


def test_a_sequence_without_a_candidate_joins_the_history_it_is_aligned_with() -> None:
    layout = watched()
    assert histories(layout) == (("items", "shops", "seconds"),)
    model = build_model("din", {}, layout, 1)
    assert model.units[0].linears[0].weight.shape == (64, 4 * 12 + 3)  # type: ignore[union-attr, index]
    inputs = make_inputs(layout, 9, 5)
    leaf = inputs.sequences["seconds"].requires_grad_()
    model(inputs).square().sum().backward()
    valid = torch.arange(5) < inputs.lengths["items"].unsqueeze(1)
    assert leaf.grad is not None
    assert (leaf.grad[valid].abs().sum(1) > 0).all()


def test_compiled_loops_pair_longer_events_as_torch_does() -> None:
    layout = watched()
    single, double = (build_model("din", {}, layout, 1) for _ in range(2))
    double.double()
    inputs = make_inputs(layout, 33, 5)
    found, expected = single(inputs), double(doubled(inputs))
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-5)
    found.sum().backward()
    expected.sum().backward()
    for mine, theirs in zip(single.parameters(), double.parameters(), strict=True):
        assert mine.grad is not None
        assert theirs.grad is not None
        torch.testing.assert_close(mine.grad.double(), theirs.grad, rtol=1e-3, atol=1e-4)


def test_the_layout_of_a_dataset_says_what_is_aligned() -> None:
    features = (
        Feature(name="item", kind="categorical", vocabulary="item"),
        Feature(name="shop", kind="categorical", vocabulary="shop"),
        Feature(name="items", kind="sequence", vocabulary="item", max_length=5),
        Feature(name="shops", kind="sequence", vocabulary="shop", max_length=5, aligned_with="items"),
    )
    names = {str(feature.vocabulary) for feature in features}
    plan = Plan(
        tables={name: TablePlan(rows=9, dim=4, path="dense") for name in names},
        vocabularies={name: VocabularyPlan(mode="full", table=name, size=9) for name in names},
        features={feature.name: str(feature.vocabulary) for feature in features},
    )
    assert histories(layout_of(features, plan)) == (("items", "shops"),)


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
    lengths = torch.full((rows,), longest)

    def inputs(part: slice) -> Inputs:
        return Inputs(
            fields={"item": table[candidate[part]]},
            sequences={"items": table[events[part]]},
            lengths={"items": lengths[part]},
        )

    return accuracy_after_training(model, table, inputs, label, trained=768)


def test_attention_finds_the_candidate_in_the_history() -> None:
    assert candidate_in_history("attention") > 0.85
    assert candidate_in_history("mean") < 0.75


def test_a_candidate_of_another_width_is_refused() -> None:
    layout = Layout({"item": 4}, (), {"items": SequenceLayout(8, "item")})
    with pytest.raises(ConfigError, match=r"'items' is 8 wide, its candidate 'item' 4"):
        build_model("din", {}, layout, 1)
