"""Studies of many trainings: cases by seeds, each trained once and kept as a cell."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from harness import parser

SEEDS = (2024, 2025, 2026)
Figures = dict[str, Any]
"""Figures of one training."""


def study_parser(name: str, description: str, studies: Iterable[str], holds: str) -> ArgumentParser:
    """Arguments of such a study; ``holds`` says what the data folder does."""
    arguments = parser(name, description)
    arguments.add_argument("--seeds", type=int, default=len(SEEDS), help="trainings of each case")
    arguments.add_argument("data", type=Path, metavar="DATA", help=f"folder with {holds}")
    arguments.add_argument("--kept", action="store_true", help="sum up what has been trained")
    arguments.add_argument("--study", choices=list(studies), help="train on this log alone")
    arguments.add_argument("--case", help="train this case alone, and write no result")
    return arguments


def trainings(
    study: str,
    cases: Iterable[str],
    chosen: Namespace,
    train: Callable[[str, int, bool], Figures | None],
    metric: str,
) -> dict[str, list[Figures]]:
    """Figures of each seed, by case, as the arguments ask for them; what is not there is missing.

    Args:
        study: name of the log.
        cases: all that there are.
        chosen: arguments of a ``study_parser``.
        train: gives the figures of a case with a seed; its last argument says whether only kept ones.
        metric: a figure to be printed.
    """
    found: dict[str, list[Figures]] = {}
    chosen_cases = [case for case in cases if chosen.case in (None, case)]
    for seed in SEEDS[: chosen.seeds]:
        for case in chosen_cases:
            figures = train(case, seed, chosen.quick or chosen.kept)
            if figures is not None:
                found.setdefault(case, []).append(figures)
                print(f"{study}, {case}, seed {seed}: {metric} {figures[metric]:.5f}", flush=True)
    return found
