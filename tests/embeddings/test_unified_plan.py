"""Plans with a shared table and with several lookups: solved from bytes, overridden, refused."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.config import PlanSettings, TableSettings
from recsys.embeddings.plan import Plan, VocabularyPlan
from recsys.embeddings.planner import plan
from recsys.errors import ConfigError, PlanError
from tests.embeddings.datasets import manifest_only

SIZES = {"user": 1_000, "item": 700, "sex": 4}


def modes(made: Plan) -> dict[str, tuple[str, str, int]]:
    return {name: (v.mode, v.table, v.lookups) for name, v in made.vocabularies.items()}


def shapes(made: Plan) -> dict[str, tuple[int, int]]:
    return {name: (t.rows, t.dim) for name, t in made.tables.items()}


def test_a_shared_table_takes_what_the_exact_ones_leave() -> None:
    dataset = manifest_only(SIZES)
    made = plan(dataset, settings=PlanSettings(bytes=20_000, mode="unified", lookups=2))
    assert modes(made) == {
        "user": ("unified", "unified", 2),
        "item": ("unified", "unified", 2),
        "sex": ("full", "sex", 1),
    }
    assert shapes(made) == {"sex": (4, 16), "unified": ((20_000 - 4 * 64) // 32, 8)}
    assert [made.width_of(name) for name in SIZES] == [16, 16, 16]
    assert made.special_tables == {"sex"}
    whole = plan(dataset, settings=PlanSettings(bytes="1MB", mode="unified", lookups=2, exact=5))
    assert shapes(whole)["unified"] == (2 * 1_700, 8), "no more than a row per lookup of every value"
    everything = plan(dataset, settings=PlanSettings(bytes="1MB", mode="unified", exact=0))
    assert {mode for mode, _, _ in modes(everything).values()} == {"unified"}


@pytest.mark.parametrize(
    ("counted", "model", "row", "listed"),
    [("tables", None, 64, 0), ("all", None, 64, 12), ("bundle", None, 20, 12), ("tables", "lr", 4, 0)],
)
def test_the_smallest_vocabularies_keep_rows_that_cost_a_twentieth_of_the_bytes(
    counted: str, model: str | None, row: int, listed: int
) -> None:
    dataset = manifest_only({"user": 9_000, "city": 60, "job": 60, "age": 26, "sex": 4})

    def exact(bytes: int, **run: object) -> set[str]:
        parsed = PlanSettings.parse(bytes=bytes, mode="unified", counted=counted, unseen="hash", **run)
        made = plan(dataset, settings=parsed, model_name=model)
        return {name for name, info in made.vocabularies.items() if info.mode == "full"}

    def cost(*sizes: int) -> int:
        return 20 * sum(row * size + listed * (size - 2) for size in sizes)

    assert exact(cost(4, 26) - 20) == {"sex"}
    assert exact(cost(4, 26)) == {"sex", "age"}
    assert exact(cost(4, 26, 60, 60) - 20) == {"sex", "age"}, "of equal ones all or none"
    assert exact(cost(4, 26, 60, 60)) == {"sex", "age", "city", "job"}
    assert exact(cost(4, 26), exact=60) == {"sex", "age", "city", "job"}
    spoken_for = {"age": {"rows": 9, "mode": "hash"}, "city": {"mode": "unified"}}
    assert exact(cost(4, 60), tables=spoken_for) == {"sex", "job"}
    if model is None:
        assert exact(cost(4, 26, 60), tables={"job": {"lookups": 2}}) == {"sex", "age", "city"}


def test_what_is_stated_of_a_small_vocabulary_counts_towards_its_twentieth() -> None:
    dataset = manifest_only({"user": 9_000, "city": 60})
    run = {"mode": "hash", "unseen": "hash", "tables": {"city": {"dim": 256}}}
    for bytes, mode in ((20 * 60 * 1024 - 20, "hash"), (20 * 60 * 1024, "full")):
        made = plan(dataset, settings=PlanSettings.parse(bytes=bytes, **run))
        assert made.vocabularies["city"].mode == mode


def test_small_vocabularies_share_where_rows_of_their_own_leave_too_little() -> None:
    dataset = manifest_only({str(size): size for size in range(9, 45)})
    run = {"mode": "quotient", "embedding_dim": 16}
    fewest = 24_192  # of two to four rows each
    with pytest.raises(PlanError, match=f"smallest possible here is {fewest} bytes"):
        plan(dataset, settings=PlanSettings.parse(bytes=fewest - 1, **run))
    assert plan(dataset, settings=PlanSettings.parse(bytes=fewest, **run)).train_bytes <= fewest


def test_keys_and_row_maps_count_where_asked() -> None:
    dataset = manifest_only(SIZES)
    for lookups, unseen in ((1, "own"), (2, "own"), (2, "hash")):
        run = PlanSettings.parse(
            bytes=100_000, mode="unified", lookups=lookups, counted="all", unseen=unseen
        )
        values = 2 * 12 + ((998 + 698) * (8 + 4 * lookups) if unseen == "own" else 0)
        rows = (100_000 - values - 4 * 64) // (64 // lookups)
        assert shapes(plan(dataset, settings=run))["unified"] == (rows, 16 // lookups)
    hashed = plan(dataset, settings=PlanSettings(bytes=60_000, counted="all"))
    spent = hashed.train_bytes + 12 * (998 + 698 + 2)
    assert 60_000 - 2 * 64 < spent <= 60_000


@pytest.mark.parametrize(("counted", "smallest"), [("tables", 640), ("all", 640 + 16 * 1_696 + 24)])
def test_a_budget_too_small_names_the_smallest(counted: str, smallest: int) -> None:
    values = {"mode": "unified", "lookups": 2, "counted": counted}
    for budget in (smallest - 1, 1):
        with pytest.raises(PlanError, match=f"2 tables; the smallest possible here is {smallest} bytes"):
            plan(manifest_only(SIZES), settings=PlanSettings.parse(bytes=budget, **values))
    made = plan(manifest_only(SIZES), settings=PlanSettings.parse(bytes=smallest, **values))
    assert shapes(made)["unified"] == (12, 8)


def test_a_full_plan_is_refused_where_it_does_not_fit() -> None:
    with pytest.raises(PlanError, match=rf"smallest possible here is {64 * 1_704} bytes"):
        plan(manifest_only(SIZES), settings=PlanSettings(bytes="100kB", mode="full"))
    made = plan(manifest_only(SIZES), settings=PlanSettings(bytes=64 * 1_704, mode="full"))
    assert made == plan(manifest_only(SIZES))


def test_modes_of_vocabularies_go_before_that_of_the_plan() -> None:
    dataset = manifest_only(SIZES | {"shop": 500, "page": 600})
    tables = {
        "user": TableSettings(lookups=4),
        "shop": TableSettings(mode="hash", lookups=2),
        "page": TableSettings(mode="full", dim=6),
        "sex": TableSettings(mode="unified"),
        "unified": TableSettings(dim=4, path="fused", serve_dtype="float16"),
    }
    budget = 4 * 600 * 6 + 30_000
    made = plan(dataset, settings=PlanSettings(bytes=budget, mode="unified", lookups=2, tables=tables))
    assert modes(made) == {
        "user": ("unified", "unified", 4),
        "item": ("unified", "unified", 2),
        "sex": ("unified", "unified", 2),
        "shop": ("hash", "shop", 2),
        "page": ("full", "page", 1),
    }
    assert {name: made.width_of(name) for name in modes(made)} == {
        "user": 16,
        "item": 8,
        "sex": 8,
        "shop": 16,
        "page": 6,
    }
    assert budget - 16 < made.train_bytes <= budget
    assert made.tables["shop"].dim == 8
    assert (made.tables["unified"].path, made.tables["unified"].serve_dtype) == ("fused", "float16")


def test_several_lookups_of_hashed_tables_cost_what_one_costs() -> None:
    dataset = manifest_only(SIZES)
    once = plan(dataset, settings=PlanSettings(bytes=20_000))
    made = plan(dataset, settings=PlanSettings(bytes=20_000, lookups=4))
    assert made.train_bytes == once.train_bytes
    assert shapes(once)["user"] == (154, 16)
    assert shapes(made) == {"user": (616, 4), "item": (616, 4), "sex": (4, 16)}
    assert modes(made)["sex"] == ("full", "sex", 1)
    assert {made.width_of(name) for name in SIZES} == {16}


def test_lr_reads_one_number_per_lookup() -> None:
    dataset = manifest_only(SIZES)
    for mode in ("hash", "unified"):
        run = PlanSettings.parse(bytes=2_000, mode=mode, lookups=2)
        made = plan(dataset, model_name="lr", settings=run)
        assert {table.dim for table in made.tables.values()} == {1}
        assert [made.width_of(name) for name in SIZES] == [2, 2, 1]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(2, 400), st.sampled_from([None, "full", "hash", "unified"])), min_size=1
    ),
    st.sampled_from(["tables", "all"]),
    st.integers(1, 4),
    st.integers(1, 60_000),
)
def test_no_plan_costs_more_than_its_budget(
    tables: list[tuple[int, str | None]], counted: str, lookups: int, budget: int
) -> None:
    sizes = {f"t{i}": size for i, (size, _) in enumerate(tables)}
    overrides = {f"t{i}": {"mode": mode} for i, (_, mode) in enumerate(tables)}
    run = PlanSettings.parse(
        bytes=budget, embedding_dim=12, lookups=lookups, counted=counted, tables=overrides
    )
    try:
        made = plan(manifest_only(sizes), settings=run)
    except PlanError:
        return
    values = sum((v.size - 2) * (8 + 4 * v.lookups) for v in made.vocabularies.values())
    assert made.train_bytes + (values if counted == "all" else 0) <= budget
    for name, (size, mode) in zip(sizes, tables, strict=True):
        assert made.vocabularies[name].size == size
        assert mode in (None, made.vocabularies[name].mode)
        assert made.width_of(name) == 12


UNIFIED = {"bytes": "1MB", "mode": "unified"}


@pytest.mark.parametrize(
    ("run", "message"),
    [
        ({"mode": "unified"}, r"plan\.bytes or rows in plan\.tables\.unified\.rows"),
        ({**UNIFIED, "lookups": 3}, r"plan\.lookups: 3 rows side by side cannot make a vector of width 16"),
        ({"bytes": 9_000, "lookups": 3}, r"user\.lookups: 3 rows side by side"),
        ({**UNIFIED, "tables": {"user": {"rows": 9}}}, r"user\.rows: 'user' reads the shared table"),
        ({**UNIFIED, "tables": {"user": {"dim": 8}}}, r"user\.dim.*or plan\.tables\.user\.lookups"),
        (
            {**UNIFIED, "tables": {"unified": {"lookups": 2}}},
            r"unified\.lookups: the shared table has none",
        ),
        ({"tables": {"unified": {"rows": 9}}}, r"plan\.tables\.unified: no vocabulary reads"),
        ({"tables": {"user": {"mode": "full", "lookups": 2}}}, r"user\.lookups: .* is looked up once"),
    ],
)
def test_settings_that_cannot_be_obeyed(run: dict[str, object], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        plan(manifest_only(SIZES), settings=PlanSettings.parse(**run))


def test_names_and_numbers_that_mean_nothing_are_refused() -> None:
    with pytest.raises(PlanError, match="'unified' has the name of the shared table"):
        plan(manifest_only({"unified": 50}), settings=PlanSettings.parse(**UNIFIED, exact=5))
    assert plan(manifest_only({"unified": 50})).tables["unified"].rows == 50
    with pytest.raises(ConfigError, match="mode"):
        PlanSettings.parse(mode="shared")
    with pytest.raises(ValueError, match="one row per value, found 2 lookups"):
        VocabularyPlan(mode="full", table="t", lookups=2, size=9)


def test_plans_of_one_lookup_keep_their_fingerprint() -> None:
    made = plan(manifest_only(SIZES), settings=PlanSettings(bytes=20_000))
    assert made.fingerprint() == "e2f00b409a1e2617"
