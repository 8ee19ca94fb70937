"""Begin a training with what an earlier one learnt, on data that has grown since.

Vectors are carried by value, never by row: a value of both datasets gets the vector that it had, wherever
its rows lie now, and one that is new begins as any. Where several values share a row, it gets the mean of
theirs, each as often as the train rows hold it; a hashed table that has not changed is taken over as it is,
to the bit. Dense weights are taken over whole. Optimisers begin anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from recsys.data.dataset import FIRST_ID, Dataset
from recsys.embeddings.open_values import OpenValues
from recsys.embeddings.plan import Plan
from recsys.embeddings.rows import table_rows
from recsys.embeddings.sharding import TableShard
from recsys.embeddings.tables import WEIGHT, Tables
from recsys.errors import CheckpointError, PlanError
from recsys.progress import say
from recsys.training.checkpoint import Checkpoints, load_tensors
from recsys.training.distributed import Distributed
from recsys.training.run_folder import Run
from recsys.training.tables_of import gates_of_run


@dataclass(frozen=True)
class Earlier:
    """What an earlier run learnt of values."""

    dataset: Dataset
    plan: Plan
    tables: Mapping[str, NDArray[np.float32]]
    """Weights ``[rows, dim]``, whole."""
    gates: OpenValues | None

    def vectors(self, vocabulary: str, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """Vectors ``[n, width]`` of ids ``[n]``, as its model reads them: lookups side by side."""
        rows = table_rows(self.plan, self.dataset, vocabulary)
        weights = self.tables[self.plan.vocabularies[vocabulary].table]
        found = weights[ids if rows is None else rows[ids]].reshape(len(ids), -1)
        return found if self.gates is None else found * self.gates.of(vocabulary, ids)[:, None]


@dataclass(frozen=True)
class Carried:
    """First weights of one table."""

    known: NDArray[np.bool_]
    """``[rows]``: rows that there is something to carry to."""
    weights: NDArray[np.float32]
    """``[rows, dim]``; what stands in other rows means nothing."""


def warm_start(
    folder: Path, dataset: Dataset, plan: Plan, model: nn.Module, tables: Tables, ranks: Distributed
) -> None:
    """Fill a model and its tables with the best weights of an earlier run. All processes call it together.

    Raises:
        CheckpointError: there is no finished run, or its model is another one.
        PlanError: a vocabulary's vectors have another width or its values another type than they had.
    """
    run = Run.load(folder)
    checkpoint = Checkpoints(run.folder / "checkpoints").named("best")
    if checkpoint is None:
        raise CheckpointError(f"{run.folder}: no best checkpoint to begin with; train it again")
    _require_same_columns(run, dataset)
    dense = {f"model.{name}": value for name, value in model.state_dict().items()}
    try:
        load_tensors(checkpoint, dense, allow_unused=True)
    except CheckpointError as error:
        raise CheckpointError(
            f"train.warm_start: the model of {run.folder} ({run.file.model}) is not the one to be trained "
            f"here{_cut(run)}: {error}"
        ) from error
    earlier = _earlier(run, checkpoint)
    state = tables.state()
    for name, planned in plan.tables.items():
        if f"{name}.{WEIGHT}" not in state:
            continue
        found = carried(earlier, dataset, plan, name)
        held = TableShard.of(
            name, planned.rows, planned.dim, planned.path, ranks.device, ranks.rank, ranks.world
        ).part
        part = slice(held.start, held.stop)
        rows = torch.from_numpy(np.flatnonzero(found.known[part])).to(ranks.device)
        local = state[f"{name}.{WEIGHT}"].to_local()
        local[rows] = torch.from_numpy(found.weights[part]).to(ranks.device)[rows]


def _earlier(run: Run, checkpoint: Path) -> Earlier:
    plan, dataset = run.plan, run.dataset()
    used = {plan.table_of(feature) for feature in plan.features}
    weights: dict[str, Tensor] = {
        name: torch.empty(table.rows, table.dim) for name, table in plan.tables.items() if name in used
    }
    into = {f"tables.{name}.{WEIGHT}": weight for name, weight in weights.items()}
    gates = gates_of_run(dataset, plan, run.file.train, torch.device("cpu"))
    if gates is not None:
        into |= {f"gates.{key}": value for key, value in gates.state().items()}
    load_tensors(checkpoint, into, allow_unused=True)
    return Earlier(
        dataset,
        plan,
        {name: weight.numpy() for name, weight in weights.items()},
        None if gates is None else gates.open_values(),
    )


def carried(earlier: Earlier, dataset: Dataset, plan: Plan, table: str) -> Carried:
    """First weights of a table, from the vectors that its values had.

    Raises:
        PlanError: a vocabulary's vectors have another width or its values another type than they had.
    """
    planned = plan.tables[table]
    both = [
        name
        for name, info in plan.vocabularies.items()
        if info.table == table and name in earlier.plan.vocabularies
    ]
    for name in both:
        _require_alike(earlier, dataset, plan, name)
    if _unmoved(earlier, plan, table):
        weights = earlier.tables[table]
        return Carried(np.ones(len(weights), np.bool_), weights)
    sums = np.zeros((planned.rows, planned.dim), np.float64)
    counts = np.zeros(planned.rows, np.float64)
    for name in both:
        ids, before, weight = _known(earlier.dataset, dataset, name)
        rows, lookups = table_rows(plan, dataset, name), plan.vocabularies[name].lookups
        at = (ids if rows is None else rows[ids]).reshape(len(ids), lookups)
        vectors = earlier.vectors(name, before).reshape(len(ids), lookups, planned.dim)
        np.add.at(sums, at, vectors * weight[:, None, None])
        np.add.at(counts, at, np.broadcast_to(weight[:, None], at.shape))
    known = counts > 0
    sums[known] /= counts[known, None]
    return Carried(known, sums.astype(np.float32))


def _unmoved(earlier: Earlier, plan: Plan, table: str) -> bool:
    """Whether every value of a hashed table has the rows that it had, and no gate closes one."""
    before, now = earlier.plan.tables.get(table), plan.tables[table]
    if before is None or earlier.gates is not None or (before.rows, before.dim) != (now.rows, now.dim):
        return False
    readers = {name: info for name, info in plan.vocabularies.items() if info.table == table}
    return all(
        info.mode in ("hash", "unified")
        and name in earlier.plan.vocabularies
        and info == earlier.plan.vocabularies[name].model_copy(update={"size": info.size})
        for name, info in readers.items()
    )


def _require_same_columns(run: Run, dataset: Dataset) -> None:
    """Raise PlanError where features or their order differ: dense weights go by where a feature stands."""
    before, now = ([(f.name, f.kind) for f in each.features] for each in (run.dataset(), dataset))
    if before == now:
        return
    earlier, here = dict(before), dict(now)
    differences = {
        "gone": [name for name in earlier if name not in here],
        "new": [name for name in here if name not in earlier],
        "of another kind": [name for name in here if earlier.get(name, here[name]) != here[name]],
    }
    found = [f"{what}: {', '.join(names)}" for what, names in differences.items() if names]
    raise PlanError(
        f"train.warm_start: the features of {run.folder} are not those here "
        f"({'; '.join(found) or 'their order differs'}); prepare the log with that run's schema, or leave "
        "train.warm_start out"
    )


def _cut(run: Run) -> str:
    """Why a model of the same name may have other shapes."""
    sparsity = run.file.train.sparsity
    if sparsity is None or sparsity.method == "dsl" or sparsity.dense_density == 1:
        return ""
    return " (its layers were cut by train.sparsity; no run can begin with them)"


def _require_alike(earlier: Earlier, dataset: Dataset, plan: Plan, name: str) -> None:
    widths = []
    for each in (earlier.plan, plan):
        info = each.vocabularies[name]
        if info.mode == "pool":
            where = "in the earlier run" if each is earlier.plan else "here"
            raise PlanError(
                f"train.warm_start: vectors of vocabulary {name!r} cannot be carried, as train.sparsity "
                f"keeps them for some values only {where}; set train.sparsity.tables to 1 there, or leave "
                "train.warm_start out"
            )
        if info.combine != "concat":
            raise PlanError(
                f"train.warm_start: vectors of vocabulary {name!r} (mode {info.mode}, {info.combine}) "
                "cannot be carried: no row is a part of a value's vector by itself; take another mode, "
                "or leave train.warm_start out"
            )
        widths.append(info.lookups * each.tables[info.table].dim)
    if widths[0] != widths[1]:
        raise PlanError(
            f"train.warm_start: a vector of vocabulary {name!r} has {widths[0]} numbers in the earlier run "
            f"and {widths[1]} here; plan with 'recsys plan --grow'"
        )
    types = [each.vocabulary_info(name).type for each in (earlier.dataset, dataset)]
    if types[0] != types[1]:
        raise PlanError(
            f"train.warm_start: values of vocabulary {name!r} are of type {types[0]} in the earlier run "
            f"and {types[1]} here, so that none has the key it had; state the type in the schema"
        )


def _known(
    before: Dataset, now: Dataset, name: str
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Ids of values of both datasets here and there, and how often the train rows here hold them.

    The missing and the unseen value are of both.
    """
    theirs = before.values(name, ("id", "key")).rename({"id": "before"})
    values = now.values(name, ("id", "key", "count"))
    both = values.join(theirs, on="key", how="inner")
    if both.height < theirs.height:
        lost = theirs.height - both.height
        say(f"warm start: {lost:,} values of {name!r} are not in this dataset; what they learnt is left")
    special = np.arange(FIRST_ID)
    return (
        np.concatenate([special, both["id"].to_numpy()]),
        np.concatenate([special, both["before"].to_numpy()]),
        np.concatenate([np.ones(FIRST_ID), both["count"].to_numpy().astype(np.float64).clip(1)]),
    )
