"""An AUC that is too round to be true, and what it usually comes from."""

from __future__ import annotations

_REASONS = {
    1.0: "every click ranks above every other row; likely a feature that holds the label or is known only "
    "after it, test rows that were trained on, or too few rows",
    0.5: "no better than a coin; likely one score for every row: learning rates of 0, or so high that "
    "learning ran away, or features that are all missing or unseen in these rows",
    0.0: "every click ranks below every other row; likely a label whose 0 and 1 are exchanged, or too few "
    "rows",
}


def doubtful_auc(auc: float | None, of: str) -> str | None:
    """A warning where an AUC is exactly 0, 0.5 or 1; None for all others, and for None.

    ``of`` says which rows, and how many.

    >>> doubtful_auc(0.73, "4 test rows") is None
    True
    >>> str(doubtful_auc(1.0, "4 test rows"))[:44]
    'AUC of 4 test rows is exactly 1: every click'
    """
    if auc is None or auc not in _REASONS:
        return None
    return f"AUC of {of} is exactly {auc:g}: {_REASONS[auc]}"
