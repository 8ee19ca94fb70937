"""recsys: from Parquet click logs to a served recommender.

Every stage is a verb of the command line and a function here: ``infer``, ``rank``, ``prepare``,
``plan``, ``train``, ``evaluate``, ``compare``, ``predict``, ``explain``, ``export``, ``index``,
``search``, and ``run`` for the whole chain; ``train_seeds`` and ``tune`` train many times.
Imports are lazy, so that the light stages work without torch.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "BundleError": "recsys.errors",
    "CheckpointError": "recsys.errors",
    "ConfigError": "recsys.errors",
    "DataError": "recsys.errors",
    "Dataset": "recsys.data.dataset",
    "FilesSplit": "recsys.config",
    "Index": "recsys.retrieval.index",
    "IndexSettings": "recsys.retrieval.build",
    "InstallationError": "recsys.errors",
    "Interrupted": "recsys.errors",
    "Plan": "recsys.embeddings.plan",
    "PlanError": "recsys.errors",
    "PlanSettings": "recsys.config",
    "RankSettings": "recsys.config",
    "Ranking": "recsys.ranking.ranking",
    "RatioSplit": "recsys.config",
    "RecsysError": "recsys.errors",
    "RetrievalError": "recsys.errors",
    "RunConfig": "recsys.config",
    "Schema": "recsys.schema",
    "SchemaError": "recsys.errors",
    "TimeSplit": "recsys.config",
    "TrainSettings": "recsys.config",
    "TrainingError": "recsys.errors",
    "Comparison": "recsys.evaluation",
    "Evaluation": "recsys.evaluation",
    "Explanation": "recsys.explanation",
    "compare": "recsys.comparison",
    "evaluate": "recsys.evaluation",
    "explain": "recsys.explanation",
    "export": "recsys.training.export",
    "index": "recsys.retrieval.build",
    "infer": "recsys.features.infer",
    "load_config": "recsys.config",
    "plan": "recsys.verbs",
    "predict": "recsys.prediction",
    "prepare": "recsys.features.prepare",
    "rank": "recsys.ranking.rank",
    "run": "recsys.chain",
    "search": "recsys.retrieval.batch",
    "synth": "recsys.data.synth",
    "train": "recsys.verbs",
    "train_seeds": "recsys.verbs",
    "tune": "recsys.tuning.tune",
}

__all__ = ["__version__", *sorted(_HOMES)]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'recsys' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
