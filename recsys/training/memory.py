"""Memory that one training step frees and the next one asks for again."""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
"""Parameters of glibc's ``mallopt``."""


def keep_freed_memory() -> None:
    """Have the C library keep large blocks instead of giving each back to the system.

    Otherwise every step maps its activations anew and the kernel clears them page by page: up to a
    third of a DIN step on CPU. PyTorch's tuning guide swaps the allocator for the same reason. A
    process keeps its peak until it ends. Does nothing where there is no glibc.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
