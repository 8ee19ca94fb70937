"""What the benchmark scripts share: arguments, interleaved timing, the machine, result files.

A script imports this from its own folder, measures, and hands its figures to ``finish``. A full run
writes ``benchmarks/results/NAME-YYYY-MM-DD.json``; a quick one writes nothing. Either prints its figures
as one JSON object in the last line. Names and paths of the machine never enter a result.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"
PACKAGES = (
    "recsys",
    "numpy",
    "numba",
    "polars",
    "pyarrow",
    "scikit-learn",
    "onnxruntime",
    "torch",
    "torchrec",
    "fbgemm-gpu-cpu",
    "fbgemm-gpu",
)
_GIBIBYTE = 2**30

Figures = Mapping[str, float | int | str | None]


@dataclass(frozen=True)
class Spread:
    """Repeated measurements of one number."""

    median: float
    low: float
    high: float
    repeats: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(statistics.median(values), min(values), max(values), len(values))

    def to_dict(self) -> dict[str, float | int]:
        return {"median": self.median, "low": self.low, "high": self.high, "repeats": self.repeats}


def parser(name: str, description: str) -> argparse.ArgumentParser:
    """Arguments that every benchmark has; a script may add its own before it parses."""
    arguments = argparse.ArgumentParser(prog=f"benchmarks/{name}.py", description=description)
    arguments.add_argument(
        "--quick",
        action="store_true",
        help="less than 50 seconds: ours at full size, slow peers from the newest full result; "
        "writes no result file",
    )
    return arguments


def seconds(function: Callable[[], object]) -> float:
    """Wall-clock seconds of one call."""
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def interleaved(cases: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of every case in each round; round after round, so that all see the same disturbances.

    A first call of every case is not counted: it compiles and fills caches.
    """
    for function in cases.values():
        function()
    measured: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, function in cases.items():
            measured[name].append(seconds(function))
    return measured


def hardware(device: str = "cpu") -> dict[str, Any]:
    """Processor, cores this process may use, memory in GiB, and the GPU where one was measured."""
    found: dict[str, Any] = {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / _GIBIBYTE),
    }
    if device == "cuda":
        import torch

        found["gpu"] = torch.cuda.get_device_name()
    return found


def versions(packages: Sequence[str] = PACKAGES) -> dict[str, str]:
    """Versions of Python and of those packages that are installed."""
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def newest(name: str, device: str = "cpu", results: Path = RESULTS) -> tuple[str, dict[str, Any]] | None:
    """File name and content of the newest full result on this kind of machine; None without one.

    Where a quick run takes a peer's seconds from here, its figures say so under ``peer_from``.
    """
    here = hardware(device)
    for path in sorted(results.glob(f"{name}-[0-9]*.json"), reverse=True):
        result = json.loads(path.read_text(encoding="utf-8"))
        if result["hardware"] == here:
            return path.name, result
    return None


def newest_of(name: str, parts: Sequence[str], results: Path = RESULTS) -> dict[str, Any]:
    """Figures of the newest full results of a study and of its parts, and under ``earlier_from`` which.

    Those of a part (``NAME_PART``) take the place of the study's.
    """
    names = (name, *(f"{name}_{part}" for part in parts))
    found = [each for each in (newest(each, results=results) for each in names) if each is not None]
    figures = {key: value for _, result in found for key, value in result["figures"].items()}
    return figures | ({"earlier_from": ", ".join(file for file, _ in found)} if found else {})


def finish(
    name: str,
    figures: Figures,
    *,
    quick: bool,
    spread: Mapping[str, Spread] | None = None,
    device: str = "cpu",
    results: Path = RESULTS,
) -> None:
    """Write the result of a full run, and print the figures as the last line."""
    rounded = {key: _rounded(value) for key, value in figures.items()}
    if not quick:
        result = {
            "figures": rounded,
            "hardware": hardware(device),
            "versions": versions(),
            "command": _command(),
            "spread": {
                key: {part: _rounded(value) for part, value in each.to_dict().items()}
                for key, each in (spread or {}).items()
            },
        }
        path = results / f"{name}-{datetime.date.today().isoformat()}.json"
        results.mkdir(parents=True, exist_ok=True)
        aside = path.with_suffix(".partial")
        aside.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
        aside.replace(path)
        print(f"written: benchmarks/results/{path.name}")
    print(json.dumps(rounded), flush=True)


def _rounded(value: Any) -> Any:
    return float(f"{value:.4g}") if isinstance(value, float) else value


def _command() -> str:
    """The command as typed, with paths outside the repository left out."""
    shown = [Path(word).name if Path(word).is_absolute() else word for word in sys.argv[1:]]
    return " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *shown])


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    facts = dict(line.split(":", 1) for line in lines[:30] if ":" in line)
    named = {key.strip(): value.strip() for key, value in facts.items()}
    model = named.get("model name", platform.machine())
    # Virtual machines often hide the product's name; family and model still tell generations apart.
    return f"{model} (family {named.get('cpu family', '?')}, model {named.get('model', '?')})"
