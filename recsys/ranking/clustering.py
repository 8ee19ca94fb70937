"""Average-linkage clustering of a few hundred columns, for the order of a redundancy map."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Merge(NamedTuple):
    """Two clusters becoming one: n columns are clusters 0…n-1, the k-th merge makes cluster n + k."""

    first: int
    second: int
    distance: float


def average_linkage(distances: NDArray[np.float64]) -> tuple[list[int], list[Merge]]:
    """Order of the leaves, and the merges that lead to it, from symmetric distances [n, n].

    The nearest two clusters merge, the distance between clusters being the mean over their pairs (UPGMA).
    Of two clusters the one nearer to its neighbour's edge is turned towards it. O(n^3), for n <= 500.
    """
    n = distances.shape[0]
    work = distances.astype(np.float64).copy()
    np.fill_diagonal(work, np.inf)
    cluster = list(range(n))
    sizes = np.ones(n)
    leaves: dict[int, list[int]] = {at: [at] for at in range(n)}
    merges: list[Merge] = []
    for step in range(n - 1):
        i, j = divmod(int(work.argmin()), n)
        i, j = min(i, j), max(i, j)
        merges.append(Merge(cluster[i], cluster[j], float(work[i, j])))
        leaves[n + step] = _joined(leaves.pop(cluster[i]), leaves.pop(cluster[j]), distances)
        mean = (sizes[i] * work[i] + sizes[j] * work[j]) / (sizes[i] + sizes[j])
        work[i], work[:, i] = mean, mean
        work[i, i] = np.inf
        work[j], work[:, j] = np.inf, np.inf
        sizes[i] += sizes[j]
        cluster[i] = n + step
    return (next(iter(leaves.values())) if leaves else []), merges


def _joined(first: list[int], second: list[int], distances: NDArray[np.float64]) -> list[int]:
    """Both lists in a row, each turned or not, so that the leaves that meet are near each other."""
    choices = [(a, b) for a in (first, first[::-1]) for b in (second, second[::-1])]
    best = min(choices, key=lambda pair: distances[pair[0][-1], pair[1][0]])
    return [*best[0], *best[1]]
