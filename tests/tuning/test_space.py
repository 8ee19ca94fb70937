"""The search space: strict, and named by the keys of the run file."""

from __future__ import annotations

from typing import Any

import pytest

from recsys.config import parse_config
from recsys.errors import ConfigError
from recsys.tuning.space import Space, read_space, with_values

pytest.importorskip("torchrec")

BASE: dict[str, Any] = {
    "name": "a",
    "data": {"path": "log.parquet", "label": "clicked"},
    "split": {"by": "ratio", "key": "user_id"},
    "model": {"name": "dnn"},
}


def space(entries: dict[str, Any], **changes: Any) -> Space:
    return read_space(parse_config({**BASE, **changes, "tune": {"space": entries}}))


def test_stages_and_kinds() -> None:
    found = space(
        {
            "prepare.min_count": {"low": 1, "high": 4},
            "plan.embedding_dim": {"choices": [8, 16]},
            "plan.tables.item.dim": {"low": 4, "high": 8},
            "model.hidden": {"choices": [[400, 400], [64]]},
            "model.dropout": {"low": 0, "high": 0.5},
            "train.dense.lr": {"low": 0.0001, "high": 0.01, "log": True},
            "train.tables.l2": {"low": 0, "high": 1},
        }
    )
    assert [axis.stage for axis in found.axes] == ["prepare", "plan", "plan", *["train"] * 4]
    assert [axis.is_integer for axis in found.axes] == [True, False, True, False, False, False, False]
    assert found.combinations(1_000) is None


def test_combinations_where_there_are_few() -> None:
    found = space({"train.batch_size": {"low": 64, "high": 256, "step": 96}, "model.dropout": {
        "low": 0.1, "high": 0.3, "step": 0.1
    }, "model.hidden": {"choices": [[8], [4, 4]]}})  # fmt: skip
    every = found.combinations(18)
    assert every is not None
    assert len(every) == 18
    assert every[0] == {"train.batch_size": 64, "model.dropout": 0.1, "model.hidden": [8]}
    assert every[-1] == {"train.batch_size": 256, "model.dropout": 0.3, "model.hidden": [4, 4]}
    assert found.combinations(17) is None
    assert space({"train.max_steps": {"low": 1, "high": 10**15}}).combinations(10**6) is None


def test_values_are_put_where_they_belong() -> None:
    config = with_values(
        parse_config(BASE), {"train.dense.lr": 0.5, "model.hidden": [3], "plan.tables.item.dim": 4}
    )
    assert config.train.dense.lr == 0.5
    assert config.model.options == {"hidden": [3]}
    assert config.plan.tables["item"].dim == 4
    assert config.name == "a"


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({}, "tune.space is missing"),
        ({"train.dense.lrr": {"choices": [1]}}, "lrr: unknown setting; did you mean 'train.dense.lr'"),
        ({"model.droput": {"choices": [0.1]}}, "did you mean 'model.dropout'"),
        ({"trian.epochs": {"choices": [1]}}, "did you mean 'train.epochs'"),
        ({"plan.tables.item.dims": {"choices": [1]}}, "unknown setting"),
        ({"train.dense": {"choices": [1]}}, "unknown setting"),
        ({"split.valid": {"choices": [0.1]}}, "not searched: trials are compared on the same rows"),
        ({"evaluate.by": {"choices": ["a"]}}, "not searched"),
        ({"train.seed": {"low": 1, "high": 9}}, "not searched: a seed is drawn"),
        ({"train.monitor": {"choices": ["auc"]}}, "not searched: trials are judged by it"),
        ({"model.hidden": {"low": 1, "high": 2}}, "takes no range of numbers; give choices"),
        ({"train.epochs": {"low": 1, "high": 2.5}}, r"expected integers \(found 2.5\)"),
        ({"model.dropout": {"low": 0.1, "high": 1.5}}, r"tune\.space\.model\.dropout: 1\.5"),
        ({"train.dense.lr": {"choices": [0.1, "fast"]}}, "tune.space.train.dense.lr: 'fast'"),
        ({"train.dense.name": {"choices": ["adam", "adma"]}}, "train.dense.name"),
        ({"model.name": {"choices": ["dnn", "dcnv3"]}}, "did you mean 'dcnv2'"),
    ],
)  # fmt: skip
def test_what_is_refused(entries: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        space(entries)


@pytest.mark.parametrize(
    ("dimension", "message"),
    [
        ({}, "expected choices, or low and high"),
        ({"low": 1}, "expected choices, or low and high"),
        ({"low": 2, "high": 1}, "low must be below high"),
        ({"low": 0, "high": 1, "log": True}, "begins above 0"),
        ({"low": 1, "high": 2, "log": True, "step": 1}, "has no step"),
        ({"choices": [1], "low": 1}, "leave no room"),
        ({"choices": [1, 1]}, "stands twice"),
        ({"lo": 1, "high": 2}, r"tune\.space\.train\.epochs\.lo: unknown key; did you mean 'low'"),
    ],
)
def test_a_dimension_is_choices_or_a_range(dimension: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_config({**BASE, "tune": {"space": {"train.epochs": dimension}}})


def test_options_of_every_model_that_is_searched_are_known() -> None:
    found = space({"model.name": {"choices": ["dnn", "dcnv2"]}, "model.cross_layers": {"choices": [1, 2]}})
    assert found.stages() == {"plan", "train"}
