"""Score the rows of a Parquet file with a bundle, using numpy and onnxruntime; no recsys, no torch.

    python serving/score_bundle.py BUNDLE INPUT.parquet OUTPUT.parquet

writes the input's columns and ``score``, a float32 probability. Besides numpy and onnxruntime it needs
pyarrow (to read Parquet) and xxhash (a published hash; the keys of values). It is written to be read
and ported: ``docs/export.md`` describes the bundle, and every step of a scorer stands here once.

Columns must have the types that the manifest's schema names; the library's own reader
(``recsys predict``) also converts, for example text to numbers.
"""

from __future__ import annotations

import hashlib
import json
import struct
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

BATCH_ROWS = 4096
MASK = 2**64 - 1
SAFETENSORS_TYPES = {
    "U8": np.uint8,
    "U64": np.uint64,
    "I32": np.int32,
    "I64": np.int64,
    "F16": np.float16,
    "F32": np.float32,
    "F64": np.float64,
    "BOOL": np.bool_,
}


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """Length of a JSON header (8 bytes), the header, and then all arrays' bytes."""
    content = path.read_bytes()
    (length,) = struct.unpack_from("<Q", content)
    header = json.loads(content[8 : 8 + length])
    arrays = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        start, end = (8 + length + at for at in entry["data_offsets"])
        flat = np.frombuffer(content[start:end], SAFETENSORS_TYPES[entry["dtype"]])
        arrays[name] = flat.reshape(entry["shape"])
    return arrays


def read_manifest(bundle: Path) -> dict:
    """The manifest, once every file has the hash that it names."""
    manifest = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
    if manifest["format"] != "recsys-bundle" or manifest["version"] not in range(1, 8):
        sys.exit(f"{bundle}: expected a recsys-bundle of version 1 to 7")
    for name, record in manifest["files"].items():
        if hashlib.sha256((bundle / name).read_bytes()).hexdigest() != record["sha256"]:
            sys.exit(f"{bundle / name}: damaged, its sha256 is not the manifest's")
    return manifest


class Table:
    """An embedding table; ``vectors`` of values' rows are float32."""

    def __init__(self, bundle: Path, described: dict) -> None:
        self.dim, self.dtype = described["dim"], described["dtype"]
        self.arrays = read_safetensors(bundle / described["file"])

    def vectors(self, rows: np.ndarray, combine: str) -> np.ndarray:
        """Several rows of a value, ``[M, K]``, are put side by side, or multiplied or added."""
        rows = rows[:, None] if rows.ndim == 1 else rows
        found = self.restored(np.maximum(rows, 0).ravel()).reshape(*rows.shape, self.dim)
        found[rows < 0] = 0.0  # row -1: the value's gate is closed
        if combine == "concat":
            return found.reshape(len(rows), rows.shape[1] * self.dim)
        return found.prod(axis=1) if combine == "multiply" else found.sum(axis=1)

    def restored(self, rows: np.ndarray) -> np.ndarray:
        if "weight" in self.arrays:  # float32 or float16
            return self.arrays["weight"][rows].astype(np.float32)
        codes = self.arrays["codes"][rows]
        if self.dtype == "int4":  # two codes per byte, the first in the low nibble
            codes = np.stack([codes & 15, codes >> 4], axis=-1).reshape(len(rows), -1)[:, : self.dim]
        scale = self.arrays["scale"][rows].astype(np.float32)[:, None]
        offset = self.arrays["offset"][rows].astype(np.float32)[:, None]
        return codes.astype(np.float32) * scale + offset


class Vocabulary:
    """Raw values to rows of a table: listed by key, or hashed, or those of the unseen value."""

    def __init__(self, bundle: Path, name: str, described: dict) -> None:
        self.keys, self.rows = np.empty(0, np.uint64), np.empty(0, np.int32)
        if described["keys"] is not None:
            arrays = read_safetensors(bundle / described["keys"])
            self.keys, self.rows = arrays["keys"], arrays["rows"]
        self.name, self.type, self.hashed = name.encode(), described["type"], described.get("hashed")
        self.missing_row, self.unseen_row = described["missing_row"], described["unseen_row"]

    def __getitem__(self, values: pa.Array) -> np.ndarray:
        coded = values.dictionary_encode()  # each distinct value is hashed once
        known = [self.row(value) for value in canonical(coded.dictionary, self.type).to_pylist()]
        rows = np.array([*known, self.missing_row], np.int64)
        return rows[coded.indices.fill_null(len(known)).to_numpy(zero_copy_only=False)]

    def row(self, value: int | float | str) -> np.ndarray:
        """A row, or one per lookup. Key: xxh3_64 of UTF-8 text, or of 8 little-endian bytes; sorted."""
        if value != value:
            return self.missing_row  # NaN
        if self.type == "string":
            content = value.encode()
        elif self.type == "float64":
            content = struct.pack("<d", value + 0.0)  # -0.0 counts as 0.0
        else:
            content = struct.pack("<q", value)
        key = xxhash.xxh3_64_intdigest(content)
        at = np.searchsorted(self.keys, np.uint64(key))
        if at < len(self.keys) and self.keys[at] == key:
            return self.rows[at]
        return self.unseen_row if self.hashed is None else self.hashed_rows(key)

    def hashed_rows(self, key: int) -> int | list[int]:
        """SplitMix64 of the key, salted by the vocabulary's name and the lookup, scaled to the rows."""
        several = isinstance(self.missing_row, list)
        lookups = len(self.missing_row) if several else 1
        into = self.hashed if isinstance(self.hashed, list) else [self.hashed] * lookups
        rows = []
        for lookup in range(lookups):
            first, end = into[lookup]["first"], into[lookup]["end"]
            salt = xxhash.xxh3_64_intdigest(self.name, seed=lookup)
            word = (key ^ salt) + 0x9E3779B97F4A7C15 & MASK
            word = (word ^ (word >> 30)) * 0xBF58476D1CE4E5B9 & MASK
            word = (word ^ (word >> 27)) * 0x94D049BB133111EB & MASK
            rows.append(first + ((word ^ (word >> 31)) * (end - first) >> 64))
        return rows if several else rows[0]


def canonical(values: pa.Array, kind: str) -> pa.Array:
    """Values as the schema's type: int64 (datetimes: microseconds since 1970), float64 or text."""
    if kind == "datetime" and (pa.types.is_date(values.type) or pa.types.is_timestamp(values.type)):
        values = values.cast(pa.timestamp("us"))
    target = {"string": pa.string(), "float64": pa.float64()}.get(kind, pa.int64())
    return values.cast(target)


def column(table: pa.Table, name: str) -> pa.Array:
    """One column in one piece."""
    if name not in table.column_names:
        sys.exit(f"the input has no column {name!r}")
    values = table.column(name).combine_chunks()
    return values.dictionary_decode() if pa.types.is_dictionary(values.type) else values


def cut_lists(lists: pa.Array, feature: dict) -> tuple[pa.Array, np.ndarray]:
    """Elements of all lists and the lists' lengths; a null list is empty.

    A list longer than ``max_length`` keeps its newest elements (sequence) or its first (multi).
    """
    offsets = np.asarray(lists.offsets, np.int64)
    starts, ends = offsets[:-1], offsets[1:].copy()
    ends[lists.is_null().to_numpy(zero_copy_only=False)] = 0
    lengths = np.maximum(ends - starts, 0)
    kept = np.minimum(lengths, feature["max_length"] or lengths.max(initial=0))
    first = starts + (lengths - kept if feature["kind"] == "sequence" else 0)
    before = np.cumsum(kept) - kept
    take = np.repeat(first - before, kept) + np.arange(kept.sum())
    return lists.values.take(pa.array(take)), kept


def standardise(values: pa.Array, feature: dict, encoder: dict) -> tuple[np.ndarray, np.ndarray]:
    """Numbers, 0 where missing, and a mask that is 1 there; NaN and infinities are missing."""
    raw = canonical(values, feature["type"]).cast(pa.float64(), safe=False)
    numbers = raw.fill_null(np.nan).to_numpy(zero_copy_only=False)
    missing = ~np.isfinite(numbers)
    numbers = np.where(missing, 0.0, numbers)
    if encoder["transform"] == "log":
        numbers = np.copysign(np.log1p(np.abs(numbers)), numbers)
    numbers = np.clip((numbers - encoder["mean"]) / encoder["std"], -encoder["clip"], encoder["clip"])
    return np.where(missing, 0.0, numbers).astype(np.float32), missing.astype(np.float32)


def dense_inputs(
    batch: pa.Table, manifest: dict, vocabularies: dict, tables: dict
) -> dict[str, np.ndarray]:
    """Inputs of ``dense.onnx`` for the rows of a batch."""
    inputs: dict[str, np.ndarray] = {}
    for feature in manifest["features"]:
        name, values = feature["name"], column(batch, feature["name"])
        if feature["kind"] == "numeric":
            encoder = manifest["numerics"][name]
            inputs[name], inputs[f"{name}.missing"] = standardise(values, feature, encoder)
            continue
        vocabulary, table = vocabularies[feature["vocabulary"]], tables[feature["table"]]
        combine = feature.get("combine", "concat")
        if feature["kind"] == "categorical":
            inputs[name] = table.vectors(vocabulary[values], combine)
            continue
        elements, lengths = cut_lists(values, feature)
        padded = np.zeros((len(lengths), lengths.max(initial=0), feature["width"]), np.float32)
        padded[np.arange(padded.shape[1]) < lengths[:, None]] = table.vectors(vocabulary[elements], combine)
        if feature["kind"] == "sequence":
            inputs[name], inputs[f"{name}.lengths"] = padded, lengths
        else:  # multi: the mean of its vectors, zeros for an empty list
            inputs[name] = padded.sum(axis=1) / np.maximum(lengths, 1)[:, None].astype(np.float32)
    return inputs


def main(bundle: Path, source: Path, target: Path) -> None:
    manifest = read_manifest(bundle)
    tables = {name: Table(bundle, described) for name, described in manifest["tables"].items()}
    vocabularies = {
        name: Vocabulary(bundle, name, described) for name, described in manifest["vocabularies"].items()
    }
    session = onnxruntime.InferenceSession(
        str(bundle / manifest["dense"]), providers=["CPUExecutionProvider"]
    )
    wanted = [node.name for node in session.get_inputs()]
    rows, scores = pq.read_table(source), []
    for start in range(0, rows.num_rows, BATCH_ROWS):
        inputs = dense_inputs(rows.slice(start, BATCH_ROWS), manifest, vocabularies, tables)
        (logit,) = session.run(["logit"], {name: inputs[name] for name in wanted})
        scores.append(1 / (1 + np.exp(-np.clip(logit.astype(np.float64), -700, 700))))
    score = np.concatenate(scores).astype(np.float32) if scores else np.empty(0, np.float32)
    pq.write_table(rows.append_column("score", pa.array(score)), target)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(f"usage: python {sys.argv[0]} BUNDLE INPUT.parquet OUTPUT.parquet")
    main(*(Path(argument) for argument in sys.argv[1:]))
