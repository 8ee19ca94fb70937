"""First values of parameters, each drawn from a generator that is handed in.

A module that owns parameters leaves them uninitialised and has a method
``initialise(generator)``; :func:`initialise` calls them in the order of ``module.modules()``.
"""

from __future__ import annotations

import hashlib
import math
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn


@runtime_checkable
class Initialised(Protocol):
    """A module that can draw its own parameters."""

    def initialise(self, generator: torch.Generator) -> None:
        """Set every parameter that the module itself owns."""


@torch.no_grad()
def initialise(module: nn.Module, generator: torch.Generator) -> None:
    """Set every parameter of a module on CPU, drawing from ``generator`` alone.

    Raises TypeError for a submodule that owns parameters and cannot initialise them.
    """
    for name, part in module.named_modules():
        if isinstance(part, Initialised):
            part.initialise(generator)
        elif isinstance(part, nn.LayerNorm):
            part.reset_parameters()
        elif any(True for _ in part.parameters(recurse=False)):
            raise TypeError(f"{name or type(module).__name__} owns parameters but cannot initialise them")


def xavier_normal(weight: Tensor, generator: torch.Generator) -> None:
    """Fill ``[outputs, inputs]`` with N(0, 2 / (inputs + outputs)) (Glorot and Bengio 2010, eq. 12)."""
    weight.normal_(0.0, math.sqrt(2.0 / sum(weight.shape)), generator=generator)


def named_seed(seed: int, *names: object) -> int:
    """A 63-bit seed that differs for every name, so that no two uses share random numbers."""
    text = "/".join(str(part) for part in (seed, *names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1
