"""The block ``train.gates`` of a run file: a learnable gate per feature value (OptFS, WWW 2023)."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from recsys.settings.section import Section


class GateSettings(Section):
    """Feature values that are not worth their vectors are found and leave (OptFS)."""

    epochs: int = Field(default=0, ge=0)
    """Passes over the train rows that the search takes, before ``train.epochs`` of training with the values
    that it keeps; 0: no gates."""
    l1: float = Field(default=1e-6, ge=0)
    """Adds l1·Σ σ(τθ) over all values to the search's loss: the larger, the more values are closed. It
    scales with the inverse of the number of values: 1e-6 for thousands, 1e-9 for millions."""
    final_temp: float = Field(default=1000.0, ge=1, le=1e6)
    """τ in the search's last epoch. It begins at 1 and grows by the same factor each epoch; a search of one
    epoch stays at 1."""
    rewind_epoch: int | None = Field(default=0, ge=0)
    """Epoch of the search whose first weights training begins from again; 0: those before any training,
    null: go on with the weights that the search ends with."""
    lr: float = Field(default=1e-3, gt=0)
    """Learning rate of the gates, by Adam."""
    init: float = Field(default=0.5, gt=0, le=100)
    """θ that every gate begins with."""
    buckets: int = Field(default=1 << 20, ge=3)
    """Gates at most of a hashed vocabulary; where it has more values, they share gates by a hash."""

    @model_validator(mode="after")
    def _rewinds_into_the_search(self) -> Self:
        if self.epochs and self.rewind_epoch is not None and self.rewind_epoch >= self.epochs:
            raise ValueError(f"rewind_epoch must be below the {self.epochs} epochs of the search")
        return self
