"""The cap of a budget: the largest that fits, although bytes fall where a row per value costs less."""

from __future__ import annotations

from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.config import PlanSettings
from recsys.embeddings.budget import SMALLEST, Counted, Demand, listed_bytes, rows_bytes, solve
from recsys.embeddings.plan import VocabularyMode
from recsys.embeddings.planner import plan
from recsys.errors import PlanError
from tests.embeddings.datasets import manifest_only

Unseen = Literal["own", "hash"]
COUNTED: tuple[Counted, ...] = ("tables", "all", "bundle")
UNSEEN: tuple[Unseen, ...] = ("own", "hash")
MODES: tuple[VocabularyMode | None, ...] = (None, "hash", "adaptive", "quotient")


def test_quotient_is_full_where_that_fits() -> None:
    """A value with a row of its own: 20 bytes of int8 and scale, 8 of key, 4 of row; quotients list two."""
    size = 26
    run = {"mode": "quotient", "counted": "bundle"}
    fits = 20 * size + 12 * (size - 2)
    for budget in (fits, 10 * fits):
        made = plan(manifest_only({"letter": size}), settings=PlanSettings.parse(bytes=budget, **run))
        assert (made.tables["letter"].rows, made.vocabularies["letter"].mode) == (size, "full")
    small = 20 * 11 + 16 * (size - 2)
    with pytest.raises(PlanError, match=f"smallest possible here is {small} bytes"):
        plan(manifest_only({"letter": size}), settings=PlanSettings.parse(bytes=small - 1, **run))
    tiny = 20 * 4 + 12 * 2
    with pytest.raises(PlanError, match=f"smallest possible here is {tiny} bytes"):
        plan(manifest_only({"pair": 4}), settings=PlanSettings.parse(bytes=tiny - 1, exact=0, **run))


@pytest.mark.parametrize("counted", COUNTED)
@pytest.mark.parametrize("lookups", [1, 2])
def test_what_fits_is_hashed_only_where_that_is_asked_or_saves_the_keys(
    counted: Counted, lookups: int
) -> None:
    dataset = manifest_only({"user": 2_000, "letter": 26, "digit": 10, "sign": 9, "sex": 4})
    tables = {"digit": {"mode": "hash"}, "sign": {"rows": 9}}
    run = {"mode": "hash", "bytes": 40_000, "exact": 5, "counted": counted, "lookups": lookups}

    def modes(unseen: Unseen) -> dict[str, str]:
        made = plan(dataset, settings=PlanSettings.parse(unseen=unseen, tables=tables, **run))
        return {name: info.mode for name, info in made.vocabularies.items()}

    hashed = dict.fromkeys(("user", "letter", "digit", "sign"), "hash") | {"sex": "full"}
    assert modes("hash") == hashed
    assert modes("own") == hashed | {"letter": "full"}


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.integers(2, 40), st.sampled_from(MODES)), min_size=1, max_size=4),
    st.sampled_from(COUNTED),
    st.sampled_from([1, 2, 4]),
    st.sampled_from(UNSEEN),
    st.integers(SMALLEST, 41),
    st.integers(0, 1),
)
def test_the_cap_is_the_largest_of_all_that_fit(
    asked: list[tuple[int, VocabularyMode | None]],
    counted: Counted,
    lookups: int,
    unseen: Unseen,
    cap: int,
    less: int,
) -> None:
    demands = [
        Demand(f"t{n}", size, 8, lookups, None, mode, unseen) for n, (size, mode) in enumerate(asked)
    ]

    def total(cap: int) -> int:
        spent = 0
        for demand in demands:
            shape = demand.granted(cap)
            spent += rows_bytes(shape.rows, shape.dim, demand.dtype, counted)
            spent += 0 if counted == "tables" else listed_bytes(shape.vocabulary)
        return spent

    totals = {cap: total(cap) for cap in range(SMALLEST, 42)}
    budget = totals[cap] - less
    run = PlanSettings(bytes=budget, counted=counted)
    fitting = [cap for cap, spent in totals.items() if spent <= budget]
    if not fitting:
        with pytest.raises(PlanError, match=rf"smallest possible here is {min(totals.values())} bytes"):
            solve(demands, None, run)
        return
    assert solve(demands, None, run).own == {each.name: each.granted(max(fitting)) for each in demands}
