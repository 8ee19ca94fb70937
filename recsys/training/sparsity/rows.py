"""Which values, or pieces of their vectors, have a row of their own in a pool.

Rows are first dealt by how often train rows hold a value. Since the last update every lookup has added to
sums. ``worth``, per row: the square of its vector's product with its gradient, which is what the loss would
rise by without the row (to second order, with the empirical Fisher information for curvature). ``pull``,
per place with a row or without: its gradient, sketched by one random sign per column so that it costs a
single number. ``seen``, per value: lookups. At an update rows that are worth least go, as zeros, to places
that promise more (``worth``); a row that has just moved is left alone at the next one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.data.dataset import Dataset
from recsys.embeddings.pool import Pool, Pooled
from recsys.embeddings.tables import Tables
from recsys.models.initialise import named_seed
from recsys.settings.sparsity import SparsitySettings
from recsys.training.distributed import Distributed
from recsys.training.sparsity.prices import Prices
from recsys.training.sparsity.schedule import drop_share, shares
from recsys.training.sparsity.sums import Sums
from recsys.training.sparsity.worth import expected_lookups, place_scores

Moments = Callable[[], Mapping[str, Mapping[str, Tensor]]]

_FURTHER = 3.0
"""Piece k of a value of n train rows is first dealt a row as if it had n / (k + 1)^3."""


class Rows:
    """The rows of all pools, dealt to places.

    The first deal goes by how often train rows hold a value.

    Args:
        tables: with the pools, whose rows are not yet dealt.
        moments: state of the dense-path tables' optimiser, by table and key, when asked.
        dataset: what the tables were planned for.
        settings: the schedule, and how vocabularies share the rows.
        ranks: the processes that share the tables.
        seed: of the sketch's signs.
        batch_size: rows of a step, over all processes.
    """

    def __init__(
        self,
        tables: Tables,
        moments: Moments,
        dataset: Dataset,
        settings: SparsitySettings,
        ranks: Distributed,
        seed: int,
        batch_size: int,
    ) -> None:
        self._settings = settings
        passed = settings.interval * batch_size / dataset.manifest.rows["train"]
        self._dealers = [
            _Dealer(pool, tables, moments, settings, ranks, seed, passed) for pool in tables.pools.values()
        ]
        for dealer in self._dealers:
            dealer.deal(dataset)
        self._aims: list[int | None] = [None] * len(self._dealers)
        self._order = torch.empty(0, dtype=torch.long)

    @property
    def whole(self) -> int:
        """Weights that all places of the pools would have."""
        return sum(len(dealer.pool.slots) * dealer.width for dealer in self._dealers)

    @property
    def weights(self) -> int:
        """Weights of the rows that places have now."""
        return sum(int((dealer.pool.slots > 0).sum()) * dealer.width for dealer in self._dealers)

    def prices(self) -> Prices:
        """What the tables keep as places get rows, those that promise most first, and what is next worth.

        No pool gives more places rows than it has, its share of the room. All processes call this together.
        """
        best = [dealer.best() / dealer.width for dealer in self._dealers]
        worth, order = torch.cat(best).sort(descending=True, stable=True)
        pools = torch.cat([torch.full_like(each, n, dtype=torch.long) for n, each in enumerate(best)])
        self._order = pools[order]
        widths = torch.tensor([dealer.width for dealer in self._dealers], device=worth.device)
        kept = widths[self._order].cumsum(0)
        return Prices(torch.cat([kept.new_zeros(1), kept]), torch.cat([worth, worth.new_zeros(1)]))

    def aim(self, places: int) -> None:
        """Have the first so many places of ``prices`` get rows; default: as many as have now."""
        self._aims = list(torch.bincount(self._order[:places], minlength=len(self._dealers)).tolist())
        self._order = self._order[:0]

    @property
    def measured(self) -> list[Tensor]:
        """None: each process measures its own lookups."""
        return []

    def tensors(self) -> dict[str, Tensor]:
        """Sums since the last update, and rows that it moved, by key; empty after the last one."""
        return {
            f"rows.{dealer.pool.name}.{key}": value
            for dealer in self._dealers
            for key, value in dealer.tensors().items()
        }

    def densities(self) -> dict[str, float]:
        """Share of the pools' places that have a row, and of those of each vocabulary."""
        places = [dealer.pool.slots for dealer in self._dealers]
        found = {"tables": float(sum(int((s > 0).sum()) for s in places) / sum(len(s) for s in places))}
        for dealer in self._dealers:
            for name, vocabulary in dealer.pool.vocabularies.items():
                held = dealer.pool.slots[vocabulary.places] > 0
                found[f"tables/{name}"] = float(held.float().mean())
        return found

    def observe(self) -> None:
        """Nothing: the sums grow in backward."""

    def restrain(self) -> None:
        """Row 0, which every place without a row looks up, stays zeros."""
        for dealer in self._dealers:
            dealer.restrain()

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move rows to other places."""
        for dealer, rows in zip(self._dealers, self._aims, strict=True):
            dealer.update(drop_share(self._settings, step), rows)
        if step >= self._settings.last_step:
            self.skip()

    def skip(self) -> None:
        """Measure no longer."""
        for dealer in self._dealers:
            dealer.finish()


class _Dealer:
    """The rows of one pool; ``passed`` is the share of an epoch between two updates."""

    def __init__(
        self,
        pool: Pool,
        tables: Tables,
        moments: Moments,
        settings: SparsitySettings,
        ranks: Distributed,
        seed: int,
        passed: float,
    ) -> None:
        self.pool, self._tables, self._moments, self._passed = pool, tables, moments, passed
        self._allocation, self._pieces, self._ranks = settings.allocation, settings.pieces, ranks
        self._local = [
            value.to_local() for key, value in tables.state().items() if key.rpartition(".")[0] == pool.name
        ]
        self._counts: dict[str, Tensor] = {}
        self._fresh = torch.zeros(pool.rows, dtype=torch.bool, device=ranks.device)
        places = len(pool.slots)
        sizes = {"worth": pool.rows, "pull": places, "seen": places // self._pieces}
        self._sums = Sums({key: (size,) for key, size in sizes.items()}, ranks)
        self._scored: Tensor | None = None
        generator = torch.Generator().manual_seed(named_seed(seed, "sparsity", pool.name))
        width = self._local[0].shape[1]
        signs = torch.randint(0, 2, (width,), generator=generator) * 2.0 - 1.0
        self._signs = signs.to(ranks.device)
        pool.on_gradient = self._add

    @property
    def width(self) -> int:
        """Weights of a row."""
        return len(self._signs)

    def _add(self, places: Tensor, vectors: Tensor, gradients: Tensor) -> None:
        """Lookups of a batch: places ``[n, keys]``, vectors and gradients ``[n, keys, D]``."""
        asked, sums = places.reshape(-1), self._sums.mine
        losses = (vectors * gradients).sum(2).square_().view(-1)
        own = gradients[..., : self.width]  # vectors of the fused path are stored wider
        sums["worth"].index_add_(0, self.pool.slots[asked], losses)
        sums["pull"].index_add_(0, asked, (own @ self._signs).view(-1))
        sums["seen"].index_add_(0, asked // self._pieces, torch.ones_like(losses))

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint has to hold; all call this together."""
        total = self._sums.total()
        return {**total, "fresh": self._fresh} if total else {}

    @torch.no_grad()
    def deal(self, dataset: Dataset) -> None:
        """Deal all rows for the first time."""
        for name, each in self.pool.vocabularies.items():
            self._counts[name] = torch.from_numpy(_counts(dataset, name, each)).to(self._ranks.device)
        scores = torch.cat([_first_scores(counts, self._pieces) for counts in self._counts.values()])
        groups = list(self._groups())
        places = torch.cat([group for group, _ in groups])
        rows = min(self.pool.rows - 1, len(places))
        taken = torch.cat(
            [group[_descending(scores[group])[: int(share * len(group))]] for group, share in groups]
        )
        left = scores.index_fill(0, taken, -torch.inf)[places]
        taken = torch.cat([taken, places[_descending(left)[: rows - len(taken)]]])
        self.pool.slots[taken] = torch.arange(1, len(taken) + 1, dtype=torch.int32, device=taken.device)

    def _places(self) -> Tensor:
        """Places that may have rows, of all vocabularies."""
        every = self.pool.vocabularies.values()
        return torch.cat([each.dealt(self._ranks.device) for each in every])

    def _groups(self) -> list[tuple[Tensor, float]]:
        """Places among which rows move, and the share of them that has rows at first."""
        every = list(self.pool.vocabularies.values())
        places = [each.dealt(self._ranks.device) for each in every]
        sizes = [len(each) for each in places]
        rows = min(self.pool.rows - 1, sum(sizes))
        if self._allocation == "worth":
            return [(torch.cat(places), rows / sum(sizes))]
        weights = [1.0] * len(every)
        if self._allocation == "erk":
            weights = [1 / each.size + 1 / (self.width * self._pieces) for each in every]

        def total(kept: Sequence[float]) -> float:
            return sum(share * size for share, size in zip(kept, sizes, strict=True))

        return list(zip(places, shares(weights, total, rows), strict=True))

    def restrain(self) -> None:
        weight = self._local[0]
        if self._ranks.rank == 0 and len(weight):
            with torch.no_grad():
                weight[0].zero_()

    def best(self) -> Tensor:
        """What those places are worth or promise that would get all rows, highest first: ``[n]``."""
        return self._scores()[self._places()].sort(descending=True).values[: self.pool.rows - 1]

    def update(self, share: float, rows: int | None) -> None:
        """Have so many rows, or as many as now, then move this share of them."""
        scores, fresh = self._scores(), self._fresh.clone()
        self._scored = None
        self._fresh.zero_()
        if rows is not None:
            self._have(rows, scores)
        slots = self.pool.slots
        for places, _ in self._groups():
            having = places[slots[places] > 0]
            held = having[~fresh[slots[having].long()]]
            wanted = places[slots[places] == 0]
            count = min(int(share * len(having)), len(held), len(wanted))
            dropped = held[_descending(-scores[held])[:count]]
            grown = wanted[_descending(scores[wanted])[:count]]
            better = scores[grown] > scores[dropped]
            dropped, grown = dropped[better], grown[better]
            moved = slots[dropped]
            slots[dropped], slots[grown] = 0, moved
            self._start_anew(moved.long())
        self._sums.clear()

    def _have(self, rows: int, scores: Tensor) -> None:
        """Take rows from the places worth least, or deal spare ones to those that promise most."""
        slots, places = self.pool.slots, self._places()
        having, wanted = places[slots[places] > 0], places[slots[places] == 0]
        more = rows - len(having)
        slots[having[_descending(-scores[having])[: max(0, -more)]]] = 0
        if more > 0:
            spare = torch.ones(self.pool.rows, dtype=torch.bool, device=slots.device)
            spare[0] = spare[slots[having].long()] = False
            new = spare.nonzero().flatten()[:more]
            slots[wanted[_descending(scores[wanted])[: len(new)]]] = new.to(slots.dtype)
            self._start_anew(new)

    def _scores(self) -> Tensor:
        """What each place is worth or promises, as those do whose row has just come: ``[places]``.

        They are computed once between two updates; all processes call this together.
        """
        if self._scored is None:
            self._scored = self._score(self._sums.total())
        return self._scored

    def _score(self, sums: Mapping[str, Tensor]) -> Tensor:
        every = []
        for name, each in self.pool.vocabularies.items():
            rows = self.pool.slots[each.places].long()
            first = each.start // each.pieces
            seen = sums["seen"][first : first + each.size]
            found = place_scores(
                ((rows > 0) & ~self._fresh[rows]).view(-1, each.pieces),
                torch.where(rows > 0, sums["worth"][rows], 0.0).view(-1, each.pieces),
                sums["pull"][each.places].view(-1, each.pieces),
                seen,
                expected_lookups(self._counts[name], seen, self._passed),
            )
            every.append(found.view(-1))
        return torch.cat(every)

    def _start_anew(self, rows: Tensor) -> None:
        """Zero these rows, and what the optimiser knows of them."""
        self._fresh[rows] = True
        here = self._tables.rows_here(self.pool.name, rows)
        moments = self._moments().get(self.pool.name, {}).values()
        for tensor in (*self._local, *(value for value in moments if value.dim())):
            tensor.index_fill_(0, here, 0.0)

    def finish(self) -> None:
        """Stop measuring, and free what that took."""
        self.pool.on_gradient = None
        self._sums.free()
        self._counts = {}


def _counts(dataset: Dataset, name: str, vocabulary: Pooled) -> NDArray[np.float32]:
    """Train rows that hold each value: ``[size]``."""
    values = dataset.values(name, ("id", "count"))
    counts = np.zeros(vocabulary.size, dtype=np.float32)
    counts[values["id"].to_numpy()] = values["count"].to_numpy()
    return counts


def _first_scores(counts: Tensor, pieces: int) -> Tensor:
    """How early each place of a vocabulary is dealt a row, highest first: ``[size * pieces]``."""
    later = (1.0 + torch.arange(pieces, device=counts.device)) ** _FURTHER
    return (counts[:, None] / later).reshape(-1)


def _descending(scores: Tensor) -> Tensor:
    """Order from the highest score down; of equal ones the first comes first."""
    return scores.argsort(descending=True, stable=True)
