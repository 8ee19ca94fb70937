"""Shared tables and several lookups, against ``nn.Embedding``s read row by row."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from recsys.data.batch import Batch
from recsys.data.dataset import Feature
from recsys.embeddings.plan import Plan, TablePlan, UpdatePath, VocabularyPlan
from recsys.embeddings.tables import Tables
from recsys.errors import PlanError
from recsys.models.inputs import Inputs
from tests.embeddings.table_cases import FEATURES, SIZES, loss_of, make_batch

pytestmark = pytest.mark.usefixtures("ranks")

LOOKUPS = {"item.id": 2, "tags": 3, "site": 2, "items": 1}
"""Site has a hashed table of its own, day one of a row per value; the others share one."""
SHARED_ROWS, SITE_ROWS = 31, 13
SINGLE = tuple(feature for feature in FEATURES if feature.kind in ("categorical", "numeric"))


def make_plan(path: UpdatePath, dim: int) -> Plan:
    vocabularies = {"day": VocabularyPlan(mode="full", table="day", size=SIZES["day"])}
    for name, lookups in LOOKUPS.items():
        own = name == "site"
        vocabularies[name] = VocabularyPlan(
            mode="hash" if own else "unified",
            table="site" if own else "unified",
            lookups=lookups,
            size=SIZES[name],
        )
    rows = {"day": SIZES["day"], "site": SITE_ROWS, "unified": SHARED_ROWS}
    return Plan(
        tables={name: TablePlan(rows=count, dim=dim, path=path) for name, count in rows.items()},
        vocabularies=vocabularies,
        features={f.name: f.vocabulary for f in FEATURES if f.vocabulary is not None},
    )


def row_maps() -> dict[str, NDArray[np.int64]]:
    """Any rows will do: ``[size]`` for one lookup, ``[size, K]`` for several."""
    draw = np.random.default_rng(8)
    maps = {}
    for name, lookups in LOOKUPS.items():
        rows = SITE_ROWS if name == "site" else SHARED_ROWS
        maps[name] = draw.integers(0, rows, (SIZES[name], lookups) if lookups > 1 else SIZES[name])
    return maps


def brute_force(
    embeddings: Mapping[str, nn.Embedding], plan: Plan, features: tuple[Feature, ...], batch: Batch
) -> Inputs:
    """Every value's vector from one row at a time; lists pooled per lookup, then put side by side."""
    inputs, maps = Inputs(), row_maps()
    for feature in features:
        name, vocabulary = feature.name, feature.vocabulary
        if vocabulary is None:
            inputs.numerics[name] = torch.from_numpy(np.nan_to_num(batch.numerics[name]))
            inputs.missing[name] = torch.from_numpy(np.isnan(batch.numerics[name])).float()
            continue
        table = embeddings[plan.table_of(name)]
        ids = batch.ids[name]
        rows = maps[vocabulary].reshape(SIZES[vocabulary], -1)[ids] if vocabulary in maps else ids[:, None]
        by_lookup = [table(torch.from_numpy(rows[:, k].copy())) for k in range(rows.shape[1])]
        if feature.kind == "categorical":
            inputs.fields[name] = torch.cat(by_lookup, 1)
            continue
        lengths = torch.from_numpy(batch.lengths[name])
        bags = [torch.split(vectors, lengths.tolist()) for vectors in by_lookup]
        if feature.kind == "multi":
            zero = torch.zeros(table.embedding_dim)
            pooled = [[bag.mean(0) if len(bag) else zero for bag in one] for one in bags]
            inputs.fields[name] = torch.cat([torch.stack(one) for one in pooled], 1)
        else:
            inputs.lengths[name] = lengths
            padded = [nn.utils.rnn.pad_sequence(list(one), batch_first=True) for one in bags]
            inputs.sequences[name] = torch.cat(padded, 2)
    return inputs


def both(
    path: UpdatePath, dim: int, features: tuple[Feature, ...]
) -> tuple[Plan, Tables, dict[str, nn.Embedding]]:
    """Tables, and embeddings with their weights."""
    plan = make_plan(path, dim)
    tables = Tables(plan, features, row_maps=row_maps(), seed=3, init_std=0.1, fused_lr=0.1)
    used = {plan.table_of(f.name) for f in features if f.vocabulary is not None}
    embeddings = {
        name: nn.Embedding.from_pretrained(torch.from_numpy(tables.table(name)), freeze=False)
        for name in plan.tables
        if name in used
    }
    return plan, tables, embeddings


CASES = pytest.mark.parametrize("features", [FEATURES, SINGLE], ids=["lists", "single"])


@CASES
@pytest.mark.parametrize("path", ["dense", "fused"])
@pytest.mark.parametrize("dim", [1, 4, 5])
@pytest.mark.parametrize("rows", [1, 13])
def test_vectors_are_those_of_embeddings(
    path: UpdatePath, dim: int, rows: int, features: tuple[Feature, ...]
) -> None:
    plan, tables, embeddings = both(path, dim, features)
    batch = make_batch(rows)
    found, expected = tables(batch), brute_force(embeddings, plan, features, batch)
    for part in ("fields", "numerics", "missing", "sequences", "lengths"):
        mine, theirs = getattr(found, part), getattr(expected, part)
        assert list(mine) == list(theirs)
        for name, value in theirs.items():
            torch.testing.assert_close(mine[name], value, rtol=0, atol=1e-7)
    for name, vectors in found.fields.items():
        assert vectors.shape == (rows, plan.width_of(name))


@CASES
@pytest.mark.parametrize("dim", [4, 5])
def test_the_dense_path_learns_like_embeddings(dim: int, features: tuple[Feature, ...]) -> None:
    plan, tables, embeddings = both("dense", dim, features)
    ours = torch.optim.Adam(list(tables.dense_weights().values()), lr=0.05)
    theirs = torch.optim.Adam([table.weight for table in embeddings.values()], lr=0.05)
    for step in range(3):
        batch = make_batch(9, index=step)
        ours.zero_grad()
        theirs.zero_grad()
        loss_of(tables(batch), 9).backward()
        loss_of(brute_force(embeddings, plan, features, batch), 9).backward()
        ours.step()
        theirs.step()
    for name, table in embeddings.items():
        np.testing.assert_allclose(tables.table(name), table.weight.detach().numpy(), rtol=0, atol=2e-6)


@CASES
@pytest.mark.parametrize("dim", [4, 5])
def test_the_fused_path_updates_a_shared_row_once_with_the_sum(
    dim: int, features: tuple[Feature, ...]
) -> None:
    plan, tables, embeddings = both("fused", dim, features)
    sums: dict[str, Tensor] = {name: torch.zeros(len(table.weight)) for name, table in embeddings.items()}
    for step in range(3):
        batch = make_batch(9, index=step)
        loss_of(tables(batch), 9).backward()
        loss_of(brute_force(embeddings, plan, features, batch), 9).backward()
        for name, table in embeddings.items():
            gradient = table.weight.grad
            assert gradient is not None
            sums[name] += gradient.square().mean(1)
            with torch.no_grad():
                table.weight -= 0.1 * gradient / (sums[name].sqrt() + 1e-8).unsqueeze(1)
            table.weight.grad = None
    for name, table in embeddings.items():
        np.testing.assert_allclose(tables.table(name), table.weight.detach().numpy(), rtol=0, atol=2e-6)


@pytest.mark.parametrize("rows", [0, 1])
def test_batches_without_values(rows: int) -> None:
    plan, tables, _ = both("dense", 4, FEATURES)
    batch = make_batch(rows)
    for name in ("history", "tags"):
        batch.ids[name], batch.lengths[name] = np.empty(0, np.int64), np.zeros(rows, np.int64)
    inputs = tables(batch)
    assert inputs.sequences["history"].shape == (rows, 0, plan.width_of("history"))
    assert inputs.fields["tags"].shape == (rows, plan.width_of("tags"))
    assert not inputs.fields["tags"].any()
    loss_of(inputs, 1).backward()


def test_no_row_of_a_shared_table_starts_as_zeros() -> None:
    _, tables, _ = both("dense", 4, FEATURES)
    assert tables.table("unified").any(axis=1).all()
    assert not tables.table("site")[:2].any()


def test_row_maps_of_other_lookups_are_refused() -> None:
    maps = row_maps()
    maps["site"] = maps["site"][:, :1]
    with pytest.raises(PlanError, match="'site': expected rows of 2 lookups, found 1"):
        Tables(make_plan("dense", 4), FEATURES, row_maps=maps)
    del maps["tags"]
    with pytest.raises(PlanError, match="rows of its ids were not given"):
        Tables(make_plan("dense", 4), [f for f in FEATURES if f.name == "tags"], row_maps=maps)
