"""The verb ``explain``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from recsys import __version__
from recsys.flags import Output
from recsys.progress import say


def explain(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder.")],
    data: Annotated[str, typer.Argument(metavar="DATA", help="Parquet file, folder, glob or CSV file.")],
    output: Output = None,
    rows: Annotated[int, typer.Option(min=1, help="Rows to look at, from the first on.")] = 10_000,
) -> None:
    """Show what AutoInt's fields and DIN's histories attend to."""
    say(f"recsys {__version__} explain {run}")
    from recsys.explanation import explain as look
    from recsys.summary import show_explanation

    show_explanation(look(run, data, output, rows=rows))
