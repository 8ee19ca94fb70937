"""What parts of a model are worth at their margins."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Prices(NamedTuple):
    """A part's weights, in the order in which they would leave or come."""

    weights: Tensor
    """That are kept at each place of the order ``[n]``."""
    worth: Tensor
    """Per weight, of what would be next ``[n]``."""
