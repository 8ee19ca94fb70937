"""Does this machine fit? Versions are read from package metadata, so that it takes no second.

torch, fbgemm and torchrec work together in one combination only, and pip installs the others without
a word: fbgemm 1.7.0 and 1.9.0 both fail on import beside torch 2.13.0.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from recsys.errors import InstallationError
from recsys.progress import size

TORCH, FBGEMM, TORCHREC = "2.13.0", "1.8.0", "1.8.0"
LIGHT_VERBS = "infer, rank, prepare, plan, synth, doctor, and evaluate on a table of scores"
TRAIN_PACKAGES = (
    "tensordict",
    "pyre-extensions",
    "tqdm",
    "tensorboard",
    "onnx",
    "onnxscript",
    "onnxruntime",
)
CPU_SETUP = "pip install -r requirements/cpu.txt && pip install --no-deps -r requirements/torchrec.txt"

State = Literal["ok", "note", "wrong"]
Lookup = Callable[[str], str | None]
"""Package name → installed version, None where it is not installed."""


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    name: str
    state: State
    found: str
    advice: str = ""
    """What to do; empty when there is nothing to do."""


@dataclass(frozen=True)
class Diagnosis:
    """What ``doctor`` found."""

    checks: tuple[Check, ...]
    installation: Literal["light", "full"]
    """``light``: without torch, on purpose or not."""

    @property
    def healthy(self) -> bool:
        """True when everything that is installed fits together."""
        return all(check.state != "wrong" for check in self.checks)

    @property
    def can_train(self) -> bool:
        return self.healthy and self.installation == "full"

    @property
    def verdict(self) -> str:
        """One sentence."""
        if not self.healthy:
            wrong = ", ".join(check.name for check in self.checks if check.state == "wrong")
            return f"training cannot work here: see {wrong}"
        if self.installation == "light":
            return f"light installation, no torch: {LIGHT_VERBS} work; to train: {CPU_SETUP}"
        return "ready to train"


def doctor(*, deep: bool = False, version_of: Lookup | None = None, folder: Path = Path()) -> Diagnosis:
    """Look at Python, packages and the machine.

    ``deep`` also imports torch, fbgemm and torchrec and looks one vector up. ``folder`` is where free
    disk space is read.
    """
    lookup = version_of if version_of is not None else installed_version
    full = any(lookup(name) is not None for name in ("torch", "torchrec", "fbgemm-gpu", "fbgemm-gpu-cpu"))
    checks = [_python(), _system(full), *_base(lookup)]
    if full:
        checks += [*_trio(lookup), *_training(lookup)]
    elif lookup("onnxruntime") is None:
        checks.append(Check("onnxruntime", "note", "not installed", "predict needs it to score a bundle"))
    if lookup("faiss-cpu") is None:
        checks.append(Check("faiss-cpu", "note", "not installed", "index and search need it"))
    checks += _machine(folder)
    if deep and full:
        checks.append(_deep())
    return Diagnosis(tuple(checks), "full" if full else "light")


def installed_version(name: str) -> str | None:
    """Version of an installed package from its metadata; None where it is not installed."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def require_training() -> None:
    """Raise InstallationError that says what to install when a verb needs torch and cannot have it."""
    missing = [
        name for name in ("torch", "torchrec", "fbgemm_gpu") if importlib.util.find_spec(name) is None
    ]
    if missing:
        raise InstallationError(
            f"this verb needs {', '.join(missing)}, which this installation lacks; "
            f"in recsys's source folder: {CPU_SETUP} (GPU: cuda.txt). Without them work: {LIGHT_VERBS}."
        )


def _python() -> Check:
    found = f"{platform.python_implementation()} {platform.python_version()}"
    if platform.python_implementation() != "CPython":
        return Check("python", "wrong", found, "torch and fbgemm are built for CPython only")
    return Check("python", "ok", found)


def _system(full: bool) -> Check:
    found = f"{platform.system()} {platform.machine()}"
    if sys.platform == "linux":
        return Check("system", "ok", found)
    return Check(
        "system", "wrong" if full else "note", found, "fbgemm is built for Linux only: train there"
    )


def _base(lookup: Lookup) -> Iterator[Check]:
    """Packages that the wheel itself asks for."""
    try:
        requirements = importlib.metadata.requires("recsys") or []
    except importlib.metadata.PackageNotFoundError:
        requirements = []
    for requirement in requirements:
        if "extra ==" in requirement:
            continue
        match = re.match(r"([A-Za-z0-9_.-]+)>=([0-9.]+)", requirement)
        if match is None:
            continue
        name, least = match.groups()
        found = lookup(name)
        if found is None or _numbers(found) < _numbers(least):
            advice = f"pip install '{name}>={least}'"
            yield Check(name, "wrong", found or "not installed", advice)


def _trio(lookup: Lookup) -> Iterator[Check]:
    torch, torchrec = lookup("torch"), lookup("torchrec")
    gpu, cpu = lookup("fbgemm-gpu"), lookup("fbgemm-gpu-cpu")
    yield _pinned("torch", torch, TORCH)
    fbgemm = "fbgemm-gpu-cpu" if torch is None or "+cpu" in torch or cpu is not None else "fbgemm-gpu"
    if gpu is not None and cpu is not None:
        yield Check(
            "fbgemm",
            "wrong",
            f"fbgemm-gpu {gpu} and fbgemm-gpu-cpu {cpu}",
            "both write the same files: pip uninstall -y fbgemm-gpu fbgemm-gpu-cpu, then "
            f"pip install {fbgemm}=={FBGEMM}",
        )
    elif gpu is not None and torch is not None and "+cpu" in torch:
        yield Check(
            "fbgemm",
            "wrong",
            f"fbgemm-gpu {gpu} (CUDA) beside torch {torch} (CPU)",
            f"pip uninstall -y fbgemm-gpu, then pip install fbgemm-gpu-cpu=={FBGEMM}",
        )
    else:
        name = "fbgemm-gpu" if gpu is not None else fbgemm
        yield _pinned(name, gpu or cpu, FBGEMM)
    yield _pinned("torchrec", torchrec, TORCHREC, "--no-deps ")


def _pinned(name: str, found: str | None, wanted: str, flags: str = "") -> Check:
    """A package that must have exactly one version, whatever its build label."""
    if found is not None and found.partition("+")[0] == wanted:
        return Check(name, "ok", found)
    return Check(
        name,
        "wrong",
        "not installed" if found is None else f"{found}, which does not fit",
        f"pip install {flags}{name}=={wanted}",
    )


def _training(lookup: Lookup) -> Iterator[Check]:
    for name in TRAIN_PACKAGES:
        if lookup(name) is None:
            yield Check(name, "wrong", "not installed", "pip install -r requirements/train.txt")
    if lookup("matplotlib") is None:
        yield Check("matplotlib", "note", "not installed", "without it runs have no report.html")


def _machine(folder: Path) -> Iterator[Check]:
    yield Check("cores", "ok", str(_cores()))
    memory = _memory_bytes()
    if memory is not None:
        low = memory < 4e9
        advice = "4 GB or more is comfortable" if low else ""
        yield Check("memory", "note" if low else "ok", size(memory), advice)
    free = shutil.disk_usage(folder).free
    low = free < 5e9
    where = folder.resolve()
    yield Check(
        "disk", "note" if low else "ok", f"{size(free)} free in {where}", "make room" if low else ""
    )
    if Path("/dev/nvidia0").exists():
        lent = "an NVIDIA GPU"
        cpu_build = installed_version("fbgemm-gpu-cpu") is not None
        yield Check("gpu", "note" if cpu_build else "ok", lent, "CPU builds: cuda.txt" if cpu_build else "")


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _memory_bytes() -> int | None:
    """Memory of the machine, or of the container where that is less; None where it cannot be told."""
    try:
        pages, page = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return None
    limit = Path("/sys/fs/cgroup/memory.max")
    text = limit.read_text().strip() if limit.is_file() else "max"
    return min(pages * page, int(text)) if text.isdigit() else pages * page


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.partition("+")[0])[:3])


def _deep() -> Check:
    """Import the trio and look one vector up, against the weight it must come from."""
    try:
        import fbgemm_gpu  # noqa: F401  (its operators register themselves on import)
        import torch
        from torchrec import EmbeddingBagCollection, EmbeddingBagConfig, KeyedJaggedTensor

        config = EmbeddingBagConfig(name="t", embedding_dim=4, num_embeddings=3, feature_names=["f"])
        tables = EmbeddingBagCollection(tables=[config], device=torch.device("cpu"))
        ids = KeyedJaggedTensor(keys=["f"], values=torch.tensor([2]), lengths=torch.tensor([1]))
        found = tables(ids)["f"][0]
        weight = tables.embedding_bags["t"].weight[2]
        right = bool(torch.equal(found, weight))
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        advice = f"install the trio anew: {CPU_SETUP}"
        return Check("lookup", "wrong", f"{type(error).__name__}: {error}", advice)
    if not right:
        return Check("lookup", "wrong", "a lookup gave another vector than the table holds", CPU_SETUP)
    cuda = "CUDA available" if torch.cuda.is_available() else "CPU only"
    return Check("lookup", "ok", f"one vector through torchrec, {cuda}")
