"""The pinned files: whole, exact, and never the fbgemm that overwrites the other."""

from __future__ import annotations

import importlib.metadata
import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from recsys.doctor import FBGEMM, TORCH, TORCHREC

FOLDER = Path(__file__).parents[1] / "requirements"
TORCHREC_GETS_WRONG = {"fbgemm-gpu", "torchmetrics"}


def pins(name: str) -> dict[str, str]:
    """Version by package of one file and of the files it includes."""
    found: dict[str, str] = {}
    for line in (FOLDER / name).read_text().splitlines():
        text = line.partition("#")[0].strip()
        if text.startswith("-r "):
            found |= pins(text.removeprefix("-r "))
        elif text:
            match = re.fullmatch(r"([A-Za-z0-9_.-]+)==([0-9.]+)", text)
            assert match, f"{name}: {text!r} is not pinned"
            found[canonicalize_name(match[1])] = match[2]
    return found


@pytest.mark.parametrize(("device", "fbgemm"), [("cpu", "fbgemm-gpu-cpu"), ("cuda", "fbgemm-gpu")])
def test_each_device_gets_the_trio_and_one_fbgemm(device: str, fbgemm: str) -> None:
    pinned = pins(f"{device}.txt")
    assert pinned["torch"] == TORCH
    assert {name: version for name, version in pinned.items() if "fbgemm" in name} == {fbgemm: FBGEMM}
    assert "torchrec" not in pinned
    assert pins("torchrec.txt") == {"torchrec": TORCHREC}


def test_no_package_host_is_named() -> None:
    for path in FOLDER.glob("*.txt"):
        assert "http" not in path.read_text(), path.name
        assert "index-url" not in path.read_text(), path.name


def test_the_light_base_holds_what_the_wheel_asks_for_and_no_torch() -> None:
    pinned = pins("base.txt")
    for text in importlib.metadata.requires("recsys") or []:
        requirement = Requirement(text)
        if requirement.marker is None:
            assert pinned[canonicalize_name(requirement.name)] in requirement.specifier, text
    assert "torch" not in pinned


@pytest.mark.parametrize(
    "files",
    [["base.txt"], ["serve.txt"], ["cpu.txt", "torchrec.txt"], ["cpu.txt", "torchrec.txt", "dev.txt"]],
)
def test_everything_that_a_package_needs_is_pinned(files: list[str]) -> None:
    pinned = {name: version for file in files for name, version in pins(file).items()}
    for name in pinned:
        try:
            needs = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            pytest.fail(f"{name} is pinned and not installed")
        for text in needs:
            requirement = Requirement(text)
            needed = canonicalize_name(requirement.name)
            if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
                continue
            if name == "torchrec" and needed in TORCHREC_GETS_WRONG:
                continue
            assert needed in pinned, f"{name} needs {text}"
            assert pinned[needed] in requirement.specifier, f"{name} needs {text}"


def test_this_environment_has_the_pinned_versions() -> None:
    for name, version in (pins("cpu.txt") | pins("torchrec.txt") | pins("dev.txt")).items():
        if name.startswith("fbgemm"):
            continue
        assert importlib.metadata.version(name).partition("+")[0] == version, name
