"""A ranking as lines of text for a terminal; plain, so that nothing slow is imported to show it."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from recsys.ranking.ranking import REPORT_FILE, Ranking

MOST_COLUMNS = 40
MOST_FINDINGS = 12
_WIDTH = 110
_LONGEST_NAME = 36
_TITLES = {"corrected": "sure", "mi": "plain MI"}
"""Of the number that orders the columns, by score."""
_MARKS = {"error": "!", "warning": "!", "note": "·"}


def lines_of(ranking: Ranking, output: Path | None = None) -> list[str]:
    """The best columns, the best combinations, and what a person should know, warnings first."""
    lines = [*_columns(ranking), *_combinations(ranking), *_findings(ranking)]
    if output is not None:
        report = output / REPORT_FILE
        lines += ["", f"written to {output}" + (f"; look at {report}" if report.is_file() else "")]
    return lines


def ordering(ranking: Ranking) -> str:
    """Title of the number that orders the columns."""
    by = str(ranking.facts.get("score", "corrected"))
    return "adds to given" if "given_score" in ranking.table.columns else _TITLES.get(by, by)


def order_sentence(ranking: Ranking) -> str:
    """What orders the columns, in a few words."""
    title = ordering(ranking)
    sure = ", the score less three deviations of chance" if title == "sure" else ""
    return f"ordered by '{title}'{sure}"


def _columns(ranking: Ranking) -> list[str]:
    facts, table = ranking.facts, ranking.table
    by = str(facts.get("score", "corrected"))
    chosen = not bool(table["kept"].all())
    heads = ["column", "kind", "sure", "score", "95 % interval", "z", "coverage", "distinct"]
    heads[2] = ordering(ranking)
    if "redundant_with" in table.columns:
        heads.append("redundant with")
    if chosen:
        heads.insert(0, "kept")
    rows = [_row(row, heads, by) for row in table.head(MOST_COLUMNS).iter_rows(named=True)]
    lines = _aligned(heads, rows)
    if len(table) > MOST_COLUMNS:
        lines.append(f"… and {len(table) - MOST_COLUMNS} more")
    told = f"{facts.get('rows', 0):,} train rows; scores in nats, beyond what chance would show"
    told += f"; {order_sentence(ranking)}"
    if chosen:
        told += f"; {len(ranking.kept)} of {len(table)} columns kept"
    return [*lines, "", told]


def _row(row: dict[str, Any], heads: Sequence[str], by: str) -> list[str]:
    shown = {
        "kept": "✓" if row["kept"] else "",
        "column": _short(row["column"]),
        "kind": row["kind"],
        "sure": f"{row['sure']:.6f}",
        "score": f"{row['score']:.6f}",
        "95 % interval": f"{row['low']:.6f} … {row['high']:.6f}",
        "z": f"{row['z']:.1f}",
        "coverage": f"{row['coverage']:.1%}",
        "distinct": f"{row['distinct']:,}",
        "redundant with": _redundant(row),
    }
    if by != "corrected":
        name = {"mi": "mi", "adjusted": "adjusted_mi"}.get(by, by)
        shown[_TITLES.get(by, by)] = f"{row[name]:.6f}"
    added = row.get("given_score")
    shown["adds to given"] = "given" if added is None else f"{added:.6f}"
    return [shown[head] for head in heads]


def _redundant(row: dict[str, Any]) -> str:
    other, share = row.get("redundant_with"), row.get("redundancy")
    if other is None or share is None:
        return ""
    return f"{_short(other)} ({share:.0%})"


def _combinations(ranking: Ranking) -> list[str]:
    if not ranking.combinations:
        return []
    listed = [f"  {' × '.join(columns)}" for columns in ranking.combinations]
    return ["", "combinations that become columns, best first:", *listed]


def _findings(ranking: Ranking) -> list[str]:
    found = ranking.findings
    if found is None or found.is_empty():
        return []
    lines = [""]
    for row in found.head(MOST_FINDINGS).iter_rows(named=True):
        mark = _MARKS[row["severity"]]
        lines += textwrap.wrap(
            row["sentence"],
            _WIDTH,
            initial_indent=f"{mark} ",
            subsequent_indent="  ",
            break_long_words=False,
            break_on_hyphens=False,
        )
    if len(found) > MOST_FINDINGS:
        lines.append(f"  … and {len(found) - MOST_FINDINGS} more findings in the report")
    return lines


_LEFT = ("kept", "column", "kind", "redundant with")


def _aligned(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Words to the left, numbers to the right, two spaces between."""
    widths = [max(len(cell) for cell in cells) for cells in zip(heads, *rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if head in _LEFT else cell.rjust(width)
            for head, cell, width in zip(heads, line, widths, strict=True)
        ).rstrip()
        for line in (heads, *rows)
    ]


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"
