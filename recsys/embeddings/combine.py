"""How the rows that a value looks up become its vector.

One function serves torch and numpy: it uses only what their arrays have in common.
"""

from __future__ import annotations

import functools
import operator
from typing import Any, Literal

Combine = Literal["concat", "multiply", "add"]
"""``concat``: side by side. ``multiply``, ``add``: element by element."""

_BY_ELEMENT: dict[str, Any] = {"multiply": operator.mul, "add": operator.add}


def width(combine: Combine, lookups: int, dim: int) -> int:
    """Length of the vector that ``lookups`` rows of ``dim`` numbers make."""
    return lookups * dim if combine == "concat" else dim


def combined(vectors: Any, combine: Combine) -> Any:
    """Vectors ``[n, W]`` of looked-up rows ``[n, K, D]``, a torch tensor or a numpy array.

    >>> import numpy as np
    >>> combined(np.array([[[1.0, 2.0], [3.0, 5.0]]]), "multiply")
    array([[ 3., 10.]])
    """
    count, lookups, dim = vectors.shape
    if combine == "concat":
        return vectors.reshape(count, lookups * dim)
    return functools.reduce(_BY_ELEMENT[combine], [vectors[:, lookup] for lookup in range(lookups)])


def initial_std(combine: Combine, lookups: int, std: float) -> float:
    """Standard deviation of first rows for vectors of deviation ``std``.

    A product of two small numbers is tiny, and so would its gradients be.
    """
    return float(std ** (1 / lookups)) if combine == "multiply" else std
