"""Score one part of a dataset on all ranks, in the order of its rows."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn

from recsys.data.batches import Batches, rank_slice
from recsys.data.dataset import GROUP, LABEL, Dataset, Part
from recsys.data.prefetch import Prefetch
from recsys.embeddings.tables import Tables


@torch.no_grad()
def score_part(
    model: nn.Module, tables: Tables, batches: Batches, world: int
) -> NDArray[np.float32] | None:
    """Probabilities ``[rows]`` float32 of unshuffled batches, on rank 0; None on the others."""
    was_training = model.training
    model.eval()
    slices: list[Tensor] = []
    sizes: list[int] = []
    with Prefetch(tables.prepare(batch) for batch in batches.epoch()) as ahead:
        for prepared in ahead:
            slices.append(torch.sigmoid(model(tables(prepared))).float())
            sizes.append(prepared.global_rows)
    model.train(was_training)
    if world == 1:
        return torch.cat(slices).cpu().numpy() if slices else np.empty(0, np.float32)
    return gather_slices(slices, sizes, world)


def gather_slices(slices: list[Tensor], sizes: list[int], world: int) -> NDArray[np.float32] | None:
    """Bring every rank's slices, ``[rows, ...]``, to rank 0 and put them back in order."""
    share = -(-max(sizes) // world)
    padded = slices[0].new_zeros(len(slices), share, *slices[0].shape[1:])
    for row, scores in enumerate(slices):
        padded[row, : scores.shape[0]] = scores
    gathered = [torch.empty_like(padded) for _ in range(world)] if dist.get_rank() == 0 else None
    dist.gather(padded, gathered, dst=0)
    if gathered is None:
        return None
    pieces = []
    for row, size in enumerate(sizes):
        for rank in range(world):
            mine = rank_slice(size, rank, world)
            pieces.append(gathered[rank][row, : mine.stop - mine.start])
    return torch.cat(pieces).cpu().numpy()


def labels_of(dataset: Dataset, part: Part) -> tuple[NDArray[np.float32], NDArray[np.int64] | None]:
    """Labels ``[rows]`` and, where declared, group keys ``[rows]`` of one part, in row order."""
    names = [LABEL, GROUP] if dataset.has_group else [LABEL]
    table = pq.read_table(dataset.part(part), columns=names)
    label = np.asarray(table.column(LABEL).to_numpy(), dtype=np.float32)
    group = np.asarray(table.column(GROUP).to_numpy(), dtype=np.int64) if dataset.has_group else None
    return label, group
