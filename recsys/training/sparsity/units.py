"""Which hidden units and heads a model keeps: masked while that is explored, then cut for good.

While units are explored, a mask multiplies each layer's activations. The gradient of a unit's mask is
what the loss, to first order, gains or loses by the unit (Molchanov et al. 2019): the sum of its squares
since the last update is the worth of a unit that is kept, and the promise of one that is not. Against a
table's rows only that part of it counts which other units cannot stand in for (``tolerance``). A unit that
is out neither adds to the output nor learns; its weights wait. After the last update the layers are cut to
the units they keep, and nothing of the others is left in memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from recsys.errors import ConfigError
from recsys.models.axes import Cut, HiddenLayer
from recsys.models.units import hidden_layers
from recsys.settings.sparsity import SparsitySettings
from recsys.training.sparsity.prices import Prices
from recsys.training.sparsity.schedule import dense_density, drop_share, first_density, shares
from recsys.training.sparsity.size import Measure, Size, unit_costs


class Units:
    """The hidden units of a model under a budget of parameters.

    Args:
        model: freshly built, whole.
        settings: the budget and the schedule.
        optimizer: of the model's parameters; state of units that come or go starts anew.

    Raises:
        ConfigError: the model has no hidden units to drop, or the budget cannot be met by dropping them.
    """

    def __init__(self, model: nn.Module, settings: SparsitySettings, optimizer: Optimizer | None) -> None:
        self._settings, self._optimizer = settings, optimizer
        self._layers = hidden_layers(model)
        self._size = Size(model, self._layers)
        self._full = [layer.width for layer in self._layers]
        self._require_reachable(type(model).__name__)
        device = next(model.parameters()).device
        first = [
            full if layer.outputs is None else width  # heads are few: which of them stay is to be learnt
            for layer, full, width in zip(
                self._layers, self._full, self._widths(first_density(settings)), strict=True
            )
        ]
        self._masks = [
            (torch.arange(full, device=device) < width).float().requires_grad_()
            for full, width in zip(self._full, first, strict=True)
        ]
        self._promise = [torch.zeros(full, device=device) for full in self._full]
        self._unmask = [layer.mask(mask) for layer, mask in zip(self._layers, self._masks, strict=True)]
        self._alone = [torch.ones_like(promise) for promise in self._promise]
        self._aim: int | None = None

    @property
    def layers(self) -> Sequence[HiddenLayer]:
        """The layers that can lose units."""
        return self._layers

    @property
    def whole(self) -> int:
        """Parameters of the whole dense part."""
        return self._size.whole

    @property
    def weights(self) -> int:
        """Parameters that are kept now."""
        return self._size.parameters(self._kept())

    def held(self) -> dict[str, Tensor]:
        """Which units are kept now, bool ``[units]`` by layer."""
        return {layer.name: mask > 0 for layer, mask in zip(self._layers, self._masks, strict=True)}

    def aim(self, weights: int) -> None:
        """Keep so many parameters after the next update; default: as the settings say."""
        self._aim = weights

    def count_alone(self, shares: Mapping[str, Tensor]) -> None:
        """By layer, the share of each unit's worth that others cannot stand in for; default: 1."""
        every = zip(self._layers, self._alone, strict=True)
        self._alone = [shares.get(layer.name, before) for layer, before in every]

    def prices(self, step: int) -> Prices:
        """What the dense part keeps as units leave, those worth least first, and what the next is worth.

        ``step`` is that of the update to come.
        """
        kept = self._with_grown(step)
        worth = self._worth() / self._costs(self._size.parameters)
        order = _lowest_first(worth, kept)
        layer_of = torch.repeat_interleave(torch.arange(len(self._full)), torch.tensor(self._full))
        widths = [int(part.sum()) for part in self._per_layer(kept)]
        weights = [self._size.parameters(widths)]
        for layer in layer_of.to(order.device)[order].tolist():
            widths[layer] = max(1, widths[layer] - 1)
            weights.append(self._size.parameters(widths))
        following = torch.cat([worth[order], worth.new_full((1,), torch.inf)])
        return Prices(torch.tensor(weights, device=worth.device), following)

    @property
    def measured(self) -> list[Tensor]:
        """Tensors whose gradients are to be summed over processes."""
        return self._masks

    def tensors(self) -> dict[str, Tensor]:
        """State by key; empty once the layers are cut."""
        found = {}
        for layer, mask, promise in zip(self._layers, self._masks, self._promise, strict=False):
            found[f"units.{layer.name}.mask"] = mask.detach()
            found[f"units.{layer.name}.promise"] = promise
        return found

    def densities(self) -> dict[str, float]:
        """Share of the dense part's parameters that is kept, and of each layer's units."""
        widths = self._kept()
        found = {"dense": self._size.parameters(widths) / self._size.whole}
        for layer, width, full in zip(self._layers, widths, self._full, strict=True):
            found[f"dense/{layer.name}"] = width / full
        return found

    def observe(self) -> None:
        """Take up the gradients of a step."""
        for mask, promise in zip(self._masks, self._promise, strict=True):
            if mask.grad is not None:
                promise.addcmul_(mask.grad, mask.grad)
                mask.grad = None

    def restrain(self) -> None:
        """Nothing: units that are out have no gradient, and no momentum left."""

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Drop and grow units; after the last step cut the layers."""
        for number, kept in enumerate(self._chosen(step)):
            mask = self._masks[number]
            changed = (kept != (mask > 0)).nonzero().flatten()
            mask.copy_(kept)
            self._forget(self._layers[number], changed)
            self._promise[number].zero_()
        if step >= self._settings.last_step:
            self._cut()

    def skip(self) -> None:
        """Go on from a model whose layers have been cut already."""
        self._detach()

    def _kept(self) -> list[int]:
        if not self._masks:
            return [layer.width for layer in self._layers]
        return [int((mask > 0).sum()) for mask in self._masks]

    def _chosen(self, step: int) -> list[Tensor]:
        """Units to keep from now on, bool per layer: some grow, then the least worth leave."""
        density = dense_density(self._settings, step)
        if self._aim is not None:
            density = (self._aim + 0.5) / self.whole
        if self._settings.allocation != "worth":
            share = drop_share(self._settings, step)
            return [
                _exchanged(mask > 0, promise, width, share)
                for mask, promise, width in zip(
                    self._masks, self._promise, self._widths(density), strict=True
                )
            ]
        held, kept, worth = self._active(), self._with_grown(step), self._worth()
        bounds = self._size.bounds(density)
        for measure, most in bounds:
            cost = self._costs(measure)
            leaving = held & kept & (cost > 0)
            kept = self._within(kept, _lowest_first(worth / cost, leaving), measure, most)
        # Where a head less left room for parameters, units that take no attention fill it.
        measure, most = bounds[-1]
        spare = ~kept & (worth > 0) & (self._costs(self._size.attention) == 0)
        order = _lowest_first(worth / self._costs(measure), spare)
        return self._per_layer(self._within(kept | spare, order, measure, most))

    def _with_grown(self, step: int) -> Tensor:
        """Units that are kept, and a share of those that are out: bool, of all layers."""
        held, worth = self._active(), self._worth()
        count = int(drop_share(self._settings, step) * int(held.sum()))
        promised = worth / self._costs(self._size.parameters)
        return held | _highest(promised, ~held & (worth > 0), count)

    def _active(self) -> Tensor:
        """Units that are kept now: bool, of all layers."""
        return torch.cat(self._masks) > 0

    def _worth(self) -> Tensor:
        """What each unit is worth, or promises: of all layers."""
        return torch.cat(self._promise) * torch.cat(self._alone)

    def _within(self, kept: Tensor, order: Tensor, measure: Measure, most: float) -> Tensor:
        """What is kept without the first units of an order, so few that a measure is not above ``most``."""

        def after(dropped: int) -> Tensor:
            parts = self._per_layer(kept.index_fill(0, order[:dropped], False))
            every = zip(parts, self._masks, self._promise, strict=True)
            return torch.cat([_never_empty(part, mask > 0, promise) for part, mask, promise in every])

        low, high = 0, len(order)
        while low < high:
            middle = (low + high) // 2
            widths = [int(part.sum()) for part in self._per_layer(after(middle))]
            low, high = (low, middle) if measure(widths) <= most else (middle + 1, high)
        return after(low)

    def _per_layer(self, units: Tensor) -> list[Tensor]:
        return list(torch.split(units, self._full))

    def _costs(self, measure: Measure) -> Tensor:
        """What each unit adds to a measure now."""
        costs = unit_costs(measure, self._kept())
        every = zip(self._promise, costs, strict=True)
        return torch.cat([promise.new_full(promise.shape, cost) for promise, cost in every])

    def _widths(self, density: float) -> list[int]:
        """Units of each layer at a density by the layers' shapes alone."""
        weights = [1.0] * len(self._layers)
        if self._settings.allocation == "erk":
            weights = [
                (layer.inputs + layer.width) / (layer.inputs * layer.width) for layer in self._layers
            ]

        def widths(kept: Sequence[float]) -> list[int]:
            return [max(1, int(share * full)) for share, full in zip(kept, self._full, strict=True)]

        target = density * self._size.whole
        return widths(shares(weights, lambda kept: self._size.parameters(widths(kept)), target))

    def _require_reachable(self, model: str) -> None:
        least = self._size.parameters([1] * len(self._layers)) / self._size.whole
        if not self._settings.splits and least > self._settings.dense_density:
            raise ConfigError(
                f"train.sparsity: a share of {least:.3f} of {model}'s {self._size.whole:,} dense "
                "parameters stays when every layer keeps one unit, more than "
                f"{self._settings.dense_density:g}; raise train.sparsity.dense"
            )

    def _forget(self, layer: HiddenLayer, units: Tensor) -> None:
        """Start the optimiser's state of these units anew."""
        if not len(units):
            return
        for axis in layer.axes:
            entries = axis.entries(layer.width, units)
            for value in self._state(axis.tensor, axis.tensor.shape).values():
                value.index_fill_(axis.dim, entries, 0)

    def _state(self, parameter: Tensor, shape: torch.Size) -> dict[str, Tensor]:
        """The optimiser's state of a parameter, of that shape."""
        if not isinstance(parameter, nn.Parameter) or self._optimizer is None:
            return {}
        held = self._optimizer.state.get(parameter, {})
        return {
            key: value for key, value in held.items() if isinstance(value, Tensor) and value.shape == shape
        }

    def _cut(self) -> None:
        def on_cut(parameter: nn.Parameter, shape: torch.Size, cut: Cut) -> None:
            for key, value in self._state(parameter, shape).items():
                self._optimizer.state[parameter][key] = cut(value)  # type: ignore[union-attr]

        kept = [(mask > 0).nonzero().flatten() for mask in self._masks]
        for layer, units in zip(self._layers, kept, strict=True):
            layer.keep(units, on_cut)
        self._detach()

    def _detach(self) -> None:
        for unmask in self._unmask:
            unmask()
        self._masks, self._promise, self._alone, self._unmask = [], [], [], []


def _lowest_first(scores: Tensor, among: Tensor) -> Tensor:
    """Places of those marked, by their scores."""
    return torch.where(among, scores, torch.inf).argsort(stable=True)[: int(among.sum())]


def _highest(scores: Tensor, among: Tensor, count: int) -> Tensor:
    """Mask of the ``count`` highest scores of those marked, or of fewer where fewer are."""
    count = min(count, int(among.sum()))
    order = torch.where(among, -scores, torch.inf).argsort(stable=True)
    chosen = torch.zeros_like(among)
    chosen[order[:count]] = True
    return chosen


def _exchanged(held: Tensor, promise: Tensor, width: int, share: float) -> Tensor:
    """``width`` units: a share of them grown, the others the best of those that are held."""
    grown = _highest(promise, ~held & (promise > 0), min(int(share * int(held.sum())), width - 1))
    return grown | _highest(promise, held, width - int(grown.sum()))


def _never_empty(kept: Tensor, before: Tensor, promise: Tensor) -> Tensor:
    """A layer keeps one unit at least: the best it had."""
    return kept if kept.any() else _highest(promise, before, 1)
