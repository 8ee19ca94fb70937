"""What the options of every model have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from recsys.config import Section

Activation = Literal["relu", "dice"]
Widths = tuple[Annotated[int, Field(ge=1)], ...]
"""Width of each layer."""
Perceptrons = Mapping[str, str | None]
"""Perceptrons of a model that can lose hidden units: name of the module → that of the matrix whose last
columns read it; None where the last layer has to keep its width."""


class ModelConfig(Section):
    """Base of a model's options: strict, frozen, every field documented once."""

    def table_dim(self, embedding_dim: int) -> int:
        """Width that the model's embedding tables get where ``plan.embedding_dim`` is asked for."""
        return embedding_dim
