"""Loops compiled by numba."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """Compile on first use; kept on disk where some cache folder can be written."""
    return _compiled(function)


def compiled_fast(function: Function) -> Function:
    """The same, where sums may be reordered and infinities need no care: loops become vector code."""
    return _compiled(function, fastmath=True, error_model="numpy")


def _compiled(function: Function, **options: Any) -> Function:
    try:
        return cast(Function, numba.njit(cache=True, nogil=True, **options)(function))
    except RuntimeError:  # no cache folder can be written
        return cast(Function, numba.njit(nogil=True, **options)(function))
