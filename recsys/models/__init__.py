"""Models: pure modules, embedded inputs in, logits out. One file each.

Adding one: write ``recsys/models/NAME.py`` with ``class Config(ModelConfig)`` and a module whose
constructor is ``(config, layout, *, generator)`` and whose ``forward`` takes
:class:`~recsys.models.inputs.Inputs` and returns logits ``[B]``; add its line to ``MODELS``. The
contract test (``tests/models/test_contract.py``) then runs over it.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from recsys.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from torch import nn

    from recsys.models.inputs import Layout
    from recsys.models.linear import Precision
    from recsys.models.options import ModelConfig

__all__ = ["MODELS", "RETRIEVERS", "build_model", "model_class", "parse_options", "table_dim"]

MODELS: dict[str, str] = {
    "lr": "recsys.models.lr:LR",
    "fm": "recsys.models.fm:FM",
    "dnn": "recsys.models.dnn:DNN",
    "deepfm": "recsys.models.deepfm:DeepFM",
    "dcnv2": "recsys.models.dcnv2:DCNv2",
    "finalmlp": "recsys.models.finalmlp:FinalMLP",
    "autoint": "recsys.models.autoint:AutoInt",
    "autoint_plus": "recsys.models.autoint:AutoIntPlus",
    "din": "recsys.models.din:DIN",
    "dien": "recsys.models.dien:DIEN",
}
"""Name in the run file → ``module:class``."""

RETRIEVERS: dict[str, str] = {"two_tower": "recsys.models.two_tower:TwoTower"}
"""Models that find candidates: besides logits they have vectors of queries and of items."""


def model_class(name: str) -> Any:
    """The class of a model; raises ConfigError with the nearest name for an unknown one."""
    known = MODELS | RETRIEVERS
    if name not in known:
        raise ConfigError(f"model.name: unknown model {name!r}; {did_you_mean(name, known)}")
    module, _, attribute = known[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


def parse_options(name: str, options: Mapping[str, Any]) -> ModelConfig:
    """A model's options from plain values; raises ConfigError that lists every fault."""
    config = model_class(name).Config
    try:
        parsed: ModelConfig = config.model_validate(dict(options))
    except ValidationError as error:
        faults = [_explain(fault, name, list(config.model_fields)) for fault in error.errors()]
        raise ConfigError("\n".join(faults)) from error
    return parsed


def build_model(
    name: str,
    options: Mapping[str, Any],
    layout: Layout,
    seed: int,
    *,
    precision: Precision = "fp32",
) -> nn.Module:
    """A model on CPU, in training mode, its weights a function of the arguments alone.

    Args:
        name: one of ``MODELS``.
        options: the model's own.
        layout: shape of the inputs.
        seed: of the initial weights; the global generator is neither read nor moved.
        precision: of matrix products; weights stay float32.

    Raises ConfigError for an unknown model or option, and for a layout that the model cannot read.
    """
    import torch

    from recsys.models.dropout import reseed
    from recsys.models.initialise import named_seed
    from recsys.models.linear import set_precision

    config = parse_options(name, options)
    if not (layout.fields or layout.numerics or layout.sequences):
        raise ConfigError(f"model {name!r}: needs at least one feature, the layout has none")
    generator = torch.Generator().manual_seed(named_seed(seed, "model"))
    try:
        model: nn.Module = model_class(name)(config, layout, generator=generator)
    except ValueError as error:
        raise ConfigError(f"model {name!r}: {error}") from error
    set_precision(model, precision)
    reseed(model, seed, step=0)
    return model


def table_dim(name: str, options: Mapping[str, Any], embedding_dim: int) -> int:
    """Width of embedding tables for a model where ``plan.embedding_dim`` says ``embedding_dim``."""
    return parse_options(name, options).table_dim(embedding_dim)


def _explain(fault: Any, name: str, known: list[str]) -> str:
    """One line for one fault of pydantic, with the nearest known key for an unknown one."""
    key = ".".join(["model", *(str(part) for part in fault["loc"])])
    if fault["type"] == "extra_forbidden":
        unknown = str(fault["loc"][-1])
        return f"{key}: unknown option of {name}; {did_you_mean(unknown, known)}"
    return f"{key}: {fault['msg'].removeprefix('Value error, ')} (found {fault['input']!r})"
