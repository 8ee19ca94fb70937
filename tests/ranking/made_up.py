"""Made-up logs as codes, with columns whose meaning is known: for quality, drift and report."""

from __future__ import annotations

import numpy as np
import polars as pl

from recsys.ranking.chance import Chance
from recsys.ranking.codes import Codes
from recsys.ranking.drift import drift, label_by_day
from recsys.ranking.drift import findings as drift_findings
from recsys.ranking.information import Information, information
from recsys.ranking.quality import by_severity, findings, findings_table
from recsys.ranking.ranking import Ranking
from recsys.ranking.tally import Tally
from recsys.schema import Column, Schema

_WORDS = """
ad_id advertiser campaign creative_size position site site_category app device_model os browser
hour_of_day weekday country region city language connection_type user_age user_gender user_segment
days_since_last_visit clicks_last_30_days impressions_today frequency_cap bid_price floor_price
page_depth session_length referrer search_terms item_price item_brand item_category item_rating
item_age_in_days stock_level shipping_time discount_percentage currency basket_value
recently_viewed_categories favourite_brands email_opened_last_week push_notifications_enabled
loyalty_tier screen_resolution experiment_bucket
"""
NAMES = _WORDS.split()


def tally_of(codes: np.ndarray, label: np.ndarray, *, missing: int = -1, classes: int = 2) -> Tally:
    """Counts of one column of codes; the code ``missing`` becomes null."""
    size = int(codes.max()) + 1
    counts = np.bincount(codes.astype(np.int64) * classes + label, minlength=size * classes)
    counts = counts.reshape(size, classes)
    seen = np.flatnonzero(counts.sum(1))
    values: list[int | None] = [None if value == missing else int(value) for value in seen]
    if None in values:
        order = [values.index(None), *(at for at, value in enumerate(values) if value is not None)]
        values, seen = [values[at] for at in order], seen[order]
    return Tally(
        pl.Series(values, dtype=pl.Int64),
        counts[seen],
        np.bincount(label, minlength=classes).astype(np.int64),
    )


def codes_of(columns: dict[str, np.ndarray], label: np.ndarray, **others: object) -> Codes:
    """Codes [F, S] from columns that are codes already."""
    codes = np.stack([np.asarray(column, dtype=np.int32) for column in columns.values()])
    settings: dict[str, object] = {
        "classes": int(label.max()) + 1,
        "rows": len(label),
    } | others
    return Codes(
        tuple(columns), codes, codes.max(1).astype(np.int64) + 1, label=label.astype(np.int32), **settings
    )


def log(columns: int, rows: int, *, days: int = 14, seed: int = 1) -> tuple[Codes, Schema]:
    """A click log: some columns matter, some copy others, some drift, some are missing here and there."""
    random = np.random.default_rng(seed)
    sizes = [2, 3, 7, 24, 60, 200, 1000, 5000]
    named = [
        NAMES[at % len(NAMES)] + ("" if at < len(NAMES) else f"_{at // len(NAMES)}")
        for at in range(columns)
    ]
    day = np.sort(random.integers(0, days, rows)).astype(np.int32)
    made: dict[str, np.ndarray] = {}
    schema: dict[str, Column] = {}
    logit = np.full(rows, -1.8) + 0.25 * np.sin(day)
    for at, name in enumerate(named):
        size = sizes[(at * 5) % len(sizes)]
        weight = 1.0 / np.arange(1, size + 1) ** 0.9
        code = random.choice(size, rows, p=weight / weight.sum())
        if at % 11 == 7:
            code = np.where(day > days * 0.6, (code + size // 3) % size, code)
        if at % 9 == 5:
            earlier = made[named[at - 3]]
            code = np.where(random.random(rows) < 0.9, earlier // 2, random.integers(0, size, rows))
        if at % 3 == 0:
            logit += (0.9 / (1 + at / 6)) * random.normal(size=int(code.max()) + 1)[code]
        made[name] = code.astype(np.int64)
        schema[name] = Column(
            kind=("categorical", "numeric", "multi")[0 if at % 4 else 1 + at % 3 // 2], type="int64"
        )
    label = (random.random(rows) < 1 / (1 + np.exp(-logit))).astype(np.int32)
    for at, name in enumerate(named):
        if _may_be_missing(at):
            made[name] = np.where(random.random(rows) < 0.04 * at % 0.9, 0, made[name] + 1)
    if columns > 10:
        made[named[9]] = made[named[0]][:]
        made[named[10]] = np.where(random.random(rows) < 0.99, label, 1 - label)
    names = tuple(f"2026-10-{at + 1:02d}" for at in range(days))
    return codes_of(made, label, day=day, days=names), Schema(columns=schema)


def _may_be_missing(at: int) -> bool:
    """Whether 0 is no value in this column of ``log``."""
    return at % 5 == 2


def singles(codes: Codes, *, of_log: bool = False) -> tuple[dict[str, Tally], dict[str, Information]]:
    """Counts and information of every column of codes; those ``of_log`` may be missing values."""
    tallies = {}
    for at, name in enumerate(codes.names):
        missing = 0 if of_log and _may_be_missing(at) else -1
        tallies[name] = tally_of(codes.codes[at], codes.label, missing=missing, classes=codes.classes)
    chance = Chance(np.bincount(codes.label, minlength=codes.classes).astype(np.int64))
    return tallies, {name: information(tally.counts, chance) for name, tally in tallies.items()}


def ranking(codes: Codes, schema: Schema, *, keep: int = 8) -> Ranking:
    """What a report is written from, without a file that was ranked."""
    tallies, told = singles(codes, of_log=True)
    order = sorted(codes.names, key=lambda name: -told[name].score)
    table = pl.DataFrame(
        {
            "column": order,
            "kind": [
                schema.columns[name].kind if name in schema.columns else "categorical" for name in order
            ],
            "score": [told[name].score for name in order],
            "z": [told[name].z for name in order],
            "low": [told[name].low for name in order],
            "high": [told[name].high for name in order],
            "mi": [told[name].mi for name in order],
            "expected_mi": [told[name].expected for name in order],
            "adjusted_mi": [told[name].adjusted for name in order],
            "distinct": [tallies[name].distinct for name in order],
            "coverage": [tallies[name].coverage for name in order],
            "kept": [at < keep for at in range(len(order))],
        }
    )
    drifted, labels = drift(codes), label_by_day(codes)
    found = [*findings(tallies, told, schema, codes), *drift_findings(drifted, labels)]
    return Ranking(
        table,
        findings=findings_table(by_severity(found)),
        drift=drifted,
        label_by_day=labels,
        facts={"file": "clicks.parquet", "rows": codes.rows, "sampled": len(codes.label), "seconds": 0.42},
    )
