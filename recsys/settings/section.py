"""The base of every block of settings, and what is said of a fault in one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import NoneType, UnionType
from typing import Any, Self, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError

from recsys.errors import ConfigError, did_you_mean


class Section(BaseModel):
    """Base of every block of the run file: unknown keys and infinite or undefined numbers are refused,
    values never change."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )

    @classmethod
    def parse(cls, **values: Any) -> Self:
        """Build the block from plain values; raises ConfigError instead of pydantic's error."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise ConfigError("; ".join(explain_faults(error, cls))) from error


def explain_faults(error: ValidationError, root: type[BaseModel]) -> list[str]:
    """One line per fault of settings of the type ``root``, with the nearest key for an unknown one."""
    return [_explain(fault, root) for fault in error.errors()]


def _explain(fault: Any, root: type[BaseModel]) -> str:
    keys, section = _keys(fault["loc"], root)
    key = ".".join(keys)
    if fault["type"] == "extra_forbidden":
        return f"{key}: unknown key; {did_you_mean(keys[-1], list(section.model_fields))}"
    shown = fault["type"] != "missing" and not isinstance(fault["input"], Mapping)
    found = f" (found {fault['input']!r})" if shown else ""
    return f"{key or 'as a whole'}: {fault['msg'].removeprefix('Value error, ')}{found}"


def _keys(location: Sequence[str | int], root: type[BaseModel]) -> tuple[list[str], Any]:
    """The keys that lead to a fault, and the type that the last of them was looked for in.

    Where a value may be of several types, pydantic's location also names the one that was tried.
    """
    keys: list[str] = []
    here: Any = root
    section: Any = root
    for part in location:
        types = _alternatives(here)
        if len(types) > 1:
            here = next((one for one in types if part in _tags(one)), None)
            continue
        section = types[0] if types else None
        keys.append(str(part))
        here = _inside(section, part)
    return keys, section


def _alternatives(annotation: Any) -> list[Any]:
    """Types that a value may be of; null is none of them."""
    if get_origin(annotation) in (Union, UnionType):
        return [one for one in get_args(annotation) if one is not NoneType]
    return [annotation]


def _tags(one: Any) -> tuple[Any, ...]:
    """What pydantic calls a type of several: by its key ``by``, or by its name."""
    if not (isinstance(one, type) and issubclass(one, BaseModel)):
        return ()
    by = one.model_fields.get("by")
    return (one.__name__, *(() if by is None else get_args(by.annotation)))


def _inside(section: Any, part: str | int) -> Any:
    """Type of what a key leads to within a type; None where it leads to none."""
    if isinstance(section, type) and issubclass(section, BaseModel):
        field = section.model_fields.get(str(part))
        return None if field is None else field.annotation
    if get_origin(section) is dict:
        return get_args(section)[1]
    return get_args(section)[0] if get_origin(section) is tuple else None
