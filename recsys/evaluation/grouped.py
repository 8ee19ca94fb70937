"""AUC of every group at once; AUC by slice, GAUC and GAUC by slice are all read from it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys.errors import DataError
from recsys.evaluation.kernels import MAX_ROWS, count_buckets, count_groups, deal, pack_codes, plain
from recsys.evaluation.values import SLICE_BITS, GroupKeys

_ROWS_PER_BUCKET = 65_536
_MOST_BUCKET_BITS = 11
"""More streams than this at once miss the processor's address cache."""


class GroupCounts(NamedTuple):
    """One entry per group ``[G]``, in no particular order."""

    key: NDArray[np.uint64]
    slice: NDArray[np.uint32]
    """Code of the slice that the group lies in; 0 where no slices were asked for."""
    positives: NDArray[np.float64]
    """Weight of the rows with label 1."""
    negatives: NDArray[np.float64]
    auc: NDArray[np.float64]
    """NaN where one of the two classes is absent."""


def count_by_group(
    label: NDArray[np.bool_],
    bits: NDArray[np.uint32],
    groups: GroupKeys,
    weight: NDArray[np.float64] | None,
) -> GroupCounts:
    """Exact AUC per group, ties half, in one sort over all rows.

    All arrays are ``[N]``; ``bits`` are the scores' ``ordered_bits``. Raises DataError beyond 2**31 rows.
    """
    rows = len(label)
    if rows >= MAX_ROWS:
        raise DataError(f"{rows} rows in one evaluation; at most {MAX_ROWS} fit, evaluate parts apart")
    dealt = _dealt(label, bits, groups, weight)
    group_key, group_tag = np.empty(rows, np.uint64), np.empty(rows, np.uint32)
    found = pack_codes(
        dealt.starts,
        dealt.key,
        dealt.tag,
        dealt.packed,
        dealt.bits,
        np.empty(max(64, 1 << int(4 * np.diff(dealt.starts).max()).bit_length()), np.int32),
        group_key,
        group_tag,
    )
    group_key = group_key[:found].copy()
    slices = np.zeros(found, np.uint32) if dealt.tag is None else group_tag[:found] & SLICE_BITS
    packed, dealt_weight = dealt.packed, dealt.weight
    if dealt_weight is None:
        packed.sort()
    else:
        order = np.argsort(packed)
        packed, dealt_weight = packed[order], dealt_weight[order]
    positives, negatives, pairs = count_groups(packed, dealt_weight, found)
    possible = 2.0 * positives * negatives
    auc = np.divide(pairs, possible, out=np.full(found, np.nan), where=possible > 0)
    return GroupCounts(group_key, slices, positives, negatives, auc)


class _Dealt(NamedTuple):
    """Rows ordered by the bucket of their group."""

    bits: int
    starts: NDArray[np.int64]
    key: NDArray[np.uint64]
    tag: NDArray[np.uint32] | None
    packed: NDArray[np.uint64]
    weight: NDArray[np.float64] | None


def _dealt(
    label: NDArray[np.bool_],
    score: NDArray[np.uint32],
    groups: GroupKeys,
    weight: NDArray[np.float64] | None,
) -> _Dealt:
    rows = len(label)
    bits = min(_MOST_BUCKET_BITS, max(1, (rows // _ROWS_PER_BUCKET).bit_length()))
    key = plain(groups.key)
    tag = None if groups.tag is None else plain(groups.tag)
    weight = None if weight is None else plain(weight)
    bucket = np.empty(rows, np.uint16)
    starts = count_buckets(key, tag, bits, bucket)
    to_key, to_packed = np.empty(rows, np.uint64), np.empty(rows, np.uint64)
    to_tag = np.empty(0 if tag is None else rows, np.uint32)
    to_weight = np.empty(0 if weight is None else rows, np.float64)
    deal(bucket, starts, key, tag, score, plain(label), weight, to_key, to_tag, to_packed, to_weight)
    return _Dealt(
        bits,
        starts,
        to_key,
        None if tag is None else to_tag,
        to_packed,
        None if weight is None else to_weight,
    )
