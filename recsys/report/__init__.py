"""Self-contained pages. The one about a run loads evaluation, so it is imported on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recsys.report.run_report import StageTime, write_run_report

__all__ = ["StageTime", "write_run_report"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'recsys.report' has no attribute {name!r}")
    from recsys.report import run_report

    return getattr(run_report, name)
