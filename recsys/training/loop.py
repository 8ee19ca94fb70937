"""The training loop: batches in, updates and a record out. It knows no model by name.

The loss of a step is the sum over the rank's rows divided by the rows of the global batch, and
gradients are summed over ranks, so that any number of processes follows the same curve. Every
random choice of a step follows from (seed, step, rank): a resumed run repeats it to the bit.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

from recsys.config import TrainSettings
from recsys.data.batch import Batch
from recsys.data.batches import Batches
from recsys.data.prefetch import Prefetch
from recsys.embeddings.tables import DeviceBatch, Tables
from recsys.errors import Interrupted, TrainingError
from recsys.training.average import Average
from recsys.training.checkpoint import ALL_DONE, Checkpoints, CheckpointState, Position
from recsys.training.diagnosis import describe_batch, first_bad_weights
from recsys.training.gate_search import GateSearch
from recsys.training.objective import Objective
from recsys.training.optimisers import Optimisers
from recsys.training.rates import Rates, cut_after
from recsys.training.record import Meter, Recorder
from recsys.training.row_l2 import LookedUp
from recsys.training.sparsity.sparsity import Sparsity
from recsys.training.state import run_tensors
from recsys.training.stop_request import StopRequest

Evaluate = Callable[[], dict[str, float]]
"""Validation metrics; empty where there is nothing to validate on."""
Watch = Callable[[int, float], str | None]
"""Called after each evaluation with its step and the monitored value, higher is better; a text ends the
training there and says why."""


class _Prepared(NamedTuple):
    """A batch made ready ahead of its step."""

    batch: DeviceBatch
    known: Any
    """What the objective has to know of it."""
    looked_up: LookedUp
    """Table rows in it, for their L2."""


class Trainer:
    """Trains one model on one dataset, from a position to the end.

    Set ``recorder`` on rank 0 to have metrics written, ``position`` to go on from a checkpoint.

    Args:
        model, tables, optimisers: what learns; all ranks hold the same dense weights.
        objective: what is minimised.
        batches: train batches of this rank.
        settings: the run file's ``train`` block.
        evaluate: returns validation metrics, the monitored one among them; same on all ranks.
        checkpoints: where positions are saved.
        identity: plan fingerprint and canonical settings, stored in every checkpoint.
        reseed: called with each step's number before it, seeds what the step draws.
        on_step: called with the rows of each step, for progress.
        watch: called after each evaluation; may end the training.
        search: comes before the first epoch, where tables have gates.
        sparsity: what is kept of the model, where not all of it is.
        average: averages of the weights, to be evaluated in their place.
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        tables: Tables,
        optimisers: Optimisers,
        objective: Objective,
        batches: Batches,
        settings: TrainSettings,
        evaluate: Evaluate,
        checkpoints: Checkpoints,
        identity: tuple[str, str],
        reseed: Callable[[int], None],
        on_step: Callable[[int], object] = lambda rows: None,
        watch: Watch | None = None,
        search: GateSearch | None = None,
        sparsity: Sparsity | None = None,
        average: Average | None = None,
    ) -> None:
        self.model, self.tables, self.optimisers = model, tables, optimisers
        self.position = Position()
        self.waited = 0.0
        """Seconds that steps have waited for data."""
        self.seconds = 0.0
        """Seconds spent in steps, evaluation and saving not counted."""
        self.rows = 0
        """Rows that these seconds trained on."""
        self._objective = objective
        self._batches = batches
        self._settings = settings
        self._evaluate = evaluate
        self._checkpoints = checkpoints
        self.recorder: Recorder | None = None
        self._identity = identity
        self._reseed = reseed
        self._on_step = on_step
        self._watch = watch
        self._search = search
        self._sparsity = sparsity
        self._average = average
        self._rates = Rates(settings, batches.steps_per_epoch)
        self._world = dist.get_world_size()
        self._meter = Meter()
        self._evaluated_at: int | None = None

    def fit(self) -> Position:
        """Train until the epochs, the steps or the patience end; returns where it stopped.

        Raises:
            Interrupted: a signal came; the position is saved.
            TrainingError: the loss is not finite; the last good checkpoint, if there is one, stands.
        """
        position = self.position
        self.model.train()
        self.optimisers.set_scale(self._lr_scale)
        with StopRequest() as stop:
            while position.finished is None:
                trained = 0 if self._searching else position.epoch - self._searched[0]
                if trained >= self._settings.epochs:
                    position.finished = f"{ALL_DONE}{self._settings.epochs} epochs done"
                elif position.step >= (self._settings.max_steps or math.inf):
                    position.finished = f"{ALL_DONE}{self._settings.max_steps} steps done"
                elif self._search is not None and self._search.is_over(position):
                    self._rewind(self._search)
                else:
                    self._run_epoch(stop)
            self._log()
            if position.step and not self._is_saved(position):
                self._require_finite_weights()
                self._save(best=False)
        return self._concluded()

    @property
    def _searching(self) -> GateSearch | None:
        """The search for gates, while it goes on."""
        return None if self._search is None or self._search.gates.hard else self._search

    @property
    def _searched(self) -> tuple[int, int]:
        """Epochs and steps of a search that is over; they come before those of training."""
        if self._search is None or self._searching is not None:
            return 0, 0
        return self._search.epochs, self._search.steps

    @property
    def _lr_scale(self) -> float:
        """What learning rates are multiplied by at the next step; a search does not decay."""
        step = 0 if self._searching else self.position.step - self._searched[1]
        return self._rates.scale(step, self.position.lr_scale)

    def _rewind(self, search: GateSearch) -> None:
        """End the search: gates stay as they are, and training begins anew."""
        search.rewind(self.model, self.tables, self.optimisers, self._checkpoints)
        position = self.position
        position.best_value, position.best_step, position.stale, position.lr_scale = None, 0, 0, 1.0
        if self.recorder is not None:
            self.recorder.write(position.step, {"gates/open_share": search.gates.open_share()})

    def _run_epoch(self, stop: StopRequest) -> None:
        """Go on with the current epoch until it ends, or training does."""
        position, search = self.position, self._searching
        if search is not None and search.begins_epoch(position):
            self._save(best=False)
            self._checkpoints.point("rewind", position.step)
        steps = self._batches.steps_per_epoch
        epoch = position.epoch - self._searched[0]
        if position.batch == 0:
            pause = time.perf_counter()
            self._objective.begin(epoch, self.model, self.tables)
            self._meter.started += time.perf_counter() - pause
        prepared = (self._prepared(batch) for batch in self._batches.epoch(epoch, position.batch))
        with Prefetch(prepared) as ahead:
            started, waited, paused = time.perf_counter(), 0.0, 0.0
            for step in ahead:
                stopping = self._step(step, stop.signal is not None)
                self._meter.waited += ahead.waited - waited
                waited = ahead.waited
                last = position.batch + 1 == steps
                position.step += 1
                position.epoch, position.batch = (
                    (position.epoch + 1, 0) if last else (position.epoch, position.batch + 1)
                )
                pause = time.perf_counter()
                self._after_step(step.batch, epoch_ended=last, stopping=stopping)
                paused += time.perf_counter() - pause
                if position.finished is not None or position.step >= (self._settings.max_steps or math.inf):
                    break
            self.waited += waited
            self.seconds += time.perf_counter() - started - paused

    def _prepared(self, batch: Batch) -> _Prepared:
        """What a step needs of a batch, on its device; runs in another thread."""
        wide, known = self._objective.widen(batch)
        return _Prepared(self.tables.prepare(wide), known, self.optimisers.looked_up(wide))

    def _step(self, prepared: _Prepared, stop: bool) -> bool:
        """One update; returns whether any rank wants to stop."""
        batch, known, looked_up = prepared
        self._reseed(self.position.step - self._searched[1])
        if self._rates.falls:
            self.optimisers.set_scale(self._lr_scale)
        self.optimisers.zero_grad()
        losses = self._objective.loss(self.model, self.tables(batch), batch, known)
        loss = losses / batch.global_rows
        loss.backward()  # type: ignore[no-untyped-call]
        loss, stopping = self._sum_over_ranks(loss.detach(), stop)
        if self._sparsity is not None:
            self._sparsity.observe()
        self.optimisers.step(looked_up)
        if self._sparsity is not None:
            self._sparsity.restrain()
        if self._average is not None:
            self._average.update()
        meter = self._meter
        self.rows += batch.global_rows
        meter.losses.append((batch.index, loss))
        meter.loss, meter.steps, meter.rows = (
            meter.loss + loss,
            meter.steps + 1,
            meter.rows + batch.global_rows,
        )
        return stopping

    def _sum_over_ranks(self, loss: Tensor, stop: bool) -> tuple[Tensor, bool]:
        """All-reduce dense gradients, the loss and the wish to stop in one message."""
        if self._world == 1:
            return loss, stop
        parameters = [*self.optimisers.summed, *(self._sparsity.measured if self._sparsity else ())]
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        extra = torch.stack([loss, loss.new_tensor(float(stop))])
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients] + [extra])
        dist.all_reduce(flat)
        offset = 0
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = flat[offset : offset + gradient.numel()].view_as(gradient)
            offset += gradient.numel()
        return flat[offset], bool(flat[offset + 1] > 0)

    def _after_step(self, batch: DeviceBatch, *, epoch_ended: bool, stopping: bool) -> None:
        """Record, evaluate, save and stop where they are due."""
        step, settings = self.position.step, self._settings
        self._on_step(batch.global_rows)
        self._update_sparsity()
        due = step % settings.evaluate_every == 0 if settings.evaluate_every else epoch_ended
        save_due = step % settings.checkpoint_every == 0 if settings.checkpoint_every else due
        if step % settings.log_every == 0 or due or save_due or stopping:
            self._log()
        if due or save_due or stopping:
            self._require_finite_weights()
        improved = self._validate() if due else False
        if improved or stopping or save_due:
            self._save(best=improved)
        if stopping:
            raise Interrupted(
                f"stopped at step {step}; saved in {self._checkpoints.folder}. Run the same command "
                "again to go on (recsys train: with --resume)"
            )

    def _update_sparsity(self) -> None:
        """Change what is kept of the model where that is due, and record it."""
        position = self.position
        densities = None if self._sparsity is None else self._sparsity.update(position.step)
        if densities is None:
            return
        if self._average is not None:
            self._average.restart()
        if self.recorder is not None:
            self.recorder.write(position.step, {"epoch": position.epoch, **densities})

    def _log(self) -> None:
        """Write a line of the record, and refuse to go on from a loss that is not finite."""
        meter, position = self._meter, self.position
        if not meter.steps:
            return
        loss = float(meter.loss) / meter.steps
        if not math.isfinite(loss):
            raise TrainingError(self._ran_away())
        if self.recorder is not None:
            self.recorder.write(
                position.step,
                {
                    "epoch": position.epoch,
                    "loss": loss,
                    "lr_scale": self._lr_scale,
                    "rows_per_second": meter.rows / meter.seconds,
                    "data_wait_share": meter.waited / meter.seconds,
                },
            )
        self._meter = Meter()

    def _ran_away(self) -> str:
        """Names the first step whose loss is not finite, its rows and what is odd in them."""
        losses = self._meter.losses
        each = torch.stack([loss for _, loss in losses])
        odd = torch.isfinite(each).logical_not().nonzero().flatten().tolist()
        at = odd[0] if odd else len(losses) - 1  # finite losses can still have an infinite sum
        step = self.position.step - len(losses) + at + 1
        where = describe_batch(self._batches, losses[at][0])
        return f"the loss is {float(each[at])} at step {step} ({where}). {self._advice()}"

    def _require_finite_weights(self) -> None:
        """Raise TrainingError rather than score or save weights that the last update spoilt."""
        found = first_bad_weights(self.model, self.tables)
        spoilt = torch.tensor(float(found is not None), device=self.tables.device)
        if self._world > 1:
            dist.all_reduce(spoilt)
        if spoilt > 0:
            where = found or "those of another process"
            raise TrainingError(
                f"weights are not finite after step {self.position.step}: {where}. {self._advice()}"
            )

    def _advice(self) -> str:
        good = self._checkpoints.named("latest")
        saved = (
            "No checkpoint was saved before" if good is None else f"The last good checkpoint stands: {good}"
        )
        return f"{saved}. Lower train.dense.lr and train.tables.lr, or train.clip_norm"

    def _validate(self) -> bool:
        """Evaluate, apply the plateau rule, and say whether this is the best so far."""
        position = self.position
        value = self._measure()
        if self._searching is not None:
            return False
        if value is None:
            position.best_step = position.step
            return True
        if position.step < self._settings.settles_at:
            return False
        improved = self._judge(value)
        reason = None if self._watch is None else self._watch(position.step, value)
        if reason is not None and position.finished is None:
            position.finished = reason
        return improved

    def _judge(self, value: float) -> bool:
        """Apply the plateau rule to a value, and say whether it is the best so far."""
        position, plateau = self.position, self._settings.plateau
        if position.best_value is None or value > position.best_value + plateau.min_delta:
            position.best_value, position.best_step, position.stale = value, position.step, 0
            return True
        position.stale += 1
        position.lr_scale = cut_after(plateau, position.stale, position.lr_scale)
        self.optimisers.set_scale(self._lr_scale)
        if position.stale >= plateau.stop_after:
            position.finished = (
                f"{self._settings.monitor} on validation has not risen for {position.stale} evaluations"
            )
        return False

    def _measure(self) -> float | None:
        """Evaluate and record; the monitored value, higher is better, None without validation rows."""
        started = time.perf_counter()
        with nullcontext() if self._average is None else self._average.applied():
            metrics = self._evaluate()
        self._evaluated_at = self.position.step
        search = self._searching
        if self.recorder is not None and (metrics or search is not None):
            part = "valid" if search is None else "search"
            values = {f"{part}/{name}": metric for name, metric in metrics.items()}
            values |= {} if search is None else search.facts()
            self.recorder.write(self.position.step, {"epoch": self.position.epoch, **values})
        self._meter.started += time.perf_counter() - started
        if not metrics:
            return None
        return metrics[self._settings.monitor] * (-1 if self._settings.monitor == "logloss" else 1)

    def _concluded(self) -> Position:
        """The last position, with a last evaluation where the steps ended between two of them.

        That evaluation moves ``best`` but neither the saved position nor the plateau rule: with more
        steps, a resumed run must go on as if it had never stopped here.
        """
        position = self.position
        evaluated = self._evaluated_at == position.step and self._searching is None
        if not position.step or evaluated or position.best_step == position.step:
            return position
        value = self._measure()
        if value is not None and position.best_value is not None and value <= position.best_value:
            return position
        self._checkpoints.point("best", position.step)
        return position.model_copy(update={"best_value": value, "best_step": position.step})

    def _is_saved(self, position: Position) -> bool:
        latest = self._checkpoints.named("latest")
        return latest is not None and latest.name == f"step-{position.step:08d}"

    def _save(self, *, best: bool) -> Path:
        plan, settings = self._identity
        state = CheckpointState(position=self.position, plan_fingerprint=plan, settings=settings)
        return self._checkpoints.save(
            run_tensors(
                self.model,
                self.tables,
                self.optimisers,
                self._sparsity,
                self._average,
                self._objective.tensors(),
            ),
            state,
            best=best,
        )
