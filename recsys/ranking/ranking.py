"""What a ranking of a log's columns found, and how it lies in a folder."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from recsys.errors import DataError

if TYPE_CHECKING:
    from recsys.ranking.quality import Severity

RANKING_FILE, CHOICE_FILE, FACTS_FILE = "ranking.parquet", "ranking.json", "facts.json"
REPORT_FILE = "report.html"
_TABLES = ("pairs", "transforms", "findings", "drift", "label_by_day")


@dataclass(frozen=True)
class Ranking:
    """Columns by falling score, and what was found beside."""

    table: pl.DataFrame
    """``column``, ``kind``, ``score`` (nats), ``sure`` (the score less three deviations of chance, which
    orders the columns), ``z``, ``low``, ``high``, ``mi``, ``expected_mi``, ``adjusted_mi``, ``distinct``
    and ``distinct_is_exact``, ``coverage``, ``bins`` (null where not numeric), ``kept``; ``outrank`` where
    asked for; with pairs also ``rank_3mr``, ``rank_jmi``, ``rank_cmim``, ``gain``, ``alone``,
    ``redundant_with``, ``redundancy``, ``works_with`` (see ``sets.orders``); with columns given
    ``given_score`` and ``given_z``."""
    pairs: pl.DataFrame | None = None
    """``a``, ``b`` (``c`` too with order 3), ``joint``, ``gain`` over the best part, ``synergy`` (each
    with its ``_z``), ``low``, ``high``, ``p_adjusted``, ``normalised``, ``mutual``, ``redundancy``; None
    where columns were only looked at one by one."""
    transforms: pl.DataFrame | None = None
    """``column``, ``transform``, ``score``, ``z``, ``linear``; None where no column is numeric."""
    findings: pl.DataFrame | None = None
    """``column``, ``kind``, ``severity``, ``number``, ``sentence``; most serious first."""
    drift: pl.DataFrame | None = None
    """By column, how its values change from day to day; None without a timestamp."""
    label_by_day: pl.DataFrame | None = None
    """``day``, ``rows`` and ``share``; None without a timestamp."""
    combinations: tuple[tuple[str, ...], ...] = ()
    """Columns of each combination that ``prepare`` is to make a column of, best first."""
    facts: dict[str, Any] = field(default_factory=dict)
    """``file``, ``rows``, ``sampled`` (rows that pairs were counted on), ``score``, ``classes``,
    ``seconds``."""

    @property
    def kept(self) -> list[str]:
        """Names of the kept features, best first."""
        return self.table.filter("kept")["column"].to_list()

    @property
    def told(self) -> dict[str, float]:
        """Nats that each column tells of the label, 0 at least: beyond the columns before it where pairs
        were counted, else alone."""
        gain = pl.col("gain") if "gain" in self.table.columns else pl.lit(None, pl.Float64)
        found = self.table.select("column", pl.coalesce(gain, "score").fill_null(0.0).clip(0.0))
        return {str(name): float(nats) for name, nats in found.iter_rows()}

    def sentences(self, severity: Severity) -> tuple[str, ...]:
        """Sentences of the findings of one severity, most serious first."""
        if self.findings is None:
            return ()
        return tuple(self.findings.filter(severity=severity)["sentence"].to_list())

    def save(self, folder: Path) -> None:
        """Write every table, the choice and the facts into a folder that is there."""
        self.table.write_parquet(folder / RANKING_FILE)
        for name in _TABLES:
            table: pl.DataFrame | None = getattr(self, name)
            if table is not None:
                table.write_parquet(folder / f"{name}.parquet")
        choice = {"kept": self.kept, "combinations": [list(columns) for columns in self.combinations]}
        _write(folder / CHOICE_FILE, choice)
        _write(folder / FACTS_FILE, self.facts)

    @classmethod
    def load(cls, folder: str | Path) -> Ranking:
        """Read a ranking that ``rank`` wrote; raises DataError that names the file that cannot be read."""
        folder = Path(folder)
        path = folder / RANKING_FILE
        try:
            table = pl.read_parquet(path)
            found: dict[str, pl.DataFrame] = {}
            for name in _TABLES:
                path = folder / f"{name}.parquet"
                if path.is_file():
                    found[name] = pl.read_parquet(path)
            path = folder / CHOICE_FILE
            choice = json.loads(path.read_text(encoding="utf-8"))
            path = folder / FACTS_FILE
            facts = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, pl.exceptions.PolarsError) as error:
            raise DataError(f"{path}: not a readable ranking: {error}; redo 'recsys rank'") from error
        combinations = tuple(tuple(columns) for columns in choice["combinations"])
        return cls(table, **found, combinations=combinations, facts=facts)


def _write(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
