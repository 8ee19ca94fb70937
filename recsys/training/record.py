"""What a run writes down while it learns: ``metrics.jsonl`` and TensorBoard events."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

if TYPE_CHECKING:
    from torch import Tensor

METRICS_FILE = "metrics.jsonl"


@dataclass
class Meter:
    """What is summed up from one line of the record to the next."""

    loss: Tensor | float = 0.0
    """Stays on the device until it is logged, so that a step does not wait for it."""
    losses: list[tuple[int, Tensor]] = field(default_factory=list)
    """Global batch and loss of each step, to find the one that went wrong."""
    steps: int = 0
    rows: int = 0
    waited: float = 0.0
    started: float = field(default_factory=time.perf_counter)

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.started


class Recorder:
    """Appends metrics; opened at a step, it first drops what was written after that step.

    So a resumed run's record is the record of one run without the interruption.
    """

    def __init__(self, folder: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / METRICS_FILE
        kept = [line for line in read_lines(folder) if line["step"] <= step]
        self._path.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
        self._file = self._path.open("a", encoding="utf-8")
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Write one line; numbers also go to TensorBoard."""
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        self._file.flush()
        for name, value in values.items():
            if isinstance(value, float | int) and not isinstance(value, bool):
                self._board.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush and close both records."""
        self._file.close()
        self._board.close()


def read_lines(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's ``metrics.jsonl``; a last line cut short by a crash is left out."""
    path = folder / METRICS_FILE
    if not path.exists():
        return []
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            break
    return lines


def read_metrics(folder: Path) -> pl.DataFrame:
    """A run's record as a frame: ``step`` and one column per metric, null where not written."""
    return (
        pl.from_dicts(read_lines(folder), infer_schema_length=None)
        if read_lines(folder)
        else pl.DataFrame()
    )
