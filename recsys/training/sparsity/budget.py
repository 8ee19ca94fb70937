"""What a run file leaves open of its sparsity, before anything is built: above all the budget's shares."""

from __future__ import annotations

from recsys.config import ModelSettings
from recsys.data.dataset import Dataset
from recsys.embeddings.plan import Plan
from recsys.errors import ConfigError
from recsys.models import build_model
from recsys.models.units import hidden_layers
from recsys.settings.sparsity import SparsitySettings
from recsys.training.layout import layout_of
from recsys.training.sparsity.schedule import DROP


def filled_in(
    settings: SparsitySettings, model: ModelSettings, plan: Plan, dataset: Dataset
) -> SparsitySettings:
    """The settings with ``dense``, ``tables`` and ``drop`` filled in.

    Where neither is stated, both parts keep the same number of weights, or all they have: the larger one
    pays first. Where one is, the other gets the rest of the budget. Tables whose rows values share do not
    count. The published method gives both the budget's share.

    Raises:
        ConfigError: a part has nothing to drop, or leaves nothing of the budget for the other.
    """
    if settings.drop is None:
        stays = model.retrieves and settings.method == "structured"
        settings = settings.model_copy(update={"drop": 0.0 if stays else DROP})
    if settings.method == "dsl":
        return settings
    network = build_model(model.name, model.options, layout_of(dataset.features, plan), seed=0)
    sizes = (sum(parameter.numel() for parameter in network.parameters()), _table_weights(plan))
    droppable = (bool(hidden_layers(network)), bool(sizes[1]))
    _require_droppable(settings, droppable, type(network).__name__)
    if settings.dense is not None and settings.tables is not None:
        return settings
    stated = (settings.dense if droppable[0] else 1.0, settings.tables if droppable[1] else 1.0)
    dense, tables = _split(settings.budget * sum(sizes), sizes, stated)
    if min(dense, tables) <= 0:
        whole = "the tables" if dense <= 0 else "the dense part"
        kept = stated[1] if dense <= 0 else stated[0]
        raise ConfigError(
            f"train.sparsity: {settings.budget:g} of {sum(sizes):,} weights, {sizes[0]:,} of the dense "
            f"part and {sizes[1]:,} of the tables, is used up by {whole}, of which {kept:g} stays; raise "
            "budget" + ("" if kept == 1 else ", or lower that share")
        )
    if settings.start < dense:
        raise ConfigError(f"train.sparsity.start: {settings.start:g} is below the {dense:.3f} to be kept")
    return settings.model_copy(update={"dense": dense, "tables": tables})


def _require_droppable(settings: SparsitySettings, droppable: tuple[bool, bool], model: str) -> None:
    """Raise ConfigError where a part is to be dropped from that has nothing that can be."""
    units = f"{model} has no hidden units or heads to drop"
    rows = "no table of the plan has a row per value, and rows that values share cannot be dropped"
    if not any(droppable):
        raise ConfigError(f"train.sparsity: {units}, and {rows}; leave train.sparsity out")
    if not droppable[0] and (settings.dense or 1.0) < 1:
        raise ConfigError(f"train.sparsity.dense: {units}; leave it out, or set it to 1")
    if not droppable[1] and (settings.tables or 1.0) < 1:
        raise ConfigError(f"train.sparsity.tables: {rows}; leave it out, or set it to 1")


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
