"""A small plan with every kind of table and feature, batches of it, and what plain torch makes of them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor
from torch.distributed.tensor import DTensor

from recsys.data.batch import Batch
from recsys.data.dataset import Feature
from recsys.embeddings.plan import Plan, TablePlan, UpdatePath, VocabularyPlan
from recsys.embeddings.tables import Tables
from recsys.models.inputs import Inputs

FEATURES = (
    Feature(name="day", kind="categorical", vocabulary="day"),
    Feature(name="item", kind="categorical", vocabulary="item.id"),
    Feature(name="price", kind="numeric"),
    Feature(name="history", kind="sequence", vocabulary="item.id", max_length=4),
    Feature(name="tags", kind="multi", vocabulary="tags", max_length=3),
    Feature(name="site", kind="categorical", vocabulary="site"),
    Feature(name="day_before", kind="categorical", vocabulary="day"),
    Feature(name="items", kind="categorical", vocabulary="items"),
)
SIZES = {"day": 7, "item.id": 23, "tags": 11, "site": 40, "items": 9}
ROW_MAPS = {"site": 2 + np.arange(40, dtype=np.int64) * 7 % 11}


TINY = {"day": 2, "item.id": 2, "tags": 4, "site": 40, "items": 5}


def make_plan(
    paths: Mapping[str, UpdatePath] | UpdatePath, dim: int = 8, sizes: Mapping[str, int] = SIZES
) -> Plan:
    """Site is hashed into fewer rows; every table has its own path, or all have one."""

    def path(table: str) -> UpdatePath:
        return paths if isinstance(paths, str) else paths[table]

    return Plan(
        tables={
            name: TablePlan(rows=13 if name == "site" else size, dim=dim, path=path(name))
            for name, size in sizes.items()
        },
        vocabularies={
            name: VocabularyPlan(mode="hash" if name == "site" else "full", table=name, size=size)
            for name, size in sizes.items()
        },
        features={f.name: f.vocabulary for f in FEATURES if f.vocabulary is not None},
    )


DEALT = {"day": (0, 3), "site": (5, 1), "items": (4, 2)}
"""Sub-tables of the lookups of each vocabulary that shares a table in ``dealt_plan``."""


def dealt_plan(path: UpdatePath, dim: int = 6, rows: int = 60) -> Plan:
    """Vocabularies of single-valued features share a table of six sub-tables, two lookups each."""
    alone = make_plan(path, dim)
    shared = {
        name: VocabularyPlan(
            mode="unified", table="shared", lookups=2, size=SIZES[name], parts=6, dealt=dealt
        )
        for name, dealt in DEALT.items()
    }
    tables = {name: table for name, table in alone.tables.items() if name not in shared}
    tables["shared"] = TablePlan(rows=rows, dim=dim, path=path)
    return Plan(tables=tables, vocabularies=alone.vocabularies | shared, features=alone.features)


def rows_of(plan: Plan) -> Mapping[str, NDArray[np.int64]]:
    """Rows of the ids of hashed vocabularies: those of any keys in shared tables."""
    shared = {name: info for name, info in plan.vocabularies.items() if info.mode == "unified"}
    return ROW_MAPS | {
        name: info.method.rows(
            np.arange(1, info.size - 1, dtype=np.uint64), info, plan.tables[info.table].rows, name
        )
        for name, info in shared.items()
    }


def make_tables(plan: Plan, **options: object) -> Tables:
    defaults: dict[str, object] = {"row_maps": rows_of(plan), "seed": 3, "init_std": 0.1, "fused_lr": 0.1}
    return Tables(plan, FEATURES, **(defaults | options))  # type: ignore[arg-type]


def make_batch(rows: int, index: int = 0, sizes: Mapping[str, int] = SIZES) -> Batch:
    """Random ids; about a third of the lists are empty."""
    draw = np.random.default_rng([5, index])
    lengths = {"history": draw.integers(-2, 5, rows).clip(0), "tags": draw.integers(-1, 4, rows).clip(0)}
    ids: dict[str, NDArray[np.int64]] = {}
    for feature in FEATURES:
        if feature.vocabulary is not None:
            count = int(lengths[feature.name].sum()) if feature.name in lengths else rows
            ids[feature.name] = draw.integers(0, sizes[feature.vocabulary], count)
    price = draw.normal(size=rows).astype(np.float32)
    price[::3] = np.nan
    label = draw.integers(0, 2, rows).astype(np.float32)
    return Batch(index, rows, label, ids, lengths, {"price": price})


def share_of(batch: Batch, rank: int, world: int) -> Batch:
    """A rank's contiguous slice, as ``Batches`` cuts it."""
    share = -(-batch.rows // world)
    low, high = min(rank * share, batch.rows), min((rank + 1) * share, batch.rows)
    lengths = {name: values[low:high] for name, values in batch.lengths.items()}
    ids = {}
    for name, values in batch.ids.items():
        ends = np.concatenate([[0], np.cumsum(batch.lengths[name])]) if name in lengths else None
        ids[name] = values[low:high] if ends is None else values[ends[low] : ends[high]]
    numerics = {name: values[low:high] for name, values in batch.numerics.items()}
    return Batch(batch.index, batch.global_rows, batch.label[low:high], ids, lengths, numerics)


def loss_of(inputs: Inputs, global_rows: int) -> Tensor:
    """A loss that gives every element of every input another gradient; padding must not count.

    A model may leave out what is empty: then nothing flows back to those tables on this process.
    """
    total = torch.zeros(())
    for number, vectors in enumerate([*inputs.fields.values(), *inputs.sequences.values()]):
        if number and not vectors.numel():
            continue
        places = torch.arange(1, vectors.shape[-1] + 1) / vectors.shape[-1] + number
        total = total + ((vectors + places * 0.1) ** 2 * places).sum()
        if vectors.dim() == 3:
            padding = torch.arange(vectors.shape[1]) >= next(iter(inputs.lengths.values())).unsqueeze(1)
            total = total - (padding.unsqueeze(2) * (places * 0.1) ** 2 * places).sum()
    return total / global_rows


def plain_inputs(weights: Mapping[str, Tensor], batch: Batch) -> Inputs:
    """The same inputs looked up row by row in plain tensors."""
    inputs = Inputs()
    for feature in FEATURES:
        name, table = feature.name, feature.vocabulary
        if table is None:
            inputs.numerics[name] = torch.from_numpy(np.nan_to_num(batch.numerics[name]))
            inputs.missing[name] = torch.from_numpy(np.isnan(batch.numerics[name])).float()
            continue
        rows = batch.ids[name] if table not in ROW_MAPS else ROW_MAPS[table][batch.ids[name]]
        vectors = torch.nn.functional.embedding(torch.from_numpy(rows), weights[table])
        if feature.kind == "categorical":
            inputs.fields[name] = vectors
            continue
        lengths = torch.from_numpy(batch.lengths[name])
        bags = torch.split(vectors, lengths.tolist())
        if feature.kind == "multi":
            means = [bag.mean(0) if len(bag) else vectors.new_zeros(vectors.shape[1]) for bag in bags]
            inputs.fields[name] = torch.stack(means)
        else:
            inputs.lengths[name] = lengths
            inputs.sequences[name] = torch.nn.utils.rnn.pad_sequence(list(bags), batch_first=True)
    return inputs


def whole(tensor: Tensor) -> NDArray[np.float32]:
    """A tensor sharded by rows, or the same on all processes, whole on every process: a copy.

    ``DTensor.full_tensor`` would leave the group, and with it gloo's threads, in a cache of torch for good;
    a thread that still holds a tensor when the interpreter ends aborts the process.
    """
    if not isinstance(tensor, DTensor):
        return tensor.detach().numpy().copy()
    parts: list[NDArray[np.float32]] = [np.zeros(0, np.float32)] * dist.get_world_size()
    dist.all_gather_object(parts, tensor.to_local().numpy())
    return np.concatenate(parts)
