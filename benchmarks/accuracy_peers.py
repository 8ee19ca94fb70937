"""FuxiCTR with the settings that BARS publishes, on the same rows, as cells beside ours.

Rows are encoded by our own ``prepare`` (values of the train rows, one id for all others), as FuxiCTR
would with ``min_categr_count: 1``. Its environment: ``make bench-envs``.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from accuracy_settings import ROOT, data_of, run_chain
from cells import cell

from recsys.data.dataset import Dataset

PYTHON = ROOT / "benchmarks" / ".envs" / "fuxictr" / "bin" / "python"
SCRIPT = Path(__file__).parent / "peers" / "fuxictr_accuracy.py"
VERSION = 1
"""Raised when the script changes what comes out."""
LONGEST_LIST = 10
"""Elements of a list without order that FuxiCTR is given."""
MEAN = "layers.MaskedAveragePooling()"


@dataclass(frozen=True)
class Peer:
    """One of FuxiCTR's models on the rows of one of our run files."""

    task: str
    model: str
    run_file: str
    data: str
    dim: int
    l2: float
    dropout: float
    lr: float = 1e-3
    batch_size: int = 4096
    seeds: int = 1
    grouped: bool = False
    """Whether GAUC is measured, and chooses the epoch."""

    @property
    def key(self) -> str:
        """Name of its figures."""
        return f"{self.task}_fuxictr_{self.model}"


PEERS = (
    Peer("frappe", "finalmlp", "pipelines/frappe_x1_finalmlp.yaml", "frappe_x1", 10, 0.05, 0.4, seeds=3),
    Peer("frappe", "autoint_plus", "pipelines/frappe_x1.yaml", "frappe_x1", 10, 0.1, 0.1),
    Peer("ml1m_ids", "dcnv2", "pipelines/ml1m_ids.yaml", "ml1m_ctr", 16, 0.01, 0.1, seeds=3),
    Peer(
        "beauty", "din", "pipelines/amazon_beauty_din.yaml", "made:amazon_beauty", 64, 0.005, 0.1,
        lr=5e-4, batch_size=1024, grouped=True,
    ),
)  # fmt: skip


def peer_figures(peer: Peer, seed: int, root: Path, *, only_kept: bool = False) -> dict[str, Any] | None:
    """The cell of a peer's seed: validation and test metrics; None where it must be kept and is not."""
    settings = {"version": VERSION, **asdict(peer), "seed": seed}
    del settings["seeds"], settings["task"]
    if not only_kept and not PYTHON.exists():
        sys.exit("FuxiCTR's environment is missing; make it with 'make bench-envs'")
    return cell("accuracy", settings, lambda: _trained(peer, seed, root), only_kept=only_kept)


def _trained(peer: Peer, seed: int, root: Path) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as work:
        run_chain(peer.run_file, data_of(peer.data, root), Path(work) / "ours", "prepare")
        dataset = Dataset.load(Path(work) / "ours" / "dataset")
        spec = Path(work) / "spec.json"
        spec.write_text(json.dumps(_spec(peer, dataset) | {"seed": seed, "work": work}))
        command = [str(PYTHON), str(SCRIPT), str(spec)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{peer.key}, seed {seed}: {done.stderr[-2000:]}")
        found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
        return found


def _spec(peer: Peer, dataset: Dataset) -> dict[str, Any]:
    """What FuxiCTR needs to know of a peer and a dataset."""
    categorical, sequence = {}, {}
    for feature in dataset.features:
        if feature.vocabulary is None:
            raise ValueError(f"{peer.key}: {feature.name} is a number, these models take ids")
        size = dataset.manifest.vocabularies[feature.vocabulary].size
        if feature.kind == "categorical":
            categorical[feature.name] = size
        else:
            shares = feature.vocabulary if feature.vocabulary in categorical else None
            longest = feature.max_length or LONGEST_LIST
            sequence[feature.name] = (size, longest, shares, None if feature.kind == "sequence" else MEAN)
    parts = {part: str(dataset.folder / f"{part}.parquet") for part in ("train", "valid", "test")}
    return asdict(peer) | parts | {"categorical": categorical, "sequence": sequence}
