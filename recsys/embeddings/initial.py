"""First weights of tables: drawn by name, seed and block of rows, so they know nothing of processes."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from recsys.data.dataset import MISSING_ID, UNSEEN_ID

BLOCK_ROWS = 65_536


def initial_rows(
    table: str, rows: int, dim: int, part: range, *, seed: int, std: float, zeros: bool = True
) -> Tensor:
    """Rows ``part`` of a table's first weights, float32 ``[len(part), dim]``: normal(0, std).

    With ``zeros`` the rows of the missing and of the unseen value are zeros: until a train row moves
    them, a value that says nothing adds nothing. A table that vocabularies share has no such rows.

    >>> whole = initial_rows("item", 9, 4, range(9), seed=1, std=0.01)
    >>> bool((initial_rows("item", 9, 4, range(3, 9), seed=1, std=0.01) == whole[3:]).all())
    True
    """
    weights = torch.empty(len(part), dim)
    for block in range(part.start // BLOCK_ROWS, -(-part.stop // BLOCK_ROWS)):
        first = block * BLOCK_ROWS
        last = min(first + BLOCK_ROWS, rows)
        drawn = torch.empty(last - first, dim).normal_(0.0, std, generator=_generator(seed, table, block))
        low, high = max(first, part.start), min(last, part.stop)
        weights[low - part.start : high - part.start] = drawn[low - first : high - first]
    for row in (MISSING_ID, UNSEEN_ID):
        if zeros and row in part:
            weights[row - part.start] = 0.0
    return weights


def _generator(seed: int, table: str, block: int) -> torch.Generator:
    digest = hashlib.blake2b(f"{seed}/{table}/{block}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)
