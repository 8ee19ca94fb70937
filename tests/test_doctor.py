"""doctor: healthy, light and broken installations, from faked package metadata."""

from __future__ import annotations

import subprocess
import sys

import pytest

from recsys import doctor as module
from recsys.doctor import TRAIN_PACKAGES, doctor, require_training
from recsys.errors import InstallationError

GOOD = {"torch": "2.13.0+cpu", "fbgemm-gpu-cpu": "1.8.0", "torchrec": "1.8.0"} | dict.fromkeys(
    TRAIN_PACKAGES, "1.0"
)
BASE = dict.fromkeys(
    ["numba", "numpy", "polars", "pyarrow", "pydantic", "PyYAML", "rich", "safetensors", "typer", "xxhash"],
    "99.0",
)


def faults(**installed: str | None) -> dict[str, str]:
    """Advice by name of what doctor finds wrong, with these packages beside the light base."""
    versions = {name: version for name, version in (BASE | installed).items() if version is not None}
    found = doctor(version_of=versions.get)
    return {check.name: check.advice for check in found.checks if check.state == "wrong"}


def test_the_working_trio_is_ready_to_train() -> None:
    found = doctor(version_of=(BASE | GOOD).get)
    assert found.healthy
    assert found.can_train
    assert found.verdict == "ready to train"


def test_the_cuda_trio_is_ready_to_train() -> None:
    cuda = {"torch": "2.13.0", "fbgemm-gpu-cpu": None, "fbgemm-gpu": "1.8.0"}
    assert faults(**(GOOD | cuda)) == {}


def test_without_torch_it_is_light_and_says_what_works() -> None:
    found = doctor(version_of=BASE.get)
    assert found.healthy
    assert not found.can_train
    assert "infer, rank, prepare" in found.verdict
    assert "requirements/cpu.txt" in found.verdict


@pytest.mark.parametrize("version", ["1.7.0", "1.9.0"])
def test_an_fbgemm_that_installs_silently_and_fails_on_import_is_named(version: str) -> None:
    advice = faults(**(GOOD | {"fbgemm-gpu-cpu": version}))
    assert advice == {"fbgemm-gpu-cpu": "pip install fbgemm-gpu-cpu==1.8.0"}


def test_a_newer_torch_is_named() -> None:
    assert faults(**(GOOD | {"torch": "2.14.0+cpu"})) == {"torch": "pip install torch==2.13.0"}


def test_a_newer_torchrec_is_named_with_no_deps() -> None:
    assert faults(**(GOOD | {"torchrec": "1.9.2"})) == {"torchrec": "pip install --no-deps torchrec==1.8.0"}


def test_both_fbgemm_builds_clash() -> None:
    advice = faults(**(GOOD | {"fbgemm-gpu": "1.8.0"}))["fbgemm"]
    assert "pip uninstall -y fbgemm-gpu fbgemm-gpu-cpu" in advice
    assert "pip install fbgemm-gpu-cpu==1.8.0" in advice


def test_a_cuda_fbgemm_beside_a_cpu_torch_is_named() -> None:
    advice = faults(**(GOOD | {"fbgemm-gpu": "1.8.0", "fbgemm-gpu-cpu": None}))
    assert "pip install fbgemm-gpu-cpu==1.8.0" in advice["fbgemm"]


@pytest.mark.parametrize("name", ["torch", "torchrec", "fbgemm-gpu-cpu", "tensordict", "onnxruntime"])
def test_a_missing_package_is_named(name: str) -> None:
    advice = faults(**(GOOD | {name: None}))
    assert list(advice) == [name]
    assert "pip install" in advice[name]


def test_an_old_base_package_is_named() -> None:
    assert faults(**(GOOD | {"polars": "1.2.0"})) == {"polars": "pip install 'polars>=1.30'"}


def test_verbs_that_need_torch_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InstallationError, match=r"torch, torchrec, fbgemm_gpu.*requirements/cpu\.txt"):
        require_training()


def test_it_is_quick_and_imports_no_torch() -> None:
    code = (
        "import sys, time; start = time.perf_counter()\n"
        "from recsys.doctor import doctor; doctor()\n"
        "assert time.perf_counter() - start < 1.0\n"
        "assert not {'torch', 'torchrec', 'fbgemm_gpu'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_deep_looks_a_vector_up() -> None:
    pytest.importorskip("torchrec")
    last = doctor(deep=True).checks[-1]
    assert (last.name, last.state) == ("lookup", "ok"), last.found
