"""Single weights kept and dropped as published: dynamic sparse learning (Wang et al., WSDM 2024).

As its authors' code does: masks drawn at random, one density for every matrix, the smallest magnitudes
dropped and as many weights grown where the last batch's gradient is largest, moments left as they are. It
is here to be compared with: tensors stay whole and masks come on top, so nothing gets faster or smaller.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from recsys.embeddings.tables import WEIGHT, Tables
from recsys.errors import ConfigError
from recsys.models.initialise import named_seed
from recsys.settings.sparsity import SparsitySettings
from recsys.training.distributed import Distributed
from recsys.training.sparsity.schedule import drop_share, shares


@dataclass(frozen=True)
class _Masked:
    """A parameter and the mask over the whole of it."""

    parameter: nn.Parameter
    """What this process holds of it; of a table, its block of rows."""
    mask: Tensor
    """bool, the whole parameter's shape; the same on every process."""
    sharded: bool

    def local(self, ranks: Distributed) -> tuple[Tensor, Tensor]:
        """Weights that this process holds, without padding, and their mask."""
        if not self.sharded:
            return self.parameter, self.mask
        block = self.parameter.shape[0]
        mask = self.mask[ranks.rank * block : (ranks.rank + 1) * block]
        return self.parameter[: len(mask), : mask.shape[1]], mask

    def whole(self, values: Tensor, ranks: Distributed) -> Tensor:
        """Values like the parameter's, of all processes: the mask's shape."""
        if self.sharded and ranks.world > 1:
            blocks = [torch.empty_like(values) for _ in range(ranks.world)]
            dist.all_gather(blocks, values.contiguous(), group=ranks.group)
            values = torch.cat(blocks)
        rows, columns = self.mask.shape
        return values[:rows, :columns]


class Masks:
    """Masks over the matrices of the dense part and over the tables of the dense path.

    Args:
        model, tables: what is masked; vectors (biases, norms) stay whole.
        settings: densities, and when and how much is exchanged.
        ranks: the processes that share the tables.
        seed: of the first masks.

    Raises:
        ConfigError: a table to be masked is on the fused path, whose gradients nobody sees.
    """

    def __init__(
        self, model: nn.Module, tables: Tables, settings: SparsitySettings, ranks: Distributed, seed: int
    ) -> None:
        self._settings, self._ranks, self._seed = settings, ranks, seed
        self._masked: dict[str, _Masked] = {}
        if settings.dense_density < 1:
            matrices = {
                name: (weight, weight.shape)
                for name, weight in model.named_parameters()
                if weight.dim() == 2 and min(weight.shape) > 1
            }
            self._add("dense", matrices, settings.dense_density)
        if settings.tables_density < 1:
            self._add("tables", _dense_path(tables), settings.tables_density)
        self.restrain()

    def _add(self, part: str, weights: dict[str, tuple[nn.Parameter, torch.Size]], density: float) -> None:
        if not weights:
            return
        sizes = [shape.numel() for _, shape in weights.values()]
        priors = [1.0] * len(sizes)
        if self._settings.allocation == "erk":
            priors = [sum(1 / length for length in shape) for _, shape in weights.values()]
        found = shares(
            priors, lambda kept: sum(s * n for s, n in zip(kept, sizes, strict=True)), density * sum(sizes)
        )
        for (name, (weight, shape)), share in zip(weights.items(), found, strict=True):
            generator = torch.Generator().manual_seed(named_seed(self._seed, "sparsity", part, name))
            mask = (torch.rand(shape, generator=generator) < share).to(self._ranks.device)
            self._masked[f"{part}/{name}"] = _Masked(weight, mask, sharded=part == "tables")

    @property
    def measured(self) -> list[Tensor]:
        """None: it looks at the last batch's gradients alone."""
        return []

    def tensors(self) -> dict[str, Tensor]:
        """The masks, by key."""
        return {f"masks.{key}": masked.mask for key, masked in self._masked.items()}

    def densities(self) -> dict[str, float]:
        """Share of the masked weights that is kept, of each part and each matrix."""
        found = {}
        for part in ("dense", "tables"):
            masks = [each.mask for key, each in self._masked.items() if key.startswith(part)]
            if masks:
                found[part] = sum(int(m.sum()) for m in masks) / sum(m.numel() for m in masks)
        return found | {key: float(each.mask.float().mean()) for key, each in self._masked.items()}

    def observe(self) -> None:
        """Nothing: gradients are looked at when an update is due."""

    @torch.no_grad()
    def restrain(self) -> None:
        """Set what is masked to zero."""
        for masked in self._masked.values():
            weights, mask = masked.local(self._ranks)
            weights.mul_(mask)

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Drop the smallest weights of every matrix, and grow as many with the largest gradients."""
        share = drop_share(self._settings, step)
        for masked in self._masked.values():
            parameter, mask = masked.parameter, masked.mask
            gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            magnitude = masked.whole(parameter.abs(), self._ranks).flatten()
            slope = masked.whole(gradient.abs(), self._ranks).flatten()
            flat = mask.view(-1)
            before = flat.clone()
            count = min(int(share * int(before.sum())), int((~before).sum()))
            dropped = torch.where(before, magnitude, torch.inf).argsort(stable=True)[:count]
            grown = torch.where(before, -torch.inf, slope).argsort(descending=True, stable=True)[:count]
            flat[dropped], flat[grown] = False, True
        self.restrain()

    def skip(self) -> None:
        """Nothing: masks stay as long as the run."""


def _dense_path(tables: Tables) -> dict[str, tuple[nn.Parameter, torch.Size]]:
    """All tables with their whole shapes; raises ConfigError where one is on the fused path."""
    state, weights = tables.state(), tables.dense_weights()
    fused = {key.rpartition(".")[0] for key in state} - set(weights)
    if fused:
        raise ConfigError(
            f"train.sparsity.method dsl: table {min(fused)!r} is on the fused path, which shows no "
            "gradients to grow by; raise plan.dense_below, or choose method structured"
        )
    return {name: (weight, state[f"{name}.{WEIGHT}"].shape) for name, weight in weights.items()}
