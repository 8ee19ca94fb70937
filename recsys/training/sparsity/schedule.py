"""When what is kept changes, how much of it, and how large it may be."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from recsys.errors import ConfigError
from recsys.settings.sparsity import SparsitySettings

DROP = 0.3
"""Share of what is kept that the first update replaces, where settings say none (Evci et al. 2020)."""
_LEAST_SHARE = 0.005
"""Share that the published method still replaces at its last update."""


def is_due(settings: SparsitySettings, step: int) -> bool:
    """Whether what is kept changes after this many steps."""
    return step % settings.interval == 0 and 0 < step <= settings.last_step


def drop_share(settings: SparsitySettings, step: int) -> float:
    """Share of what is kept that the update after ``step`` replaces: a cosine (Evci et al. 2020).

    >>> from recsys.settings.sparsity import SparsitySettings
    >>> settings = SparsitySettings(budget=0.2, interval=10, updates=10)
    >>> [round(drop_share(settings, step), 3) for step in (0, 50, 100)]
    [0.3, 0.15, 0.0]
    """
    least = _LEAST_SHARE if settings.method == "dsl" else 0.0
    share = min(step / settings.last_step, 1.0)
    drop = DROP if settings.drop is None else settings.drop
    return least + (drop - least) * (1 + math.cos(math.pi * share)) / 2


def dense_density(settings: SparsitySettings, step: int) -> float:
    """Share of the dense part's weights after ``step``: falls from ``start`` by a cube (Zhu, Gupta 2017).

    >>> from recsys.settings.sparsity import SparsitySettings
    >>> settings = SparsitySettings(budget=0.2, interval=10, updates=10)
    >>> [round(dense_density(settings, step), 2) for step in (0, 50, 100, 200)]
    [1.0, 0.3, 0.2, 0.2]
    """
    return falling(settings, step, first_density(settings), settings.dense_density)


def first_density(settings: SparsitySettings) -> float:
    """Share of the dense part that training starts with; all of it where that has been left open."""
    return 1.0 if settings.start is None else settings.start


def falling(settings: SparsitySettings, step: int, first: float, last: float) -> float:
    """What falls from ``first`` to ``last`` by a cube until the last update, as it is after ``step``."""
    left = 1 - min(step / settings.last_step, 1.0)
    return last + (first - last) * left**3


def require_time(settings: SparsitySettings, steps: int) -> None:
    """Raise ConfigError, before training, where a run of at most ``steps`` ends before the last update."""
    if settings.last_step >= steps:
        raise ConfigError(
            f"train.sparsity: {settings.updates} updates every {settings.interval} steps end at step "
            f"{settings.last_step}, the run at step {steps} at the latest; lower interval or updates, or "
            "raise epochs or max_steps"
        )


def shares(
    weights: Sequence[float], size: Callable[[Sequence[float]], float], target: float
) -> list[float]:
    """Shares ``min(1, e * weight)`` of each part, with the largest e whose ``size`` is within the target.

    >>> found = shares([1.0, 4.0], lambda kept: 10 * kept[0] + 10 * kept[1], 14.0)
    >>> [round(share, 6) for share in found]
    [0.4, 1.0]
    """
    low, high = 0.0, 1 / min(weights)
    for _ in range(60):
        middle = (low + high) / 2
        fits = size([min(1.0, middle * weight) for weight in weights]) <= target
        low, high = (middle, high) if fits else (low, middle)
    return [min(1.0, low * weight) for weight in weights]
