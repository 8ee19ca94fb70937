"""Two-tower trainings of test_distributed.py."""

from __future__ import annotations

from pathlib import Path

from recsys.config import DenseOptimizer, Plateau, TableOptimizer, TrainSettings
from recsys.data.dataset import Dataset
from recsys.embeddings.plan import UpdatePath
from recsys.settings.sparsity import SparsitySettings
from recsys.training.train import train
from tests.training.retrieval_log import made_retrieval_plan

RETRIEVAL_CASES: dict[str, tuple[dict[str, object], UpdatePath]] = {
    "towers-dense": ({"negatives": 11, "query_hidden": [8], "item_hidden": [8]}, "dense"),
    "towers-fused": ({"negatives": 0}, "fused"),
    "towers-drawn": ({"negatives": 31, "in_batch": False}, "dense"),
    "views-dense": (
        {"negatives": 11, "item_hidden": [8], "ssl_weight": 0.5, "ssl_items": 33, "ssl_temperature": 0.3},
        "dense",
    ),
    "views-fused": ({"item_bias": True, "ssl_weight": 0.5, "ssl_dropout": 0.4}, "fused"),
    "towers-hard": (
        {"negatives": 11, "hard_negatives": 3, "hard_pool": 20, "item_hidden": [8], "batch_norm": True},
        "dense",
    ),
    "views-hard": (
        {
            "hard_negatives": 3,
            "hard_pool": 20,
            "hard_from_codes": 4,
            "batches": "snowball",
            "ssl_weight": 0.5,
            "ssl_items": 33,
        },
        "fused",
    ),
    "interests": ({"negatives": 11, "pooling": "attention", "interests": 2}, "dense"),
    "sparse-towers": ({"negatives": 11, "query_hidden": [8]}, "dense"),
}
SETTINGS = TrainSettings(
    epochs=12,
    max_steps=40,
    batch_size=97,  # odd, so that ranks' slices differ in size and a last batch leaves one almost empty
    log_every=1,
    monitor="ndcg",
    plateau=Plateau(stop_after=99),
    # Plain gradients: Adam would blow the rounding of those that are zero up to whole steps.
    tables=TableOptimizer(dense="sgd", lr=0.5, fused_lr=0.1, init_std=0.1),
    dense=DenseOptimizer(name="sgd", lr=0.01),
)
SPARSE = SparsitySettings(budget=0.5, dense=0.7, tables=0.7, pieces=2, interval=5, updates=4)


def train_towers(dataset: Dataset, output: Path) -> None:
    """Train every case into a folder of its own."""
    for name, (options, path) in RETRIEVAL_CASES.items():
        train(
            dataset,
            output / name,
            model={"name": "two_tower", **options},
            plan=made_retrieval_plan(dataset, path),
            settings=SETTINGS.model_copy(
                update={"sparsity": SPARSE if name.startswith("sparse") else None}
            ),
        )
