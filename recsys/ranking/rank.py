"""``rank``: which columns tell something about the label, beyond what chance would.

The score of a column is its mutual information with the label minus what a column with the same value
counts would show on average if the labels were dealt at random over the rows (the exact expectation
under fixed margins), in nats. High cardinality therefore earns nothing by itself. Columns are ordered
by the score less three deviations of chance, so that no column comes first by luck either.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from recsys.config import RankSettings
from recsys.data.check import reading, typed_columns
from recsys.data.source import Data
from recsys.errors import ConfigError, did_you_mean
from recsys.ranking.binning import FEW as FEW_NUMBERS
from recsys.ranking.binning import Bins, coarse_bins, even, fine_bins, resolved
from recsys.ranking.chance import Chance
from recsys.ranking.counting import LABEL_COLUMN, count, elements_of, typed_batches
from recsys.ranking.elements import Elements
from recsys.ranking.information import Information, information
from recsys.ranking.opening import Log, open_log
from recsys.ranking.ranking import RANKING_FILE, REPORT_FILE, Ranking
from recsys.ranking.selection import choose, table_bytes
from recsys.ranking.tally import Tally
from recsys.ranking.together import Together, together
from recsys.schema import RAGGED, Column, Schema
from recsys.stage import StageRecord, require_ours, settings_of, written_aside

if TYPE_CHECKING:
    from recsys.config import SplitSettings
    from recsys.ranking.quality import Finding

VERSION = 3
_ORDERS = {"corrected": "sure", "mi": "mi", "adjusted": "adjusted_mi", "outrank": "outrank"}


@dataclass(frozen=True)
class Scored:
    """Every column by itself."""

    tallies: dict[str, Tally]
    """Numeric columns by the bins chosen for what they tell about the label."""
    informations: dict[str, Information]
    bins: dict[str, Bins]
    """Of the numeric columns, whatever the label: for all that looks at more than one column."""
    distinct: dict[str, int]
    sample: pl.DataFrame
    """See ``Counted.sample``."""


def rank(
    data: Data | None,
    schema: Schema | str | Path | None = None,
    *,
    split: SplitSettings | None = None,
    label: str | None = None,
    settings: RankSettings | None = None,
    keep: int | None = None,
    root: Path | None = None,
    output: str | Path | None = None,
) -> Ranking:
    """Rank the features of a log by what they tell about its label; reads train rows only.

    Args:
        data: path or in-memory table; None where ``split`` names three files.
        schema: what the columns are; default: inferred.
        split: which rows train; default: all.
        label: name of the label column, over the schema's: 0 and 1, booleans, text or numbers.
        settings: the run file's ``rank`` block.
        keep: how many of the best features are marked as kept, over ``settings.keep``.
        root: folder that relative paths start from.
        output: folder that gets ``ranking.parquet``, the tables beside it, ``ranking.json`` (what is
            kept), ``report.html`` and ``stage.json``.

    Raises:
        ConfigError: no label, or one that is not there; settings that contradict each other or the columns.
        SchemaError: a column is missing or not what the schema says.
        DataError: too few train rows to rank by, a label that is constant or missing, or an output
            folder that holds other things.
    """
    started = time.perf_counter()
    settings = _settings(settings, keep)
    if output is not None:
        require_ours(Path(output), RANKING_FILE)
    log = open_log(data, schema, split, label, root, settings.sample)
    for name in settings.given:
        if name not in log.schema.features:
            raise ConfigError(f"rank.given: no feature {name!r}; {did_you_mean(name, log.schema.features)}")
    wide = settings.order > 1
    ranking = _ranking(log, settings, _scored(log, with_sample=wide))
    seconds = round(time.perf_counter() - started, 3)
    facts = {
        "file": log.source.name,
        "rows": log.spread.rows,
        "sampled": len(log.spread.places) if wide else None,
        "score": settings.score,
        "label": log.label.column,
        "classes": list(log.label.names),
        "seconds": seconds,
    }
    ranking = replace(ranking, facts=facts)
    if output is not None:
        with written_aside(Path(output), RANKING_FILE) as folder:
            ranking.save(folder)
            if settings.report:
                from recsys.ranking.report import write_report

                write_report(ranking, folder / REPORT_FILE)
            stated = {"schema": log.schema.to_dict(), "split": split, "rank": settings}
            StageRecord(
                stage="rank",
                version=VERSION,
                inputs=log.fingerprints,
                settings=settings_of(stated),
                seconds=seconds,
                rows=log.spread.rows,
            ).save(folder)
    return ranking


def _settings(settings: RankSettings | None, keep: int | None) -> RankSettings:
    settings = settings or RankSettings()
    if keep is None:
        return settings
    if keep < 1:
        raise ConfigError(f"rank: keep must be at least 1, found {keep}")
    return RankSettings.parse(**{**settings.model_dump(), "keep": keep})


# --- columns one by one --------------------------------------------------------------------------


def _scored(log: Log, *, with_sample: bool) -> Scored:
    """Count every column, and see what each tells by itself."""
    fine, distinct = _fine_bins(log)
    ragged = {name for name, column in log.schema.features.items() if column.kind in RAGGED}
    time_column = log.schema.timestamp if with_sample else None
    extra = (time_column,) if time_column is not None and time_column in log.source.columns else ()
    counted = count(
        log.source,
        log.schema,
        log.label,
        log.spread if with_sample or fine or ragged else None,
        {name: bins for name, bins in fine.items() if distinct[name] > FEW_NUMBERS},
        extra,
    )
    chance = Chance(next(iter(counted.tallies.values())).classes)
    tallies, informations, bins = dict(counted.tallies), {}, {}
    for name, tally in counted.tallies.items():
        if name not in fine:
            lists = _elements(counted.sample[name], tally) if name in ragged else None
            found = information(tally.counts, chance, tally.classes, lists)
            informations[name] = replace(found, normaliser=found.normaliser + tally.unseen_entropy / 2)
            distinct[name] = tally.distinct
            continue
        tallies[name], _, informations[name] = resolved(tally, chance)
        bins[name] = fine[name]
        if distinct[name] > FEW_NUMBERS:
            numbers = tally.values.drop_nulls().to_numpy()
            groups = even(tally.counts[tally.values.null_count() :])
            bins[name] = coarse_bins(fine[name], numbers, groups)
        else:
            distinct[name] = tally.distinct
    return Scored(tallies, informations, bins, distinct, counted.sample)


def _elements(lists: pl.Series, tally: Tally) -> Elements:
    """Which of a list's values stand together."""
    values, row = elements_of(lists, np.arange(len(lists)))
    return Elements.of(row, values, tally.values, len(lists))


def _fine_bins(log: Log) -> tuple[dict[str, Bins], dict[str, int]]:
    """Fine bins of the numeric columns from the sample, and how many distinct numbers each has."""
    numeric = [name for name, column in log.schema.features.items() if column.kind == "numeric"]
    if not numeric:
        return {}, {}
    numbers = Schema(columns={name: log.schema.columns[name] for name in numeric})
    taken, start = [], 0
    for frame in typed_batches(log.source, numbers, log.label.column):
        taken.append(log.spread.of(frame, start))
        start += frame.height
    sample = pl.concat(taken).select(pl.col(numeric).cast(pl.Float64))
    values = {name: sample[name].drop_nulls().to_numpy() for name in numeric}
    distinct = {name: int(sample[name].drop_nulls().n_unique()) for name in numeric}
    if not log.spread.is_whole:
        typed = log.source.lazy().select(typed_columns(log.source.columns, numbers, label=False))
        counts = typed.select(pl.all().drop_nulls().approx_n_unique()).collect(engine="streaming")
        distinct |= {
            name: max(int(counts[name][0]), number)
            for name, number in distinct.items()
            if number > FEW_NUMBERS
        }
    return {name: fine_bins(values[name]) for name in numeric}, distinct


def _table(log: Log, scored: Scored) -> pl.DataFrame:
    """One line per feature, as counted by itself."""
    lines = []
    for name, tally in scored.tallies.items():
        found = scored.informations[name]
        kind = log.schema.columns[name].kind
        is_counted = kind != "numeric" or log.spread.is_whole or scored.distinct[name] <= FEW_NUMBERS
        lines.append(
            {
                "column": name,
                "kind": kind,
                "score": found.score,
                "sure": found.ranked,
                "z": found.z,
                "low": found.low,
                "high": found.high,
                "mi": found.mi,
                "expected_mi": found.expected,
                "adjusted_mi": found.adjusted,
                "distinct": scored.distinct[name],
                "distinct_is_exact": is_counted and tally.share == 1,
                "coverage": tally.coverage,
                "bins": tally.distinct if kind == "numeric" else None,
            }
        )
    return pl.DataFrame(lines, schema_overrides={"bins": pl.Int64, "distinct": pl.Int64})


# --- all of it -----------------------------------------------------------------------------------


def _ranking(log: Log, settings: RankSettings, scored: Scored) -> Ranking:
    from recsys.ranking import quality

    table = _table(log, scored)
    if settings.score == "outrank":
        table = _with_outrank(table, log)
    codes, found = None, Together(table)
    if settings.order > 1:
        from recsys.ranking.codes import coded

        codes = coded(scored.sample, log.schema, scored.bins, len(log.label.names), log.spread.rows)
        found = together(table, codes, settings, scored.informations)
    findings = [*_left_out(log), *found.findings]
    if codes is not None:
        findings += quality.sample_findings(codes)
    findings += quality.findings(scored.tallies, scored.informations, log.schema, codes)
    by = "given_score" if settings.given else _ORDERS[settings.score]
    table = found.table.sort([by, "column"], descending=[True, False], nulls_last=True)
    kept = choose(table, settings, table_bytes(scored.tallies, log.schema))
    return Ranking(
        table.with_columns(pl.col("column").is_in(kept).alias("kept")),
        pairs=found.pairs,
        transforms=_transforms(log, scored),
        findings=quality.findings_table(quality.by_severity(findings)),
        drift=found.drift,
        label_by_day=found.label_by_day,
        combinations=found.combinations,
    )


def _with_outrank(table: pl.DataFrame, log: Log) -> pl.DataFrame:
    """The table with OutRank's score of each column, on the rows as they are and in their order."""
    from recsys.ranking.outrank import outrank_scores

    names = table["column"].to_list()
    with reading(log.source):
        scores = outrank_scores(log.source.lazy(), names, log.label.column)
    return table.with_columns(pl.Series("outrank", [scores[name] for name in names], pl.Float64))


def _left_out(log: Log) -> list[Finding]:
    """Why columns are not ranked, as inferring the schema noted it."""
    from recsys.ranking.quality import Finding

    found = []
    for note in log.schema.notes:
        name = next((name for name in log.source.columns if note.startswith(f"{name}: ")), None)
        if name is not None and name not in log.schema.features and name != log.label.column:
            kind = _why_left_out(log.schema.columns.get(name))
            sentence = f"'{name}' is {note[len(name) + 2 :]}."
            if kind is None:
                found.append(Finding(name, "left_out", "note", 0.0, sentence))
            else:
                found.append(Finding(name, kind, "warning", 1.0, sentence))
    return found


def _why_left_out(column: Column | None) -> str | None:
    """The kind of finding that kept a column from being a feature; None where nothing is wrong with it."""
    if column is None:
        return None
    if "row_id" in column.roles:
        return "row_id"
    if column.facts is not None and column.facts.distinct == 0:
        return "all_missing"
    if column.facts is not None and column.facts.distinct == 1 and not column.facts.missing:
        return "constant"
    return None


def _transforms(log: Log, scored: Scored) -> pl.DataFrame | None:
    """Transforms of the numeric columns, on the sample."""
    if not scored.bins:
        return None
    from recsys.ranking.transforms import transforms

    label = scored.sample[LABEL_COLUMN].to_numpy()
    return transforms({name: scored.sample[name] for name in scored.bins}, label, len(log.label.names))
