"""Files of a bundle: their hashes, and safetensors in and out."""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from recsys.errors import BundleError
from recsys.serving.manifest import FileRecord

_BLOCK = 1 << 20


def file_name(name: str, suffix: str) -> str:
    """File name of a table, vocabulary or feature; characters that file systems dislike are escaped.

    >>> file_name("user/id", ".parquet")
    'user%2Fid.parquet'
    """
    return quote(name, safe=" +,()[]=@").replace(".", "%2E") + suffix


def record_of(path: Path) -> FileRecord:
    """Size and hash of a file."""
    return FileRecord(bytes=path.stat().st_size, sha256=sha256(path))


def save_tensors(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write arrays by name as safetensors, making its folder; raises OSError where the disk is full."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, path)
    except SafetensorError as error:  # its own kind of OSError
        raise OSError(errno.EIO, str(error)) from error
    # Written for its owner alone, it could not be served by anyone else.
    path.chmod(path.parent.stat().st_mode & 0o666)


def check_files(folder: Path, files: Mapping[str, FileRecord], *, contents: bool = True) -> None:
    """``check_file`` of every file of a bundle."""
    for name, record in files.items():
        check_file(folder / name, record, contents=contents)


def check_file(path: Path, record: FileRecord, *, contents: bool = True) -> None:
    """Raise BundleError when a file is missing, of another size or, if asked, of another content."""
    advice = "copy the bundle again or export it anew"
    try:
        size = path.stat().st_size
        if size != record.bytes:
            raise BundleError(f"{path}: damaged: expected {record.bytes} bytes, found {size}; {advice}")
        found = sha256(path) if contents else record.sha256
    except FileNotFoundError as error:
        raise BundleError(f"{path}: missing from the bundle; {advice}") from error
    except OSError as error:
        raise BundleError(f"{path}: cannot be read: {error.strerror or error}") from error
    if found != record.sha256:
        raise BundleError(f"{path}: damaged: expected sha256 {record.sha256}, found {found}; {advice}")


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def load_tensors(path: Path) -> dict[str, NDArray[Any]]:
    """Arrays of a safetensors file by name; raises BundleError that names the file."""
    try:
        arrays: dict[str, NDArray[Any]] = load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise BundleError(f"{path}: not a readable safetensors file: {error}") from error
    return arrays
