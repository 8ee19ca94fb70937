"""Self-contained pages about a run."""

from recsys.report.run_report import StageTime, write_run_report

__all__ = ["StageTime", "write_run_report"]
