"""The block ``tune`` of a run file: which settings a search may change, and how it goes about it."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from recsys.settings.section import Section

Choice = bool | int | float | str | tuple[int | float | str, ...] | None


class Dimension(Section):
    """What one setting may be: one of ``choices``, or anything from ``low`` to ``high``.

    The name of the block is the setting's dotted key: ``train.dense.lr``, ``model.dropout``,
    ``plan.embedding_dim``.
    """

    choices: tuple[Choice, ...] = ()
    """Values to choose from: numbers, words, true or false, or lists such as ``[400, 400]``."""
    low: int | float | None = None
    """Smallest value of a range."""
    high: int | float | None = None
    """Largest value of a range; it belongs to it."""
    log: bool = False
    """Draw on a logarithmic scale, as suits learning rates and regularisers."""
    step: int | float | None = Field(default=None, gt=0)
    """Distance of the values of a range; default: 1 for integers, none for other numbers."""

    @model_validator(mode="after")
    def _is_one_of_both(self) -> Self:
        if self.choices:
            if self.low is not None or self.high is not None or self.log or self.step is not None:
                raise ValueError("choices leave no room for low, high, log or step")
            if any(value in self.choices[:at] for at, value in enumerate(self.choices)):
                raise ValueError("the same choice stands twice")
            return self
        if self.low is None or self.high is None:
            raise ValueError("expected choices, or low and high")
        if self.low >= self.high:
            raise ValueError(f"low must be below high, found {self.low} and {self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"a logarithmic range begins above 0, found low {self.low}")
        if self.log and self.step is not None:
            raise ValueError("a logarithmic range has no step")
        return self


class TuneSettings(Section):
    """The search of ``recsys tune``; selection is by ``train.monitor`` on validation rows alone."""

    trials: int = Field(default=20, ge=1)
    """Settings to try. Raise it, or say ``--trials``, and a finished search goes on."""
    space: dict[str, Dimension] = Field(default_factory=dict)
    """What may change, by dotted key; keys of ``rank``, ``prepare``, ``plan``, ``model`` and ``train``."""
    sampler: Literal["tpe", "random"] = "tpe"
    """How settings are drawn: by a tree-structured Parzen estimator, which learns from the trials before,
    or at random. A space with no more combinations than trials is tried whole instead."""
    seed: int = Field(default=2024, ge=0)
    """Seed of the sampler. Every trial trains with ``train.seed``."""
    startup: int = Field(default=5, ge=1)
    """Trials that are drawn at random and never pruned, before both learn from them."""
    pruner: Literal["median", "none"] = "median"
    """``median`` ends a trial whose best value so far is below the median of what earlier trials had
    reached by that evaluation."""
    warmup: int = Field(default=1, ge=0)
    """Evaluations that every trial gets before it may be pruned."""
