"""What a model can reach on a synthetic log: the known logit, and the part of it that can be learned.

The *attainable* reference is the true logit with the effects of values seen fewer than 20 times in
train rows replaced by their prior mean; ``recsys.data.synth_effects`` says what is counted for each
part of the logit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.config import SplitSettings
from recsys.data.split import split_source
from recsys.data.synth import LOG, LOGIT, RECORD, TRUTH, Generator, SynthRecord, load_synth_record
from recsys.data.synth_draws import Rows
from recsys.data.synth_effects import Seen
from recsys.data.synth_random import Float
from recsys.data.synth_settings import CLICK
from recsys.errors import DataError
from recsys.evaluation.metrics import auc, logloss

_CHUNK_ROWS = 1 << 15
_TOLERANCE = 1e-3
_ROW = "__row__"


@dataclass(frozen=True)
class References:
    """AUC and logloss of the two references on the test rows."""

    known_auc: float
    known_logloss: float
    attainable_auc: float
    attainable_logloss: float
    rows: int
    """Test rows."""

    def by_name(self) -> dict[str, dict[str, float]]:
        """Metrics by reference, as the report takes them."""
        return {
            "attainable": {"auc": self.attainable_auc, "logloss": self.attainable_logloss},
            "known": {"auc": self.known_auc, "logloss": self.known_logloss},
        }


def synthetic_folder(files: Sequence[Path]) -> Path | None:
    """Folder of the synthetic log that these files are; None when they are something else."""
    if len(files) != 1 or Path(files[0]).name != LOG:
        return None
    folder = Path(files[0]).parent
    return folder if (folder / RECORD).exists() and (folder / TRUTH).exists() else None


def references(folder: str | Path, split: SplitSettings) -> References:
    """The references of a synthetic log on the test rows of a split.

    Draws the log anew in two passes of bounded memory, one to count values in train rows and one over
    the test rows. Raises DataError when the folder holds no synthetic log, when the log is not the one
    that its settings make, or when the test rows are none or of one class.
    """
    folder = Path(folder)
    record = load_synth_record(folder)
    train, test = _parts(folder, record, split)
    generator = Generator(record.settings)
    effects = generator.effects
    seen = Seen()
    for start, rows in _drawn(generator, train):
        seen.add(effects, rows, train[start : start + len(rows.index)])
    known, attainable = [], []
    for start, rows in _drawn(generator, test):
        chosen = test[start : start + len(rows.index)]
        components = effects.components(rows)
        known.append(effects.logit(components)[chosen])
        attainable.append(effects.logit(effects.attainable(rows, components, seen))[chosen])
    true_logit, learnable = np.concatenate(known), np.concatenate(attainable)
    stated = pl.read_parquet(folder / TRUTH, columns=[LOGIT])[LOGIT].to_numpy()[test]
    worst = float(np.abs(true_logit - stated).max())
    if worst > _TOLERANCE:
        raise DataError(
            f"{folder / TRUTH}: logits differ by up to {worst:.3g} from those that {RECORD} describes; "
            "write the log anew with 'recsys synth'"
        )
    clicked = pl.read_parquet(folder / LOG, columns=[CLICK])[CLICK].to_numpy()[test]
    return References(*_metrics(clicked, true_logit), *_metrics(clicked, learnable), rows=len(clicked))


def _metrics(clicked: NDArray[np.int8], logit: Float) -> tuple[float, float]:
    """AUC and logloss of logits."""
    area = auc(clicked, logit)
    if area is None:
        raise DataError(f"all {len(clicked)} test rows have {CLICK} = {clicked[0]}; AUC needs both classes")
    return area, logloss(clicked, logit, scores_are="logits")


def _parts(
    folder: Path, record: SynthRecord, split: SplitSettings
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Marks of the train and of the test rows, ``[rows of the log]`` each."""
    log = pl.scan_parquet(folder / LOG)
    rows = log.select(pl.len()).collect().item()
    if rows != record.rows:
        raise DataError(
            f"{folder / LOG}: holds {rows} rows, {RECORD} says {record.rows}; write the log anew"
        )
    parts = split_source(split, log.with_row_index(_ROW))
    marks = []
    for part in ("train", "test"):
        mark = np.zeros(record.rows, dtype=np.bool_)
        mark[parts.lazy(part).select(_ROW).collect()[_ROW].to_numpy()] = True
        marks.append(mark)
    return marks[0], marks[1]


def _drawn(generator: Generator, wanted: NDArray[np.bool_]) -> Iterator[tuple[int, Rows]]:
    """Chunks of rows of which at least one is wanted, with the number of their first row."""
    for start in range(0, len(wanted), _CHUNK_ROWS):
        stop = min(len(wanted), start + _CHUNK_ROWS)
        if wanted[start:stop].any():
            yield start, generator.draws.rows(start, stop)
