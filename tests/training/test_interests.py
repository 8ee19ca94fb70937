"""Several vectors of a query: from the pooling of a history to a search of the bundle's index."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor, nn

from recsys.config import TrainSettings
from recsys.data.dataset import Dataset
from recsys.errors import ConfigError
from recsys.evaluation.retrieval import ItemLists, best_items
from recsys.models import build_model, parse_options
from recsys.models.initialise import initialise
from recsys.models.inputs import Inputs, Layout, SequenceLayout
from recsys.models.pooling import EventAttention
from recsys.models.two_tower import TwoTower, nearest_interest
from recsys.retrieval.index import Index
from recsys.retrieval.of_bundle import index_bundle
from recsys.serving.bundle import Bundle
from recsys.training.export import export
from recsys.training.train import train
from tests.training.retrieval_log import made_log, made_retrieval_dataset, made_retrieval_plan


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_each_interest_weighs_events_for_itself() -> None:
    both = EventAttention(4, 6, interests=2)
    initialise(both, torch.Generator().manual_seed(1))
    events, lengths = normal(3, 5, 4), torch.tensor([5, 2, 0])
    pooled = both(events, lengths)
    assert pooled.shape == (3, 2, 4)
    for interest in range(2):
        alone = EventAttention(4, 6)
        state = both.state_dict() | {
            f"score.{part}": both.state_dict()[f"score.{part}"][interest : interest + 1]
            for part in ("weight", "bias")
        }
        alone.load_state_dict(state)
        torch.testing.assert_close(pooled[:, interest], alone(events, lengths))


def test_an_item_counts_with_the_interest_that_it_fits_best() -> None:
    queries, items = normal(7, 3, 4), normal(7, 4, seed=1)
    products = (queries * items.unsqueeze(1)).sum(2)
    best = nearest_interest(queries, items)
    torch.testing.assert_close((best * items).sum(1), products.max(1).values)
    assert nearest_interest(best, items) is best
    without = ItemLists.of(np.array([0, 3]), np.array([1, 2]), 7)
    scores = np.einsum("qid,nd->qin", queries.numpy(), items.numpy()).max(1)
    scores[[0, 3], [1, 2]] = -np.inf
    right = np.argsort(-scores, axis=1, kind="stable")[:, :4]
    assert (best_items(queries.numpy(), items.numpy(), 4, without) == right).all()


def found_of_two_tastes(interests: int) -> float:
    """Share of the items of two tastes that are found for who has both, by vectors on a circle.

    A single direction cannot be near two of eight tastes and far from those between them.
    """
    tastes, each, dim = 8, 5, 2
    generator = torch.Generator().manual_seed(3)
    mine = torch.rand(512, tastes, generator=generator).argsort(1)[:, :2]
    picked = torch.randint(0, each, (512, 6), generator=generator)
    events = mine[:, [0, 1, 0, 1, 0, 1]] * each + picked
    target = mine[torch.arange(512), torch.randint(0, 2, (512,), generator=generator)] * each
    target += torch.randint(0, each, (512,), generator=generator)
    layout = Layout(
        {"item": dim}, (), {"items": SequenceLayout(dim, None)}, {"item": "item", "items": "user"}
    )
    options = {"pooling": "attention", "pooling_hidden": [8], "interests": interests, "temperature": 0.2}
    model = build_model("two_tower", options, layout, 4)
    assert isinstance(model, TwoTower)
    table = nn.Parameter(torch.randn(tastes * each, dim, generator=generator))
    optimiser = torch.optim.Adam([*model.parameters(), table], lr=0.03)
    asked = Inputs(lengths={"items": torch.full((512,), 6)})
    for _ in range(150):
        asked.sequences = {"items": table[events]}
        items = model.item(Inputs(fields={"item": table}))
        queries = nearest_interest(model.query(asked), items[target])
        loss = nn.functional.cross_entropy(queries @ items.T / model.temperature, target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        best = best_items(model.query(asked).numpy(), items.numpy(), 2 * each)
    right = (mine.unsqueeze(2) * each + torch.arange(each)).flatten(1).numpy()
    return float(np.mean([np.isin(line, mine).mean() for line, mine in zip(best, right, strict=True)]))


def test_two_interests_find_two_tastes() -> None:
    assert found_of_two_tastes(1) < 0.65
    assert found_of_two_tastes(2) > 0.75


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return made_retrieval_dataset(tmp_path_factory.mktemp("log") / "log", rows=600)


def test_a_bundle_has_the_interests_and_its_index_answers_them(dataset: Dataset, tmp_path: Path) -> None:
    model: dict[str, Any] = {
        "name": "two_tower", "pooling": "attention", "pooling_hidden": [8], "interests": 3,
        "item_bias": True, "query_hidden": [8], "hard_negatives": 2, "hard_pool": 20,
    }  # fmt: skip
    settings = TrainSettings(epochs=2, max_steps=9, batch_size=128, monitor="recall", monitor_k=10)
    run = train(
        dataset, tmp_path / "run", model=model, plan=made_retrieval_plan(dataset), settings=settings
    )
    export(run.folder, tmp_path / "bundle")
    bundle = Bundle.load(tmp_path / "bundle")
    encoder, rows = bundle.query_encoder(), made_log(40, seed=5)
    queries = encoder.encode(rows)
    assert queries.shape == (40, 3, encoder.dim)
    assert not np.allclose(queries[:, 0], queries[:, 1], atol=1e-3)
    items = pl.read_parquet(tmp_path / "bundle" / "items" / "items.parquet")
    scores = (queries @ items["vector"].to_numpy().T).max(1)
    right = items["id"].gather(np.argmax(scores, axis=1)).to_list()
    index_bundle(tmp_path / "bundle", tmp_path / "index", rows.lazy())
    found = Index.open(tmp_path / "index", tower=tmp_path / "bundle").search(queries, 1)
    assert found.ids.list.first().to_list() == right
    own = bundle.scorer().score(rows)
    mine = {one: number for number, one in enumerate(items["id"].to_list())}
    known = [at for at, one in enumerate(rows["item_id"].to_list()) if one in mine]
    fits = [scores[at, mine[rows["item_id"][at]]] / 0.1 for at in known]
    np.testing.assert_allclose(own[known], 1 / (1 + np.exp(-np.array(fits))), atol=1e-3)


def test_interests_without_a_history_are_refused() -> None:
    with pytest.raises(ConfigError, match="set pooling to attention"):
        parse_options("two_tower", {"interests": 2})
    layout = Layout({"user": 4, "item": 4}, sides={"user": "user", "item": "item"})
    with pytest.raises(ConfigError, match="no sequence describes the user"):
        build_model("two_tower", {"interests": 2, "pooling": "attention"}, layout, 1)
