"""What the options of every model have in common."""

from __future__ import annotations

from typing import Literal

from recsys.config import Section

Activation = Literal["relu", "dice"]


class ModelConfig(Section):
    """Base of a model's options: strict, frozen, every field documented once."""

    def table_dim(self, embedding_dim: int) -> int:
        """Width that the model's embedding tables get where ``plan.embedding_dim`` is asked for."""
        return embedding_dim
