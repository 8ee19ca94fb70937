"""The reference of the run file, generated from its types.

python -m recsys.reference docs/config.md
"""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from recsys.config import RunConfig
from recsys.data.synth_settings import SynthSettings

_HEAD = """# The run file

One YAML file describes a run. Unknown keys are errors that name the nearest known key; `recsys run FILE
--print-config` shows every value that a file resolves to, and `--set train.epochs=3` overrides one. Paths
of `data` and `split` start from `data.root`, which `--data DIR` replaces.

This page is generated from the code by `make docs`; a test keeps it up to date.
"""


_SYNTH_HEAD = """# Settings of the synthetic log

The YAML that [`recsys synth`](synth.md) reads, block by block; `data/synth_*.yaml` are examples. Columns,
copies, numbers and tags are blocks by the name of the column.

This page is generated from the code by `make docs`; a test keeps it up to date.
"""


def as_yaml(config: RunConfig) -> str:
    """Every setting of a run, defaults included, as a run file."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def reference() -> str:
    """The page ``docs/config.md``."""
    lines = [_HEAD, *_section("", RunConfig)]
    lines += ["## Models", "", "Options stand beside `name` in the block `model`.", ""]
    for name, options in _models().items():
        lines += [f"### {name}", "", _summary(options), "", *_table(options), ""]
    return "\n".join(lines).rstrip() + "\n"


def synth_reference() -> str:
    """The page ``docs/synth_settings.md``."""
    return "\n".join([_SYNTH_HEAD, *_section("", SynthSettings)]).rstrip() + "\n"


def _models() -> dict[str, type[BaseModel]]:
    """Options of every model by name."""
    from recsys.models import MODELS, RETRIEVERS, model_class

    return {name: model_class(name).Config for name in MODELS | RETRIEVERS}


def _section(key: str, section: type[BaseModel]) -> Iterator[str]:
    """A block of the run file, then the blocks inside it."""
    if key:
        yield from (f"## `{key}`", "", _summary(section), "")
    yield from _table(section)
    yield ""
    for name, field in section.model_fields.items():
        for inner in _sections_in(field.annotation):
            path = f"{key}.{name}" if key else name
            by = inner.model_fields.get("by")
            kinds = () if by is None else get_args(by.annotation)
            suffix = f" (by: {kinds[0]})" if kinds and isinstance(kinds[0], str) else ""
            if get_origin(field.annotation) is dict:
                suffix = ".NAME"
            yield from _section(path + suffix, inner)


def _summary(section: type[BaseModel]) -> str:
    return _flat(section.__doc__)


def _flat(text: str | None) -> str:
    """Docstring text as one line of Markdown."""
    return " ".join((text or "").split()).replace("``", "`")


def _table(section: type[BaseModel]) -> Iterator[str]:
    """One line per key."""
    if not section.model_fields:
        return
    yield "| key | values | default | meaning |"
    yield "|---|---|---|---|"
    for name, field in section.model_fields.items():
        meaning = _flat(field.description).replace("|", "\\|")
        yield f"| `{name}` | {_values(field)} | {_default(field)} | {meaning} |"


def _values(field: FieldInfo) -> str:
    """What a key may hold, in words."""
    words = _words(field.annotation)
    bounds = [_bound(rule) for rule in field.metadata]
    return " ".join([words, *(bound for bound in bounds if bound)])


def _bound(rule: object) -> str:
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    return "".join(f"{sign} {getattr(rule, name)}" for name, sign in signs.items() if hasattr(rule, name))


def _words(kind: Any) -> str:
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Literal:
        return " \\| ".join(f"`{value}`" for value in inner)
    if origin in (Union, types.UnionType):
        blocks = [part for part in inner if _sections_in(part)]
        if blocks:
            return "block"
        return " or ".join(_words(part) for part in inner if part is not type(None))
    if origin is tuple:
        if inner[-1] is not Ellipsis:
            return f"list of {len(inner)} × {_words(inner[0])}"
        return f"list of {_words(inner[0])}"
    if origin is dict:
        return "block per name" if _sections_in(inner[1]) else f"{_words(inner[1])} per name"
    if hasattr(kind, "__metadata__"):
        return _words(inner[0])
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return "block"
    names = {
        str: "text",
        int: "integer",
        float: "number",
        bool: "true \\| false",
        Path: "path",
        date: "date",
    }
    return names.get(kind, str(kind))


def _sections_in(kind: Any) -> list[type[BaseModel]]:
    """The blocks that a type can hold."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return [kind]
    found = [section for part in get_args(kind) for section in _sections_in(part)]
    return found if get_origin(kind) is not Literal else []


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is None or isinstance(value, BaseModel | Path) or value in ((), {}, ""):
        return ""
    return f"`{json.dumps(_plain(value), ensure_ascii=False, default=str)}`"


def _plain(value: Any) -> Any:
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    (folder / "config.md").write_text(reference(), encoding="utf-8")
    (folder / "synth_settings.md").write_text(synth_reference(), encoding="utf-8")
