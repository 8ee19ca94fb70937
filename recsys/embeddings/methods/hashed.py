"""``hash``: values of one vocabulary share the rows of its table (Weinberger et al. 2009)."""

from __future__ import annotations

from recsys.embeddings.methods.method import Method


class Hash(Method):
    """Row 0 is the missing and row 1 the unseen value; lookup k of any other value is row
    ``2 + hash_rows(key, rows - 2, vocabulary, k)``."""
