"""Optimisers of the dense part and of the tables, with one learning-rate scale over both."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from recsys.config import DenseOptimizer, TableOptimizer
from recsys.data.batch import Batch
from recsys.embeddings.tables import ACCUMULATOR, Tables
from recsys.settings.gates import GateSettings
from recsys.training.row_l2 import LookedUp, RowL2


def dense_optimizer(parameters: Iterable[nn.Parameter], settings: DenseOptimizer) -> Optimizer:
    """The optimiser of everything but the tables."""
    decay, lr = settings.weight_decay, settings.lr
    match settings.name:
        case "adam":
            return torch.optim.Adam(parameters, lr=lr, weight_decay=decay, fused=True)
        case "adamw":
            return torch.optim.AdamW(parameters, lr=lr, weight_decay=decay, fused=True)
        case "sgd":
            return torch.optim.SGD(parameters, lr=lr, weight_decay=decay)


def table_optimizer(weights: Iterable[nn.Parameter], settings: TableOptimizer) -> Optimizer | None:
    """The optimiser of the dense-path tables; None where there are none."""
    parameters = list(weights)
    if not parameters:
        return None
    match settings.dense:
        case "adam":
            return torch.optim.Adam(parameters, lr=settings.lr, fused=True)
        case "adagrad":
            return torch.optim.Adagrad(parameters, lr=settings.lr, fused=True)
        case "sgd":
            return torch.optim.SGD(parameters, lr=settings.lr)


class Optimisers:
    """Steps the dense part and both kinds of tables.

    Fused tables update themselves in backward; here only their learning rate is set. All three
    learning rates follow ``scale``, which the plateau rule cuts. ``row_l2`` regularises the rows that a
    step looks up. Gates learn, with an L1 on all of them, until they are hard.
    """

    def __init__(
        self,
        model: nn.Module,
        tables: Tables,
        dense: DenseOptimizer,
        table: TableOptimizer,
        clip_norm: float | None,
        row_l2: RowL2 | None = None,
        gates: GateSettings | None = None,
    ) -> None:
        self.names = [name for name, _ in model.named_parameters()]
        self.parameters = list(model.parameters())
        self.table_weights: Mapping[str, nn.Parameter] = tables.dense_weights()
        self.dense = dense_optimizer(self.parameters, dense) if self.parameters else None
        self.table = table_optimizer(self.table_weights.values(), table)
        self.gates = tables.gates
        settings = gates or GateSettings()
        self.theta = (
            None if self.gates is None else torch.optim.Adam([self.gates.theta], lr=settings.lr, fused=True)
        )
        self._l1 = settings.l1
        self._tables = tables
        self._l2 = table.l2
        self._row_l2 = row_l2
        self._scale = 1.0
        self._clip_norm = clip_norm
        self._rates = [
            (optimizer, optimizer.param_groups[0]["lr"])
            for optimizer in (self.dense, self.table, self.theta)
            if optimizer is not None
        ]

    @property
    def summed(self) -> list[nn.Parameter]:
        """Parameters that every process holds whole and whose gradients are summed over them."""
        if self.gates is None or self.gates.hard:
            return self.parameters
        return [*self.parameters, self.gates.theta]

    def set_scale(self, scale: float) -> None:
        """Multiply every initial learning rate by ``scale``."""
        self._scale = scale
        for optimizer, lr in self._rates:
            optimizer.param_groups[0]["lr"] = lr * scale
        self._tables.set_fused_lr(scale)

    def zero_grad(self) -> None:
        """Forget gradients."""
        for optimizer, _ in self._rates:
            optimizer.zero_grad(set_to_none=True)

    def looked_up(self, batch: Batch) -> LookedUp:
        """What ``step`` has to know of a batch; may run in another thread."""
        return {} if self._row_l2 is None else self._row_l2.looked_up(batch)

    def step(self, looked_up: LookedUp) -> None:
        """Regularise, clip and update; gradients of ``summed`` are already summed over ranks."""
        if self._l2:
            self._tables.add_l2(self._l2)
        if self._row_l2 is not None:
            self._row_l2.add(looked_up, self._scale)
        if self.gates is not None and not self.gates.hard:
            self.gates.add_l1(self._l1)
        if self._clip_norm is not None and self.parameters:
            nn.utils.clip_grad_norm_(self.parameters, self._clip_norm)
        for optimizer, _ in self._rates:
            optimizer.step()

    def materialise(self) -> None:
        """Create the state of fresh optimisers, so that a checkpoint can be loaded into it.

        A fresh optimiser has none, and loading into it would silently drop Adam's moments. No weight moves,
        and the first real step stays the first one to Adam's correction of its moments.
        """
        for optimizer, _ in self._rates:
            for group in optimizer.param_groups:
                lr, decay = group["lr"], group.get("weight_decay", 0.0)
                group["lr"], group["weight_decay"] = 0.0, 0.0
                for parameter in group["params"]:
                    parameter.grad = torch.zeros_like(parameter)
                optimizer.step()
                group["lr"] = lr
                if "weight_decay" in group:
                    group["weight_decay"] = decay
            for state in optimizer.state.values():
                if "step" in state:
                    state["step"].zero_()
        self.zero_grad()

    def restart(self) -> None:
        """Forget everything but the weights, as if nothing had been learnt."""
        for optimizer, _ in self._rates:
            optimizer.state.clear()
        for key, value in self._tables.state().items():
            if key.endswith(f".{ACCUMULATOR}"):
                value.to_local().zero_()
        self.set_scale(1.0)
        self.materialise()

    def dense_state(self) -> dict[str, Tensor]:
        """State of the dense optimiser by ``parameter.key``; the tensors themselves, not copies."""
        if self.dense is None:
            return {}
        return {
            f"{name}.{key}": value
            for name, parameter in zip(self.names, self.parameters, strict=True)
            for key, value in self.dense.state[parameter].items()
            if isinstance(value, Tensor)
        }

    def table_state(self) -> dict[str, dict[str, Tensor]]:
        """State of the dense-path tables' optimiser: table → key → local tensor."""
        if self.table is None:
            return {}
        return {
            name: {k: v for k, v in self.table.state[weight].items() if isinstance(v, Tensor)}
            for name, weight in self.table_weights.items()
        }

    def gate_state(self) -> dict[str, Tensor]:
        """State of the gates' optimiser by ``KEY``, or by ``KEY.VOCABULARY`` where it is one per gate."""
        if self.theta is None or self.gates is None:
            return {}
        found: dict[str, Tensor] = {}
        for key, value in self.theta.state[self.gates.theta].items():
            if value.dim() == 0:
                found[key] = value
            else:
                parts = self.gates.by_vocabulary(value)
                found.update({f"{key}.{name}": part for name, part in parts.items()})
        return found
