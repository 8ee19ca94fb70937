"""The sampled softmax against its formula, written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from recsys.training.softmax import Negatives, OwnNegatives, softmax_loss

TEMPERATURE = 0.2


def made(queries: int, negatives: int, seed: int = 0) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=draw, dtype=torch.float64)

    return {
        "queries": normal(queries, 6),
        "positives": normal(queries, 6),
        "items": torch.randint(0, 9, (queries,), generator=draw),
        "vectors": normal(negatives, 6),
        "negatives": torch.randint(0, 9, (negatives,), generator=draw),
        "lift": normal(negatives),
        "weight": torch.rand(queries, generator=draw, dtype=torch.float64),
        "own": normal(queries, 3, 6),
        "own_lift": normal(queries, 3).masked_fill_(torch.arange(queries)[:, None] % 4 == 2, -torch.inf),
    }


def by_formula(rows: dict[str, NDArray[np.float64]]) -> float:
    """One query and one negative after another."""
    total = 0.0
    for row, (query, positive, item, weight) in enumerate(
        zip(rows["queries"], rows["positives"], rows["items"], rows["weight"], strict=True)
    ):
        right = query @ positive / TEMPERATURE
        whole = np.exp(right)
        for vector, negative, lift in zip(rows["vectors"], rows["negatives"], rows["lift"], strict=True):
            if negative != item:
                whole += np.exp(query @ vector / TEMPERATURE + lift)
        for vector, lift in zip(rows["own"][row], rows["own_lift"][row], strict=True):
            whole += np.exp(query @ vector / TEMPERATURE + lift)
        total += weight * -np.log(np.exp(right) / whole)
    return total


def plain(rows: dict[str, torch.Tensor]) -> torch.Tensor:
    """The same, in operations that torch differentiates."""
    right = (rows["queries"] * rows["positives"]).sum(1, keepdim=True) / TEMPERATURE
    wrong = rows["queries"] @ rows["vectors"].T / TEMPERATURE + rows["lift"]
    own = rows["items"][:, None] == rows["negatives"]
    hard = (rows["own"] * rows["queries"][:, None]).sum(2) / TEMPERATURE + rows["own_lift"]
    logits = torch.cat([right, wrong.masked_fill(own, -torch.inf), hard], 1)
    return -(torch.log_softmax(logits, 1)[:, 0] * rows["weight"]).sum()


def ours(rows: dict[str, torch.Tensor]) -> torch.Tensor:
    negatives = Negatives(rows["vectors"], rows["negatives"], rows["lift"])
    return softmax_loss(
        rows["queries"],
        rows["positives"],
        rows["items"],
        negatives,
        TEMPERATURE,
        own=OwnNegatives(rows["own"], rows["own_lift"]),
        weight=rows["weight"],
    )


@pytest.mark.parametrize(("queries", "negatives"), [(5, 7), (600, 40), (3, 0), (0, 4)])
def test_loss_and_gradients_follow_the_formula(queries: int, negatives: int) -> None:
    rows = made(queries, negatives)
    learned = ("queries", "positives", "vectors", "own")
    gradients = []
    for loss_of in (plain, ours):
        leaves = {name: rows[name].clone().requires_grad_() for name in learned}
        loss = loss_of(rows | leaves)
        (loss * 3).backward()
        gradients.append([leaves[name].grad for name in learned])
        expected = by_formula({name: tensor.numpy() for name, tensor in rows.items()})
        assert float(loss.detach()) == pytest.approx(expected, rel=1e-10)
    for mine, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-11)


def test_no_further_negatives_are_as_good_as_none() -> None:
    rows = made(5, 7)
    rows["own_lift"].fill_(-torch.inf)
    negatives = Negatives(rows["vectors"], rows["negatives"], rows["lift"])
    shared = (rows["queries"], rows["positives"], rows["items"], negatives, TEMPERATURE)
    assert softmax_loss(*shared, weight=rows["weight"]) == ours(rows)


def test_logits_far_from_zero_do_not_overflow() -> None:
    rows = made(4, 6)
    rows["queries"] = rows["queries"] * 1e4
    assert ours(rows).isfinite()
    torch.testing.assert_close(ours(rows), plain(rows))
