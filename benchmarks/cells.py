"""Cells of a long study: each is computed once and kept by the hash of its settings.

A cell's settings must say all that decides its figures: the run file as it is used, the seed, the data's
name, and a ``version`` that its script raises when the code under it changes what comes out.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

CELLS = Path(__file__).resolve().parent / ".cache" / "cells"


def cell(
    study: str,
    settings: Mapping[str, Any],
    compute: Callable[[], Mapping[str, Any]],
    *,
    only_kept: bool = False,
    root: Path = CELLS,
) -> dict[str, Any] | None:
    """Figures of one cell: those kept from an earlier run, else computed now and kept.

    ``settings`` and figures are what JSON can hold. With ``only_kept`` nothing is computed, and a cell that
    is not there is None. ``seconds``, the wall-clock time of the computation, is added to the figures.
    """
    path = root / study / f"{key_of(settings)}.json"
    if path.exists():
        kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["figures"]
        return kept
    if only_kept:
        return None
    started = time.perf_counter()
    figures = {**compute(), "seconds": round(time.perf_counter() - started, 1)}
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(".partial")
    aside.write_text(
        json.dumps({"settings": settings, "figures": figures}, indent=2) + "\n", encoding="utf-8"
    )
    aside.replace(path)
    return figures


def key_of(settings: Mapping[str, Any]) -> str:
    """The hash that a cell of these settings is kept by."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
