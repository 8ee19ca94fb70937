"""What a run file leaves open of its sparsity, before anything is built, and the room that tables need."""

from __future__ import annotations

from typing import NamedTuple

from recsys.config import ModelSettings
from recsys.data.dataset import Dataset
from recsys.embeddings.plan import Plan
from recsys.errors import ConfigError
from recsys.models import build_model
from recsys.models.units import hidden_layers
from recsys.settings.sparsity import SparsitySettings
from recsys.training.layout import layout_of
from recsys.training.sparsity.schedule import DROP
from recsys.training.sparsity.size import Size

_BEGIN = 2.0
"""The dense part begins with so many times the weights that it may keep: on validation rows of Frappe_x1
better than whole, on those of MovieLens-1M as good."""


class Resolved(NamedTuple):
    """Settings as they are trained with."""

    settings: SparsitySettings
    pooled: float | None
    """Share of the tables' weights that pools have room for; None: tables stay as they are."""


def filled_in(settings: SparsitySettings, model: ModelSettings, plan: Plan, dataset: Dataset) -> Resolved:
    """The settings with what they leave open filled in; ``dense`` and ``tables`` unless the budget moves.

    Where it does, the tables have room for all that the dense part may leave them. Elsewhere, where one of
    the two is stated, the other gets the rest; without both, they keep the same number of weights, or all
    they have: the larger one pays first. So do retrieval models, whose rows stay where they are dealt.
    Tables whose rows values share do not count. The published method gives both the budget's share.

    Raises:
        ConfigError: a part has nothing to drop, or leaves nothing of the budget for the other.
    """
    if settings.drop is None:
        stays = model.retrieves and settings.method == "structured"
        settings = settings.model_copy(update={"drop": 0.0 if stays else DROP})
    if settings.method == "dsl":
        return Resolved(settings, None)
    network = build_model(model.name, model.options, layout_of(dataset.features, plan), seed=0)
    layers = hidden_layers(network)
    size = Size(network, layers)
    sizes = (size.whole, _table_weights(plan))
    droppable = (bool(layers), bool(sizes[1]))
    _require_droppable(settings, droppable, type(network).__name__)
    if settings.dense is not None and settings.tables is not None:
        return _with_shares(settings)
    kept = settings.budget * sum(sizes)
    if settings.splits and all(droppable) and not model.retrieves:
        least = size.parameters([1] * len(layers))
        if kept <= least:
            raise _used_up(settings, sizes, "the dense part, of which every layer keeps one unit")
        most = min(1.0, (kept - least) / sizes[1])
        return Resolved(_started(settings, kept / sizes[0]), most)
    stated = (settings.dense if droppable[0] else 1.0, settings.tables if droppable[1] else 1.0)
    dense, tables = _densities(kept, sizes, stated)
    if min(dense, tables) <= 0:
        whole, share = ("the tables", stated[1]) if dense <= 0 else ("the dense part", stated[0])
        raise _used_up(settings, sizes, f"{whole}, of which {share:g} stays", lower=share != 1)
    if settings.start is not None and settings.start < dense:
        raise ConfigError(f"train.sparsity.start: {settings.start:g} is below the {dense:.3f} to be kept")
    return _with_shares(settings.model_copy(update={"dense": dense, "tables": tables}))


def _with_shares(settings: SparsitySettings) -> Resolved:
    """With both shares stated."""
    started = _started(settings, settings.dense_density)
    return Resolved(started, None if settings.tables == 1 else settings.tables)


def _started(settings: SparsitySettings, dense: float) -> SparsitySettings:
    """With ``start`` filled in, where the dense part keeps this share at most."""
    if settings.start is not None:
        return settings
    return settings.model_copy(update={"start": min(1.0, _BEGIN * dense)})


def _used_up(
    settings: SparsitySettings, sizes: tuple[int, int], by: str, *, lower: bool = False
) -> ConfigError:
    return ConfigError(
        f"train.sparsity: {settings.budget:g} of {sum(sizes):,} weights, {sizes[0]:,} of the dense "
        f"part and {sizes[1]:,} of the tables, is used up by {by}; raise budget"
        + (", or lower that share" if lower else "")
    )


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


def _densities(
    kept: float, sizes: tuple[int, int], stated: tuple[float | None, float | None]
) -> tuple[float, float]:
    """Densities of two parts of these sizes that keep so many weights together.

    >>> _densities(60.0, (100, 20), (None, None)), _densities(60.0, (100, 20), (0.5, None))
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
