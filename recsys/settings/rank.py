"""The block ``rank`` of a run file: which columns the stages that follow see."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from recsys.settings.section import Section
from recsys.settings.sizes import checked_size


class RankSettings(Section):
    """Feature ranking. At most one of ``keep``, ``keep_until_loss`` and ``bytes`` chooses columns."""

    keep: int | None = Field(default=None, ge=1)
    """Keep only this many best features for the stages that follow; default: all."""
    keep_until_loss: float | None = Field(default=None, ge=0, lt=1)
    """Keep the fewest features that lose at most this share of what all together tell about the label."""
    bytes: int | str | None = None
    """Keep the best features whose tables fit, e.g. ``8MB``: 64 bytes (16 float32) per value, and per
    numeric feature."""
    score: Literal["corrected", "mi", "adjusted", "outrank"] = "corrected"
    """What features are ranked by: mutual information with the label less what chance would show (and
    three deviations of that, so that luck earns no place), plain mutual information, adjusted (a share
    of the entropies), or the score of OutRank 0.97.5."""
    order: Literal[1, 2, 3] = 2
    """Columns looked at together at most; 1 leaves out redundancy and combinations."""
    combine: int = Field(default=0, ge=0)
    """How many of the best combinations ``prepare`` makes columns of."""
    given: tuple[str, ...] = ()
    """Columns that the model already has: they are kept, and the others are ranked by what they add."""
    sample: int = Field(default=262_144, ge=1_000)
    """Rows that everything but the single scores is counted on at most, spread evenly over the log."""
    report: bool = True
    """Whether ``report.html`` is written beside the tables."""

    @field_validator("bytes")
    @classmethod
    def _is_a_size(cls, value: int | str | None) -> int | str | None:
        return checked_size(value)

    @model_validator(mode="after")
    def _one_choice(self) -> Self:
        stated = [name for name in ("keep", "keep_until_loss", "bytes") if getattr(self, name) is not None]
        if len(stated) > 1:
            raise ValueError(f"{' and '.join(stated)} both choose columns; give one of them")
        for name in ("keep_until_loss", "combine", "given"):
            if self.order == 1 and getattr(self, name):
                raise ValueError(f"{name} needs columns to be looked at together; set order to 2")
        return self

    @property
    def selects(self) -> bool:
        """Whether some features may be left out."""
        return not (self.keep is None and self.keep_until_loss is None and self.bytes is None)
