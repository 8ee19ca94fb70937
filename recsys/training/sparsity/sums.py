"""Sums that every process adds to, and that count over all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from recsys.training.distributed import Distributed


class Sums:
    """Named sums, zero at first.

    One process adds to the sums themselves, so that they do not depend on when they are saved.

    Args:
        shapes: of each sum, by name.
        ranks: the processes that add to them.
        dtype: of all.
    """

    def __init__(
        self, shapes: Mapping[str, Sequence[int]], ranks: Distributed, dtype: torch.dtype = torch.float32
    ) -> None:
        self._ranks = ranks
        self._total = _zeros(shapes, ranks, dtype)
        self.mine = self._total if ranks.world == 1 else _zeros(shapes, ranks, dtype)
        """What this process adds to."""

    @torch.no_grad()
    def total(self) -> dict[str, Tensor]:
        """Over all processes; all call this together."""
        if self._ranks.world > 1:
            for key, mine in self.mine.items():
                dist.all_reduce(mine, group=self._ranks.group)
                self._total[key] += mine
                mine.zero_()
        return self._total

    def clear(self) -> None:
        """Begin anew, once ``total`` has been taken."""
        for value in self._total.values():
            value.zero_()

    def free(self) -> None:
        """Hold no sums any longer."""
        self._total, self.mine = {}, {}


def _zeros(
    shapes: Mapping[str, Sequence[int]], ranks: Distributed, dtype: torch.dtype
) -> dict[str, Tensor]:
    return {key: torch.zeros(*shape, dtype=dtype, device=ranks.device) for key, shape in shapes.items()}
