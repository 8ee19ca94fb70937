"""Bundles of shared tables and of several lookups, against vectors put together in plain Python."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from recsys.embeddings.accounting import bytes_by_part
from recsys.embeddings.dealing import dealt
from recsys.embeddings.plan import Plan, ServeDtype, TablePlan, VocabularyPlan
from recsys.errors import BundleError
from recsys.serving.bundle import Bundle
from recsys.serving.encode import Vocabulary
from recsys.serving.files import load_tensors, record_of, save_tensors
from recsys.serving.manifest import BundleManifest
from recsys.training.bundle_writer import Trained, write_bundle
from tests.embeddings.test_rows import row_of
from tests.serving import made
from tests.serving.test_score_bundle import run_script

SHARED_ROWS, USER_ROWS = 11, 6
MISSING, UNSEEN = 0, 2**64 - 1


def plan() -> Plan:
    """Items (two lookups) and marks (one) share a table, users are hashed twice, the others exact."""
    sizes = {name: len(values) + 2 for name, (_, values) in made.VALUES.items()}
    unified, hashed = ("unified", "unified"), ("hash", "user")
    read = {"item": (*unified, 2), "mark": (*unified, 1), "user": (*hashed, 2)}
    vocabularies = {
        name: VocabularyPlan.model_validate(
            dict(zip(("mode", "table", "lookups"), read.get(name, ("full", name, 1)), strict=True))
            | {"size": size}
        )
        for name, size in sizes.items()
    }
    shapes = {"unified": (SHARED_ROWS, 3), "user": (USER_ROWS, 2)}
    shapes |= {name: (sizes[name], made.DIMS[name]) for name in ("tag", "day")}
    return Plan(
        tables={name: TablePlan(rows=rows, dim=dim, path="dense") for name, (rows, dim) in shapes.items()},
        vocabularies=vocabularies,
        features=made.VOCABULARY,
    )


def vectors_of(weights: dict[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
    """Vector of every id of every vocabulary, ``[size, width]``, the rows found with Python's integers."""
    found = dict(weights)
    for name, lookups in (("item", 2), ("mark", 1)):
        keys = [MISSING, UNSEEN, *map(made.key_of, made.VALUES[name][1])]
        rows = [[row_of(key, name, k, SHARED_ROWS) for k in range(lookups)] for key in keys]
        found[name] = np.stack([np.concatenate(weights["unified"][row]) for row in rows])
    keys = list(map(made.key_of, made.USERS))
    rows = [[0, 0], [1, 1]] + [[2 + row_of(key, "user", k, USER_ROWS - 2) for k in (0, 1)] for key in keys]
    found["user"] = np.stack([np.concatenate(weights["user"][row]) for row in rows])
    return found


@pytest.fixture(scope="module")
def raw() -> pl.DataFrame:
    return made.log()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, raw: pl.DataFrame) -> Trained:
    folder = tmp_path_factory.mktemp("trained") / "dataset"
    weights = made.tables(plan())
    return dataclasses.replace(
        made.trained(folder, raw),
        plan=plan(),
        tables=weights,
        sample_scores=made.expected(raw.head(64), vectors_of(weights)).astype(np.float32),
    )


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory, trained: Trained) -> Path:
    """A float bundle that tests copy before they damage it."""
    folder = tmp_path_factory.mktemp("bundle") / "bundle"
    write_bundle(trained, folder, dtype="float32", embeddings=("item", "history", "user", "mark"))
    return folder


def test_a_float_bundle_scores_as_a_loop_over_rows_does(
    written: Path, raw: pl.DataFrame, trained: Trained
) -> None:
    scorer = Bundle.load(written).scorer()
    expected = made.expected(raw, vectors_of(dict(trained.tables)))
    assert np.abs(scorer.score(raw) - expected).max() < 1e-6
    none = raw.with_columns(pl.lit(None, dtype=pl.List(pl.Int64)).alias("history"))
    assert np.abs(scorer.score(none) - made.expected(none, vectors_of(dict(trained.tables)))).max() < 1e-6


@pytest.mark.parametrize("dtype", ["float32", "int4"])
def test_the_script_without_recsys_scores_as_the_library_does(
    tmp_path: Path, raw: pl.DataFrame, trained: Trained, dtype: ServeDtype
) -> None:
    raw.write_parquet(tmp_path / "log.parquet")
    bundle = write_bundle(trained, tmp_path / "bundle", dtype=dtype)
    done = run_script(tmp_path / "bundle", tmp_path / "log.parquet", tmp_path / "scored.parquet")
    assert done.returncode == 0, done.stderr
    scored = pl.read_parquet(tmp_path / "scored.parquet")["score"].to_numpy()
    assert np.abs(scored - bundle.scorer().score(raw)).max() < 1e-6
    restored = {name: table.lookup(np.arange(table.rows)) for name, table in bundle.tables.items()}
    assert np.abs(scored - made.expected(raw, vectors_of(restored))).max() < 1e-6


def compressed_plan(parts: int = 1) -> Plan:
    """Unseen items, marks and users are hashed, days are products; only frequent users are listed."""
    made_plan = plan()
    sizes = {name: planned.size for name, planned in made_plan.vocabularies.items()}
    changed: dict[str, dict[str, object]] = {
        "item": {"mode": "unified", "table": "unified", "lookups": 2, "unseen": "hash"},
        "mark": {"mode": "unified", "table": "unified", "unseen": "hash"},
        "user": {"mode": "adaptive", "table": "user", "hot": 2, "unseen": "hash"},
        "day": {"mode": "quotient", "table": "day", "lookups": 2, "combine": "multiply"},
    }
    vocabularies = made_plan.vocabularies | {
        name: VocabularyPlan.model_validate(each | {"size": sizes[name]}) for name, each in changed.items()
    }
    shared = {name: vocabularies[name] for name in ("item", "mark")}
    vocabularies |= dealt(shared, parts)
    tables = made_plan.tables | {"user": TablePlan(rows=7, dim=4, path="dense")}
    rows = SHARED_ROWS - SHARED_ROWS % parts
    tables |= {"unified": made_plan.tables["unified"].model_copy(update={"rows": rows})}
    return Plan(tables=tables, vocabularies=vocabularies, features=made.VOCABULARY)


@pytest.mark.parametrize("parts", [1, 2])
def test_the_script_hashes_and_multiplies_as_the_library_does(
    tmp_path: Path, raw: pl.DataFrame, trained: Trained, parts: int
) -> None:
    compressed = compressed_plan(parts)
    raw.write_parquet(tmp_path / "log.parquet")
    changed = dataclasses.replace(
        trained,
        plan=compressed,
        tables=made.tables(compressed),
        sample=raw.head(0),
        sample_scores=np.empty(0, np.float32),
    )
    bundle = write_bundle(changed, tmp_path / "bundle")
    listed = {name: len(vocabulary.keys) for name, vocabulary in bundle.vocabularies.items()}
    assert listed == {"item": 0, "mark": 0, "user": 2, "tag": len(made.TAGS), "day": len(made.DAYS)}
    unseen = bundle.vocabularies["item"].lookup(np.array([12345], np.uint64))
    planned, rows = compressed.vocabularies["item"], compressed.tables["unified"].rows // parts
    assert unseen.tolist() == [
        [part * rows + row_of(12345, "item", k, rows) for k, part in enumerate(planned.dealt or (0, 0))]
    ]
    done = run_script(tmp_path / "bundle", tmp_path / "log.parquet", tmp_path / "scored.parquet")
    assert done.returncode == 0, done.stderr
    scored = pl.read_parquet(tmp_path / "scored.parquet")["score"].to_numpy()
    assert np.abs(scored - bundle.scorer().score(raw)).max() < 1e-6


def test_embeddings_stand_side_by_side(written: Path, trained: Trained) -> None:
    vectors = vectors_of(dict(trained.tables))
    for feature, vocabulary in (("item", "item"), ("history", "item"), ("user", "user"), ("mark", "mark")):
        frame = pl.read_parquet(written / "embeddings" / f"{feature}.parquet")
        assert frame["id"].to_list() == made.VALUES[vocabulary][1]
        assert (frame["embedding"].to_numpy() == vectors[vocabulary][2:]).all()
        arrays = load_tensors(written / "embeddings" / f"{feature}.safetensors")
        assert (arrays["embedding"] == vectors[vocabulary][2:]).all()
        assert (arrays["missing"] == vectors[vocabulary][0]).all()
        assert (arrays["unseen"] == vectors[vocabulary][1]).all()


def test_the_manifest_says_which_rows_a_value_reads(written: Path, trained: Trained) -> None:
    manifest = json.loads((written / "manifest.json").read_text())
    assert manifest["version"] == 7
    assert {f["name"]: f["width"] for f in manifest["features"] if f["vocabulary"]} == {
        name: made.DIMS[vocabulary] for name, vocabulary in made.VOCABULARY.items()
    }
    items = manifest["vocabularies"]["item"]
    assert (items["mode"], items["table"]) == ("unified", "unified")
    assert items["missing_row"] == [row_of(MISSING, "item", k, SHARED_ROWS) for k in (0, 1)]
    assert items["unseen_row"] == [row_of(UNSEEN, "item", k, SHARED_ROWS) for k in (0, 1)]
    assert manifest["vocabularies"]["user"]["missing_row"] == [0, 0]
    assert manifest["vocabularies"]["tag"]["missing_row"] == 0
    arrays = load_tensors(written / "vocab" / "item.safetensors")
    assert arrays["rows"].tolist() == [
        [row_of(int(key), "item", k, SHARED_ROWS) for k in (0, 1)] for key in arrays["keys"]
    ]
    assert load_tensors(written / "vocab" / "mark.safetensors")["rows"].shape == (len(made.MARKS),)


def test_a_plan_s_bytes_are_those_of_its_bundle(tmp_path: Path, trained: Trained) -> None:
    bundle = write_bundle(trained, tmp_path / "bundle")
    parts = bytes_by_part(trained.plan)
    assert parts["tables served"] == sum(table.bytes for table in bundle.manifest.tables.values())
    vocabularies = [load_tensors(path) for path in (tmp_path / "bundle" / "vocab").glob("*.safetensors")]
    assert parts["keys"] == sum(arrays["keys"].nbytes for arrays in vocabularies)
    assert parts["row maps"] == sum(arrays["rows"].nbytes for arrays in vocabularies)


def test_rows_that_do_not_fit_the_plan_are_named(tmp_path: Path, written: Path) -> None:
    name = "vocab/item.safetensors"
    arrays = load_tensors(written / name)
    cases = {
        r"rows int32 \[N, 2\]": {"rows": arrays["rows"][:, 0].copy()},
        "has rows 0 to 10, found": {"rows": arrays["rows"] + SHARED_ROWS},
    }
    for number, (message, changed) in enumerate(cases.items()):
        copy = tmp_path / str(number)
        shutil.copytree(written, copy)
        save_tensors(copy / name, arrays | changed)
        manifest = BundleManifest.load(copy)
        manifest.model_copy(update={"files": manifest.files | {name: record_of(copy / name)}}).save(copy)
        with pytest.raises(BundleError, match=f"{name}.*{message}"):
            Bundle.load(copy, verify=False)
    manifest = BundleManifest.load(written)
    items = manifest.vocabularies["item"].model_copy(update={"missing_row": 3})
    shutil.copytree(written, tmp_path / "one")
    vocabularies = manifest.vocabularies | {"item": items}
    manifest.model_copy(update={"vocabularies": vocabularies}).save(tmp_path / "one")
    with pytest.raises(BundleError, match="vocabulary 'item' has 2 lookups, found missing_row 3"):
        Bundle.load(tmp_path / "one", verify=False)


def test_an_empty_vocabulary_of_several_lookups() -> None:
    empty = Vocabulary(
        np.empty(0, np.uint64), np.empty((0, 2), np.int64), np.array([3, 4]), np.array([5, 6])
    )
    assert empty.lookup(np.array([0, 9], np.uint64)).tolist() == [[3, 4], [5, 6]]
    one = Vocabulary(np.array([9], np.uint64), np.array([[7, 8]]), np.array([3, 4]), np.array([5, 6]))
    found = one.lookup(np.array([0, 9, 10], np.uint64))
    assert found.tolist() == [[3, 4], [7, 8], [5, 6]]
    assert one.lookup(np.empty(0, np.uint64)).shape == (0, 2)
