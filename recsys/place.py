"""Where a run's inputs and outputs lie."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from recsys.config import FilesSplit, RunConfig

if TYPE_CHECKING:
    from recsys.config import SplitSettings
    from recsys.data.dataset import Dataset
    from recsys.data.split import Parts
    from recsys.stage import Fingerprint
    from recsys.training.loop import Watch

FOLDERS = {
    "infer": "schema",
    "rank": "ranking",
    "prepare": "dataset",
    "plan": "plan",
    "train": "run",
    "evaluate": "evaluation",
    "export": "bundle",
    "index": "index",
}
"""Stage → its folder; in the order of the chain."""
SCHEMA_FILE, PLAN_FILE, RUN_FILE = "schema.yaml", "plan.json", "run.json"


def run_folder_of(given: object) -> Path | None:
    """The run folder that a path is or, being the outputs of a run file, holds; None for all else."""
    if isinstance(given, str | Path):
        for folder in (Path(given), Path(given) / FOLDERS["train"]):
            if (folder / RUN_FILE).is_file():
                return folder
    return None


@dataclass(frozen=True)
class Place:
    """A run file and the folder of its outputs."""

    config: RunConfig
    resume: bool | None = None
    """Whether training goes on where it stood; None: where an interrupted one matches."""
    apart: Mapping[str, Path] = field(default_factory=dict)
    """Stages whose outputs lie elsewhere, with their folders: those of another seed, or of a trial."""
    watch: Watch | None = None
    """Told of every evaluation on validation rows; may end the training."""

    @property
    def root(self) -> Path:
        """Folder of all outputs."""
        return self.config.folder

    def folder(self, stage: str) -> Path:
        """Folder of one stage's outputs."""
        return self.apart.get(stage, self.root / FOLDERS[stage])

    @property
    def schema(self) -> Path:
        return self.folder("infer") / SCHEMA_FILE

    @property
    def dataset(self) -> Dataset:
        from recsys.data.dataset import Dataset

        return Dataset.load(self.folder("prepare"))

    @property
    def data(self) -> Path | None:
        """Path of the log; None where the split names three files."""
        if self.config.data.path is None:
            return None
        return _under(self.config.data.root, self.config.data.path)

    @property
    def split(self) -> SplitSettings:
        """The split rule, its paths resolved."""
        split = self.config.split
        if not isinstance(split, FilesSplit):
            return split
        root = self.config.data.root
        stated = {part: getattr(split, part) for part in ("train", "valid", "test")}
        paths = {part: str(_under(root, path)) for part, path in stated.items() if isinstance(path, str)}
        return split.model_copy(update=paths)

    @cached_property
    def parts(self) -> Parts:
        """The log, split; reads footers only."""
        from recsys.data.split import split_source

        return split_source(self.split, self.data)

    @cached_property
    def log(self) -> dict[str, Fingerprint]:
        """Fingerprints of the log's files, by absolute path."""
        return {str(Path(path).resolve()): found for path, found in self.parts.fingerprints().items()}

    def ranks_measured(self) -> list[int]:
        """Ranks at which a retrieval model is measured: the stated ones, and that of validation."""
        return sorted({*self.config.evaluate.k, self.config.train.monitor_k})

    def kept(self) -> tuple[str, ...] | None:
        """Features that ranking keeps for the stages that follow; None: all."""
        if not self.config.rank.selects:
            return None
        path = self.folder("rank") / "ranking.json"
        return tuple(json.loads(path.read_text(encoding="utf-8"))["kept"])

    def combinations(self) -> list[list[str]]:
        """Columns that become a further feature together, as ranking found."""
        if not self.config.rank.combine:
            return []
        path = self.folder("rank") / "ranking.json"
        found: list[list[str]] = json.loads(path.read_text(encoding="utf-8"))["combinations"]
        return found


def _under(root: Path, path: str) -> Path:
    return root / Path(path).expanduser()
