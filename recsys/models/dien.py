"""DIEN: DIN, and beside it how the interests of a history evolve towards the candidate."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field

from recsys.models.din import DIN, DINConfig
from recsys.models.inputs import Layout


class DIENConfig(DINConfig):
    """Options of ``dien``: those of ``din``, and ``interest``."""

    pooling: Literal["attention"] = "attention"
    """Without attention there is nothing to evolve towards."""
    interest: int = Field(default=64, ge=1)
    """Width of the states of interest."""


class DIEN(DIN):
    """Deep interest evolution network (Zhou et al. 2019), beside DIN's pooling rather than in its place.

    Which is measured to be better, as is going without the paper's auxiliary loss (docs/accuracy.md).
    A step costs two to three times what DIN's does: histories are read event after event.

    Args:
        config: options.
        layout: shape of the inputs.
        generator: first values are drawn from it.
    """

    Config = DIENConfig

    def __init__(self, config: DIENConfig, layout: Layout, *, generator: torch.Generator) -> None:
        super().__init__(config, layout, generator=generator, interest=config.interest)
