"""How well a retrieval model finds what queries were after, as part of a run's report."""

from __future__ import annotations

from collections.abc import Iterator

from recsys.evaluation.retrieval_metrics import RetrievalEvaluation
from recsys.report.page import Field, card, key_figure, table


def retrieval_header(found: RetrievalEvaluation) -> Iterator[str]:
    """What was measured, and the figures that a reader looks for first."""
    facts = found.facts
    yield (
        f"<p>{facts['queries']:,} queries of {facts['rows']:,} test rows, each ranking all "
        f"{facts['items']:,} items</p>"
    )
    titles = {"recall": "Recall", "ndcg": "NDCG"}
    figures = [
        key_figure(f"{titles[name]}@{k}", f"{value:.4f}", "")
        for (name, k), value in ((key.split("@"), value) for key, value in found.overall.items())
    ]
    yield f'<div class="keys">{"".join(figures)}</div>'


def retrieval_section(found: RetrievalEvaluation) -> str:
    """All items, and head and tail apart."""
    fields = (
        Field("items", align="text"),
        Field("k"),
        Field("queries", lambda value: f"{value:,}"),
        Field("recall", _five, "bar"),
        Field("± standard error", _five),
        Field("NDCG", _five, "bar"),
        Field("± standard error", _five),
    )
    content = card("", table(found.slices.rows(), fields))
    head = f"Head: the {found.facts['head_items']:,} most frequent items, a fifth of the catalogue."
    return f'{content}<p class="small">{head}</p>'


def _five(value: float) -> str:
    return f"{value:.5f}"
