"""What rows of a pool are worth, and what places without one promise."""

from __future__ import annotations

import torch

from recsys.training.sparsity.worth import expected_lookups, place_scores


def _scores(
    worth: list[float], pull: list[float], seen: list[float], expected: list[float]
) -> torch.Tensor:
    """One piece; values without worth (negative) have no row."""
    held = torch.tensor([[value >= 0] for value in worth])
    values = torch.tensor(worth).clamp(min=0)[:, None]
    return place_scores(
        held, values, torch.tensor(pull)[:, None], torch.tensor(seen), torch.tensor(expected)
    )[:, 0]


def test_what_was_often_looked_up_is_worth_what_was_measured() -> None:
    first, second = _scores([3000.0, 1000.0], [0.0, 0.0], [1000.0, 1000.0], [1000.0, 1000.0])
    assert abs(first / 3000 - 1) < 0.01
    assert abs(second / 1000 - 1) < 0.01


def test_a_row_that_no_lookup_met_is_worth_what_others_are_per_lookup() -> None:
    """Not nothing: it counts by how often train rows hold its value."""
    seen, unseen, rarer = _scores([200.0, 0.0, 0.0], [0.0] * 3, [100.0, 0.0, 0.0], [100.0, 100.0, 10.0])
    assert torch.isclose(seen, unseen)
    assert torch.isclose(unseen, 10 * rarer)


def test_gradients_that_pull_the_same_way_promise_more() -> None:
    worth = [100.0, -1.0, -1.0, -1.0]
    pull = [0.0, 40.0, 4.0, 0.0]  # of 40 lookups that agree, 40 that don't, and none
    held, agreed, mixed, unknown = _scores(worth, pull, [40.0, 40.0, 40.0, 0.0], [40.0] * 4)
    assert agreed > held > mixed
    assert torch.isclose(unknown, held)


def test_a_piece_that_nobody_has_promises_half_of_the_one_before() -> None:
    held = torch.tensor([[True, False], [True, False]])
    worth = torch.tensor([[10.0, 0.0], [10.0, 0.0]])
    seen = torch.tensor([10.0, 10.0])
    scores = place_scores(held, worth, torch.zeros(2, 2), seen, seen)
    assert torch.allclose(scores, torch.tensor([[10.0, 5.0], [10.0, 5.0]]))


def test_nothing_known_promises_nothing() -> None:
    assert not _scores([0.0, -1.0], [0.0, 0.0], [0.0, 0.0], [5.0, 5.0]).any()


def test_lookups_are_expected_by_train_rows_and_by_those_that_come_besides() -> None:
    counts = torch.tensor([0.0, 100.0, 300.0])
    assert torch.equal(expected_lookups(counts, torch.tensor([0.0, 10.0, 30.0]), 0.1), counts * 0.1)
    drawn = expected_lookups(counts, torch.tensor([7.0, 17.0, 37.0]), 0.1)  # each 7 times as a negative
    assert torch.allclose(drawn, counts * 0.1 + 7)
