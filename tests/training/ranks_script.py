"""Trains every case of test_distributed.py in one launch; run plain or under torchrun.

python ranks_script.py DATASET RETRIEVAL_DATASET OUTPUT
"""

from __future__ import annotations

import sys
from pathlib import Path

from recsys.config import DenseOptimizer, Plateau, TableOptimizer, TrainSettings
from recsys.data.dataset import Dataset
from recsys.embeddings.plan import Plan, UpdatePath
from recsys.settings.gates import GateSettings
from recsys.settings.sparsity import SparsitySettings
from recsys.training.train import train
from tests.training.made import compressed_plan, made_plan, shared_plan
from tests.training.retrieval_cases import train_towers

AUTOINT_PLUS: dict[str, object] = {
    "name": "autoint_plus", "layers": 2, "heads": 3, "head_dim": 4, "layer_norm": True, "hidden": [16, 8],
}  # fmt: skip
CASES: dict[str, tuple[dict[str, object], UpdatePath]] = {
    "autoint-dense": ({"name": "autoint", "layers": 2}, "dense"),
    "autoint-fused": ({"name": "autoint", "layers": 2}, "fused"),
    "autoint_plus-dense": (
        {"name": "autoint_plus", "layers": 1, "hidden": [16], "batch_norm": True},
        "dense",
    ),
    "autoint_plus-fused": (
        {"name": "autoint_plus", "layers": 1, "hidden": [16], "batch_norm": True},
        "fused",
    ),
    "din-dense": ({"name": "din", "attention_hidden": [8], "hidden": [16], "activation": "dice"}, "dense"),
    "din-fused": ({"name": "din", "attention_hidden": [8], "hidden": [16], "activation": "dice"}, "fused"),
    "dien-dense": ({"name": "dien", "interest": 8, "attention_hidden": [8], "hidden": [16]}, "dense"),
    "shared-autoint_plus-dense": (
        {"name": "autoint_plus", "layers": 1, "hidden": [16], "batch_norm": True},
        "dense",
    ),
    "shared-din-fused": ({"name": "din", "attention_hidden": [8], "hidden": [16]}, "fused"),
    "dealt-autoint_plus-dense": (AUTOINT_PLUS, "dense"),
    "dealt-din-fused": ({"name": "din", "attention_hidden": [8], "hidden": [16]}, "fused"),
    "quotient-din-dense": ({"name": "din", "attention_hidden": [8], "hidden": [16]}, "dense"),
    "quotient-autoint-fused": ({"name": "autoint", "layers": 1}, "fused"),
    "adaptive-autoint-dense": ({"name": "autoint", "layers": 1}, "dense"),
    "din-dense-l2_rows": (
        {"name": "din", "attention_hidden": [8], "hidden": [16], "activation": "dice"},
        "dense",
    ),
    "sparse-autoint_plus-dense": (AUTOINT_PLUS, "dense"),
    "sparse-dnn-dense-average": ({"name": "dnn", "hidden": [16], "batch_norm": True}, "dense"),
    "sparse-dnn-dense-one_dial": ({"name": "dnn", "hidden": [16, 8], "batch_norm": True}, "dense"),
    "sparse-din-fused": ({"name": "din", "attention_hidden": [8], "hidden": [16]}, "fused"),
    "dsl-din-dense": ({"name": "din", "attention_hidden": [8], "hidden": [16]}, "dense"),
    "shared-autoint-fused-l2_rows": ({"name": "autoint", "layers": 1}, "fused"),
    "average-dnn-dense": ({"name": "dnn", "hidden": [16], "batch_norm": True}, "dense"),
    "dnn-dense-gates": ({"name": "dnn", "hidden": [16], "batch_norm": True}, "dense"),
    "shared-dnn-fused-gates": ({"name": "dnn", "hidden": [16], "dropout": 0.0}, "fused"),
    "shared-dnn-fused-warm": ({"name": "dnn", "hidden": [16], "dropout": 0.0}, "fused"),
}
SETTINGS = TrainSettings(
    epochs=12,
    max_steps=50,
    batch_size=97,  # odd, so that ranks' slices differ in size and a last batch leaves one almost empty
    log_every=1,
    plateau=Plateau(stop_after=99),
    tables=TableOptimizer(l2=1e-3),
    dense=DenseOptimizer(),
)

SPARSE = SparsitySettings(budget=0.5, dense=0.8, tables=0.5, pieces=2, interval=7, updates=4)
ONE_DIAL = SparsitySettings(budget=0.4, interval=7, updates=4)
PUBLISHED = SparsitySettings(budget=0.8, method="dsl", interval=7, updates=4)


def plan_of(case: str, dataset: Dataset) -> Plan:
    """A row per value; in the ``shared`` cases two lookups in a table of vocabularies together, in the
    ``dealt`` ones one in each of two sub-tables; in others the mode that the name begins with."""
    _, path = CASES[case]
    match case.partition("-")[0]:
        case "shared":
            return shared_plan(dataset, path)
        case "dealt":
            return shared_plan(dataset, path, sub_tables=2)
        case "quotient":
            return compressed_plan(dataset, path, mode="quotient")
        case "adaptive":
            return compressed_plan(dataset, path, mode="adaptive")
    return made_plan(dataset, path)


def settings_of(case: str) -> TrainSettings:
    """Settings of a case; its name says how tables are regularised, what is kept, and about gates."""
    if case.startswith("sparse"):
        sparsity = ONE_DIAL if case.endswith("one_dial") else SPARSE
        averaged = {"average": 0.9} if case.endswith("average") else {}
        return SETTINGS.model_copy(update={"sparsity": sparsity, **averaged})
    if case.startswith("dsl"):
        return SETTINGS.model_copy(update={"sparsity": PUBLISHED})
    if case.startswith(("quotient", "adaptive")):
        return SETTINGS.model_copy(update={"tables": TableOptimizer(lr=0.02, fused_lr=0.05)})
    if case.endswith("l2_rows"):
        return SETTINGS.model_copy(update={"tables": TableOptimizer(l2_rows=2.0, lr=0.005)})
    if case.startswith("average"):
        return SETTINGS.model_copy(update={"average": 0.9})
    if case.endswith("gates"):
        return SETTINGS.model_copy(update={"gates": GateSettings(epochs=3, lr=0.08, l1=2e-3)})
    return SETTINGS


def main() -> None:
    dataset, positives = (Dataset.load(Path(folder)) for folder in sys.argv[1:3])
    output = Path(sys.argv[3])
    for name, (model, _) in CASES.items():
        plan = plan_of(name, dataset)
        settings = settings_of(name)
        if name.endswith("warm"):  # with what the case before it has learnt
            settings = settings.model_copy(update={"warm_start": output / name.replace("warm", "gates")})
        train(dataset, output / name, model=model, plan=plan, settings=settings)
    train_towers(positives, output)


if __name__ == "__main__":
    main()
