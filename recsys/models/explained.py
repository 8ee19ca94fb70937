"""What a model can tell about its attention; ``recsys explain`` asks for no more than this."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor

from recsys.models.inputs import Inputs


@runtime_checkable
class MapsFields(Protocol):
    """A model in which fields attend to each other."""

    @property
    def field_names(self) -> tuple[str, ...]:
        """Names of the M fields, in the order of the maps."""

    def attention_maps(self, inputs: Inputs) -> Tensor:
        """``[B, layers, heads, M, M]``: how much the first field of a pair takes of the second; sums to 1
        over the second. Zeros for heads that a layer has lost."""


@runtime_checkable
class WeighsEvents(Protocol):
    """A model that weighs the events of histories."""

    histories: tuple[tuple[str, ...], ...]
    """Sequences by history; those of one history are aligned. Empty where nothing is weighed."""

    def event_weights(self, inputs: Inputs) -> list[Tensor]:
        """Weight of every event ``[B, H]``, 0 for padding, of each history."""
