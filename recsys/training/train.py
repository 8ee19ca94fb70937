"""``train``: a prepared dataset and a plan in, a run folder out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch import Tensor, nn

from recsys.config import ModelSettings, PlanSettings, TrainSettings, monitor_fault
from recsys.data.batches import Batches
from recsys.data.dataset import Dataset
from recsys.embeddings.plan import Plan
from recsys.embeddings.planner import plan as make_plan
from recsys.embeddings.pool import pooled
from recsys.embeddings.tables import Tables
from recsys.errors import CheckpointError, ConfigError
from recsys.models import RETRIEVERS, build_model, parse_options, table_dim
from recsys.models.dropout import reseed
from recsys.models.norm import set_process_group
from recsys.progress import progress
from recsys.stage import writing
from recsys.training.average import Average
from recsys.training.checkpoint import (
    ALL_DONE,
    Checkpoints,
    Position,
    load_tensors,
    read_state,
    require_same_settings,
    saved_shapes,
)
from recsys.training.clicks import Clicks, require_monitored
from recsys.training.distributed import Distributed, distributed
from recsys.training.gate_search import GateSearch
from recsys.training.layout import layout_of
from recsys.training.loop import Trainer, Watch
from recsys.training.memory import keep_freed_memory
from recsys.training.objective import Objective
from recsys.training.optimisers import Optimisers
from recsys.training.record import Recorder
from recsys.training.retrieval import Retrieval, require_positives
from recsys.training.row_l2 import RowL2
from recsys.training.run_folder import Run, RunFile, RunResult, clear, relative_to_run
from recsys.training.sparsity.budget import filled_in
from recsys.training.sparsity.schedule import require_time
from recsys.training.sparsity.sparsity import Sparsity, build_sparsity
from recsys.training.state import fit_model, run_tensors
from recsys.training.tables_of import build_tables
from recsys.training.warm_start import warm_start


def train(
    dataset: Dataset,
    output: str | Path,
    *,
    model: ModelSettings | Mapping[str, Any] | str,
    plan: Plan | str | Path | None = None,
    settings: TrainSettings | None = None,
    resume: bool = False,
    overwrite: bool = False,
    watch: Watch | None = None,
) -> Run:
    """Train a model on a prepared dataset; see ``recsys.train``, which also takes raw rows.

    ``watch`` is called after each evaluation with its step and the monitored value, higher is better; a
    text that it returns ends the training and is written down as the reason.
    """
    settings = settings or TrainSettings()
    chosen = model_settings(model)
    parse_options(chosen.name, chosen.options)
    _require_measurable(dataset, chosen, settings)
    folder = Path(output)
    if settings.warm_start is not None and settings.warm_start.resolve() == folder.resolve():
        raise ConfigError(
            f"train.warm_start: {folder} is the run to be written; name another output, or move that run"
        )
    with distributed(settings.device) as ranks:
        planned = plan_or_default(plan, dataset, chosen)
        settings, planned = _made_sparse(settings, chosen, planned, dataset)
        _require_averageable(planned, settings)
        run_file = RunFile(
            model=chosen.name,
            options=chosen.options,
            train=settings,
            plan=planned,
            dataset=relative_to_run(dataset.folder, folder),
        )
        earlier = Checkpoints(folder / "checkpoints").named("latest") if resume else None
        if earlier is not None:
            _require_same_run(earlier, run_file)
        elif ranks.rank == 0 and not overwrite:
            _require_free(folder, resume=resume)
        # All that settings can be refused for comes before the folder is touched.
        parts = _build(dataset, run_file, ranks)
        if earlier is not None:
            _fit(earlier, parts)
        elif settings.warm_start is not None:
            warm_start(settings.warm_start, dataset, planned, parts.model, parts.tables, ranks)
        if settings.sparsity is not None:
            require_time(settings.sparsity, _most_steps(settings, parts.batches))
        dist.barrier()
        if ranks.rank == 0:
            if overwrite and not resume:
                clear(folder)
            folder.mkdir(parents=True, exist_ok=True)
            run_file.save(folder)
        dist.barrier()
        with writing(folder):
            _train(folder, run_file, parts, earlier, ranks, watch)
    return Run.load(folder)


@dataclass
class _Parts:
    """What learns, and what it learns from."""

    model: nn.Module
    tables: Tables
    optimisers: Optimisers
    batches: Batches
    objective: Objective
    sparsity: Sparsity | None
    average: Average | None

    def tensors(self) -> dict[str, Tensor]:
        """Everything that learning changes."""
        return run_tensors(
            self.model, self.tables, self.optimisers, self.sparsity, self.average, self.objective.tensors()
        )


def _most_steps(settings: TrainSettings, batches: Batches) -> int:
    """Steps of a training that nothing ends early."""
    steps = (settings.gates.epochs + settings.epochs) * batches.steps_per_epoch
    return min(steps, settings.max_steps or steps)


def _train(
    folder: Path,
    run_file: RunFile,
    parts: _Parts,
    latest: Path | None,
    ranks: Distributed,
    watch: Watch | None,
) -> None:
    """Train from the beginning, or from a checkpoint, whose tensors are loaded here."""
    settings = run_file.train
    checkpoints = Checkpoints(folder / "checkpoints", settings.keep_checkpoints)
    parts.optimisers.materialise()
    gates = parts.tables.gates
    total = _most_steps(settings, parts.batches) * settings.batch_size
    with progress("train", total=total, quiet=ranks.rank != 0) as bar:
        trainer = Trainer(
            model=parts.model,
            tables=parts.tables,
            optimisers=parts.optimisers,
            objective=parts.objective,
            batches=parts.batches,
            settings=settings,
            evaluate=lambda: parts.objective.validate(parts.model, parts.tables),
            checkpoints=checkpoints,
            identity=(run_file.plan.fingerprint(), run_file.identity()),
            reseed=lambda step: reseed(parts.model, settings.seed, step, ranks.rank),
            on_step=bar.advance,
            watch=watch,
            search=None
            if gates is None
            else GateSearch(settings.gates, gates, parts.batches.steps_per_epoch),
            sparsity=parts.sparsity,
            average=parts.average,
        )
        if latest is not None:
            trainer.position = _restore(latest, parts)
            bar.skip(min(trainer.position.step * settings.batch_size, total))
        if ranks.rank == 0:
            trainer.recorder = Recorder(folder, trainer.position.step)
        try:
            ended = trainer.fit()
        finally:
            if trainer.recorder is not None:
                trainer.recorder.close()
    if ranks.rank == 0:
        _result(trainer, ended, parts).save(folder)
    dist.barrier()


def _result(trainer: Trainer, position: Position, parts: _Parts) -> RunResult:
    rows, gates = trainer.rows, parts.tables.gates
    return RunResult(
        steps=position.step,
        epochs=position.epoch,
        finished=position.finished or "",
        best_step=position.best_step,
        best_value=position.best_value,
        parameters=sum(parameter.numel() for parameter in parts.optimisers.parameters),
        seconds=trainer.seconds,
        rows_per_second=rows / trainer.seconds if trainer.seconds else 0.0,
        data_wait_share=trainer.waited / trainer.seconds if trainer.seconds else 0.0,
        kept_values={} if gates is None else gates.open_values().counts(),
    )


def _fit(checkpoint: Path, parts: _Parts) -> None:
    """Give what learns the shapes that it had when a checkpoint was written."""
    if parts.sparsity is not None:
        fit_model(parts.model, saved_shapes(checkpoint))
        parts.sparsity.resume(read_state(checkpoint).position.step)
        if parts.average is not None:
            parts.average.restart()


def _restore(checkpoint: Path, parts: _Parts) -> Position:
    """Load everything that learning changes, in place; returns where that run stood."""
    load_tensors(checkpoint, parts.tensors())
    position = read_state(checkpoint).position
    if position.finished is not None and position.finished.startswith(ALL_DONE):
        position.finished = None
    return position


def _build(dataset: Dataset, run_file: RunFile, ranks: Distributed) -> _Parts:
    settings, plan = run_file.train, run_file.plan
    if ranks.device.type == "cpu":
        keep_freed_memory()
    tables = build_tables(dataset, plan, settings, ranks)
    layout = layout_of(dataset.features, plan)
    model = build_model(
        run_file.model, run_file.options, layout, seed=settings.seed, precision=settings.precision
    )
    model = model.to(ranks.device)
    if ranks.world > 1:
        set_process_group(model, ranks.group)
    row_l2 = RowL2(tables, dataset, plan, settings.tables, ranks) if settings.tables.l2_rows else None
    optimisers = Optimisers(
        model, tables, settings.dense, settings.tables, settings.clip_norm, row_l2, settings.gates
    )
    objective = _objective(dataset, run_file, ranks)
    batches = Batches(
        dataset,
        "train",
        settings.batch_size,
        seed=settings.seed,
        shuffle_rows=settings.shuffle_rows,
        rank=ranks.rank,
        world=ranks.world,
        order=objective.order,
    )
    sparsity = build_sparsity(settings, model, tables, optimisers, dataset, ranks)
    average = None if settings.average is None else Average(model, tables, settings.average)
    return _Parts(model, tables, optimisers, batches, objective, sparsity, average)


def _objective(dataset: Dataset, run_file: RunFile, ranks: Distributed) -> Objective:
    if run_file.model not in RETRIEVERS:
        return Clicks(dataset, run_file.train, ranks)
    return Retrieval(dataset, parse_options(run_file.model, run_file.options), run_file.train, ranks)


def _require_measurable(dataset: Dataset, model: ModelSettings, settings: TrainSettings) -> None:
    """Raise before training where the monitored metric does not fit the model or the rows."""
    fault = monitor_fault(model, settings)
    if fault is not None:
        raise ConfigError(fault)
    if model.retrieves:
        require_positives(dataset)
    else:
        require_monitored(dataset, settings)


def _require_averageable(plan: Plan, settings: TrainSettings) -> None:
    """Raise before training where weights are to be averaged and rows of a table are out of reach."""
    fused = [name for name, table in plan.tables.items() if table.path == "fused"]
    if settings.average is not None and fused:
        raise ConfigError(
            f"train.average: table {fused[0]} is on the fused path, where only looked-up rows are updated; "
            "set plan.dense_below above its bytes, or leave train.average out"
        )


def model_settings(model: ModelSettings | Mapping[str, Any] | str) -> ModelSettings:
    """A model as the run file has it, from its name, or its name and options."""
    if isinstance(model, ModelSettings):
        return model
    return ModelSettings.model_validate({"name": model} if isinstance(model, str) else dict(model))


def plan_or_default(plan: Plan | str | Path | None, dataset: Dataset, model: ModelSettings) -> Plan:
    """The given plan, or one made from the dataset with the default settings."""
    if plan is None:
        settings = PlanSettings()
        dim = table_dim(model.name, model.options, settings.embedding_dim)
        return make_plan(dataset, settings=settings.model_copy(update={"embedding_dim": dim}))
    return plan if isinstance(plan, Plan) else Plan.load(Path(plan))


def _made_sparse(
    settings: TrainSettings, model: ModelSettings, plan: Plan, dataset: Dataset
) -> tuple[TrainSettings, Plan]:
    """Settings of whose sparsity nothing is open, and the plan with tables as small as they are trained."""
    if settings.sparsity is None:
        return settings, plan
    sparsity, share = filled_in(settings.sparsity, model, plan, dataset)
    if share is not None:
        plan = pooled(plan, share, sparsity.pieces)
    return settings.model_copy(update={"sparsity": sparsity}), plan


def _require_free(folder: Path, *, resume: bool) -> None:
    """Refuse to train over another run's checkpoints."""
    if (folder / "checkpoints").exists() and not resume:
        raise CheckpointError(
            f"{folder} holds a run already: go on with it (--resume), or replace it "
            "(recsys run --force train)"
        )


def _require_same_run(latest: Path, run_file: RunFile) -> None:
    """Refuse to go on from a checkpoint that other settings or another plan made."""
    require_same_settings(read_state(latest), run_file.plan.fingerprint(), run_file.identity(), latest)
