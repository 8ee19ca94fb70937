"""Gates of feature values: which values are worth their vectors (OptFS).

Lyu et al., *Optimizing Feature Set for Click-Through Rate Prediction* (WWW 2023). Value k has one gate,

    g_k = σ(τ θ_k) / σ(θ_0),

that its vector is multiplied by after the lookup, each element of a list by its own. The temperature τ
grows while gates are searched (learning by continuation), so that they end up near 0 or 1 / σ(θ_0). At
τ = ∞ they are hard: a value with θ_k > 0 is open, any other closed, and nothing is learnt any more.

Gates are dense parameters, the same on every process. Their gradients are summed over processes like
those of the dense part: weights inside torchrec's jagged inputs would get none from other processes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from recsys.data.dataset import FIRST_ID, MISSING_ID, UNSEEN_ID, Dataset
from recsys.embeddings.keys import hash_rows
from recsys.embeddings.open_values import OpenValues
from recsys.embeddings.plan import MOST_LOOKUPS, Plan

TEMPERATURE = "temperature"
THETA = "theta."
_SALT = MOST_LOOKUPS
"""Lookups of a value count from 0 and never reach this number, so its hash is none of theirs."""


class Gates(nn.Module):
    """The gates of all vocabularies.

    Args:
        sizes: number of ids per vocabulary.
        maps: gate of every id, int64 ``[size]``, of vocabularies whose values share gates; default: a
            gate per id.
        init: θ_0.
        device: where they lie.
    """

    def __init__(
        self,
        sizes: Mapping[str, int],
        maps: Mapping[str, NDArray[np.int64]] | None = None,
        *,
        init: float = 0.5,
        device: torch.device | None = None,
    ) -> None:
        super().__init__()
        self._sizes, self._maps = dict(sizes), dict(maps or {})
        counts = [
            int(self._maps[name].max()) + 1 if name in self._maps else size for name, size in sizes.items()
        ]
        ends = np.cumsum(counts).tolist()
        self._parts = {
            name: range(end - count, end) for name, count, end in zip(sizes, counts, ends, strict=True)
        }
        self.theta = nn.Parameter(torch.full((sum(counts),), init, device=device))
        """float32 ``[gates]``, vocabulary after vocabulary."""
        self.temperature = torch.ones(())
        """τ, float32; always on the CPU, so that asking for it waits for no GPU."""
        self.scale = 1.0 / _sigmoid(init)

    @property
    def hard(self) -> bool:
        """Whether gates are open or closed, and learn no more."""
        return math.isinf(float(self.temperature))

    def set_temperature(self, temperature: float) -> None:
        """Set τ; infinity makes gates hard."""
        self.temperature.fill_(temperature)
        if self.hard:
            self.theta.grad = None

    def index_of(self, vocabulary: str, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Places in ``theta`` of ids ``[n]``, which must lie within the vocabulary."""
        gates = self._maps[vocabulary][ids] if vocabulary in self._maps else ids
        return gates + self._parts[vocabulary].start

    def forward(self, index: Tensor) -> Tensor:
        """Gates float32 ``[n]`` of places ``[n]`` in ``theta``."""
        if self.hard:
            return (self.theta.detach()[index] > 0).float() * self.scale
        return torch.sigmoid(self.theta[index] * self.temperature) * self.scale

    @torch.no_grad()
    def add_l1(self, strength: float) -> None:
        """Add the gradient of ``strength · Σ σ(τ θ)`` over all gates to theirs, in one dense step."""
        soft = torch.sigmoid(self.theta * self.temperature)
        slope = soft * (1 - soft) * (self.temperature * strength)
        self.theta.grad = slope if self.theta.grad is None else self.theta.grad.add_(slope)

    def open_values(self) -> OpenValues:
        """Which values are open now: ``θ > 0``."""
        is_open = (self.theta.detach() > 0).cpu().numpy()
        found = {name: is_open[self.index_of(name, np.arange(size))] for name, size in self._sizes.items()}
        return OpenValues(found, self.scale)

    def open_share(self) -> float:
        """Share of open values among all values."""
        counts = self.open_values().counts().values()
        return sum(kept for kept, _ in counts) / max(sum(size for _, size in counts), 1)

    def by_vocabulary(self, values: Tensor) -> dict[str, Tensor]:
        """A tensor with one entry per gate ``[gates]``, in views per vocabulary."""
        return {name: values.detach()[part.start : part.stop] for name, part in self._parts.items()}

    def state(self) -> dict[str, Tensor]:
        """``theta.VOCABULARY`` and ``temperature``; shares memory, so that loading into it loads gates."""
        named = {f"{THETA}{name}": part for name, part in self.by_vocabulary(self.theta).items()}
        return named | {TEMPERATURE: self.temperature}


def gates_of(
    dataset: Dataset, plan: Plan, *, buckets: int, init: float, device: torch.device | None = None
) -> Gates:
    """Gates of the vocabularies of a plan.

    A value has a gate of its own, whatever its rows. Vocabularies that are hashed and have more than
    ``buckets`` values share that many gates: the missing and the unseen value keep theirs, 0 and 1, any
    other has gate ``2 + hash(key)``, salted apart from the hashes of its rows.
    """
    maps = {}
    for name, planned in plan.vocabularies.items():
        if planned.mode != "full" and planned.size > buckets:
            keys = dataset.values(name, ("key",))["key"].to_numpy()
            hashed = FIRST_ID + hash_rows(keys, buckets - FIRST_ID, name, _SALT)
            maps[name] = np.concatenate([[MISSING_ID, UNSEEN_ID], hashed])
    sizes = {name: planned.size for name, planned in plan.vocabularies.items()}
    return Gates(sizes, maps, init=init, device=device)


def _sigmoid(value: float) -> float:
    return 1.0 / (1.0 + math.exp(-value))
