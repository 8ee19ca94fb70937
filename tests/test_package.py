"""The flat face of the package."""

from __future__ import annotations

import subprocess
import sys
import types
from pathlib import Path

import pytest

import recsys

VERBS = (
    "infer",
    "rank",
    "prepare",
    "plan",
    "train",
    "train_seeds",
    "tune",
    "evaluate",
    "compare",
    "predict",
    "explain",
    "export",
    "index",
    "search",
    "run",
    "synth",
)


def test_light_names_need_no_torch() -> None:
    code = (
        "import sys, recsys\n"
        "for name in recsys.__all__:\n"
        "    if name not in ('train', 'export'):\n"
        "        getattr(recsys, name)\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_verb_is_a_function_even_when_every_module_is_loaded() -> None:
    pytest.importorskip("torchrec")
    modules = [
        ".".join(path.relative_to(Path(recsys.__file__).parents[1]).with_suffix("").parts)
        for path in Path(recsys.__file__).parent.rglob("*.py")
        if path.name not in ("__main__.py", "__init__.py")
    ]
    for module in modules:
        __import__(module)
    for name in recsys.__all__:
        assert not isinstance(getattr(recsys, name), types.ModuleType), name
    for name in VERBS:
        assert callable(getattr(recsys, name)), name


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="recsys"):
        _ = recsys.nothing
    assert dir(recsys) == sorted(recsys.__all__)
