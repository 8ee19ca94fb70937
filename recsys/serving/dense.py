"""The dense part in onnxruntime, and what it takes: table rows looked up, pooled, padded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.embeddings.combine import combined
from recsys.errors import BundleError, InstallationError
from recsys.serving.manifest import BundleFeature
from recsys.serving.quantise import Table

CLOSED = -1
"""Row of a value whose gate is closed: it is no row, and the value's vector is zeros."""


@dataclass(frozen=True)
class Ragged:
    """Lists of table rows: list i is ``values[offsets[i]:offsets[i + 1]]``."""

    values: NDArray[np.int64]
    """A row per value; with K > 1 lookups ``[values, K]``."""
    offsets: NDArray[np.int64]
    """``[B + 1]``."""

    def __getitem__(self, part: slice) -> Ragged:
        offsets = self.offsets[part.start : part.stop + 1]
        return Ragged(self.values[offsets[0] : offsets[-1]], offsets - offsets[0])

    @property
    def lengths(self) -> NDArray[np.int64]:
        """``[B]``."""
        return np.diff(self.offsets)


@dataclass(frozen=True)
class EncodedRows:
    """B rows of the log, their values replaced by table rows and standardised numbers."""

    count: int
    single: Mapping[str, NDArray[np.int64]]
    """Categorical feature → table rows ``[B]``; with K > 1 lookups ``[B, K]``."""
    ragged: Mapping[str, Ragged]
    """Multi and sequence feature → table rows."""
    numerics: Mapping[str, NDArray[np.float32]]
    """Numeric feature → ``[B]``, NaN where missing."""

    def __getitem__(self, part: slice) -> EncodedRows:
        start, stop, _ = part.indices(self.count)
        part = slice(start, stop)
        return EncodedRows(
            stop - start,
            {name: rows[part] for name, rows in self.single.items()},
            {name: rows[part] for name, rows in self.ragged.items()},
            {name: numbers[part] for name, numbers in self.numerics.items()},
        )


def dense_inputs(
    rows: EncodedRows, features: Sequence[BundleFeature], tables: Mapping[str, Table]
) -> dict[str, NDArray[Any]]:
    """Inputs of ``dense.onnx`` by name, for B rows.

    Categorical and multi: ``NAME`` float32 ``[B, width]``, a multi's the mean over its values.
    Sequence: ``NAME`` float32 ``[B, H, width]``, zeros after the newest value, and ``NAME.lengths``.
    Numeric: ``NAME`` float32 ``[B]``, 0 where missing, and ``NAME.missing``, 1 there.
    """
    inputs: dict[str, NDArray[Any]] = {}
    for feature in features:
        name = feature.name
        if feature.kind == "numeric":
            numbers = rows.numerics[name]
            missing = np.isnan(numbers)
            inputs[name] = np.where(missing, np.float32(0), numbers)
            inputs[f"{name}.missing"] = missing.astype(np.float32)
            continue
        table = tables[str(feature.table)]
        if feature.kind == "categorical":
            inputs[name] = _vectors(rows.single[name], table, feature)
        elif feature.kind == "multi":
            inputs[name] = _mean(rows.ragged[name], table, feature)
        else:
            inputs[name] = _padded(rows.ragged[name], table, feature)
            inputs[f"{name}.lengths"] = rows.ragged[name].lengths
    return inputs


def _vectors(rows: NDArray[np.int64], table: Table, feature: BundleFeature) -> NDArray[np.float32]:
    """Vectors ``[n, W]`` of rows ``[n]``, or ``[n, K]`` of K lookups; those of closed values are zeros."""
    several = rows[:, None] if rows.ndim == 1 else rows
    closed = several[:, 0] == CLOSED
    vectors = np.asarray(combined(table.lookup(np.maximum(several, 0)), feature.combine))
    return np.where(closed[:, None], np.float32(0), vectors) if closed.any() else vectors


def _mean(lists: Ragged, table: Table, feature: BundleFeature) -> NDArray[np.float32]:
    """Mean vector ``[B, W]`` of each list; zeros for an empty one."""
    pooled = np.zeros((len(lists.offsets) - 1, feature.width), np.float32)
    filled = lists.lengths > 0
    if filled.any():
        sums = np.add.reduceat(_vectors(lists.values, table, feature), lists.offsets[:-1][filled], axis=0)
        pooled[filled] = sums / lists.lengths[filled, None].astype(np.float32)
    return pooled


def _padded(lists: Ragged, table: Table, feature: BundleFeature) -> NDArray[np.float32]:
    """Vectors ``[B, H, W]`` of each list in order, then zeros; H is the longest length."""
    lengths = lists.lengths
    longest = int(lengths.max(initial=0))
    padded = np.zeros((len(lengths), longest, feature.width), np.float32)
    padded[np.arange(longest) < lengths[:, None]] = _vectors(lists.values, table, feature)
    return padded


class DensePart:
    """``dense.onnx`` in onnxruntime.

    Args:
        path: the graph.
        threads: that one batch is computed with; default: as many as the machine has cores.
        output: name of its one output.

    Raises:
        BundleError: the graph cannot be loaded.
        InstallationError: onnxruntime is not installed.
    """

    def __init__(self, path: Path, threads: int | None = None, output: str = "logit") -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise InstallationError(
                "scoring a bundle needs onnxruntime: pip install 'recsys[serve]'"
            ) from error
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # its warnings are about its own optimiser
        options.intra_op_num_threads = threads or 0
        try:
            session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise BundleError(f"{path}: not a graph that onnxruntime can load: {error}") from error
        outputs = [node.name for node in session.get_outputs()]
        if outputs != [output]:
            raise BundleError(f"{path}: expected one output {output!r}, found {outputs}")
        self.inputs: list[str] = [node.name for node in session.get_inputs()]
        """Names of its inputs; one that the model does not read may be absent from the graph."""
        self._session = session
        self._path = path

    def logit(self, inputs: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        """Logits ``[B]`` float32; raises what ``run`` raises."""
        return self.run(inputs).reshape(-1)

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        """Its output, float32; raises BundleError when the graph asks for an input that is not there."""
        unknown = [name for name in self.inputs if name not in inputs]
        if unknown:
            raise BundleError(f"{self._path}: asks for inputs that no feature gives: {unknown}")
        try:
            found = self._session.run(None, {name: inputs[name] for name in self.inputs})[0]
        except Exception as error:
            raise BundleError(f"{self._path}: cannot be run: {error}") from error
        return np.asarray(found, np.float32)
