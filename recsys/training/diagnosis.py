"""Where learning went wrong: the batch's file and rows, its first bad column, the first bad weights."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl
import torch
from torch import Tensor, nn

from recsys.data.batches import Batches
from recsys.data.dataset import LABEL, WEIGHT
from recsys.embeddings.tables import Tables

HUGE = 1e6
"""Encoded numbers are clipped near 10; beyond this one spoils a model in a step."""
_SHOWN_ROWS = 5
_ROW = "__row__"


def describe_batch(batches: Batches, index: int) -> str:
    """Where global batch ``index`` lies: place in the epoch, file and rows; and its first bad column."""
    epoch, batch = divmod(index, batches.steps_per_epoch)
    rows = batches.rows_of(index)
    first, last = int(rows.min()), int(rows.max())
    if last - first + 1 == len(rows):
        named = f"rows {first} to {last}"
    else:
        few = ", ".join(str(row) for row in rows[:_SHOWN_ROWS].tolist())
        named = f"rows {few}, … ({len(rows)} in all, shuffled)"
    place = f"batch {batch} of epoch {epoch}: {named} of {batches.path}"
    return f"{place}; {_first_bad_column(batches, pl.Series(_ROW, rows))}"


def _first_bad_column(batches: Batches, rows: pl.Series) -> str:
    """The first column with an odd value in these rows, or that there is none."""
    frame = pl.scan_parquet(batches.path, glob=False).with_row_index(_ROW)
    floats = [name for name, dtype in frame.collect_schema().items() if dtype.is_float()]
    chosen = frame.select(_ROW, *floats).filter(pl.col(_ROW).cast(pl.Int64).is_in(rows.implode()))
    found = chosen.collect(engine="streaming").sort(_ROW)
    for name in floats:
        bad = found.filter(_is_bad(name))
        if len(bad):
            return (
                f"column {name!r} holds {bad[name][0]} in row {bad[_ROW][0]}, the first of {len(bad)}: "
                "mend it in the log and redo 'recsys prepare'"
            )
    return "its columns hold no odd number, so learning itself ran away"


def _is_bad(name: str) -> pl.Expr:
    value = pl.col(name)
    if name == LABEL:
        return ~value.is_in([0.0, 1.0]).fill_null(False)
    if name == WEIGHT:
        return ~(value.is_finite() & (value >= 0) & (value <= HUGE)).fill_null(False)
    return (value.is_infinite() | (value.abs() > HUGE)).fill_null(False) & value.is_not_nan()


def first_bad_weights(model: nn.Module, tables: Tables) -> str | None:
    """Name of the first weights of this process that are not finite; None where all are."""
    for name, values in _weights(model, tables):
        # A sum is one pass without a copy; only one that is not finite is worth a closer look.
        if not bool(torch.isfinite(values.sum())):
            count = int((~torch.isfinite(values)).sum())
            if count:
                return f"{name} ({count:,} of {values.numel():,} numbers)"
    return None


def _weights(model: nn.Module, tables: Tables) -> Iterator[tuple[str, Tensor]]:
    for name, value in tables.state().items():
        table, _, part = name.rpartition(".")
        yield f"the {part}s of table {table!r}", value.to_local()
    if tables.gates is not None:
        yield "the gates", tables.gates.theta.detach()
    for name, parameter in model.named_parameters():
        yield f"the model's {name}", parameter.detach()
