"""The generated page about the run file."""

from __future__ import annotations

from pathlib import Path

import pytest

from recsys.config import RunConfig
from recsys.data.synth_settings import SynthSettings

PAGE = Path(__file__).parents[1] / "docs" / "config.md"


def test_the_pages_are_up_to_date() -> None:
    pytest.importorskip("torch")
    from recsys.reference import reference, synth_reference

    assert PAGE.read_text(encoding="utf-8") == reference(), "docs/config.md is stale; run 'make docs'"
    synth = PAGE.with_name("synth_settings.md")
    assert synth.read_text(encoding="utf-8") == synth_reference(), f"{synth} is stale; run 'make docs'"


@pytest.mark.parametrize("settings", [RunConfig, SynthSettings])
def test_every_field_is_documented(settings: type) -> None:
    def undocumented(section: type, path: str) -> list[str]:
        from recsys.reference import _sections_in

        found = []
        for name, field in section.model_fields.items():  # type: ignore[attr-defined]
            if not field.description and name != "by":
                found.append(f"{path}{name}")
            for inner in _sections_in(field.annotation):
                found += undocumented(inner, f"{path}{name}.")
        return found

    assert undocumented(settings, "") == []


def test_every_page_that_the_index_names_exists() -> None:
    folder = PAGE.parent
    for page in folder.glob("*.md"):
        for target in _links(page.read_text(encoding="utf-8")):
            assert (folder / target).exists(), f"{page.name} links to {target}"


def _links(text: str) -> list[str]:
    pieces = [piece.partition(")")[0] for piece in text.split("](")[1:]]
    return [piece.partition("#")[0] for piece in pieces if not piece.startswith(("http", "#"))]
