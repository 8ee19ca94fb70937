"""Lookups dealt over sub-tables: evenly, by names alone, kept by growth, written where there are some."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from recsys.config import PlanSettings
from recsys.embeddings.accounting import collisions
from recsys.embeddings.dealing import dealt
from recsys.embeddings.growth import grown
from recsys.embeddings.plan import Plan, VocabularyPlan
from recsys.embeddings.planner import plan
from recsys.embeddings.rows import row_maps
from recsys.errors import PlanError
from tests.embeddings.datasets import made_dataset, manifest_only

SIZES = {"user": 1_000, "item": 700, "shop": 650, "city": 80}


def made(parts: int, sizes: dict[str, int] = SIZES, **stated: object) -> Plan:
    tables = {"unified": {"sub_tables": parts, "rows": 600}}
    run = PlanSettings.parse(mode="unified", embedding_dim=8, tables=tables, **stated)
    return plan(manifest_only(sizes), settings=run)


def vocabulary(size: int, lookups: int) -> VocabularyPlan:
    return VocabularyPlan(mode="unified", table="unified", lookups=lookups, size=size)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(2, 9_000), st.integers(1, 4)), min_size=1), st.integers(2, 6))
def test_sub_tables_have_equally_many_lookups_and_a_value_s_differ(
    vocabularies: list[tuple[int, int]], parts: int
) -> None:
    given_ = {f"v{number}": vocabulary(*each) for number, each in enumerate(vocabularies)}
    found = dealt(given_, parts)
    counts = np.bincount([part for each in found.values() for part in each.dealt], minlength=parts)
    assert counts.sum() == sum(lookups for _, lookups in vocabularies)
    for name, each in found.items():
        assert len(set(each.dealt)) == min(parts, given_[name].lookups)
    if all(lookups == vocabularies[0][1] for _, lookups in vocabularies):
        assert counts.max() - counts.min() <= 1
    assert dealt(dict(reversed(given_.items())), parts) == found, "order is of no account"


def test_large_vocabularies_do_not_meet() -> None:
    found = made(2)
    read = {name: info.dealt[0] for name, info in found.vocabularies.items()}
    assert read["user"] not in (read["item"], read["shop"])
    assert [info.parts for info in found.vocabularies.values()] == [2] * 4
    line = {line["vocabulary"]: line for line in collisions(found).iter_rows(named=True)}
    assert line["user"]["within"] == pytest.approx(1_000 * 999 / 2 / 300)
    assert line["user"]["between"] == pytest.approx(1_000 * 80 / 300)


def test_rows_lie_in_the_sub_table_of_their_lookup(tmp_path: Path) -> None:
    dataset = made_dataset(tmp_path / "d", SIZES)
    run = {"mode": "unified", "lookups": 2, "tables": {"unified": {"sub_tables": 3, "rows": 600}}}
    found = plan(dataset, settings=PlanSettings.parse(**run))
    for name, rows in row_maps(found, dataset).items():
        assert (rows // 200 == found.vocabularies[name].dealt).all()
        assert len(np.unique(rows)) > 0.2 * min(400, 2 * SIZES[name])
    again = Plan.model_validate_json(found.model_dump_json())
    assert again == found
    moved = found.vocabularies["user"].model_copy(update={"dealt": found.vocabularies["user"].dealt[::-1]})
    other = found.model_copy(update={"vocabularies": found.vocabularies | {"user": moved}})
    assert other.fingerprint() != found.fingerprint()


def test_a_plan_without_sub_tables_is_written_as_ever() -> None:
    content = made(1).model_dump(mode="json")["vocabularies"]["user"]
    assert set(content) == {"mode", "table", "lookups", "combine", "hot", "unseen", "size"}


def test_growth_keeps_what_was_dealt_and_deals_what_is_new() -> None:
    earlier = made(3, lookups=2)
    larger = {name: size + 50 for name, size in SIZES.items()} | {"brand": 300}
    found = grown(earlier, manifest_only(larger), made(1, larger, lookups=2))
    for name, info in earlier.vocabularies.items():
        assert found.vocabularies[name].dealt == info.dealt
    new = found.vocabularies["brand"]
    assert (new.parts, len(set(new.dealt))) == (3, 2)
    assert found.tables == earlier.tables


def test_rows_fill_sub_tables_evenly_within_the_budget() -> None:
    run = {"mode": "unified", "bytes": 20_000, "exact": 0}
    tables = {"unified": {"sub_tables": 3}}
    found = plan(manifest_only(SIZES), settings=PlanSettings.parse(tables=tables, **run))
    whole = plan(manifest_only(SIZES), settings=PlanSettings.parse(**run)).tables["unified"].rows
    assert whole - 3 < found.tables["unified"].rows <= whole
    assert found.tables["unified"].rows % 3 == 0


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ({"unified": {"sub_tables": 5, "rows": 600}}, r"unified\.sub_tables: 5 sub-tables, but .* have 4"),
        ({"unified": {"sub_tables": 4, "rows": 602}}, "602 rows cannot be cut into 4 equal sub-tables"),
        ({"user": {"sub_tables": 2}}, r"user\.sub_tables: only the shared table has sub-tables"),
    ],
)
def test_sub_tables_that_cannot_be(stated: dict[str, object], message: str) -> None:
    run = PlanSettings.parse(mode="unified", bytes="1MB", exact=5, tables=stated)
    with pytest.raises(PlanError, match=message):
        plan(manifest_only(SIZES), settings=run)


def test_an_edited_plan_whose_sub_tables_do_not_fit_is_refused() -> None:
    content = made(2).model_dump(mode="json")
    for change in ({"parts": 3}, {"dealt": [2]}, {"dealt": [0, 1]}, {"dealt": []}):
        edited = content | {
            "vocabularies": content["vocabularies"] | {"user": content["vocabularies"]["user"] | change}
        }
        with pytest.raises(ValidationError, match="sub-table"):
            Plan.model_validate(edited)
    odd = content | {"tables": {"unified": content["tables"]["unified"] | {"rows": 601}}}
    with pytest.raises(ValidationError, match="as 2 equal sub-tables, found 601 rows"):
        Plan.model_validate(odd)
