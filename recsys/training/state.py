"""The tensors of a run by key: what a checkpoint holds.

model.NAME                  dense weights and buffers, the same on every rank
slots.T                     row of every place of a pool, the same on every rank
tables.T.KEY                table weights and fused optimiser state, sharded by rows
gates.theta.V               gates of a vocabulary, the same on every rank
gates.temperature           how far they are on their way to open or closed
optimiser.dense.NAME.KEY    state of the dense part's optimiser
optimiser.tables.T.KEY      state of the dense-path tables' optimiser, sharded like the table
optimiser.gates.KEY         state of the gates' optimiser
sparsity.KEY                what is kept of a model that is made sparse, and what that is decided by
learning.KEY                where weights are averaged: those that go on learning; KEY holds the average
objective.KEY               what the loss draws from, where that was found in training
average.updates             how many updates the averages have seen
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from recsys.embeddings.tables import Tables
from recsys.models.units import fit_units
from recsys.training.average import Average
from recsys.training.optimisers import Optimisers
from recsys.training.sparsity.sparsity import Sparsity


def weight_tensors(model: nn.Module, tables: Tables) -> dict[str, Tensor]:
    """What is needed to score: dense weights, buffers, tables and gates. Loading fills them in place."""
    tensors = learnt_tensors(model, tables)
    if tables.gates is not None:
        tensors.update({f"gates.{key}": value for key, value in tables.gates.state().items()})
    return tensors


def learnt_tensors(model: nn.Module, tables: Tables) -> dict[str, Tensor]:
    """Dense weights, buffers and tables, without the gates."""
    tensors: dict[str, Tensor] = {f"model.{name}": value for name, value in model.state_dict().items()}
    tensors.update({f"tables.{key}": value for key, value in tables.state().items()})
    tensors.update({f"slots.{name}": pool.slots for name, pool in tables.pools.items()})
    return tensors


def run_tensors(
    model: nn.Module,
    tables: Tables,
    optimisers: Optimisers,
    sparsity: Sparsity | None = None,
    average: Average | None = None,
    objective: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Everything that learning changes. Optimiser state must have been materialised."""
    tensors = weight_tensors(model, tables)
    for key, value in optimisers.dense_state().items():
        tensors[f"optimiser.dense.{key}"] = value
    for table, states in optimisers.table_state().items():
        for key, value in states.items():
            sharded = value if value.dim() == 0 else tables.as_sharded(table, value)
            tensors[f"optimiser.tables.{table}.{key}"] = sharded
    for key, value in optimisers.gate_state().items():
        tensors[f"optimiser.gates.{key}"] = value
    if sparsity is not None:
        tensors.update({f"sparsity.{key}": value for key, value in sparsity.tensors().items()})
    tensors.update({f"objective.{key}": value for key, value in (objective or {}).items()})
    return tensors if average is None else average.tensors(tensors)


def fit_model(model: nn.Module, shapes: Mapping[str, tuple[int, ...] | None]) -> None:
    """Cut a freshly built model to the hidden units of a checkpoint, before its tensors are loaded."""
    own = {key.removeprefix("model."): shape for key, shape in shapes.items() if shape is not None}
    fit_units(model, own)
