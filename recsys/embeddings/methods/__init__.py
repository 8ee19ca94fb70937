"""Methods of giving values their rows, by the name of their mode in a plan. One file each.

A method says which rows of one table a value looks up and, where there are several, how they make its
vector (``recsys.embeddings.combine``). Adding one: write ``recsys/embeddings/methods/NAME.py`` with a
subclass of ``Method``, add its line to ``METHODS`` and its name to ``VocabularyMode`` and ``PlannedMode``.
The contract test (``tests/embeddings/test_methods.py``) then runs over it, in training and in a bundle.
"""

from __future__ import annotations

from recsys.embeddings.methods.adaptive import Adaptive
from recsys.embeddings.methods.full import Full
from recsys.embeddings.methods.hashed import Hash
from recsys.embeddings.methods.method import Method
from recsys.embeddings.methods.pooled import Pooled
from recsys.embeddings.methods.quotient import Quotient
from recsys.embeddings.methods.unified import Unified

__all__ = ["METHODS", "Method"]

METHODS: dict[str, Method] = {
    "full": Full(),
    "hash": Hash(),
    "unified": Unified(),
    "adaptive": Adaptive(),
    "quotient": Quotient(),
    "pool": Pooled(),
}
