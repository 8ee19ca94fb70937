"""What changes from day to day: PSI of each column's values, and how much they tell about the day.

Only ``label_by_day`` reads the label. The population stability index of a day against the other days
is sum (p - q) ln(p / q) over values, p and q being the shares of rows. Chance alone makes it
(K - 1)(1/n1 + 1/n2) on average for K values, n1 rows of the day and n2 others; that much is subtracted, so
that a column that does not drift stands at zero whatever its number of values.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.ranking.quality import Finding, Severity, percent

if TYPE_CHECKING:
    from recsys.ranking.codes import Codes

PSI_WARNING = 0.25
"""Above this a distribution is commonly said to have changed; PSI's usual reading in credit scoring."""
PSI_NOTE = 0.1
"""Above this it is commonly said to be changing."""
MOST_VALUES = 50
"""Values with a cell of their own in the PSI; the rest share one, since rare values only add noise."""
EMPTY_CELL = 0.5
"""Rows added to each cell, so that a value that a day lacks gives a finite PSI."""
MOST_CELLS = 2_000_000
"""Cells of a column's counts per value and day; beyond it the rarest values are pooled."""
MOST_PERIODS = 31
"""Classes of the mutual information with the day; of more days, neighbours share one, since its expectation
is computed for each class."""
NEW_SHARE = 0.05
"""Share of the later half's rows with values never seen in the earlier half, beyond what chance gives, from
which it is mentioned."""
LABEL_Z = 5.0
"""Standard deviations by which a day's label share must stand off before it is mentioned, and"""
LABEL_RATIO = 1.25
"""the factor by which it must: large logs make the smallest change certain."""
_Z95 = 1.959964
_SCHEMA: dict[str, pl.DataType | type[pl.DataType]] = {
    "column": pl.String,
    "psi": pl.Float64,
    "psi_day": pl.String,
    "day_score": pl.Float64,
    "day_z": pl.Float64,
    "new_values": pl.Int64,
    "new_share": pl.Float64,
    "new_by_chance": pl.Float64,
    "psi_by_day": pl.List(pl.Float64),
}


def drift(codes: Codes) -> pl.DataFrame:
    """One row per column: how its values change from day to day; no rows without two days.

    Returns:
        ``psi`` (largest of any day against all others, less what chance shows; null where no day has rows
        enough to tell) and ``psi_day`` (that day's name); ``day_score`` (mutual information with the day
        beyond chance, nats; with 31 equal spans where there are more days) and ``day_z`` (its standard
        deviations); ``new_values`` (values first seen in the later half of the days), ``new_share`` (of
        that half's rows) and ``new_by_chance`` (the same if rows were dealt to the days at random: a
        rare value is always new somewhere); ``psi_by_day`` (one for each day that has rows, in the order
        of ``label_by_day``; null for days with too few).
    """
    from recsys.ranking.chance import Chance
    from recsys.ranking.information import information

    day, names = _days(codes)
    if len(names) < 2:
        return pl.DataFrame(schema=_SCHEMA)
    rows = np.bincount(day, minlength=len(names))
    periods = min(len(names), MOST_PERIODS)
    period = (day.astype(np.int64) * periods // len(names)).astype(np.int32)
    chance = Chance(np.bincount(period, minlength=periods).astype(np.int64))
    latest_first = np.argsort(-day, kind="stable")
    days_in_order = day[latest_first]
    late = day >= len(names) // 2
    table: list[tuple[object, ...]] = []
    for at, name in enumerate(codes.names):
        column, size = codes.codes[at], int(codes.sizes[at])
        psi = psi_by_day(_counts(column, size, day, len(names), MOST_VALUES), rows)
        told = information(_counts(column, size, period, periods, MOST_CELLS // periods), chance)
        first = np.full(size, -1, np.int32)
        # of several assignments to one place the last one stays: the earliest day of each value
        first[column[latest_first]] = days_in_order
        new = first >= len(names) // 2
        seen_times = np.bincount(column, minlength=size)
        share = float(seen_times[new].sum()) / max(int(late.sum()), 1)
        seen = bool(np.isfinite(psi).any())
        worst = int(np.nanargmax(psi)) if seen else 0
        table.append(
            (
                name,
                float(psi[worst]) if seen else None,
                names[worst] if seen else None,
                told.score,
                told.z,
                int(new.sum()),
                share,
                _new_by_chance(seen_times, float(late.mean())),
                [float(value) if np.isfinite(value) else None for value in psi],
            )
        )
    return pl.DataFrame(table, schema=_SCHEMA, orient="row")


def _new_by_chance(rows: NDArray[np.intp], late: float) -> float:
    """Expected share of late rows with a value whose rows are all late; rows [K] per value."""
    if late <= 0:
        return 0.0
    return float((rows * np.power(late, rows)).sum()) / (late * float(rows.sum()))


def psi_by_day(counts: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """PSI [D] of each day against all other days, less what chance shows, from counts [K, D].

    NaN for a day so small (or so large) that three standard deviations of chance exceed ``PSI_NOTE``.
    """
    counts = counts[counts.sum(1) > 0]
    size = counts.shape[0]
    others = counts.sum(1, keepdims=True) - counts
    inside, outside = rows.astype(np.float64), float(rows.sum()) - rows
    with np.errstate(divide="ignore", invalid="ignore"):
        p = (counts + EMPTY_CELL) / (inside + EMPTY_CELL * size)
        q = (others + EMPTY_CELL) / (outside + EMPTY_CELL * size)
        spread = 1 / inside + 1 / outside
        psi: NDArray[np.float64] = ((p - q) * np.log(p / q)).sum(0) - (size - 1) * spread
        psi[~(3 * np.sqrt(2 * max(size - 1, 1)) * spread <= PSI_NOTE)] = np.nan
    return psi


def label_by_day(codes: Codes) -> pl.DataFrame:
    """The label of each day that has rows: ``day``, ``rows``, ``share``, ``low``, ``high``.

    ``share`` is the share of positives with Wilson's 95 % interval where there are two classes, and the
    mean class number with a normal one where there are more.
    """
    day, names = _days(codes)
    rows = np.bincount(day, minlength=len(names)).astype(np.int64)
    label = codes.label.astype(np.float64)
    share = np.bincount(day, weights=label, minlength=len(names)) / np.maximum(rows, 1)
    if codes.classes == 2:
        scale = 1 + _Z95**2 / rows
        middle = (share + _Z95**2 / (2 * rows)) / scale
        half = _Z95 / scale * np.sqrt(share * (1 - share) / rows + _Z95**2 / (4 * rows * rows))
    else:
        square = np.bincount(day, weights=label * label, minlength=len(names)) / np.maximum(rows, 1)
        middle, half = share, _Z95 * np.sqrt(np.maximum(square - share * share, 0) / np.maximum(rows, 1))
    return pl.DataFrame(
        {"day": list(names), "rows": rows, "share": share, "low": middle - half, "high": middle + half},
        schema={
            "day": pl.String,
            "rows": pl.Int64,
            "share": pl.Float64,
            "low": pl.Float64,
            "high": pl.Float64,
        },
    )


def findings(table: pl.DataFrame, labels: pl.DataFrame | None = None) -> list[Finding]:
    """Findings from what ``drift`` and ``label_by_day`` returned: changed values, new ones, label share."""
    found: list[Finding] = []
    for row in table.iter_rows(named=True):
        name, psi = row["column"], row["psi"]
        if psi is not None and psi > PSI_NOTE:
            severity: Severity = "warning" if psi > PSI_WARNING else "note"
            how, word, bound = ("differ", "changing", PSI_NOTE)
            if severity == "warning":
                how, word, bound = ("differ much", "changed", PSI_WARNING)
            sentence = (
                f"The values of '{name}' on {row['psi_day']} {how} from those of the other days "
                f"({psi:.2f} PSI beyond chance; above {bound} counts as {word})."
            )
            found.append(Finding(name, "drift", severity, psi, sentence))
        if row["new_share"] - row["new_by_chance"] > NEW_SHARE:
            sentence = (
                f"'{name}' gets new values as time goes on: {percent(row['new_share'])} of the later "
                f"half's rows have one of {row['new_values']:,} that the earlier half never saw "
                f"({percent(row['new_by_chance'])} if the days were alike)."
            )
            found.append(Finding(name, "new_values", "note", row["new_share"], sentence))
    return [*found, *([] if labels is None else _label_findings(labels))]


def _label_findings(labels: pl.DataFrame) -> list[Finding]:
    """The day whose label share stands off most, where that is neither chance nor a trifle."""
    rows, share = labels["rows"].to_numpy(), labels["share"].to_numpy()
    if len(rows) < 2:
        return []
    others = rows.sum() - rows
    mean = ((rows * share).sum() - rows * share) / others
    # half the interval's width stands for the day's standard deviation: right for shares and for means
    deviation = np.maximum((labels["high"] - labels["low"]).to_numpy() / (2 * _Z95), 1e-12)
    distance = np.abs(share - mean)
    ratio = np.maximum(share, mean) / np.maximum(np.minimum(share, mean), 1e-9)
    standing_off = (distance > LABEL_Z * deviation) & (ratio > LABEL_RATIO)
    if not standing_off.any():
        return []
    worst = int(np.where(standing_off, distance / deviation, 0).argmax())
    sentence = (
        f"The label's mean is {share[worst]:.4g} on {labels['day'][worst]} and {mean[worst]:.4g} on the "
        f"other days; {int(standing_off.sum())} of {len(rows)} days stand off by more than a quarter."
    )
    return [Finding(None, "label_by_day", "warning", float(share[worst]), sentence)]


def _days(codes: Codes) -> tuple[NDArray[np.int32], tuple[str, ...]]:
    """Days that have rows, renumbered in their order [S], and their names."""
    if codes.day is None or not codes.day.size:
        return np.zeros(0, np.int32), ()
    present = np.flatnonzero(np.bincount(codes.day, minlength=len(codes.days)))
    number = np.zeros(int(present.max()) + 1, np.int32)
    number[present] = np.arange(len(present), dtype=np.int32)
    return number[codes.day], tuple(codes.days[at] for at in present)


def _counts(
    column: NDArray[np.int32], size: int, day: NDArray[np.int32], days: int, most: int
) -> NDArray[np.int64]:
    """Rows per value and day [K, D]; beyond the ``most`` frequent values the rest share the last row."""
    if size > most:
        order = np.argsort(-np.bincount(column, minlength=size), kind="stable")
        place = np.full(size, most, np.int32)
        place[order[:most]] = np.arange(most, dtype=np.int32)
        column, size = place[column], most + 1
    joint = np.bincount(column.astype(np.int64) * days + day, minlength=size * days)
    return joint.reshape(size, days)
