"""Lookup and update through the unified plan, beside one fused fbgemm table with the same ids per step.

Both look up 4,096 rows of 26 features with two lookups each (212,992 vectors of 16 per step) in one table
of a quarter of a million rows and update it by row-wise Adagrad in backward. Ours goes the whole way of
training: ids of a batch to hashed rows, torchrec's sharded collection, and the vectors of all fields as one
tensor, which most models read; ``split`` is for those that read them one by one, and hands back as many
gradients. fbgemm's table gets the rows ready made, as one tensor, and gives one tensor back. Cases take
turns; a ratio is the median over rounds.

    python benchmarks/lookup.py [--quick]
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from itertools import cycle

import numpy as np
import torch
from harness import Spread, finish, interleaved, parser
from torch import Tensor

from recsys.data.batch import Batch
from recsys.data.dataset import Feature
from recsys.embeddings.plan import Plan, TablePlan, VocabularyPlan
from recsys.embeddings.tables import Tables
from recsys.training.distributed import distributed

FEATURES, VALUES, ROWS, DIM, LOOKUPS, BATCH = 26, 20_000, 250_000, 16, 2, 4_096
BATCHES, LR = 4, 0.02
ROUNDS = {True: 15, False: 41}


def unified_plan() -> Plan:
    """Every vocabulary on the one table."""
    names = [f"f{number}" for number in range(FEATURES)]
    vocabulary = VocabularyPlan(mode="unified", table="unified", lookups=LOOKUPS, size=VALUES)
    return Plan(
        tables={"unified": TablePlan(rows=ROWS, dim=DIM, path="fused")},
        vocabularies=dict.fromkeys(names, vocabulary),
        features={name: name for name in names},
    )


def row_maps(plan: Plan) -> dict[str, np.ndarray]:
    """Rows of all ids ``[VALUES, LOOKUPS]``; any keys will do."""
    keys = np.random.default_rng(1).integers(1, 2**63, VALUES - 2).astype(np.uint64)
    return {name: info.method.rows(keys, info, ROWS, name) for name, info in plan.vocabularies.items()}


def batches(plan: Plan) -> list[Batch]:
    """Ids of a Zipf-like law, and a label that is not read."""
    generator = np.random.default_rng(7)
    made = []
    for index in range(BATCHES):
        ids = {
            name: 2 + ((VALUES - 2) * generator.random(BATCH) ** 3).astype(np.int64)
            for name in plan.features
        }
        made.append(Batch(index, BATCH, np.zeros(BATCH, np.float32), ids, {}, {}))
    return made


def fbgemm_table() -> torch.nn.Module:
    """One table, a key per feature and lookup, each id a bag of one."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"fbgemm_gpu\.")
        from fbgemm_gpu.split_embedding_configs import EmbOptimType
        from fbgemm_gpu.split_table_batched_embeddings_ops_common import (
            BoundsCheckMode,
            EmbeddingLocation,
            PoolingMode,
        )
        from fbgemm_gpu.split_table_batched_embeddings_ops_training import (
            ComputeDevice,
            SplitTableBatchedEmbeddingBagsCodegen,
        )
    table: torch.nn.Module = SplitTableBatchedEmbeddingBagsCodegen(
        [(ROWS, DIM, EmbeddingLocation.HOST, ComputeDevice.CPU)],
        feature_table_map=[0] * (FEATURES * LOOKUPS),
        optimizer=EmbOptimType.EXACT_ROWWISE_ADAGRAD,
        learning_rate=LR,
        pooling_mode=PoolingMode.SUM,
        bounds_check_mode=BoundsCheckMode.NONE,
    )
    return table


def steps(tables: Tables, fbgemm: torch.nn.Module, given: list[Batch]) -> dict[str, Callable[[], None]]:
    """A training step of the tables alone, by ours and by fbgemm."""
    rows = [tables.prepare(batch).streams[0] for batch in given]
    keys = FEATURES * LOOKUPS
    offsets = torch.arange(keys * BATCH + 1)
    gradient = torch.randn(BATCH, keys * DIM, generator=torch.Generator().manual_seed(1)) / BATCH
    parts = torch.split(gradient, LOOKUPS * DIM, dim=1)
    ours_next: Iterator[Batch] = cycle(given)
    theirs_next: Iterator[Tensor] = cycle(rows)

    def split() -> None:
        fields = tables(next(ours_next)).fields
        torch.autograd.backward(list(fields.values()), list(parts))

    def ours() -> None:
        inputs = tables(next(ours_next))
        assert inputs.joined is not None
        inputs.joined.backward(gradient)

    def theirs() -> None:
        fbgemm(next(theirs_next), offsets).backward(gradient)

    return {"unified": ours, "fbgemm": theirs, "unified_split": split}


def main() -> None:
    quick = parser("lookup", str(__doc__)).parse_args().quick
    plan = unified_plan()
    features = [Feature(name=name, kind="categorical", vocabulary=name) for name in plan.features]
    given = batches(plan)
    with distributed("cpu"):
        tables = Tables(plan, features, row_maps=row_maps(plan), fused_lr=LR)
        seconds = interleaved(steps(tables, fbgemm_table(), given), ROUNDS[quick])
    spread = {f"{name}_ms": Spread.of([1000 * each for each in found]) for name, found in seconds.items()}
    for name, case in (("lookup_ratio", "unified"), ("lookup_ratio_split", "unified_split")):
        ratios = [a / b for a, b in zip(seconds[case], seconds["fbgemm"], strict=True)]
        spread[name] = Spread.of(ratios)
    figures: dict[str, float | int | str | None] = {name: each.median for name, each in spread.items()}
    figures["vectors_per_step"] = FEATURES * LOOKUPS * BATCH
    finish("lookup", figures, quick=quick, spread=spread)


if __name__ == "__main__":
    main()
