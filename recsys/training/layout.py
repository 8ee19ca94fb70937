"""The layout of a model's inputs, from the features and the plan."""

from __future__ import annotations

from collections.abc import Sequence

from recsys.data.dataset import Feature
from recsys.embeddings.plan import Plan
from recsys.models.inputs import Layout, SequenceLayout


def layout_of(features: Sequence[Feature], plan: Plan) -> Layout:
    """Widths of fields and sequences; a sequence's candidate is the field of its vocabulary.

    >>> from recsys.embeddings.plan import TablePlan, VocabularyPlan
    >>> plan = Plan(
    ...     tables={"item": TablePlan(rows=9, dim=4, path="dense")},
    ...     vocabularies={"item": VocabularyPlan(mode="full", table="item", size=9)},
    ...     features={"item": "item", "history": "item"},
    ... )
    >>> features = (
    ...     Feature(name="item", kind="categorical", vocabulary="item"),
    ...     Feature(name="history", kind="sequence", vocabulary="item", max_length=50),
    ... )
    >>> layout_of(features, plan).sequences["history"]
    SequenceLayout(dim=4, candidate='item', aligned_with=None)
    """
    candidates = {f.vocabulary: f.name for f in reversed(features) if f.kind == "categorical"}

    def dim(feature: Feature) -> int:
        return plan.width_of(feature.name)

    return Layout(
        fields={f.name: dim(f) for f in features if f.kind in ("categorical", "multi")},
        numerics=tuple(f.name for f in features if f.kind == "numeric"),
        sequences={
            f.name: SequenceLayout(
                dim=dim(f), candidate=candidates.get(f.vocabulary), aligned_with=f.aligned_with
            )
            for f in features
            if f.kind == "sequence"
        },
        sides={f.name: f.side for f in features if f.side is not None},
    )
