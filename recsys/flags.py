"""Flags that several verbs share, and how they are read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from recsys.errors import ConfigError

if TYPE_CHECKING:
    from recsys.config import SplitSettings

T = TypeVar("T")

RunFile = Annotated[Path, typer.Argument(metavar="FILE", help="Run file (YAML).")]
Log = Annotated[
    str,
    typer.Argument(metavar="DATA", help="Parquet file, folder, glob or CSV file; or a run file (.yaml)."),
]
DataRoot = Annotated[
    Path | None,
    typer.Option("--data", metavar="DIR", help="Folder that the run file's data paths start from."),
]
Output = Annotated[Path | None, typer.Option("--output", metavar="DIR", help="Folder to write to.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a setting of the run file; may be repeated."),
]
SchemaFile = Annotated[
    Path | None, typer.Option("--schema", metavar="FILE", help="Schema that 'recsys infer' wrote.")
]
Split = Annotated[
    str | None,
    typer.Option(
        "--split", metavar="YAML", help="Split rule as in a run file: '{by: ratio, key: user_id}'."
    ),
]
Label = Annotated[str | None, typer.Option("--label", metavar="COLUMN", help="Column that holds 0 or 1.")]
Seeds = Annotated[
    int | None,
    typer.Option("--seeds", min=1, help="Train with this many seeds; finished ones are not repeated."),
]


def is_run_file(argument: str) -> bool:
    return argument.endswith((".yaml", ".yml"))


def refuse(**flags: object) -> None:
    """Flags that a run file has settings for."""
    for name, value in flags.items():
        if value:
            raise ConfigError(
                f"--{name.replace('_', '-')} is for data given by path; here the run file says it"
            )


def refuse_with_data(root: Path | None, overrides: list[str] | None) -> None:
    """Flags that change a run file where there is none."""
    for name, value in (("--data", root), ("--set", overrides)):
        if value:
            raise ConfigError(f"{name} changes a run file, and none is given")


def needed(flag: str, value: T | None) -> T:
    if value is None:
        raise ConfigError(f"{flag} is missing")
    return value


def schema_file(path: Path | None) -> Path | None:
    """The schema of a path that may be the folder it was written to."""
    return path / "schema.yaml" if path is not None and path.is_dir() else path


def split_rule(text: str | None) -> SplitSettings | None:
    from recsys.config import parse_split

    return None if text is None else parse_split(text)


def names(given: list[str] | None) -> tuple[str, ...]:
    """Names of a flag that may be repeated and may hold several: ``--by a,b --by c``."""
    return tuple(name.strip() for text in given or () for name in text.split(",") if name.strip())
