"""The block ``train`` of a run file: how, how long and by what metric a model learns."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from recsys.settings.gates import GateSettings
from recsys.settings.section import Section
from recsys.settings.sparsity import SparsitySettings


class TableOptimizer(Section):
    """How embedding tables learn. ``fused`` tables always use row-wise Adagrad."""

    dense: Literal["adam", "adagrad", "sgd"] = "adam"
    """Optimiser of the tables on the dense path."""
    lr: float = Field(default=1e-3, gt=0)
    """Learning rate of the dense path."""
    fused_lr: float = Field(default=0.02, gt=0)
    """Learning rate of the fused path's row-wise Adagrad."""
    l2: float = Field(default=0.0, ge=0)
    """Adds l2/2·‖E‖² of whole dense-path tables to every step's mean loss (FuxiCTR's
    ``embedding_regularizer``)."""
    l2_rows: float = Field(default=0.0, ge=0)
    """Adds l2_rows·E_j/n_j to the gradient of every row j that a batch looks up, once a batch; n_j is how
    often the train rows hold it (DIN's mini-batch aware regularisation). Both paths; costs no more than
    what a batch looks up."""
    l2_rows_by_count: bool = True
    """Whether ``l2_rows`` is divided by n_j; without, frequent values are held down more than rare ones."""
    init_std: float = Field(default=1e-2, gt=0)
    """Standard deviation of the normal distribution that new vectors are drawn from."""


class DenseOptimizer(Section):
    """How everything but the tables learns."""

    name: Literal["adam", "adamw", "sgd"] = "adam"
    """Optimiser."""
    lr: float = Field(default=1e-3, gt=0)
    """Learning rate."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Decoupled for ``adamw``, added to the gradient otherwise."""


class Plateau(Section):
    """When validation stops improving."""

    factor: float = Field(default=0.1, gt=0, le=1)
    """Learning rates are multiplied by this at an evaluation that brings no improvement; 1 leaves them."""
    patience: int = Field(default=0, ge=0)
    """Evaluations in a row without improvement that are let pass before each cut."""
    min_lr_scale: float = Field(default=1e-3, gt=0)
    """Floor of the accumulated factor."""
    min_delta: float = Field(default=1e-6, ge=0)
    """Smallest rise of the metric that counts."""
    stop_after: int = Field(default=2, ge=1)
    """Training ends after this many evaluations in a row without improvement."""

    @model_validator(mode="after")
    def _cuts_before_it_stops(self) -> Self:
        if self.patience and self.factor < 1 and self.patience + 1 >= self.stop_after:
            raise ValueError(
                f"with patience {self.patience} the first cut comes after {self.patience + 1} evaluations, "
                f"and training ends after {self.stop_after}; raise stop_after"
            )
        return self


class TrainSettings(Section):
    """The training loop."""

    epochs: int = Field(default=10, ge=1)
    """Passes over the train rows at most."""
    max_steps: int | None = Field(default=None, ge=1)
    """Steps at most."""
    batch_size: int = Field(default=4096, ge=1)
    """Global batch size, summed over processes."""
    seed: int = Field(default=2024, ge=0)
    """Seed of every generator: initial weights, shuffles, dropout."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train; ``auto`` takes a GPU if there is one."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Of matrix products in the dense part; weights stay fp32."""
    shuffle_rows: int = Field(default=4_000_000, ge=1)
    """Rows held in memory and shuffled together; a dataset below this is shuffled whole."""
    monitor: Literal["auc", "gauc", "logloss", "recall", "ndcg"] = "auc"
    """Validation metric that decides plateau, stopping and the best epoch. Retrieval models take
    ``recall`` or ``ndcg``, over the whole catalogue at ``monitor_k``; the others one of the first three."""
    monitor_k: int = Field(default=20, ge=1)
    """Items that ``recall`` and ``ndcg`` look at."""
    evaluate_every: int | None = Field(default=None, ge=1)
    """Steps between evaluations; default: each epoch."""
    checkpoint_every: int | None = Field(default=None, ge=1)
    """Steps between checkpoints; default: each evaluation."""
    log_every: int = Field(default=50, ge=1)
    """Steps between lines of ``metrics.jsonl``."""
    keep_checkpoints: int = Field(default=2, ge=1)
    """Newest checkpoints kept beside the best one."""
    plateau: Plateau = Plateau()
    """Learning-rate cut and early stopping."""
    decay: Literal["none", "linear"] = "none"
    """``linear``: learning rates also fall along a line, to zero after the last step that ``epochs`` and
    ``max_steps`` allow."""
    tables: TableOptimizer = TableOptimizer()
    """Optimiser of the embedding tables."""
    dense: DenseOptimizer = DenseOptimizer()
    """Optimiser of everything else."""
    clip_norm: float | None = Field(default=10.0, gt=0)
    """Gradient norm limit of the dense part."""
    average: float | None = Field(default=None, gt=0, lt=1)
    """Decay per update of a moving average of all weights, which is evaluated, saved and served in their
    place: 0.99 reaches back over some hundred updates. Default: none. Needs tables on the dense path; with
    sparsity it begins anew whenever what is kept changes."""
    warm_start: Path | None = None
    """Run folder of an earlier training, on earlier data, whose weights this one begins with: those of
    values by value, the dense part whole."""
    gates: GateSettings = GateSettings()
    """A search for the values that are not worth their vectors, before training without them (OptFS)."""
    sparsity: SparsitySettings | None = None
    """Keep a share of the weights only; without it, all."""

    @property
    def settles_at(self) -> int:
        """Step from which on a model can be the best, or training end early: once it is cut."""
        sparsity = self.sparsity
        return 0 if sparsity is None or sparsity.method == "dsl" else sparsity.last_step

    @model_validator(mode="after")
    def _sparse_alone(self) -> Self:
        if self.sparsity is not None and self.gates.epochs:
            raise ValueError(
                "gates and sparsity both choose values; set gates.epochs to 0 or leave sparsity out"
            )
        if self.average is not None and self.gates.epochs:
            raise ValueError("average cannot be combined with gates, after whose search weights go back")
        sparse = self.sparsity is not None and self.sparsity.tables != 1
        if sparse and self.tables.l2_rows:
            raise ValueError(
                "tables.l2_rows needs a row per value; set sparsity.tables to 1, or use tables.l2"
            )
        return self
