"""Bundles written and read back: right scores, and every damage named."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray
from safetensors import SafetensorError

from recsys.embeddings.plan import ServeDtype
from recsys.errors import BundleError, ConfigError, DataError, SchemaError
from recsys.serving.bundle import Bundle
from recsys.serving.files import load_tensors, record_of, save_tensors
from recsys.serving.manifest import BundleManifest
from recsys.training.bundle_writer import Trained, write_bundle
from tests.serving import made


@pytest.fixture(scope="module")
def raw() -> pl.DataFrame:
    return made.log()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, raw: pl.DataFrame) -> Trained:
    return made.trained(tmp_path_factory.mktemp("trained") / "dataset", raw)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory, trained: Trained) -> Path:
    """A bundle in int8 that tests copy before they damage it."""
    folder = tmp_path_factory.mktemp("bundle") / "bundle"
    write_bundle(trained, folder, embeddings=("item",))
    return folder


@pytest.mark.parametrize("hashed", [False, True])
def test_a_float_bundle_scores_as_a_loop_over_rows_does(
    tmp_path: Path, raw: pl.DataFrame, hashed: bool
) -> None:
    trained = made.trained(tmp_path / "dataset", raw, hashed=hashed)
    bundle = write_bundle(trained, tmp_path / "bundle", dtype="float32")
    score = bundle.scorer().score(raw)
    assert score.dtype == np.float32
    assert np.abs(score - made.expected(raw, dict(trained.tables), hashed=hashed)).max() < 1e-6


@pytest.mark.parametrize(("dtype", "most"), [("float16", 5e-4), ("int8", 0.01), ("int4", 0.1)])
def test_a_quantised_bundle_scores_as_its_restored_tables_do(
    tmp_path: Path, raw: pl.DataFrame, trained: Trained, dtype: ServeDtype, most: float
) -> None:
    bundle = write_bundle(trained, tmp_path / "bundle", dtype=dtype)
    restored = {name: table.lookup(np.arange(table.rows)) for name, table in bundle.tables.items()}
    score = bundle.scorer().score(raw)
    assert np.abs(score - made.expected(raw, restored)).max() < 1e-6
    error = np.abs(score - made.expected(raw, dict(trained.tables))).max()
    assert 0 < error < most


def test_whoever_may_read_the_folder_may_read_the_files(written: Path) -> None:
    files = [path for path in written.rglob("*") if path.is_file()]
    assert {path.stat().st_mode & 0o666 for path in files} == {written.stat().st_mode & 0o666}


def test_scores_do_not_depend_on_how_rows_are_dealt(
    written: Path, raw: pl.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer = Bundle.load(written).scorer()
    whole = scorer.score(raw)
    monkeypatch.setattr("recsys.serving.scorer.BATCH_ROWS", 7)
    monkeypatch.setattr("recsys.serving.scorer.CHUNK_ROWS", 32)
    monkeypatch.setattr("recsys.serving.scorer.READ_ROWS", 100)
    assert np.abs(scorer.score(raw) - whole).max() < 1e-6
    assert np.abs(scorer.score(raw[::-1])[::-1] - whole).max() < 1e-6


def test_polars_pandas_arrow_and_parquet_give_the_same_scores(
    written: Path, raw: pl.DataFrame, tmp_path: Path
) -> None:
    raw.write_parquet(tmp_path / "log.parquet")
    scorer = Bundle.load(written).scorer()
    expected = scorer.score(raw)
    for data in (raw.lazy(), raw.to_arrow(), tmp_path / "log.parquet", str(tmp_path / "*.parquet")):
        assert (scorer.score(data) == expected).all()
    # Pandas has no integer column with missing values unless asked; floats come back as integers.
    frame = raw.to_pandas()
    assert frame["item"].dtype == "float64"
    assert (scorer.score(frame) == expected).all()


def test_rows_of_lists_that_are_all_empty_are_scored(written: Path, raw: pl.DataFrame) -> None:
    none = raw.with_columns(pl.lit(None, dtype=pl.List(pl.Int64)).alias("history"))
    tables = Bundle.load(written).tables
    restored = {name: table.lookup(np.arange(table.rows)) for name, table in tables.items()}
    score = Bundle.load(written).scorer().score(none)
    assert np.abs(score - made.expected(none, restored)).max() < 1e-6


def test_a_missing_column_is_named_with_the_nearest(written: Path, raw: pl.DataFrame) -> None:
    scorer = Bundle.load(written).scorer()
    with pytest.raises(SchemaError, match=r"'history'.*did you mean 'histories'"):
        scorer.score(raw.rename({"history": "histories"}))


def test_a_column_of_another_shape_or_type_is_named(written: Path, raw: pl.DataFrame) -> None:
    scorer = Bundle.load(written).scorer()
    with pytest.raises(SchemaError, match="'item'"):
        scorer.score(raw.with_columns(item=pl.col("history")))
    with pytest.raises(SchemaError, match="'tags'"):
        scorer.score(raw.with_columns(tags=pl.col("user")))
    with pytest.raises(SchemaError, match=r"'item'.*not a number"):
        scorer.score(raw.with_columns(item=pl.lit("not a number")))


def test_the_manifest_says_what_is_inside(written: Path, trained: Trained, raw: pl.DataFrame) -> None:
    manifest = json.loads((written / "manifest.json").read_text())
    assert manifest["format"] == "recsys-bundle"
    assert manifest["plan_fingerprint"] == trained.plan.fingerprint()
    assert [feature["name"] for feature in manifest["features"]] == list(made.schema().features)
    assert manifest["features"][1] == {
        "name": "item",
        "kind": "categorical",
        "type": "int64",
        "side": None,
        "vocabulary": "item",
        "table": "item",
        "width": 6,
        "combine": "concat",
        "max_length": None,
        "aligned_with": None,
    }
    # Rows of up to four numbers are no smaller in int8 than in float16.
    assert {name: table["dtype"] for name, table in manifest["tables"].items()} == {
        "user": "float16",
        "item": "int8",
        "tag": "int8",
        "day": "float16",
        "mark": "float16",
    }
    files = {str(p.relative_to(written)) for p in written.rglob("*") if p.is_file()} - {"manifest.json"}
    assert set(manifest["files"]) == files
    assert manifest["bytes"]["total"] == sum((written / name).stat().st_size for name in files)
    assert manifest["bytes"]["tables"] == sum(p.stat().st_size for p in (written / "tables").iterdir())
    assert manifest["quantisation"]["rows"] == raw.height
    assert manifest["selftest"]["rows"] == 64
    assert manifest["packages"]["recsys"]


def test_the_cost_of_quantisation_is_that_of_the_scores(
    tmp_path: Path, raw: pl.DataFrame, trained: Trained
) -> None:
    from sklearn.metrics import roc_auc_score

    bundle = write_bundle(trained, tmp_path / "bundle", dtype="int4")
    cost = bundle.manifest.quantisation
    assert cost is not None
    assert cost.auc_quantised == pytest.approx(roc_auc_score(raw["label"], bundle.scorer().score(raw)))
    exact = write_bundle(trained, tmp_path / "exact", dtype="float32")
    assert exact.manifest.quantisation is None
    assert cost.auc_float == pytest.approx(roc_auc_score(raw["label"], exact.scorer().score(raw)))
    assert cost.cost == cost.auc_float - cost.auc_quantised


def test_the_cost_is_measured_on_so_many_rows_at_most(tmp_path: Path, trained: Trained) -> None:
    bundle = write_bundle(trained, tmp_path / "bundle", dtype="int4", measured_rows=50)
    assert bundle.manifest.quantisation is not None
    assert bundle.manifest.quantisation.rows == 50


def test_vocabulary_files_hold_sorted_keys_and_raw_values(written: Path) -> None:
    arrays = load_tensors(written / "vocab" / "item.safetensors")
    keys = [made.key_of(item) for item in made.ITEMS]
    assert arrays["keys"].tolist() == sorted(keys)
    assert arrays["rows"].tolist() == [keys.index(key) + 2 for key in sorted(keys)]
    values = pl.read_parquet(written / "vocab" / "item.parquet")
    assert values["value"].to_list() == made.ITEMS
    assert values["id"].to_list() == list(range(2, len(made.ITEMS) + 2))
    assert "count" in values.columns


def test_a_bundle_is_the_same_bytes_when_written_again(
    tmp_path: Path, written: Path, trained: Trained
) -> None:
    write_bundle(trained, tmp_path / "again", embeddings=("item",))
    manifests = [
        json.loads((folder / "manifest.json").read_text()) for folder in (written, tmp_path / "again")
    ]
    assert manifests[0] == manifests[1]


@pytest.mark.parametrize("hashed", [False, True])
def test_embeddings_carry_raw_ids_and_float_vectors(
    tmp_path: Path, raw: pl.DataFrame, hashed: bool
) -> None:
    trained = made.trained(tmp_path / "dataset", raw, hashed=hashed)
    write_bundle(trained, tmp_path / "bundle", dtype="int4", embeddings=("item", "tags"))
    folder = tmp_path / "bundle" / "embeddings"
    frame = pl.read_parquet(folder / "item.parquet")
    rows = [made.item_row(item, made.HASHED_ROWS) for item in made.ITEMS]
    expected = trained.tables["item"][rows if hashed else list(range(2, len(made.ITEMS) + 2))]
    assert frame["id"].to_list() == made.ITEMS
    assert frame["embedding"].dtype == pl.Array(pl.Float32, 6)
    assert (frame["embedding"].to_numpy() == expected).all()
    arrays = load_tensors(folder / "item.safetensors")
    assert (arrays["embedding"] == expected).all()
    assert arrays["key"].tolist() == [made.key_of(item) for item in made.ITEMS]
    assert (arrays["missing"] == trained.tables["item"][0]).all()
    assert (arrays["unseen"] == trained.tables["item"][1]).all()
    assert pl.read_parquet(folder / "tags.parquet")["id"].to_list() == made.TAGS


def test_embeddings_of_an_unknown_or_numeric_feature_are_refused(tmp_path: Path, trained: Trained) -> None:
    with pytest.raises(ConfigError, match=r"'iten'.*did you mean 'item'"):
        write_bundle(trained, tmp_path / "bundle", embeddings=("iten",))
    with pytest.raises(ConfigError, match="'price'"):
        write_bundle(trained, tmp_path / "bundle", embeddings=("price",))
    assert list(tmp_path.iterdir()) == []


def test_a_dense_part_that_is_not_the_models_is_never_written(tmp_path: Path, trained: Trained) -> None:
    wrong = dataclasses.replace(trained, sample_scores=trained.sample_scores + np.float32(0.01))
    with pytest.raises(BundleError, match=r"differ from the trained model's by 0\.01"):
        write_bundle(wrong, tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


def test_an_earlier_bundle_stays_when_the_new_one_fails(
    tmp_path: Path, raw: pl.DataFrame, trained: Trained
) -> None:
    write_bundle(trained, tmp_path / "bundle")
    wrong = dataclasses.replace(trained, tables={**trained.tables, "item": trained.tables["item"][:-1]})
    with pytest.raises(BundleError, match="table 'item': planned 9 × 6"):
        write_bundle(wrong, tmp_path / "bundle")
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
    assert len(Bundle.load(tmp_path / "bundle").scorer().score(raw)) == raw.height


# --- damage --------------------------------------------------------------------------------------


def all_files(bundle: Path) -> list[str]:
    return sorted(str(path.relative_to(bundle)) for path in bundle.rglob("*") if path.is_file())


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-8])


@pytest.mark.parametrize("damage", [flip, truncate, Path.unlink])
def test_damage_of_any_file_is_named(tmp_path: Path, written: Path, damage: Callable[[Path], None]) -> None:
    for name in all_files(written):
        copy = tmp_path / "copy"
        shutil.copytree(written, copy)
        damage(copy / name)
        with pytest.raises(BundleError) as caught:
            Bundle.load(copy)
        assert name in str(caught.value)
        shutil.rmtree(copy)


def edited(bundle: Path, copy: Path, **changes: object) -> Path:
    """A copy of a bundle whose manifest was changed by someone who knows its checksum."""
    shutil.copytree(bundle, copy)
    manifest = BundleManifest.load(copy).model_copy(update=changes)
    manifest.save(copy)
    return copy


def test_another_version_is_named_with_what_to_do(tmp_path: Path, written: Path) -> None:
    copy = edited(written, tmp_path / "copy", version=9)
    with pytest.raises(BundleError, match=r"manifest\.json: version 9 .* knows 1 to 7"):
        Bundle.load(copy)


def test_a_folder_that_is_no_bundle_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"not a bundle.*recsys export"):
        Bundle.load(tmp_path)
    (tmp_path / "manifest.json").write_text('{"format": "other"}')
    with pytest.raises(BundleError, match="expected format 'recsys-bundle', found 'other'"):
        Bundle.load(tmp_path)
    (tmp_path / "manifest.json").write_text("[]")
    with pytest.raises(BundleError, match="expected a JSON object"):
        Bundle.load(tmp_path)


def test_an_edited_manifest_is_refused(tmp_path: Path, written: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(written, copy)
    path = copy / "manifest.json"
    path.write_text(path.read_text().replace('"mean": 40.0', '"mean": 41.0'))
    with pytest.raises(BundleError, match="edited by hand"):
        Bundle.load(copy)


def test_the_plan_must_be_the_one_that_its_fingerprint_names(tmp_path: Path, written: Path) -> None:
    copy = edited(written, tmp_path / "copy", plan=made.plan(hashed=True))
    with pytest.raises(BundleError, match="plan: its fingerprint"):
        Bundle.load(copy)


def replaced(bundle: Path, copy: Path, name: str, **arrays: NDArray[Any]) -> Path:
    """A copy of a bundle with other arrays in one file, its hash brought up to date."""
    shutil.copytree(bundle, copy)
    save_tensors(copy / name, load_tensors(copy / name) | arrays)
    manifest = BundleManifest.load(copy)
    manifest.model_copy(update={"files": manifest.files | {name: record_of(copy / name)}}).save(copy)
    return copy


def test_the_self_test_sees_wrong_rows_encoders_and_weights(tmp_path: Path, written: Path) -> None:
    rows = load_tensors(written / "vocab" / "user.safetensors")["rows"]
    copy = replaced(written, tmp_path / "rows", "vocab/user.safetensors", rows=rows[::-1].copy())
    with pytest.raises(BundleError, match=r"selftest\.safetensors, row \d+: the self-test expects"):
        Bundle.load(copy)
    assert Bundle.load(copy, verify=False).manifest.version == 7

    scale = load_tensors(written / "tables" / "item.safetensors")["scale"] * np.float16(2)
    copy = replaced(written, tmp_path / "scale", "tables/item.safetensors", scale=scale)
    with pytest.raises(BundleError, match="the self-test expects"):
        Bundle.load(copy)

    numerics = {**made.NUMERICS, "age": made.NUMERICS["age"].model_copy(update={"mean": 41.0})}
    with pytest.raises(BundleError, match="the self-test expects"):
        Bundle.load(edited(written, tmp_path / "mean", numerics=numerics))


def test_arrays_that_do_not_fit_the_manifest_are_named(tmp_path: Path, written: Path) -> None:
    arrays = load_tensors(written / "vocab" / "item.safetensors")
    name = "vocab/item.safetensors"
    cases = {
        "rising": {"keys": arrays["keys"][::-1].copy()},
        "rows 0 to 8": {"rows": arrays["rows"] + 5},
        "expected keys uint64": {"rows": arrays["rows"].astype(np.uint16)},
    }
    older = replaced(written, tmp_path / "older", name, rows=arrays["rows"].astype(np.int64))
    assert Bundle.load(older).vocabularies["item"].rows.tolist() == arrays["rows"].tolist()
    for number, (message, changed) in enumerate(cases.items()):
        copy = replaced(written, tmp_path / str(number), name, **changed)
        with pytest.raises(BundleError, match=f"{name}.*{message}"):
            Bundle.load(copy, verify=False)
    codes = load_tensors(written / "tables" / "item.safetensors")["codes"][:-1].copy()
    copy = replaced(written, tmp_path / "codes", "tables/item.safetensors", codes=codes)
    with pytest.raises(BundleError, match=r"tables/item\.safetensors: table 'item'"):
        Bundle.load(copy, verify=False)


def test_a_full_disk_is_a_data_error_and_leaves_nothing(
    tmp_path: Path, trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("recsys.serving.files.save_file", full)
    with pytest.raises(DataError, match=r"bundle: cannot be written: .*No space left"):
        write_bundle(trained, tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_other_things_is_not_replaced(tmp_path: Path, trained: Trained) -> None:
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "dear.txt").write_text("sir")
    with pytest.raises(DataError, match=r"letters: holds files but no manifest\.json"):
        write_bundle(trained, tmp_path / "letters")
    assert (tmp_path / "letters" / "dear.txt").read_text() == "sir"
