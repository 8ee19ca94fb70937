"""Finding the files of a log: file, folder, glob or list, and the Hive partitions in their paths."""

from __future__ import annotations

import glob
import os
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Literal
from urllib.parse import unquote

from recsys.errors import DataError, did_you_mean

Format = Literal["parquet", "csv"]
_SUFFIXES: dict[str, Format] = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".parq": "parquet",
    ".csv": "csv",
    ".csv.gz": "csv",
}
_MAGIC = b"PAR1"
_WILDCARD = re.compile(r"[*?\[]")
_PARTITION = re.compile(r"([^=]+)=(.*)", re.DOTALL)
_HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"


def find_files(data: str | Path | Iterable[str | Path], root: Path | None = None) -> list[Path]:
    """The files of a log in one stable order: sorted by path, whatever named them.

    A folder is searched in depth; files and folders whose names start with ``.`` or ``_`` are left
    out (``_dt=1`` is a partition, and is not), as are files that are neither Parquet nor CSV.
    Raises DataError for a path that does not exist, a folder or glob that holds no such file, a file
    that is named twice, and a mixture of Parquet and CSV.
    """
    specs = [data] if isinstance(data, str | Path) else list(data)
    if not specs:
        raise DataError("an empty list of files was given; name at least one Parquet or CSV file")
    found = [path for spec in specs for path in _expand(spec, root)]
    twice = [path for path, times in Counter(path.resolve() for path in found).items() if times > 1]
    if twice:
        raise DataError(f"{twice[0]}: named twice; its rows would count double")
    formats = {format_of(path) for path in found}
    if len(formats) > 1:
        listed = ", ".join(str(next(p for p in found if format_of(p) == kind)) for kind in sorted(formats))
        raise DataError(f"Parquet and CSV files are mixed ({listed}); name one kind, e.g. '*.parquet'")
    return sorted(found, key=lambda path: Path(os.path.normpath(path.absolute())).parts)


def format_of(path: Path) -> Format:
    """Format of a file by its name, else by its first bytes; raises DataError when it is neither."""
    found = _known_format(path)
    if found is None:
        if path.stat().st_size == 0:
            raise DataError(f"{path}: the file is empty (0 bytes)")
        raise DataError(f"{path}: neither a Parquet file nor .csv or .csv.gz")
    return found


def partitions_of(path: Path) -> dict[str, str | None]:
    """Hive partitions in a path, outermost first: ``dt=2026-01-01/hour=03/x.parquet``.

    Values are text, percent-escapes decoded; ``__HIVE_DEFAULT_PARTITION__`` is a missing value. Every
    folder above the file counts, so that file, glob, list and folder give the same columns.
    """
    found: dict[str, str | None] = {}
    for part in path.absolute().parent.parts:
        match = _PARTITION.fullmatch(part)
        if match:
            key, value = unquote(match[1]), unquote(match[2])
            found[key] = None if value == _HIVE_NULL else value
    return found


def _expand(spec: str | Path, root: Path | None) -> list[Path]:
    if "://" in str(spec):
        raise DataError(f"{spec}: only local files can be read; copy the log to a local folder first")
    path = Path(spec).expanduser()
    path = path if root is None else Path(root) / path
    try:
        if path.is_dir():
            return _in_folder(path)
        if path.exists():
            format_of(path)
            return [path]
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    if _WILDCARD.search(str(spec)):
        return _matching(path)
    raise DataError(f"{path}: no such file or folder; {_nearest(path)}")


def _in_folder(folder: Path) -> list[Path]:
    found = _walk(folder)
    if not found:
        raise DataError(f"{folder}: no Parquet or CSV file in this folder")
    return found


def _walk(folder: Path) -> list[Path]:
    found: list[Path] = []
    for entry in folder.iterdir():
        if _is_hidden(entry.name):
            continue
        if entry.is_dir():
            found += _walk(entry)
        elif _known_format(entry) is not None:
            found.append(entry)
    return found


def _matching(pattern: Path) -> list[Path]:
    found: set[Path] = set()
    fixed = next(i for i, part in enumerate(pattern.parts) if _WILDCARD.search(part))
    for match in map(Path, glob.glob(str(pattern), recursive=True)):  # noqa: PTH207 (absolute patterns)
        if any(_is_hidden(part) for part in match.parts[fixed:]):
            continue
        if match.is_dir():
            found.update(_walk(match))
        elif _known_format(match) is not None:
            found.add(match)
    if not found:
        raise DataError(f"{pattern}: no Parquet or CSV file matches this pattern")
    return list(found)


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or (name.startswith("_") and "=" not in name)


def _known_format(path: Path) -> Format | None:
    name = path.name.lower()
    for suffix, found in _SUFFIXES.items():
        if name.endswith(suffix):
            return found
    try:
        with path.open("rb") as file:
            return "parquet" if file.read(len(_MAGIC)) == _MAGIC else None
    except OSError:
        return None


def _nearest(path: Path) -> str:
    """What the last folder that exists offers in place of a missing path."""
    missing = path.absolute()
    while not missing.parent.is_dir():
        missing = missing.parent
    entries = [entry.name for entry in missing.parent.iterdir() if not _is_hidden(entry.name)]
    return f"in {missing.parent}: {did_you_mean(missing.name, entries)}"
