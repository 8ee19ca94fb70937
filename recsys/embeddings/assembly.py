"""From the rows that a collection looked up to the vectors of features, and to a model's inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from recsys.data.dataset import Feature
from recsys.embeddings.combine import combined
from recsys.embeddings.lookup import DeviceBatch, Stream
from recsys.embeddings.sharding import TableShard
from recsys.models.inputs import Inputs

Shards = Mapping[str, TableShard]


def vectors_of(stream: Stream, output: Tensor, shards: Shards, batch: DeviceBatch) -> dict[str, Tensor]:
    """Vectors per feature without the pad: ``[B, W]``, of list features ``[values, W]``.

    Args:
        stream: whose rows were looked up.
        output: of single-valued features ``[B, widths of all keys]``, else ``[values, width]``, as stored.
        shards: the tables.
        batch: how long lists are.
    """
    vectors = (
        _of_one_key(stream, output, shards, batch) if stream.ragged else _of_keys(stream, output, shards)
    )
    for source in stream.sources:
        if source.combine != "concat":
            name = source.feature.name
            found = vectors[name]
            shape = (found.shape[0], source.lookups, shards[source.table].dim)
            vectors[name] = combined(found.reshape(shape), source.combine)
    return vectors


def _of_one_key(stream: Stream, output: Tensor, shards: Shards, batch: DeviceBatch) -> dict[str, Tensor]:
    """Rows of each value side by side, ``[values, K * D]``, of a stream of one feature after another."""
    names = [source.feature.name for source in stream.sources]
    several = [source.lookups for source in stream.sources]
    shard = shards[stream.sources[0].table]
    counts = [batch.bags[name].count if name in batch.bags else batch.rows for name in names]
    parts = torch.split(
        output[:, : shard.dim] if shard.dim < shard.storage_dim else output,
        [count * lookups for count, lookups in zip(counts, several, strict=True)],
    )
    return {
        name: part if lookups == 1 else part.reshape(count, lookups * shard.dim)
        for name, part, count, lookups in zip(names, parts, counts, several, strict=True)
    }


def _of_keys(stream: Stream, output: Tensor, shards: Shards) -> dict[str, Tensor]:
    """Rows of each value side by side, ``[B, K * D]``, of a stream with a key per feature and lookup."""
    names = [source.feature.name for source in stream.sources]
    several = [source.lookups for source in stream.sources]
    read = [shards[source.table] for source in stream.sources]
    if stream.order is None and all(shard.dim == shard.storage_dim for shard in read):
        whole = [shard.dim * lookups for shard, lookups in zip(read, several, strict=True)]
        return dict(zip(names, torch.split(output, whole, dim=1), strict=True))
    keys = [shard for shard, lookups in zip(read, several, strict=True) for _ in range(lookups)]
    order = range(len(keys)) if stream.order is None else stream.order.tolist()
    widths = [part for key in order for part in (keys[key].dim, keys[key].storage_dim - keys[key].dim)]
    found = dict(zip(order, torch.split(output, widths, dim=1)[::2], strict=True))
    pieces = (found[key] for key in range(len(keys)))
    return {
        name: next(pieces) if lookups == 1 else torch.cat([next(pieces) for _ in range(lookups)], 1)
        for name, lookups in zip(names, several, strict=True)
    }


def holds_all_fields(stream: Stream, features: Sequence[Feature], shards: Shards) -> bool:
    """Whether the vectors of a stream, side by side as they come, are all fields in their order."""
    fields = [f.name for f in features if f.kind in ("categorical", "multi")]
    read = [shards[source.table] for source in stream.sources]
    return (
        not stream.ragged
        and stream.order is None
        and [source.feature.name for source in stream.sources] == fields
        and all(shard.dim == shard.storage_dim for shard in read)
        and all(source.combine == "concat" for source in stream.sources)
    )


def inputs_of(
    features: Sequence[Feature], vectors: Mapping[str, Tensor], joined: Tensor | None, batch: DeviceBatch
) -> Inputs:
    """A model's inputs of the vectors of features; ``joined`` are those of all fields as they came."""
    inputs = Inputs(numerics=batch.numerics, missing=batch.missing, joined=joined)
    for feature in features:
        name = feature.name
        match feature.kind:
            case "categorical":
                inputs.fields[name] = vectors[name]
            case "multi":
                inputs.fields[name] = batch.bags[name].mean(vectors[name])
            case "sequence":
                inputs.sequences[name] = batch.bags[name].pad(vectors[name])
                inputs.lengths[name] = batch.bags[name].lengths
            case "numeric":
                pass
    return inputs
