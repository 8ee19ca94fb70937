"""Sizes in bytes, as a person writes them."""

from __future__ import annotations

from recsys.errors import ConfigError


def parse_bytes(value: int | str) -> int:
    """Number of bytes of ``8MB``, ``64KiB``, ``1.5GB`` or a plain integer.

    Raises ConfigError for anything else.
    """
    if isinstance(value, int):
        return _positive(value, value)
    units = {"B": 1, "KB": 1e3, "MB": 1e6, "GB": 1e9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
    text = value.strip().upper()
    number = text.rstrip("BKMGI ")
    unit = text[len(number) :].strip() or "B"
    try:
        count = int(float(number) * units[unit])
    except (ValueError, KeyError, OverflowError):
        raise ConfigError(f"{value!r} is not a size; write for example 8MB or 64KiB") from None
    return _positive(count, value)


def checked_size(value: int | str | None) -> int | str | None:
    """A size as it was written; raises ValueError, as pydantic wants it, for what is none."""
    if value is not None:
        try:
            parse_bytes(value)
        except ConfigError as error:
            raise ValueError(str(error)) from error
    return value


def _positive(count: int, value: int | str) -> int:
    if count < 1:
        raise ConfigError(f"{value!r} is not a size; it must be positive")
    return count
