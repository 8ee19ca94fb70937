"""Write a bundle from plain parts: a dataset, a plan, arrays, and a function that writes an ONNX graph.

Nothing here knows torch. What was written is read back by the same reader that serves it, scored
against the trained model, and only then moved into place.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

import recsys
from recsys.data.dataset import MISSING_ID, UNSEEN_ID, Dataset, Feature
from recsys.embeddings.open_values import OpenValues
from recsys.embeddings.plan import Plan, ServeDtype
from recsys.embeddings.rows import row_maps
from recsys.errors import BundleError
from recsys.serving.bundle import Bundle, query_encoder_of
from recsys.serving.dense import DensePart
from recsys.serving.encode import Vocabulary
from recsys.serving.files import file_name, record_of, save_tensors
from recsys.serving.manifest import (
    MANIFEST_FILE,
    PRUNING,
    TOLERANCE,
    BundleFeature,
    BundleManifest,
    BundleTable,
    BundleVocabulary,
    HashedRows,
    SelfTest,
    Towers,
)
from recsys.serving.quantise import Table, worthwhile
from recsys.serving.queries import OUTPUT
from recsys.serving.scorer import Scorer
from recsys.serving.selftest import QUERY, SCORE, read_rows, store_rows
from recsys.stage import STAGE_FILE, StageRecord, written_aside
from recsys.training import open_values
from recsys.training.embedding_export import save_embeddings
from recsys.training.held_out_cost import MEASURED_ROWS, Exact, HeldOut
from recsys.training.packed_pools import packed
from recsys.training.tower_writer import QUERY_FILE, TrainedTowers, write_towers

DENSE_FILE, SELFTEST_FILE = "dense.onnx", "selftest.safetensors"
_PACKAGES = ("numpy", "onnx", "onnxruntime", "polars", "safetensors", "torch", "xxhash")
_PARTS = {
    "tables": "tables/*",
    "vocabularies": "vocab/*.safetensors",
    "values": "vocab/*.parquet",
    "embeddings": "embeddings/*",
    "items": "items/*",
}


@dataclass(frozen=True)
class Trained:
    """What a bundle is made from."""

    dataset: Dataset
    plan: Plan
    tables: Mapping[str, NDArray[np.float32]]
    """Table name → float32 weights ``[rows, dim]``."""
    write_dense: Callable[[Path], None]
    """Writes the dense part as ONNX."""
    sample: pl.DataFrame
    """Raw rows for the self-test, in the schema's types."""
    sample_scores: NDArray[np.float32]
    """The trained model's own probabilities of them."""
    row_maps: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)
    """Rows of every id of pooled vocabularies, ``[size]`` or ``[size, pieces]``; row 0 is nobody's."""
    model: Mapping[str, Any] = field(default_factory=dict)
    """Name and options, for people."""
    metrics: Mapping[str, Any] = field(default_factory=dict)
    gates: OpenValues | None = None
    """Which values are open; None: all are, as the model has no gates and none were cut."""
    unpruned: Trained | None = None
    """The model with all its values, where some of them were cut."""
    towers: TrainedTowers | None = None
    """Of retrieval models."""


def write_bundle(
    trained: Trained,
    output: str | Path,
    *,
    dtype: ServeDtype | None = None,
    embeddings: tuple[str, ...] = (),
    measured_rows: int = MEASURED_ROWS,
    record: StageRecord | None = None,
) -> Bundle:
    """Write a bundle, prove it, and move it into place.

    Args:
        trained: what it is made from.
        output: folder; replaced when the new one is whole.
        dtype: of every table; default: as the plan says per table. A table too narrow to gain from
            int8 or int4 is stored as float16.
        embeddings: features whose vectors are also written with their raw ids.
        measured_rows: held-out rows at most that the costs of quantisation and pruning are measured on.
        record: what the bundle is made from, for ``stage.json``.

    Raises:
        BundleError: a weight does not fit the type, or with float32 tables the bundle's scores are
            not the trained model's.
        DataError: the disk is full, or ``output`` holds other things than a bundle.
    """
    _require_planned_shapes(trained)
    if trained.row_maps:
        pools = packed(trained.plan, trained.tables, trained.row_maps, dtype)
        trained = replace(trained, plan=pools.plan, tables=pools.tables, row_maps=pools.maps)
    shipped, maps = _shipped(trained)
    features = bundle_features(trained.dataset, trained.plan)
    with written_aside(Path(output), MANIFEST_FILE) as folder:
        tables, stored = _write_tables(trained.plan, shipped, folder, dtype)
        vocabularies, described = _write_vocabularies(trained, folder, maps)
        trained.write_dense(folder / DENSE_FILE)
        for name in embeddings:
            save_embeddings(
                trained.dataset,
                trained.plan,
                trained.tables,
                name,
                folder / "embeddings",
                trained.gates,
                trained.row_maps,
            )
        manifest = trained.dataset.manifest
        scorer = Scorer(
            schema=manifest.schema_,
            features=features,
            numerics=manifest.numerics,
            vocabularies=vocabularies,
            tables=tables,
            dense=DensePart(folder / DENSE_FILE),
        )
        exact = _exact(shipped, maps)
        selftest, towers = _write_selftest(trained, scorer, exact.tables, folder)
        cost, metrics = None, dict(trained.metrics)
        if towers is None:  # positive rows alone have no AUC
            lossy = any(table.dtype != "float32" for table in stored.values())
            before = None if trained.unpruned is None else _exact(*_shipped(trained.unpruned))
            measured = HeldOut(trained.dataset, scorer, measured_rows)
            cost, of_pruning = measured.costs(exact, before, lossy=lossy)
            metrics |= {} if of_pruning is None else {PRUNING: of_pruning.model_dump()}
        files = {name: record_of(folder / name) for name in _files_in(folder)}
        BundleManifest(
            packages=_versions(),
            model=dict(trained.model),
            plan=trained.plan,
            plan_fingerprint=trained.plan.fingerprint(),
            schema=manifest.schema_,
            features=features,
            numerics=manifest.numerics,
            vocabularies=described,
            tables=stored,
            dense=DENSE_FILE,
            selftest=selftest,
            embeddings={name: f"embeddings/{file_name(name, '.parquet')}" for name in embeddings},
            metrics=metrics,
            quantisation=cost,
            towers=towers,
            gates=None
            if trained.gates is None
            else open_values.described(trained.plan, stored, trained.gates),
            bytes=_bytes_per_part({name: record.bytes for name, record in files.items()}),
            files=files,
        ).save(folder)
        if record is not None:
            record.save(folder)
        Bundle.load(folder)  # what cannot be read back never takes the place of what could
    return Bundle.load(output, verify=False)


def bundle_features(dataset: Dataset, plan: Plan) -> tuple[BundleFeature, ...]:
    """Model inputs in order, each with its type, table and width."""
    return tuple(_bundle_feature(feature, dataset, plan) for feature in dataset.features)


def _bundle_feature(feature: Feature, dataset: Dataset, plan: Plan) -> BundleFeature:
    name, kind, side = feature.name, feature.kind, feature.side
    if feature.vocabulary is None:
        stated = dataset.manifest.schema_.column(name).type
        return BundleFeature(name=name, kind=kind, side=side, type=stated)
    table = plan.table_of(name)
    return BundleFeature(
        name=name,
        kind=kind,
        side=side,
        type=dataset.vocabulary_info(feature.vocabulary).type,
        vocabulary=feature.vocabulary,
        table=table,
        width=plan.width_of(name),
        combine=plan.vocabularies[feature.vocabulary].combine,
        max_length=feature.max_length,
        aligned_with=feature.aligned_with,
    )


def _require_planned_shapes(trained: Trained) -> None:
    for name, planned in trained.plan.tables.items():
        found = trained.tables[name].shape
        if found != (planned.rows, planned.dim):
            raise BundleError(
                f"table {name!r}: planned {planned.rows} × {planned.dim}, found {found}; "
                "the plan and the checkpoint do not belong together"
            )


def _shipped(
    trained: Trained,
) -> tuple[Mapping[str, NDArray[np.float32]], Mapping[str, NDArray[np.int64]]]:
    """Weights of every table as they are stored, and rows of ids where they are not the ids themselves."""
    maps = {**row_maps(trained.plan, trained.dataset), **trained.row_maps}
    if trained.gates is None:
        return trained.tables, maps
    kept = open_values.kept(trained.plan, trained.tables, maps, trained.gates)
    return kept.tables, kept.maps


def _exact(weights: Mapping[str, NDArray[np.float32]], maps: Mapping[str, NDArray[np.int64]]) -> Exact:
    return Exact(
        {name: Table.from_weights(name, array, "float32") for name, array in weights.items()}, maps
    )


def _write_tables(
    plan: Plan, shipped: Mapping[str, NDArray[np.float32]], folder: Path, dtype: ServeDtype | None
) -> tuple[dict[str, Table], dict[str, BundleTable]]:
    tables, described = {}, {}
    for name, planned in plan.tables.items():
        weights = shipped[name]
        table = Table.from_weights(name, weights, worthwhile(dtype or planned.serve_dtype, planned.dim))
        file = f"tables/{file_name(name, '.safetensors')}"
        save_tensors(folder / file, table.arrays)
        tables[name] = table
        described[name] = BundleTable(
            file=file,
            rows=len(weights),
            dim=planned.dim,
            dtype=table.dtype,
            bytes=table.nbytes,
            max_error=table.max_error(weights),
        )
    return tables, described


def _write_vocabularies(
    trained: Trained, folder: Path, maps: Mapping[str, NDArray[np.int64]]
) -> tuple[dict[str, Vocabulary], dict[str, BundleVocabulary]]:
    vocabularies, described = {}, {}
    for name, planned in trained.plan.vocabularies.items():
        values = trained.dataset.values(name)
        gates = trained.gates
        values = values.filter(open_values.listed(gates, name, values["id"].to_numpy()))
        row_of = maps.get(name, np.arange(planned.size))
        if planned.mode == "pool":  # a value without rows reads as an unseen one does: zeros
            dealt = row_of[values["id"].to_numpy()].reshape(values.height, -1)
            values = values.filter(pl.Series((dealt != 0).any(axis=1)))
        hashes = open_values.hashes(trained.plan, name, gates)
        vocabulary = _vocabulary(name, trained.plan, values, row_of, hashes=hashes)
        keys_file = None
        if len(vocabulary.keys) or not vocabulary.hashed:
            keys_file = f"vocab/{file_name(name, '.safetensors')}"
            rows = vocabulary.rows.astype(np.int32)
            save_tensors(folder / keys_file, {"keys": vocabulary.keys, "rows": rows})
        values_file = f"vocab/{file_name(name, '.parquet')}"
        (folder / values_file).parent.mkdir(exist_ok=True)
        values.select("value", "id", "count").write_parquet(folder / values_file)
        vocabularies[name] = vocabulary
        into = tuple(HashedRows(first=each.start, end=each.stop) for each in vocabulary.hashed)
        described[name] = BundleVocabulary(
            type=trained.dataset.vocabulary_info(name).type,
            table=planned.table,
            mode=planned.mode,
            size=planned.size,
            missing_row=np.asarray(vocabulary.missing_row).tolist(),
            unseen_row=np.asarray(vocabulary.unseen_row).tolist(),
            hashed=(into[0] if len(set(into)) == 1 else into) if into else None,
            keys=keys_file,
            values=values_file,
        )
    return vocabularies, described


def _vocabulary(
    name: str, plan: Plan, values: pl.DataFrame, row_of: NDArray[np.int64], *, hashes: bool
) -> Vocabulary:
    """What a reader needs to find the rows of a vocabulary's values; ``row_of`` has those of every id.

    ``hashes``: unseen values are hashed. Where gates closed values they are not, as rows that no open value
    has are gone: every value is listed then.
    """
    planned = plan.vocabularies[name]
    listed = values.head(planned.method.shipped(planned)) if hashes else values
    keys = listed["key"].to_numpy()
    order = np.argsort(keys)
    into = planned.method.hashed_into(planned, plan.tables[planned.table].rows)
    return Vocabulary(
        keys=keys[order],
        rows=row_of[listed["id"].to_numpy()[order]],
        missing_row=row_of[MISSING_ID],
        unseen_row=row_of[UNSEEN_ID],
        name=name,
        hashed=into if hashes else (),
    )


def _write_selftest(
    trained: Trained, scorer: Scorer, exact: Mapping[str, Table], folder: Path
) -> tuple[SelfTest, Towers | None]:
    """Store raw rows with the scores (and query vectors) that this bundle gives them, once it agrees with
    the model."""
    rows = store_rows(trained.sample, scorer.features)
    frame = read_rows(rows, scorer.features)
    difference = np.abs(scorer.score_typed(frame, exact) - trained.sample_scores).max(initial=0.0)
    if not difference <= TOLERANCE:
        raise BundleError(
            f"with float32 tables the bundle's scores differ from the trained model's by {difference:.2g} "
            f"(at most {TOLERANCE:g} expected); nothing was written. Please report this with the run file"
        )
    towers, expected = None, {SCORE: scorer.score_typed(frame)}
    if trained.towers is not None:
        trained.towers.write_query(folder / QUERY_FILE)
        query = DensePart(folder / QUERY_FILE, output=OUTPUT)
        dim = trained.towers.vectors.shape[1]
        encoder = query_encoder_of(scorer, query, trained.towers.features, dim, trained.towers.interests)
        towers, expected[QUERY] = write_towers(trained.towers, folder, encoder, frame, exact)
    save_tensors(folder / SELFTEST_FILE, {**rows, **expected})
    return SelfTest(file=SELFTEST_FILE, rows=frame.height, model_difference=float(difference)), towers


def _files_in(folder: Path) -> list[str]:
    own = {MANIFEST_FILE, STAGE_FILE}
    found = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in found if name not in own)


def _bytes_per_part(sizes: Mapping[str, int]) -> dict[str, int]:
    found = dict.fromkeys(_PARTS, 0)
    for part, pattern in _PARTS.items():
        found[part] = sum(size for name, size in sizes.items() if fnmatchcase(name, pattern))
    return found | {
        "dense": sizes[DENSE_FILE],
        "selftest": sizes[SELFTEST_FILE],
        "total": sum(sizes.values()),
    }


def _versions() -> dict[str, str]:
    """Versions of what took part in writing; packages that are not installed did not."""
    found = {"recsys": recsys.__version__}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
