"""The block ``train.sparsity`` of a run file: how small the trained model is to be, and the way there."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from recsys.settings.section import Section


class SparsitySettings(Section):
    """Dynamic sparse learning: what is worth least is dropped, what promises most is grown."""

    budget: float = Field(gt=0, le=1)
    """Share of all weights that the trained model keeps."""
    method: Literal["structured", "dsl"] = "structured"
    """``structured``: hidden units and attention heads, rows and pieces of rows, so that memory, bundle and
    time shrink. ``dsl``: single weights by magnitude and gradient, as published (Wang et al. 2024); for
    study, as it saves neither memory nor time, and no byte of the bundle."""
    dense: float | None = Field(default=None, gt=0, le=1)
    """Share of the dense part's weights that is kept; 1 leaves it alone. Default: what ``tables`` leaves of
    the budget; without both, the budget moves to where dropping would cost most (``allocation: worth``, but
    for retrieval models), or both parts keep as many weights, or all they have."""
    tables: float | None = Field(default=None, gt=0, le=1)
    """Share of the weights of tables with a row per value that is kept; 1 leaves them alone, and tables
    whose rows values share always stay. Default: likewise."""
    pieces: int = Field(default=1, ge=1, le=16)
    """Pieces of equal width that a value's vector is kept or dropped in; 1: whole vectors. More pieces give
    values widths of their own, and cost a pointer of four bytes each."""
    allocation: Literal["worth", "erk", "uniform"] = "worth"
    """How the dense part and the tables share the budget, layers that of the dense part, and vocabularies
    that of the tables. ``worth``: it moves to where dropping would cost most. ``erk`` (Erdős-Rényi-Kernel)
    and ``uniform``: both parts keep equally many weights, small layers and vocabularies a larger share of
    them, or all the same."""
    start: float | None = Field(default=None, gt=0, le=1)
    """Share of the dense part that training starts with; it falls to ``dense`` until the last update.
    Default: twice as many weights as it may keep, or all there are."""
    interval: int = Field(default=100, ge=1)
    """Steps between updates of what is kept."""
    updates: int = Field(default=10, ge=1)
    """Updates; after the last one layers are cut to what they keep, and only weights learn."""
    drop: float | None = Field(default=None, ge=0, lt=1)
    """Share of what is kept that the first update replaces; it falls to 0 along a cosine. Default: 0.3; 0
    for retrieval models, whose vectors are worth nothing while one side begins anew."""

    @model_validator(mode="after")
    def _drops_something(self) -> Self:
        if self.dense_density == 1 and self.tables_density == 1:
            raise ValueError("this keeps everything; leave sparsity out")
        if self.start is not None and self.dense is not None and self.start < self.dense:
            raise ValueError(
                f"start {self.start:g} is below the share of the dense part to keep, {self.dense:g}"
            )
        return self

    @property
    def splits(self) -> bool:
        """Whether the budget moves between the dense part and the tables."""
        open_ = self.dense is None and self.tables is None
        return open_ and self.method == "structured" and self.allocation == "worth"

    @property
    def dense_density(self) -> float:
        """Share of the dense part's weights to keep; the budget where it has not been shared out."""
        return self.budget if self.dense is None else self.dense

    @property
    def tables_density(self) -> float:
        """Share of the tables' weights to keep; the budget where it has not been shared out."""
        return self.budget if self.tables is None else self.tables

    @property
    def last_step(self) -> int:
        """Step after which what is kept no longer changes."""
        return self.interval * self.updates
