"""``export``: the best weights of a run as a bundle that is served without torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recsys.embeddings.plan import ServeDtype
from recsys.serving.bundle import Bundle
from recsys.serving.manifest import MANIFEST_FILE, UNPRUNED
from recsys.stage import StageRecord, fingerprints, require_ours, settings_of
from recsys.training.bundle_writer import Trained, write_bundle
from recsys.training.held_out_cost import MEASURED_ROWS, held_out
from recsys.training.pruning import closed_rows, pruned
from recsys.training.raw_rows import raw_rows
from recsys.training.run_folder import RUN_FILE, Run
from recsys.training.tower_writer import trained_towers

if TYPE_CHECKING:
    from recsys.training.loaded import TrainedModel

VERSION = 3
"""Raised by hand when the same run and settings give another bundle."""

SAMPLE_ROWS = 256
"""Rows of the self-test."""


def export(
    run: Run | str | Path,
    output: str | Path,
    *,
    dtype: ServeDtype | None = None,
    embeddings: Sequence[str] = (),
    prune: float = 0.0,
    metrics: Mapping[str, Any] | None = None,
    measured_rows: int = MEASURED_ROWS,
) -> Bundle:
    """Write the best weights of a finished run as a bundle, prove it, and open it.

    Args:
        run: run folder that ``train`` wrote; its dataset must still be where it was.
        output: bundle folder; replaced when the new one is whole.
        dtype: ``float32``, ``float16``, ``int8`` or ``int4`` for every table; default: as the plan
            says per table. Tables too narrow to gain from int8 or int4 are stored as float16.
        embeddings: features whose vectors are also written as Parquet and safetensors, with raw ids.
        prune: share of the values with rows of their own that leave, those with the smallest vectors.
        metrics: what the manifest says about quality; default: validation metrics of the best step, with
            ``prune`` under the key ``unpruned``.
        measured_rows: test rows at most that the AUC costs of quantisation and pruning are measured on.

    Returns:
        The bundle; ``bundle.manifest.quantisation`` and ``.pruning`` hold the costs, ``.bytes`` the sizes.

    Raises:
        CheckpointError: the run is not finished, or damaged.
        BundleError: a weight does not fit the type, or the bundle's scores are not the model's.
        ConfigError: ``embeddings`` names a feature that has no vectors.
        DataError: the dataset is gone, the disk is full, or ``output`` holds other things than a bundle.
    """
    from recsys.training.loaded import load_trained

    require_ours(Path(output), MANIFEST_FILE)
    trained = load_trained(run.folder if isinstance(run, Run) else run)
    checkpoints = trained.run.folder / "checkpoints"
    read = [trained.run.folder / RUN_FILE, checkpoints / "best", trained.dataset.folder / "dataset.json"]
    settings = settings_of({"dtype": dtype, "embeddings": list(embeddings), "prune": prune})
    stated = metrics if metrics is not None else _metrics(trained.run, prune)
    return write_bundle(
        _parts(trained, stated, prune),
        output,
        dtype=dtype,
        embeddings=tuple(dict.fromkeys(embeddings)),
        measured_rows=measured_rows,
        record=StageRecord(stage="export", version=VERSION, inputs=fingerprints(read), settings=settings),
    )


def _parts(trained: TrainedModel, metrics: Mapping[str, Any], prune: float) -> Trained:
    from recsys.models.onnx_graph import export_onnx
    from recsys.training.raw_scores import score_raw

    run, dataset = trained.run, trained.dataset
    hashed = {name for name, planned in run.plan.vocabularies.items() if planned.unseen == "hash"}
    gates, cleared = trained.gates, None
    if prune:
        gates = pruned(run.plan, trained.tables, prune, trained.gates)
        cleared = closed_rows(run.plan, gates)
    sample = raw_rows(dataset, held_out(dataset), SAMPLE_ROWS, seen=hashed)
    parts = Trained(
        dataset=dataset,
        plan=run.plan,
        tables=trained.tables,
        write_dense=lambda path: export_onnx(trained.model, trained.layout, path),
        sample=sample,
        sample_scores=score_raw(run.folder, sample, cleared),
        row_maps=trained.row_maps,
        model={"name": run.file.model, **run.file.options},
        metrics=metrics,
        gates=gates,
        towers=trained_towers(run, sample, cleared),
    )
    return replace(parts, unpruned=replace(parts, gates=trained.gates)) if prune else parts


def _metrics(run: Run, prune: float) -> dict[str, Any]:
    """What is known of a model's quality, said of what it was measured on."""
    found = validation_metrics(run)
    return {UNPRUNED: found} if prune and found else dict(found)


def validation_metrics(run: Run) -> dict[str, float]:
    """Metrics of the best step, by the names in ``metrics.jsonl``; empty without validation rows."""
    record = run.metrics
    names = [name for name in record.columns if name.startswith("valid/")]
    if not names:
        return {}
    best = record.filter(record["step"] == run.result.best_step).select(names).drop_nulls()
    return dict(best.row(-1, named=True)) if best.height else {}
