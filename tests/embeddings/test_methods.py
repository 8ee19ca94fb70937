"""The contract of every method of giving values their rows: in training, in a bundle, in a plan."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import numpy as np
import polars as pl
import pytest
import torch
from numpy.typing import NDArray

from recsys.config import PlanSettings, TrainSettings
from recsys.data.batch import Batch
from recsys.data.batches import Batches
from recsys.data.dataset import Dataset
from recsys.embeddings.accounting import bytes_by_part, collisions
from recsys.embeddings.combine import initial_std
from recsys.embeddings.keys import MISSING_KEY, UNSEEN_KEY, keys_of
from recsys.embeddings.methods import METHODS
from recsys.embeddings.plan import Plan, PlannedMode, UpdatePath, VocabularyMode, VocabularyPlan
from recsys.embeddings.planner import plan
from recsys.embeddings.rows import row_maps
from recsys.embeddings.tables import Tables
from recsys.errors import PlanError
from recsys.serving.files import load_tensors
from recsys.training.distributed import Distributed
from recsys.training.export import export
from recsys.training.tables_of import build_tables
from recsys.training.train import train
from tests.embeddings.table_cases import loss_of
from tests.embeddings.test_rows import row_of
from tests.training.made import SIZES, made_dataset

CASES: dict[str, dict[str, Any]] = {
    "full": {"mode": "full"},
    "hash": {"mode": "hash", "bytes": 60 * 32, "unseen": "hash"},
    "hash-4": {"mode": "hash", "bytes": 60 * 32, "lookups": 4},
    "unified": {"mode": "unified", "bytes": 50 * 32, "lookups": 2, "unseen": "hash"},
    "unified-dealt": {
        "mode": "unified",
        "bytes": 50 * 32,
        "lookups": 2,
        "unseen": "hash",
        "tables": {"unified": {"sub_tables": 2}},
    },
    "unified-own": {"mode": "unified", "bytes": 50 * 32},
    "adaptive": {"mode": "adaptive", "bytes": 50 * 32, "hot": 0.4, "unseen": "hash"},
    "adaptive-own": {"mode": "adaptive", "bytes": 50 * 32},
    "quotient": {"mode": "quotient", "bytes": 36 * 32},
}
PATHS: tuple[UpdatePath, ...] = ("dense", "fused")
DIM = 8
UNSEEN = [5_000, 5_001]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return made_dataset(tmp_path_factory.mktemp("methods") / "dataset", rows=300)


def plan_of(case: str, dataset: Dataset, path: UpdatePath = "dense") -> Plan:
    settings = {"embedding_dim": DIM, "exact": 0} | CASES[case]
    made = plan(dataset, settings=PlanSettings.parse(**settings))
    tables = {name: table.model_copy(update={"path": path}) for name, table in made.tables.items()}
    return made.model_copy(update={"tables": tables})


def a_batch(dataset: Dataset) -> Batch:
    return next(iter(Batches(dataset, "train", 32, shuffle_rows=64, shuffle=False).epoch(0, 0)))


def rows_by_hand(made: Plan, dataset: Dataset, vocabulary: str) -> list[list[int]]:
    """Rows of every id, from the definitions, in Python's integers."""
    planned = made.vocabularies[vocabulary]
    rows, size = made.tables[planned.table].rows, planned.size
    keys = [MISSING_KEY, UNSEEN_KEY, *dataset.values(vocabulary)["key"].to_list()]

    def hashed(key: int, first: int) -> list[int]:
        return [first + row_of(key, vocabulary, k, rows - first) for k in range(planned.lookups)]

    def of(number: int) -> list[int]:
        own = number == 0 or (number == 1 and planned.unseen == "own")
        match planned.mode:
            case "full":
                return [number]
            case "unified":
                block = rows // planned.parts
                return [
                    part * block + row_of(keys[number], vocabulary, k, block)
                    for k, part in enumerate(planned.dealt or (0,) * planned.lookups)
                ]
            case "quotient":
                remainders = max(m for m in range(1, size + 1) if m + -(-size // m) <= rows)
                return [number % remainders, remainders + number // remainders]
            case _:
                hot = 2 <= number < 2 + planned.hot
                return [number] * planned.lookups if own or hot else hashed(keys[number], 2 + planned.hot)

    return [of(number) for number in range(size)]


def vectors_by_hand(
    made: Plan, dataset: Dataset, tables: dict[str, NDArray[np.float32]], vocabulary: str
) -> NDArray[np.float32]:
    """Vector of every id, ``[size, width]``."""
    planned = made.vocabularies[vocabulary]
    found = [tables[planned.table][rows] for rows in rows_by_hand(made, dataset, vocabulary)]
    multiplied = planned.combine == "multiply"
    return np.stack([v.prod(0) if multiplied else np.concatenate(v) for v in found])


def test_every_method_has_a_name_and_a_case() -> None:
    assert set(METHODS) == set(get_args(PlannedMode))
    assert set(get_args(VocabularyMode)) == {case["mode"] for case in CASES.values()}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("case", CASES)
def test_a_value_reads_the_vector_of_its_rows_wherever_it_stands(
    dataset: Dataset, ranks: Distributed, case: str, path: UpdatePath
) -> None:
    made = plan_of(case, dataset, path)
    assert {v.mode for v in made.vocabularies.values()} - {"full"} <= {CASES[case]["mode"]}
    assert made.vocabularies["item"].mode == CASES[case]["mode"], "the largest is compressed"
    tables = build_tables(dataset, made, TrainSettings(device="cpu"), ranks)
    again = build_tables(dataset, made, TrainSettings(device="cpu"), ranks)
    weights = {name: tables.table(name) for name in made.tables}
    assert all((again.table(name) == weight).all() for name, weight in weights.items())
    batch = a_batch(dataset)
    inputs = tables(batch)
    by_hand = {name: vectors_by_hand(made, dataset, weights, name) for name in SIZES}
    for feature in ("colour", "item"):
        found = inputs.fields[feature].detach().numpy()
        assert found.shape == (32, made.width_of(feature)) == (32, DIM)
        np.testing.assert_allclose(found, by_hand[feature][batch.ids[feature]], rtol=0, atol=1e-7)
    history = np.concatenate(
        [
            one[:length]
            for one, length in zip(
                inputs.sequences["history"].detach().numpy(), batch.lengths["history"], strict=True
            )
        ]
    )
    np.testing.assert_allclose(history, by_hand["item"][batch.ids["history"]], rtol=0, atol=1e-7)
    tags = np.split(by_hand["tag"][batch.ids["tags"]], np.cumsum(batch.lengths["tags"])[:-1])
    means = [each.mean(0) if len(each) else np.zeros(DIM, np.float32) for each in tags]
    np.testing.assert_allclose(inputs.fields["tags"].detach().numpy(), np.stack(means), rtol=0, atol=1e-6)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("case", CASES)
def test_gradients_reach_the_rows_of_a_batch_and_no_others(
    dataset: Dataset, ranks: Distributed, case: str, path: UpdatePath
) -> None:
    made = plan_of(case, dataset, path)
    tables = build_tables(dataset, made, TrainSettings(device="cpu"), ranks)
    before = {name: tables.table(name) for name in made.tables}
    batch = a_batch(dataset)
    loss_of(tables(batch), 32).backward()
    touched: dict[str, set[int]] = {name: set() for name in made.tables}
    for feature, ids in batch.ids.items():
        planned = made.vocabularies[made.features[feature]]
        rows = np.array(rows_by_hand(made, dataset, made.features[feature]))
        touched[planned.table] |= set(rows[ids].ravel().tolist())
    for name, rows in touched.items():
        moved = _moved(tables, name, before[name])
        assert set(np.flatnonzero(moved.any(axis=1)).tolist()) == rows


def _moved(tables: Tables, name: str, before: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which weights have a gradient, or were moved where the kernel updates them."""
    dense = tables.dense_weights()
    if name in dense:
        gradient = dense[name].grad
        assert gradient is not None
        return np.asarray(gradient.numpy() != 0)[: len(before)]
    return tables.table(name) != before


@pytest.mark.parametrize("case", CASES)
def test_rows_know_nothing_of_other_vocabularies(dataset: Dataset, case: str) -> None:
    made = plan_of(case, dataset)
    keys = dataset.values("item")["key"].to_numpy()
    planned = made.vocabularies["item"]
    rows = planned.method.rows(keys, planned, made.tables[planned.table].rows, "item")
    assert rows.tolist() == rows_by_hand(made, dataset, "item")
    alone = Plan(
        tables={planned.table: made.tables[planned.table]},
        vocabularies={"item": planned},
        features={"item": "item"},
    )
    found = row_maps(alone, dataset).get("item", np.arange(planned.size))
    assert found.reshape(planned.size, -1).tolist() == rows.tolist()


@pytest.mark.parametrize(
    ("case", "path"),
    [
        ("hash", "dense"),
        ("hash-4", "fused"),
        ("unified", "dense"),
        ("unified-dealt", "fused"),
        ("adaptive", "fused"),
        ("adaptive-own", "dense"),
        ("quotient", "dense"),
    ],
)
def test_a_bundle_ships_the_bytes_that_the_plan_counted_and_scores_as_the_checkpoint(
    tmp_path: Path, dataset: Dataset, case: str, path: UpdatePath
) -> None:
    made = plan_of(case, dataset, path)
    settings = TrainSettings(max_steps=4, batch_size=100, device="cpu")
    train(dataset, tmp_path / "run", model="lr", plan=made, settings=settings)
    bundle = export(tmp_path / "run", tmp_path / "bundle", embeddings=["item"])
    assert bundle.manifest.selftest.model_difference <= 1e-5
    assert bundle.manifest.selftest.rows > 0
    parts = bytes_by_part(made)
    arrays = [load_tensors(file) for file in (tmp_path / "bundle" / "vocab").glob("*.safetensors")]
    assert parts["tables served"] == sum(table.nbytes for table in bundle.tables.values())
    assert parts["keys"] == sum(each["keys"].nbytes for each in arrays)
    assert parts["row maps"] == sum(each["rows"].nbytes for each in arrays)
    for name in SIZES:
        by_hand = np.array(rows_by_hand(made, dataset, name))
        known = dataset.values(name)["key"].to_numpy()
        unseen = keys_of(pl.Series(UNSEEN), "int64")
        found = bundle.vocabularies[name].lookup(
            np.concatenate([np.array([MISSING_KEY], np.uint64), known, unseen])
        )
        found = found.reshape(len(found), -1)
        assert found[:-2].tolist() == by_hand[[0, *range(2, len(by_hand))]].tolist()
        planned = made.vocabularies[name]
        if planned.unseen == "own":
            assert found[-2:].tolist() == [by_hand[1].tolist()] * 2
            continue
        first = 0 if planned.mode == "unified" else 2 + planned.hot
        space = (made.tables[planned.table].rows - first) // planned.parts
        parts = planned.dealt or (0,) * planned.lookups
        expected = [
            [first + part * space + row_of(int(k), name, n, space) for n, part in enumerate(parts)]
            for k in unseen
        ]
        assert found[-2:].tolist() == expected
    weights = {name: table.lookup(np.arange(table.rows)) for name, table in bundle.tables.items()}
    exported = pl.read_parquet(tmp_path / "bundle" / "embeddings" / "item.parquet")["embedding"].to_numpy()
    by_hand_vectors = vectors_by_hand(made, dataset, weights, "item")[2:]
    np.testing.assert_allclose(exported, by_hand_vectors, rtol=0, atol=2e-3)


@pytest.mark.parametrize("case", CASES)
def test_expected_collisions_are_those_that_happen(case: str, tmp_path: Path) -> None:
    from tests.embeddings.datasets import made_dataset as made_vocabularies

    dataset = made_vocabularies(tmp_path / "d", {"item": 3_000})
    settings = {"embedding_dim": DIM, "exact": 0} | CASES[case]
    if "bytes" in settings:
        settings["bytes"] = 1_200 * 32
    made = plan(dataset, settings=PlanSettings.parse(**settings))
    line = collisions(made).row(0, named=True)
    rows = row_maps(made, dataset).get("item", np.arange(3_000))
    first = rows.reshape(3_000, -1)[:, 0]
    _, counts = np.unique(first, return_counts=True)
    assert line["within"] == pytest.approx((counts * (counts - 1) / 2).sum(), rel=0.1, abs=1)
    same = len(first) - len(np.unique(rows.reshape(3_000, -1), axis=0))
    assert (line["alike"] < 20) == (same < 20)


def test_quotients_are_cut_as_finely_as_the_rows_allow() -> None:
    method = METHODS["quotient"]
    for size in (2, 3, 7, 60, 1_000, 3_647):
        least = method.smallest(size)
        for rows in (least, least + 1, least + size // 2):
            planned = VocabularyPlan(mode="quotient", table="t", lookups=2, combine="multiply", size=size)
            found = method.listed_rows(np.arange(size), planned, rows)
            assert found.max() < rows
            assert len({tuple(pair) for pair in found.tolist()}) == size
        with pytest.raises(ValueError, match=f"{size} ids need {least} rows, found {least - 1}"):
            method.listed_rows(np.arange(size), planned, least - 1)


def test_products_start_as_wide_as_sums() -> None:
    std = initial_std("multiply", 2, 0.01)
    draw = torch.empty(2, 100_000).normal_(0, std, generator=torch.Generator().manual_seed(0))
    assert float(draw.prod(0).std()) == pytest.approx(0.01, rel=0.02)
    assert initial_std("concat", 2, 0.01) == 0.01


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"mode": "full", "lookups": 2}, "mode full has one row per value, found 2 lookups"),
        ({"mode": "adaptive", "lookups": 2}, "mode adaptive has one row per value, found 2"),
        ({"mode": "quotient"}, "mode quotient has 2 rows per value, found 1"),
        ({"mode": "quotient", "lookups": 2, "unseen": "hash"}, "an unseen one cannot be hashed"),
        ({"mode": "hash", "hot": 4}, "hot belongs to mode adaptive, found mode hash"),
    ],
)
def test_a_plan_that_does_not_fit_its_method_is_refused(fault: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        VocabularyPlan.model_validate({"table": "t", "size": 9} | fault)


def test_a_table_too_small_for_its_method_is_refused(dataset: Dataset) -> None:
    made = plan_of("adaptive", dataset)
    tables = made.tables | {"item": made.tables["item"].model_copy(update={"rows": 5})}
    with pytest.raises(PlanError, match=r"'item': mode adaptive needs at least \d+ rows .*'item' has 5"):
        row_maps(made.model_copy(update={"tables": tables}), dataset)
