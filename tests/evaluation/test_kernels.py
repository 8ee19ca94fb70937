"""The compiled loops: where no cache folder can be written, and many groups in one bucket."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import pytest

from recsys.evaluation import gauc
from recsys.evaluation.kernels import compiled


def test_compiles_without_a_folder_for_its_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    original = numba.njit

    def without_cache(*arguments: Any, cache: bool = False, **options: Any) -> Callable[..., Any]:
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return original(*arguments, **options)  # type: ignore[no-any-return]

    monkeypatch.setattr(numba, "njit", without_cache)

    def twice(number: int) -> int:
        return 2 * number

    assert compiled(twice)(21) == 42


def test_groups_are_told_apart_when_every_row_is_its_own_group() -> None:
    group = np.arange(300_000) * 2**44
    label = np.arange(300_000) % 2
    result = gauc(label, np.linspace(0, 1, 300_000), group)
    assert (result.groups, result.groups_used, result.value) == (300_000, 0, None)
    paired = gauc(label, np.linspace(0, 1, 300_000), np.repeat(group[:150_000], 2))
    assert (paired.groups, paired.groups_used, paired.value) == (150_000, 150_000, 1.0)
