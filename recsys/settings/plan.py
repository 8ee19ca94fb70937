"""The block ``plan`` of a run file: embedding tables, and the bytes they may take."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from recsys.embeddings.plan import MOST_LOOKUPS, ServeDtype, UpdatePath, VocabularyMode
from recsys.settings.section import Section
from recsys.settings.sizes import checked_size


class TableSettings(Section):
    """Overrides for one table; the table of a vocabulary has the vocabulary's name, the shared one is
    ``unified``."""

    dim: int | None = Field(default=None, ge=1)
    """Width of the embedding vectors."""
    path: UpdatePath | None = None
    """``dense`` or ``fused``; default: by size."""
    mode: VocabularyMode | None = None
    """``full``, ``hash``, ``unified``, ``adaptive`` or ``quotient``; default: as the plan's says."""
    lookups: int | None = Field(default=None, ge=1, le=MOST_LOOKUPS)
    """Rows of a hashed or shared table that a value's vector is made of; default: the plan's."""
    rows: int | None = Field(default=None, ge=1)
    """Rows of a hashed table, or of the shared one."""
    sub_tables: int | None = Field(default=None, ge=1)
    """Of the shared table: equal blocks of rows that lookups are dealt over, one or more per device."""
    serve_dtype: ServeDtype | None = None
    """``float32``, ``float16``, ``int8`` or ``int4``."""


class PlanSettings(Section):
    """Tables and their bytes."""

    embedding_dim: int = Field(default=16, ge=1)
    """Width of the embedding vectors; LR always has 1."""
    bytes: int | str | None = None
    """Most bytes that all tables together may take, e.g. ``8MB``; the largest share rows."""
    counted: Literal["tables", "all", "bundle"] = "tables"
    """What ``bytes`` bounds: the float32 tables (``tables``), also the keys and row maps that the bundle
    lists (``all``), or both as the bundle holds them, in the tables' ``serve_dtype`` (``bundle``)."""
    mode: Literal["auto", "full", "hash", "unified", "adaptive", "quotient", "mixed", "best"] = "auto"
    """``full``: a row per value. ``hash``: values of a table share rows. ``unified``: one table, whose
    rows values of all vocabularies share. ``adaptive``: frequent values have rows of their own, the others
    of a table share. ``quotient``: a row per quotient and one per remainder of a value's number,
    multiplied. ``mixed``: a row per value, narrower the larger the vocabulary. ``auto``: ``full`` where the
    budget allows it, else ``hash``. ``best``: what promises the most for the ``bytes`` that a bundle ships
    (``counted`` is ``bundle``), the tables' ``serve_dtype`` included."""
    exact: int | None = Field(default=None, ge=0)
    """Vocabularies of so many values at most keep a row per value where others share rows. Default: 5, or
    more where such rows take a twentieth of ``bytes`` together at most; 64 in mode ``best``."""
    lookups: int = Field(default=1, ge=1, le=MOST_LOOKUPS)
    """Rows of a hashed or shared table that make a value's vector, each a ``lookups``-th of its width."""
    hot: float = Field(default=0.5, gt=0, lt=1)
    """Mode ``adaptive``: share of a table's rows that frequent values have for themselves."""
    unseen: Literal["own", "hash"] | None = None
    """What values that the train rows did not hold get where values are hashed: the rows that the unseen
    value has of its ``own``, or those of their ``hash``, so that the bundle needs no keys. Default:
    ``hash`` where ``counted`` is ``bundle`` and ``prepare.min_count`` made no rare values unseen, else
    ``own``."""
    serve_dtype: ServeDtype = "int8"
    """Type of the tables in the bundle; ``float32``, ``float16``, ``int8`` or ``int4``."""
    dense_below: int | str = "16MB"
    """Tables up to this size take the ``dense`` update path, larger ones the ``fused`` path."""
    tables: dict[str, TableSettings] = Field(default_factory=dict)
    """Overrides by table name."""
    grow: Path | None = None
    """Run folder, plan folder or ``plan.json`` of earlier data, whose plan is enlarged: what it says of a
    vocabulary stays, so that ``train.warm_start`` can carry over what was learnt."""

    @field_validator("bytes", "dense_below")
    @classmethod
    def _is_a_size(cls, value: int | str | None) -> int | str | None:
        return checked_size(value)
