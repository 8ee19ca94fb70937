"""``rank``: which columns tell something about the label, beyond what chance would.

The score of a column is its mutual information with the label minus what a column with the same
value counts would show on average if it were dealt at random over the rows (the exact expectation
under fixed margins), in nats. High cardinality therefore earns nothing by itself.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass
from pathlib import Path

import numba
import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.config import SplitSettings
from recsys.data.check import check_columns, check_label, check_values, typed_columns
from recsys.data.source import Data
from recsys.data.split import split_source
from recsys.errors import ConfigError, DataError
from recsys.features.counts import JointCounts, joint_counts
from recsys.features.infer import infer
from recsys.progress import say
from recsys.schema import Schema
from recsys.stage import StageRecord, settings_of, written_aside

VERSION = 1
MINIMUM_ROWS = 100


@dataclass(frozen=True)
class Ranking:
    """Features by falling score."""

    table: pl.DataFrame
    """``column``, ``kind``, ``score`` (nats), ``z``, ``mi``, ``expected_mi``, ``distinct``,
    ``coverage``, ``kept``."""

    @property
    def kept(self) -> list[str]:
        """Names of the kept features, best first."""
        return self.table.filter("kept")["column"].to_list()

    @classmethod
    def load(cls, folder: str | Path) -> Ranking:
        """Read a ranking that ``rank`` wrote."""
        path = Path(folder) / "ranking.parquet"
        try:
            return cls(pl.read_parquet(path))
        except (OSError, pl.exceptions.PolarsError) as error:
            raise DataError(f"{path}: not a readable ranking: {error}; redo 'recsys rank'") from error


def score_counts(counts: JointCounts) -> dict[str, float]:
    """MI, its expectation under random dealing, and how many standard deviations apart they are.

    Returns:
        ``mi``, ``expected_mi``, ``score = mi - expected_mi`` in nats, and ``z``.
    """
    mi, expected, deviation = _mutual_information(counts.rows, counts.positives)
    gap = mi - expected
    return {
        "score": gap,
        "z": gap / deviation if deviation > 0 else 0.0,
        "mi": mi,
        "expected_mi": expected,
    }


def rank(
    data: Data | None,
    schema: Schema | str | Path | None = None,
    *,
    split: SplitSettings | None = None,
    label: str | None = None,
    keep: int | None = None,
    root: Path | None = None,
    output: str | Path | None = None,
) -> Ranking:
    """Rank the features of a log by what they tell about its label; reads train rows only.

    Args:
        data: path or in-memory table; None where ``split`` names three files.
        schema: what the columns are; default: inferred.
        split: which rows train; default: all.
        label: name of the 0/1 column, where no schema is given.
        keep: how many of the best features are marked as kept; default: all.
        root: folder that relative paths start from.
        output: folder that gets ``ranking.parquet``, ``ranking.json`` (kept names), ``stage.json``.

    Raises:
        SchemaError: a column is missing or not what the schema says.
        DataError: too few train rows to rank by, or one class only.
    """
    started = time.perf_counter()
    if schema is None:
        schema = infer(data, label=label, split=split, root=root)
    elif not isinstance(schema, Schema):
        schema = Schema.load(Path(schema))
    if schema.label is None:
        raise ConfigError("rank needs a label: give label=, or a column with the role 'label'")
    if keep is not None and keep < 1:
        raise ConfigError(f"rank: keep must be at least 1, found {keep}")
    source = split_source(split, data, root=root).source("train")
    check_columns(source.columns, schema, source.name)
    rows, _ = check_label(source.lazy(), schema.label, source.name, source)
    if rows < MINIMUM_ROWS:
        raise DataError(
            f"{source.name}: {rows} train rows are too few to rank by; at least {MINIMUM_ROWS} are needed"
        )
    for name, treatment in check_values(source, schema).items():
        say(f"{name}: {treatment}")
    train = source.lazy().select(typed_columns(source.columns, schema))
    ranking = Ranking(_table(joint_counts(train, schema, schema.label), schema, keep))
    if output is not None:
        with written_aside(Path(output), "ranking.parquet") as folder:
            ranking.table.write_parquet(folder / "ranking.parquet")
            kept = json.dumps({"kept": ranking.kept}, indent=2, ensure_ascii=False)
            (folder / "ranking.json").write_text(kept + "\n", encoding="utf-8")
            StageRecord(
                stage="rank",
                version=VERSION,
                inputs=source.fingerprints(),
                settings=settings_of({"schema": schema.to_dict(), "split": split, "keep": keep}),
                seconds=round(time.perf_counter() - started, 3),
                rows=rows,
            ).save(folder)
    return ranking


def _table(counts: dict[str, JointCounts], schema: Schema, keep: int | None) -> pl.DataFrame:
    """One line per feature, best first; equal scores by name."""
    lines = []
    for name, joint in counts.items():
        rows = int(joint.rows.sum())
        facts = {"distinct": int(joint.frame["value"].is_not_null().sum())}
        coverage = 1.0 - joint.missing / rows if rows else 0.0
        kind = schema.columns[name].kind
        lines.append({"column": name, "kind": kind, **score_counts(joint), **facts, "coverage": coverage})
    table = pl.from_dicts(lines).sort(["score", "column"], descending=[True, False])
    kept = len(lines) if keep is None else keep
    return (
        table.with_row_index("kept")
        .with_columns(kept=pl.col("kept") < kept)
        .select(*(name for name in table.columns), "kept")
    )


def _mutual_information(
    rows: NDArray[np.int64], positives: NDArray[np.int64]
) -> tuple[float, float, float]:
    """MI of value and label, its exact mean and its standard deviation over random dealings.

    MI = Σ_v n_v/N · KL(k_v/n_v ‖ p) with k_v hypergeometric when values are dealt at random. The
    deviation takes the k_v as independent: KL is flat at p, so their fixed sum matters only to
    second order.
    """
    total, hits = int(rows.sum()), int(positives.sum())
    if total == 0 or hits in (0, total):
        return 0.0, 0.0, 0.0
    log_factorial = _log_factorials(total)
    sizes, times = np.unique(rows, return_counts=True)
    means, variances = _dealt_at_random(sizes, total, hits, log_factorial)
    share = sizes / total
    mi = float((rows / total * _kl(positives / rows, hits / total)).sum())
    expected = float((times * share * means).sum())
    variance = float((times * share**2 * variances).sum())
    return mi, expected, math.sqrt(max(variance, 0.0))


def _kl(share: NDArray[np.float64], p: float) -> NDArray[np.float64]:
    """KL divergence in nats of Bernoulli(share) from Bernoulli(p), elementwise."""
    with np.errstate(divide="ignore", invalid="ignore"):
        yes = np.where(share > 0, share * np.log(share / p), 0.0)
        no = np.where(share < 1, (1 - share) * np.log((1 - share) / (1 - p)), 0.0)
    return np.asarray(yes + no)


def _log_factorials(total: int) -> NDArray[np.float64]:
    """``log(i!)`` for i = 0..total."""
    return np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, total + 1, dtype=np.float64)))])


@numba.njit(cache=True)
def _dealt_at_random(
    sizes: NDArray[np.int64], total: int, hits: int, log_factorial: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and variance of KL(k/n ‖ p) for k ~ Hypergeometric(total, hits, n), per size n.

    Terms further than ten standard deviations from the mean are left out; they hold less than 1e-20.
    """
    means = np.zeros(len(sizes))
    variances = np.zeros(len(sizes))
    p = hits / total
    for index in range(len(sizes)):
        n = sizes[index]
        spread = 10.0 * math.sqrt(n * p * (1 - p)) + 10.0
        low = max(0, n - (total - hits), int(n * p - spread))
        high = min(n, hits, int(n * p + spread))
        constant = (
            log_factorial[hits]
            + log_factorial[total - hits]
            - log_factorial[total]
            + log_factorial[n]
            + log_factorial[total - n]
        )
        first, second, mass = 0.0, 0.0, 0.0
        for k in range(low, high + 1):
            log_mass = (
                constant
                - log_factorial[k]
                - log_factorial[hits - k]
                - log_factorial[n - k]
                - log_factorial[total - hits - n + k]
            )
            weight = math.exp(log_mass)
            share = k / n
            kl = 0.0
            if k > 0:
                kl += share * math.log(share / p)
            if k < n:
                kl += (1 - share) * math.log((1 - share) / (1 - p))
            first += weight * kl
            second += weight * kl * kl
            mass += weight
        means[index] = first / mass
        variances[index] = second / mass - means[index] ** 2
    return means, variances
