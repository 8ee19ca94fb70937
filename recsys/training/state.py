"""The tensors of a run by key: what a checkpoint holds.

model.NAME                  dense weights and buffers, the same on every rank
tables.T.KEY                table weights and fused optimiser state, sharded by rows
gates.theta.V               gates of a vocabulary, the same on every rank
gates.temperature           how far they are on their way to open or closed
optimiser.dense.NAME.KEY    state of the dense part's optimiser
optimiser.tables.T.KEY      state of the dense-path tables' optimiser, sharded like the table
optimiser.gates.KEY         state of the gates' optimiser
"""

from __future__ import annotations

from torch import Tensor, nn

from recsys.embeddings.tables import Tables
from recsys.training.optimisers import Optimisers


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
    return tensors


def run_tensors(model: nn.Module, tables: Tables, optimisers: Optimisers) -> dict[str, Tensor]:
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
    return tensors
