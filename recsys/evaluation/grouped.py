"""AUC of every group at once; AUC by slice, GAUC and GAUC by slice are all read from it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys.errors import DataError
from recsys.evaluation.kernels import MAX_ROWS, count_groups, deal, pack_codes, plain
from recsys.evaluation.values import GroupKeys

_ROWS_PER_BUCKET = 32_768
_SLICE_BITS = np.uint64(0xFFFF)


class GroupCounts(NamedTuple):
    """One entry per group ``[G]``, in no particular order."""

    key: NDArray[np.uint64]
    slice: NDArray[np.uint64]
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
    bucket_bits = min(12, max(1, (rows // _ROWS_PER_BUCKET).bit_length()))
    starts, key, tag, packed, dealt_weight = deal(
        plain(groups.key),
        None if groups.tag is None else plain(groups.tag),
        bits,
        plain(label),
        None if weight is None else plain(weight),
        bucket_bits,
    )
    group_key, group_tag = pack_codes(starts, key, tag, packed, bucket_bits)
    if dealt_weight is None:
        packed.sort()
    else:
        order = np.argsort(packed)
        packed, dealt_weight = packed[order], dealt_weight[order]
    positives, negatives, pairs = count_groups(packed, dealt_weight, len(group_key))
    possible = 2.0 * positives * negatives
    auc = np.divide(pairs, possible, out=np.full(len(pairs), np.nan), where=possible > 0)
    code = group_tag & _SLICE_BITS if len(group_tag) else np.zeros(len(group_key), np.uint64)
    return GroupCounts(group_key, code, positives, negatives, auc)
