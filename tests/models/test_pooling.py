"""Histories pooled by weight: by the formulas, blind to padding, and the same in a bundle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from recsys.config import TrainSettings
from recsys.data.dataset import Dataset
from recsys.errors import ConfigError
from recsys.models import parse_options
from recsys.models.initialise import initialise
from recsys.models.inputs import Inputs, Layout, SequenceLayout
from recsys.models.pooling import EventAttention, NewestEvent, WeightedHistories
from recsys.serving.bundle import Bundle
from recsys.training.export import export
from recsys.training.train import train
from tests.training.retrieval_log import made_retrieval_dataset, made_retrieval_plan

LENGTHS = torch.tensor([3, 1, 0])


def _histories(width: int = 4) -> torch.Tensor:
    """Three rows of at most three events, padded with zeros."""
    events = torch.randn(3, 3, width, generator=torch.Generator().manual_seed(3))
    return events * (torch.arange(3) < LENGTHS.unsqueeze(1)).unsqueeze(2)


def test_attention_is_a_softmax_of_a_score_of_each_event() -> None:
    unit = EventAttention(4, 5)
    initialise(unit, torch.Generator().manual_seed(1))
    events = _histories()
    scores = torch.tanh(events[0] @ unit.linear.weight.T + unit.linear.bias) @ unit.score.weight[0]
    expected = (torch.softmax(scores, 0).unsqueeze(1) * events[0]).sum(0)
    pooled = unit(events, LENGTHS)
    torch.testing.assert_close(pooled[0], expected)
    torch.testing.assert_close(pooled[1], events[1, 0])
    assert torch.equal(pooled[2], torch.zeros(4))


def test_din_compares_events_with_the_newest() -> None:
    pooling = NewestEvent(4, [6])
    initialise(pooling, torch.Generator().manual_seed(1))
    pooling.eval()
    events = _histories()
    alone = pooling.unit(events[:1, 2], events[:1], LENGTHS[:1])
    pooled = pooling(events, LENGTHS)
    torch.testing.assert_close(pooled[:1], alone)
    other = events.clone()
    other[0, 2] += 1.0
    assert not torch.allclose(
        pooling.unit.weights(other[:, 2], events, LENGTHS)[0], torch.full((3,), 1 / 3)
    )
    assert torch.equal(pooled[2], torch.zeros(4))


@pytest.mark.parametrize("kind", ["attention", "din"])
def test_padding_and_histories_without_events_change_nothing(kind: str) -> None:
    layout = Layout({}, sequences={"items": SequenceLayout(4, None)})
    pooling = WeightedHistories(layout, kind, [6])  # type: ignore[arg-type]
    initialise(pooling, torch.Generator().manual_seed(1))
    pooling.eval()
    events = _histories()
    longer = torch.cat([events, torch.zeros(3, 2, 4)], 1)
    short, long = (
        pooling(Inputs(sequences={"items": padded}, lengths={"items": LENGTHS}))
        for padded in (events, longer)
    )
    torch.testing.assert_close(short, long)
    none = pooling(Inputs(sequences={"items": events[:, :0]}, lengths={"items": torch.zeros(3).long()}))
    assert torch.equal(none, torch.zeros(3, 4))


@pytest.mark.parametrize("kind", ["attention", "din"])
def test_aligned_sequences_have_one_weight_per_event(kind: str) -> None:
    """An event's item and shop are weighted alike: a shop that is twice the item stays twice as long."""
    sequences = {"items": SequenceLayout(4, None), "shops": SequenceLayout(4, None, aligned_with="items")}
    pooling = WeightedHistories(Layout({}, sequences=sequences), kind, [6])  # type: ignore[arg-type]
    initialise(pooling, torch.Generator().manual_seed(1))
    pooling.eval()
    events = _histories()
    both = {"items": events, "shops": 2 * events}
    pooled = pooling(Inputs(sequences=both, lengths=dict.fromkeys(both, LENGTHS)))
    torch.testing.assert_close(pooled[:, 4:], 2 * pooled[:, :4])
    assert (pooling.names, pooling.widths) == (("items", "shops"), (4, 4))


def test_attention_has_one_layer() -> None:
    with pytest.raises(ConfigError, match="one hidden layer"):
        parse_options("two_tower", {"pooling": "attention", "pooling_hidden": [8, 4]})


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return made_retrieval_dataset(tmp_path_factory.mktemp("log") / "log", rows=600)


@pytest.mark.parametrize("kind", ["attention", "din"])
def test_a_bundle_weighs_events_as_the_model_does(dataset: Dataset, tmp_path: Path, kind: str) -> None:
    """Export holds the graph's vectors against the model's own; the order of events tells the two apart."""
    model = {"name": "two_tower", "pooling": kind, "pooling_hidden": [8], "negatives": 8}
    settings = TrainSettings(max_steps=6, batch_size=128, monitor="recall", monitor_k=10)
    plan = made_retrieval_plan(dataset)
    export(
        train(dataset, tmp_path / "run", model=model, plan=plan, settings=settings).folder, tmp_path / "b"
    )
    rows = pl.DataFrame(
        {"user_id": [1, 1, 1], "history": [["i1", "i2", "i3"], ["i3", "i2", "i1"], []], "hour": [3, 3, 3]},
        schema_overrides={"history": pl.List(pl.String)},
    )
    forward, backward, none = Bundle.load(tmp_path / "b").query_encoder().encode(rows)
    assert np.allclose(forward, backward, atol=1e-6) == (kind == "attention")
    assert not np.allclose(forward, none, atol=1e-3)
