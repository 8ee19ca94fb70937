"""The block ``model`` of a run file: which one; its options are its own."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

RETRIEVAL_MODELS = ("two_tower",)
"""Models that find candidates; all others score rows."""


class ModelSettings(BaseModel):
    """Which model, and its options; each model documents its own."""

    model_config = ConfigDict(extra="allow", frozen=True, use_attribute_docstrings=True)

    name: str
    """``lr``, ``fm``, ``dnn``, ``deepfm``, ``dcnv2``, ``finalmlp``, ``autoint``, ``autoint_plus``,
    ``din`` or ``dien``; for retrieval ``two_tower``."""

    @property
    def options(self) -> dict[str, Any]:
        """Everything but the name."""
        return dict(self.model_extra or {})

    @property
    def retrieves(self) -> bool:
        """Whether the model finds candidates, rather than scoring rows."""
        return self.name in RETRIEVAL_MODELS
