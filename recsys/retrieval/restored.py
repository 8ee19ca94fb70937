"""Vectors as their codes have them: what the coarse stage of an index sees of items before it exists."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recsys.retrieval.choice import lists_for
from recsys.retrieval.codebooks import plain


def restored(vectors: NDArray[np.float32], code_bytes: int, seed: int) -> NDArray[np.float32]:
    """Vectors ``[N, D]`` whose inner products with queries are the scores of codes made for this.

    Lists are as many as an index has, all of them searched; codebooks are OPQ's over residuals.

    Args:
        vectors: ``[N, D]``, 16 or more.
        code_bytes: of each, at most D / 2.
        seed: of k-means.
    """
    quantiser = plain(vectors, lists_for(len(vectors)), code_bytes, seed)
    lists, _ = quantiser.encode(vectors)
    return quantiser.restored(quantiser.words(vectors, lists), lists) @ quantiser.query_rotation
