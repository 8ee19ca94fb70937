"""What is trained in the accuracy study: run files, what is changed in them, and their logs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
from cells import CELLS

from recsys.data.synth import synth

ROOT = Path(__file__).resolve().parent.parent
LOGS = CELLS.parent / "logs"
VERSION = 1
"""Raised when what is trained changes other than by its settings."""
PARTS = ("train", "valid", "test")


@dataclass(frozen=True)
class Setting:
    """A run file, and what is changed in it."""

    task: str
    name: str
    run_file: str
    data: str
    """Folder under ``--data``; ``synth:NAME`` for a log of ``data/synth_NAME.yaml``; ``made:NAME`` for
    one of ``MADE``."""
    changes: tuple[str, ...] = ()
    """``KEY=VALUE``, as ``recsys run --set`` takes them."""
    seeds: int = 5

    @property
    def key(self) -> str:
        """Name of its figures."""
        return f"{self.task}_{self.name}"

    def cell_settings(self, seed: int) -> dict[str, Any]:
        """All that decides the cell's figures."""
        text = (ROOT / self.run_file).read_text(encoding="utf-8")
        kind, _, name = self.data.rpartition(":")
        log = (ROOT / f"data/synth_{name}.yaml").read_text(encoding="utf-8") if kind == "synth" else name
        settings = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
        return {
            "version": VERSION,
            "run_file": settings,
            "data": log,
            "changes": list(self.changes),
            "seed": seed,
        }


DEMO = Setting("demo", "din", "pipelines/demo.yaml", "synth:demo", seeds=1)
FRAPPE, ML1M, BEAUTY = "frappe_x1", "ml1m_ctr", "made:amazon_beauty"
SMALL, LARGE = "synth:small", "synth:large"
LR = ("model={name: lr}", "train.tables.l2=0.000006")
FM = ("model={name: fm}", "train.tables.l2=0.00005")
LR_LARGE, FM_LARGE = LR[:1], FM[:1]
SHARP = ("train.plateau={factor: 0.1, stop_after: 2}",)
LAST = ("train.average=null",)
SETTINGS = (
    Setting("frappe", "autoint_plus", "pipelines/frappe_x1.yaml", FRAPPE),
    Setting("frappe", "autoint_plus_last", "pipelines/frappe_x1.yaml", FRAPPE, LAST),
    Setting("frappe", "finalmlp", "pipelines/frappe_x1_finalmlp.yaml", FRAPPE),
    Setting("frappe", "finalmlp_last", "pipelines/frappe_x1_finalmlp.yaml", FRAPPE, LAST, seeds=3),
    Setting("frappe", "finalmlp_sharp", "pipelines/frappe_x1_finalmlp.yaml", FRAPPE, SHARP, seeds=3),
    Setting("ml1m_ids", "dcnv2", "pipelines/ml1m_ids.yaml", ML1M, seeds=3),
    Setting(
        "ml1m_attributes", "autoint_plus", "pipelines/ml1m_attributes.yaml", "made:ml1m_attributes", seeds=3
    ),
    Setting(
        "ml1m_no_position", "autoint_plus", "pipelines/ml1m_attributes.yaml", "made:ml1m_attributes",
        ("data.columns.position.roles=[]",), seeds=3,
    ),
    Setting("beauty", "din", "pipelines/amazon_beauty_din.yaml", BEAUTY),
    Setting("beauty", "mean", "pipelines/amazon_beauty_din.yaml", BEAUTY, ("model.pooling=mean",)),
    Setting("beauty", "dien", "pipelines/amazon_beauty_din.yaml", BEAUTY, ("model.name=dien",), seeds=3),
    Setting("synth_small", "din", "pipelines/synth_small.yaml", SMALL, seeds=3),
    Setting("synth_small", "lr", "pipelines/synth_small.yaml", SMALL, LR, seeds=3),
    Setting("synth_small", "fm", "pipelines/synth_small.yaml", SMALL, FM, seeds=3),
    Setting("synth_large", "din", "pipelines/synth_large.yaml", LARGE, seeds=3),
    Setting("synth_large", "lr", "pipelines/synth_large.yaml", LARGE, LR_LARGE, seeds=3),
    Setting("synth_large", "fm", "pipelines/synth_large.yaml", LARGE, FM_LARGE, seeds=3),
)  # fmt: skip


def run_chain(run_file: str, data: Path, output: Path, until: str, changes: Sequence[str] = ()) -> None:
    """``recsys run`` in a process of its own, by this repository's code, whatever is installed."""
    command = [sys.executable, "-m", "recsys", "run", str(ROOT / run_file), "--data", str(data)]
    command += ["--output", str(output), "--until", until]
    for change in changes:
        command += ["--set", change]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise RuntimeError(f"{run_file} with {list(changes)}: {done.stderr[-2000:]}")


def data_of(data: str, root: Path) -> Path:
    """Folder of a log as settings name it; a made one is written where it isn't there."""
    kind, _, name = data.rpartition(":")
    if not kind:
        return root / name
    folder = LOGS / name
    if not folder.exists():
        aside = folder.with_name(f"{name}.partial")
        aside.mkdir(parents=True, exist_ok=True)
        if kind == "synth":
            write_synthetic(name, aside)
        else:
            MADE[name](root, aside)
        aside.rename(folder)
    return folder


def write_synthetic(name: str, folder: Path) -> None:
    """Write the log of ``data/synth_NAME.yaml``."""
    source = ROOT / f"data/synth_{name}.yaml"
    synth(source, folder)


def _ml1m_attributes(root: Path, folder: Path) -> None:
    """MovieLens-1M with ``position`` scaled within the user: 0 for the first rating, 1 for the last."""
    parts = {part: pl.read_parquet(root / ML1M / f"{part}.parquet") for part in PARTS}
    last = pl.concat(parts.values()).group_by("user_id").agg(pl.col("position").max().clip(1).alias("last"))
    for part, rows in parts.items():
        joined = rows.join(last, on="user_id", how="left", maintain_order="left")
        scaled = joined.with_columns(pl.col("position") / pl.col("last")).drop("last")
        scaled.write_parquet(folder / f"{part}.parquet")


def _amazon_beauty(root: Path, folder: Path) -> None:
    """DIN's protocol with category and brand, of the candidate and of every event of the history."""
    beauty = root / "amazon_beauty"
    brand = pl.col("brand").fill_null(0)  # of no brand
    items = pl.read_parquet(beauty / "items.parquet").select("item_id", "category", brand)
    event = items.rename({name: f"history_{name}" for name in ("category", "brand")})
    for part in PARTS:
        rows = pl.read_parquet(beauty / "din" / f"{part}.parquet").with_row_index("row")
        events = rows.select("row", "history").explode("history")
        known = events.join(event, left_on="history", right_on="item_id", maintain_order="left")
        lists = known.group_by("row", maintain_order=True).agg("history_category", "history_brand")
        whole = rows.join(items, on="item_id", maintain_order="left")
        whole = whole.join(lists, on="row", maintain_order="left").drop("row")
        if len(whole) != len(rows):
            raise ValueError(f"{beauty}: {part}.parquet holds items that items.parquet does not describe")
        whole.write_parquet(folder / f"{part}.parquet")


MADE: dict[str, Callable[[Path, Path], None]] = {
    "ml1m_attributes": _ml1m_attributes,
    "amazon_beauty": _amazon_beauty,
}
