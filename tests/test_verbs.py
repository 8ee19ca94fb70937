"""``plan`` and ``train`` take paths and in-memory tables of any library, with equal results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import recsys
from recsys.config import PlanSettings, RatioSplit, TrainSettings

SPLIT = RatioSplit(by="ratio", key="user_id", valid=0.2, test=0.2)


def _log(rows: int = 1_500) -> pl.DataFrame:
    generator = np.random.default_rng(3)
    item = generator.integers(0, 40, rows)
    return pl.DataFrame(
        {
            "user_id": generator.integers(0, 200, rows),
            "item_id": item,
            "price": generator.normal(size=rows),
            "clicked": (generator.random(rows) < 0.2 + 0.5 * (item % 2)).astype(np.int8),
        }
    )


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    log = _log()
    path = tmp_path_factory.mktemp("log") / "log.parquet"
    log.write_parquet(path)
    return {"path": path, "polars": log, "pandas": log.to_pandas(), "arrow": log.to_arrow()}


def test_plan_is_the_same_for_every_kind_of_input(inputs: dict[str, Any], tmp_path: Path) -> None:
    settings = PlanSettings(embedding_dim=4)
    plans = [
        recsys.plan(data, settings=settings, split=SPLIT, label="clicked", output=tmp_path / name)
        for name, data in inputs.items()
    ]
    assert len({plan.fingerprint() for plan in plans}) == 1
    assert plans[0].tables["item_id"].rows == 42
    assert recsys.Plan.load(tmp_path / "polars" / "plan.json") == plans[0]


def test_train_is_the_same_for_every_kind_of_input(inputs: dict[str, Any], tmp_path: Path) -> None:
    settings = TrainSettings(epochs=3, batch_size=100, log_every=1)
    curves = []
    for name, data in inputs.items():
        run = recsys.train(
            data, tmp_path / name, model="lr", settings=settings, split=SPLIT, label="clicked"
        )
        curves.append(run.metrics["loss"].drop_nulls().to_list())
    assert all(curve == curves[0] for curve in curves)
    assert len(curves[0]) > 20
    longer = settings.model_copy(update={"epochs": 4})
    again = recsys.train(
        inputs["polars"], tmp_path / "polars", model="lr", settings=longer, split=SPLIT, resume=True
    )
    assert again.result.epochs == 4


def test_every_public_name_can_be_imported() -> None:
    for name in recsys.__all__:
        assert getattr(recsys, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        recsys.nothing  # noqa: B018
