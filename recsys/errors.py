"""The exceptions that recsys raises on purpose.

    RecsysError                 exit code 1: the run failed
    ├── ConfigError             exit code 2: the run file or a flag is wrong
    ├── SchemaError             a column is missing, or is not what the schema says
    ├── DataError               files or rows that cannot be used
    ├── PlanError               a plan that does not fit its data, budget or checkpoint
    ├── CheckpointError         a checkpoint that is damaged or belongs to another run
    ├── BundleError             a bundle that is damaged, or cannot be written
    ├── RetrievalError          an index that is damaged, or a change or search it has no answer to
    ├── TrainingError           learning went wrong (a loss that is not finite)
    ├── Interrupted             exit code 130: stopped by a signal, everything saved
    └── InstallationError       packages that do not fit together

Every message names the file, the column or key, the rows where that applies, what was
expected, what was found, and what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class RecsysError(Exception):
    """Anything that recsys refuses on purpose; the command line prints it without a traceback."""

    exit_code = 1


class ConfigError(RecsysError):
    """The run file, a flag or an argument is wrong; nothing has been read or written."""

    exit_code = 2


class SchemaError(RecsysError):
    """A column is missing, or its values are not what the schema declares."""


class DataError(RecsysError):
    """A file cannot be read, or its rows cannot be used."""


class PlanError(RecsysError):
    """A plan does not fit its data, its byte budget, or the checkpoint at hand."""


class CheckpointError(RecsysError):
    """A checkpoint is damaged, incomplete, or was written by another run file or plan."""


class BundleError(RecsysError):
    """A bundle is damaged, fails its self-test, or cannot be written."""


class RetrievalError(RecsysError):
    """An index is damaged, belongs to another query tower, or cannot do what is asked of it."""


class TrainingError(RecsysError):
    """Learning went wrong, for example a loss that is not finite."""


class Interrupted(RecsysError):  # noqa: N818 - no fault, the name says what happened
    """A signal stopped the run; what it had done is saved and can be resumed."""

    exit_code = 130


class InstallationError(RecsysError):
    """Installed packages do not fit together; the message names the right versions."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a sentence that names the nearest known name, or lists them when none is near."""
    candidates = sorted(set(known))
    nearest = difflib.get_close_matches(name, candidates, n=1, cutoff=0.6)
    if nearest:
        return f"did you mean {nearest[0]!r}?"
    if not candidates:
        return "none are known here."
    listed = ", ".join(candidates[:20]) + (", …" if len(candidates) > 20 else "")
    return f"known: {listed}."
