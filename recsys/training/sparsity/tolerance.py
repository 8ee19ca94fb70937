"""How much of what a hidden unit gives the other units of its layer cannot stand in for.

Without a unit, the layer that reads it makes up for what the others tell of it. What stays lost is the
unit's *tolerance*: 1 - R², the share of its activations' variance that no linear combination of the others
gives. A row of a table has no others: two values of a column never come together.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

_RIDGE = 1e-4
"""Added to variances of 1, so that units which give the same can be told of."""


class Watch:
    """Adds products of a layer's activations to a sum while it is asked to.

    Args:
        outputs: gives the activations ``[..., units]``, before any mask.
        moments: the sum ``[units + 1, units + 1]``; the last unit is a constant 1.
        due: whether the step's activations are to be added.
    """

    def __init__(self, outputs: nn.Module, moments: Tensor, due: Callable[[], bool]) -> None:
        self._moments, self._due = moments, due
        self.stop = outputs.register_forward_hook(self._add, prepend=True).remove
        """Watch no longer."""

    @torch.no_grad()
    def _add(self, module: nn.Module, inputs: Any, activations: Tensor) -> None:
        if module.training and self._due():
            every = activations.reshape(-1, activations.shape[-1]).double()
            every = torch.cat([every, every.new_ones(len(every), 1)], 1)
            self._moments.addmm_(every.t(), every)


def tolerances(moments: Tensor, held: Tensor) -> Tensor:
    """1 - R² of every unit ``[units]``, in (0, 1], by the others of those that are held.

    A unit whose activations did not vary has 1, as all have where too few rows were looked at.

    Args:
        moments: sums of products ``[units + 1, units + 1]``, as ``Watch`` adds them.
        held: bool ``[units]``.
    """
    count = moments[-1, -1].clamp(min=1.0)
    mean = moments[:-1, -1] / count
    covariance = moments[:-1, :-1] / count - mean.outer(mean)
    deviation = covariance.diagonal().clamp(min=0.0).sqrt()
    varies = deviation > 1e-6
    correlation = covariance / deviation.clamp(min=1e-6).outer(deviation.clamp(min=1e-6))
    others = (held & varies).nonzero().flatten()
    if count < 2 * len(others):
        return torch.ones_like(held, dtype=torch.float32)
    with_others = correlation[:, others]
    ridge = _RIDGE * torch.eye(len(others), dtype=correlation.dtype, device=held.device)
    inverse = torch.linalg.inv(with_others[others] + ridge)
    left = 1 - ((with_others @ inverse) * with_others).sum(1)
    left[others] = 1 / inverse.diagonal() - _RIDGE
    left = left * count / (count - len(others)).clamp(min=1.0)  # a fit explains noise, too
    return torch.where(varies, left.clamp(_RIDGE, 1.0), 1.0).float()
