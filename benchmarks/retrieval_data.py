"""Made vectors of a two-tower kind, labelled so: a low-rank mixture, queries from another distribution.

Items: ``rank`` latent numbers with a spectrum falling as 1/sqrt(i), 1,000 clusters, noise of 0.6 of the
spectrum within a cluster, an isotropic noise of 0.15 in all dimensions, and lengths that vary by 20 %.
Queries: blends of three clusters' centres with a flatter spectrum, an offset, and noise that lies mostly in
directions items do not use.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

RANK, CLUSTERS, CHUNK = 24, 1_000, 100_000


def made(
    rows: int, queries: int, dim: int, seed: int = 7
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Items ``[rows, dim]`` and queries ``[queries, dim]``."""
    generator = np.random.default_rng(seed)

    def normal(*shape: int) -> NDArray[np.float32]:
        return generator.standard_normal(shape, np.float32)

    spectrum = (np.arange(1, RANK + 1) ** -0.5).astype(np.float32)
    basis, other = (np.linalg.qr(normal(dim, RANK))[0] for _ in range(2))
    centres = normal(CLUSTERS, RANK) * spectrum
    items = np.empty((rows, dim), np.float32)
    for start in range(0, rows, CHUNK):
        count = min(CHUNK, rows - start)
        latent = centres[generator.integers(0, CLUSTERS, count)] + 0.6 * normal(count, RANK) * spectrum
        block = latent @ basis.T + 0.15 * normal(count, dim)
        items[start : start + count] = block * np.exp(0.2 * normal(count, 1))
    shares = generator.dirichlet([0.5] * 3, queries).astype(np.float32)
    blend = (centres[generator.integers(0, CLUSTERS, (queries, 3))] * shares[..., None]).sum(axis=1)
    asked = (blend / np.sqrt(spectrum)) @ basis.T + 0.3 * (normal(queries, RANK) * spectrum) @ other.T
    return items, asked + 0.05 * normal(queries, dim) + 0.3 * basis[:, 0]
