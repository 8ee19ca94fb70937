"""How a budget is shared between the dense part and the tables, before either of them is built."""

from __future__ import annotations

from recsys.config import ModelSettings
from recsys.data.dataset import Dataset
from recsys.embeddings.plan import Plan
from recsys.errors import ConfigError
from recsys.models import build_model
from recsys.models.units import hidden_layers
from recsys.settings.sparsity import SparsitySettings
from recsys.training.layout import layout_of


def with_densities(
    settings: SparsitySettings, model: ModelSettings, plan: Plan, dataset: Dataset
) -> SparsitySettings:
    """The settings with ``dense`` and ``tables`` filled in.

    Where neither is stated, both parts keep the same number of weights, or all they have: the larger one
    pays first. Where one is, the other gets the rest of the budget. Tables whose rows values share do not
    count. The published method gives both the budget's share.

    Raises:
        ConfigError: the stated part leaves nothing for the other.
    """
    if settings.method == "dsl" or (settings.dense is not None and settings.tables is not None):
        return settings
    network = build_model(model.name, model.options, layout_of(dataset.features, plan), seed=0)
    sizes = (sum(parameter.numel() for parameter in network.parameters()), _table_weights(plan))
    stated = (
        settings.dense if hidden_layers(network) else 1.0,
        settings.tables if sizes[1] else 1.0,
    )
    dense, tables = _split(settings.budget * sum(sizes), sizes, stated)
    if min(dense, tables) <= 0:
        raise ConfigError(
            f"train.sparsity: {settings.budget:g} of {sum(sizes):,} weights, {sizes[0]:,} of the dense "
            f"part and {sizes[1]:,} of the tables, is used up by one of them; raise budget, or lower the "
            "share that is stated for it"
        )
    if settings.start < dense:
        raise ConfigError(f"train.sparsity.start: {settings.start:g} is below the {dense:.3f} to be kept")
    return settings.model_copy(update={"dense": dense, "tables": tables})


def _table_weights(plan: Plan) -> int:
    own = {info.table for info in plan.vocabularies.values() if info.mode == "full"}
    return sum(table.rows * table.dim for name, table in plan.tables.items() if name in own)


def _split(
    kept: float, sizes: tuple[int, int], stated: tuple[float | None, float | None]
) -> tuple[float, float]:
    """Densities of two parts of these sizes that keep so many weights together.

    >>> _split(60.0, (100, 20), (None, None)), _split(60.0, (100, 20), (0.5, None))
    ((0.4, 1.0), (0.5, 0.5))
    """
    dense, tables = stated
    if dense is None and tables is None:
        dense, tables = (min(1.0, kept / 2 / size) for size in sizes)
        if dense == 1:
            tables = None
        elif tables == 1:
            dense = None
    if dense is None:
        dense = min(1.0, (kept - (tables or 0.0) * sizes[1]) / sizes[0])
    if tables is None:
        tables = min(1.0, (kept - dense * sizes[0]) / sizes[1])
    return dense, tables
