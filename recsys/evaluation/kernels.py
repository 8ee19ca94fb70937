"""Compiled loops behind AUC and GAUC: one pass each over rows, no work per group in Python.

numba compiles them on first use (about two seconds) and keeps the machine code on disk.

How GAUC is counted. Rows are dealt into buckets by a hash of their group, so that a bucket's table of
groups stays in the processor's cache; each group gets the next dense code; ``code << 33 | score bits
<< 1 | label`` is sorted as one uint64 (vectorised in numpy), and a single pass over the sorted rows
counts, per group, the pairs that stand in the right order.

Large arrays come from the caller: numpy asks the system for huge pages, numba does not, and touching
fresh small pages would take longer than the work itself.
"""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from recsys.compiled import compiled

Scalar = TypeVar("Scalar", bound=np.generic)

CODE_SHIFT = 33
MAX_ROWS = 2 ** (64 - CODE_SHIFT)
"""Group codes have 31 bits, and there are at most as many groups as rows."""


def plain(array: NDArray[Scalar]) -> NDArray[Scalar]:
    """The array contiguous and writeable, so that each loop is compiled for one kind of array only."""
    return np.require(array, requirements=["C", "W"])


@compiled
def split_by_label(
    score: NDArray[Any], label: NDArray[np.bool_], positive: NDArray[Any], negative: NDArray[Any]
) -> None:
    """Write scores of rows with label 1 to ``positive`` and others to ``negative``, in row order.

    Both have one place more than they need: each is written for every row and only one moves on, which
    spares a branch that no processor can predict.
    """
    i = j = 0
    for row in range(len(score)):
        positive[i] = score[row]
        negative[j] = score[row]
        step = int(label[row])
        i += step
        j += 1 - step


@compiled
def pairs_in_order(positive: NDArray[Any], negative: NDArray[Any]) -> int:
    """Twice the number of (positive, negative) pairs in the right order, ties counted half.

    Both arrays ascend.
    """
    below = upto = 0
    total = 0
    rows = len(negative)
    for score in positive:
        while below < rows and negative[below] < score:
            below += 1
        upto = max(upto, below)
        while upto < rows and negative[upto] == score:
            upto += 1
        total += below + upto
    return total


@compiled
def mixed(key: np.uint64, tag: np.uint32) -> np.uint64:
    """A hash of one group: MurmurHash3's 64-bit finaliser of key and tag."""
    value = key ^ (np.uint64(tag) * np.uint64(0x9E3779B97F4A7C15))
    value ^= value >> np.uint64(33)
    value *= np.uint64(0xFF51AFD7ED558CCD)
    value ^= value >> np.uint64(33)
    value *= np.uint64(0xC4CEB9FE1A85EC53)
    return value ^ (value >> np.uint64(33))


@compiled
def count_buckets(
    key: NDArray[np.uint64],
    tag: NDArray[np.uint32] | None,
    bits: int,
    bucket: NDArray[np.uint16],
) -> NDArray[np.int64]:
    """Fill in each row's bucket ``[N]``, and return where each of the ``2**bits`` buckets starts."""
    shift = np.uint64(64 - bits)
    zero = np.uint32(0)
    starts = np.zeros((1 << bits) + 1, np.int64)
    for row in range(len(key)):
        chosen = np.int64(mixed(key[row], zero if tag is None else tag[row]) >> shift)
        bucket[row] = chosen
        starts[chosen + 1] += 1
    return np.cumsum(starts)


@compiled
def deal(
    bucket: NDArray[np.uint16],
    starts: NDArray[np.int64],
    key: NDArray[np.uint64],
    tag: NDArray[np.uint32] | None,
    score: NDArray[np.uint32],
    label: NDArray[np.bool_],
    weight: NDArray[np.float64] | None,
    to_key: NDArray[np.uint64],
    to_tag: NDArray[np.uint32],
    to_packed: NDArray[np.uint64],
    to_weight: NDArray[np.float64],
) -> None:
    """Write key, tag, ``score << 1 | label`` and weight of all rows bucket after bucket.

    Rows keep their order within a bucket; ``to_tag`` and ``to_weight`` stay as they are where there is
    no tag or weight.
    """
    places = starts.copy()
    for row in range(len(key)):
        place = places[bucket[row]]
        places[bucket[row]] = place + 1
        to_key[place] = key[row]
        to_packed[place] = (np.uint64(score[row]) << np.uint64(1)) | np.uint64(label[row])
        if tag is not None:
            to_tag[place] = tag[row]
        if weight is not None:
            to_weight[place] = weight[row]


@compiled
def pack_codes(
    starts: NDArray[np.int64],
    key: NDArray[np.uint64],
    tag: NDArray[np.uint32] | None,
    packed: NDArray[np.uint64],
    bits: int,
    table: NDArray[np.int32],
    group_key: NDArray[np.uint64],
    group_tag: NDArray[np.uint32],
) -> int:
    """Write each row's group code into the upper bits of ``packed``; returns the number of groups.

    Groups are told apart by (key, tag), which are written down per group; codes are dense, in order of
    first sight. ``table`` is work space of at least 64 places and four times the widest bucket's rows.
    """
    zero = np.uint32(0)
    groups = 0
    for bucket in range(len(starts) - 1):
        first = groups
        table_bits = 6
        size = 1 << table_bits
        table[:size] = -1
        for row in range(starts[bucket], starts[bucket + 1]):
            this_key = key[row]
            this_tag = zero if tag is None else tag[row]
            # The upper bits chose the bucket and are the same throughout it.
            hashed = mixed(this_key, this_tag) << np.uint64(bits)
            slot = np.int64(hashed >> np.uint64(64 - table_bits))
            while True:
                code = table[slot]
                if code < 0:
                    code = groups
                    table[slot] = code
                    group_key[code] = this_key
                    if tag is not None:
                        group_tag[code] = this_tag
                    groups += 1
                    break
                if group_key[code] == this_key and (tag is None or group_tag[code] == this_tag):
                    break
                slot = (slot + 1) & (size - 1)
            packed[row] |= np.uint64(code) << np.uint64(33)
            if 2 * (groups - first) > size:
                table_bits += 1
                size *= 2
                table[:size] = -1
                for old in range(first, groups):
                    hashed = mixed(group_key[old], zero if tag is None else group_tag[old])
                    slot = np.int64((hashed << np.uint64(bits)) >> np.uint64(64 - table_bits))
                    while table[slot] >= 0:
                        slot = (slot + 1) & (size - 1)
                    table[slot] = old
    return groups


@compiled
def count_groups(
    packed: NDArray[np.uint64], weight: NDArray[np.float64] | None, groups: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Per group code: weight of positives, of negatives, and twice the pairs in order, ties half.

    ``packed`` ascends and ``weight`` follows its order; without weights every row counts 1, and the
    numbers are exact up to 2**53 pairs in a group.
    """
    positives = np.zeros(groups, np.float64)
    negatives = np.zeros(groups, np.float64)
    pairs = np.zeros(groups, np.float64)
    one = np.uint64(1)
    shift = np.uint64(33)
    rows = len(packed)
    row = 0
    while row < rows:
        group = packed[row] >> shift
        positive = negative = pair = 0.0
        while row < rows and packed[row] >> shift == group:
            tie = packed[row] >> one
            tied_positive = tied_negative = 0.0
            while row < rows and packed[row] >> one == tie:
                amount = 1.0 if weight is None else weight[row]
                if packed[row] & one:
                    tied_positive += amount
                else:
                    tied_negative += amount
                row += 1
            pair += tied_positive * (2.0 * negative + tied_negative)
            positive += tied_positive
            negative += tied_negative
        positives[group] = positive
        negatives[group] = negative
        pairs[group] = pair
    return positives, negatives, pairs
