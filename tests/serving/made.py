"""A log, its dataset and a linear model made by hand, and their scores by a loop over rows.

Nothing here uses the code under test: ids come from dictionaries, the dense part is an ONNX graph
put together node by node, and the expected scores are computed row by row in plain Python.
"""

from __future__ import annotations

import datetime
import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import polars as pl
import xxhash
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from recsys.data.dataset import Dataset, DatasetManifest, Feature, NumericEncoder, VocabularyInfo
from recsys.embeddings.plan import Plan, TablePlan, VocabularyPlan
from recsys.schema import Column, Schema
from recsys.training.bundle_writer import Trained

USERS = ["ann", "böb", "", "用户", "e" * 40]
ITEMS = [7, -3, 2**40, 0, 55, 56, 57]
TAGS = ["x", "y", "z"]
DAYS = [datetime.datetime(1969, 12, 31, 23, tzinfo=None), datetime.datetime(2026, 1, 2, 3, 4, 5, 6)]
MARKS = [0.5, -2.25, 1e300]
VALUES: dict[str, tuple[str, list[Any]]] = {
    "user": ("string", USERS),
    "item": ("int64", ITEMS),
    "tag": ("string", TAGS),
    "day": ("datetime", DAYS),
    "mark": ("float64", MARKS),
}
DIMS = {"user": 4, "item": 6, "tag": 5, "day": 2, "mark": 3}
HISTORY_LENGTH, TAGS_LENGTH = 4, 2
HASHED_ROWS = 5
NUMERICS = {
    "price": NumericEncoder(transform="log", mean=1.0, std=0.5, clip=3.0),
    "age": NumericEncoder(transform="linear", mean=40.0, std=10.0, clip=3.0),
}
VOCABULARY = {
    "user": "user",
    "item": "item",
    "history": "item",
    "tags": "tag",
    "day": "day",
    "mark": "mark",
}


def log(rows: int = 300, seed: int = 0) -> pl.DataFrame:
    """Raw rows with missing and unseen values, empty and null lists, NaN and infinities."""
    draw = np.random.default_rng(seed)

    def some(values: list[Any], *odd: Any) -> Any:
        chosen = [*values, *odd]
        return chosen[int(draw.integers(len(chosen)))]

    def many(values: list[Any], most: int, *odd: Any) -> list[Any] | None:
        length = int(draw.integers(-1, most + 1))
        return None if length < 0 else [some(values, *odd) for _ in range(length)]

    day = datetime.timedelta(days=1)
    late = datetime.datetime(2030, 1, 1)
    each = range(rows)  # a value that no vocabulary holds is another one in every row
    return pl.DataFrame(
        {
            "label": draw.integers(0, 2, rows),
            "user": [some(USERS, None, f"new {row}") for row in each],
            "item": pl.Series([some(ITEMS, None, 1000 + row) for row in each], dtype=pl.Int64),
            "history": pl.Series(
                [many(ITEMS, 7, None, 1000 + row) for row in each], dtype=pl.List(pl.Int64)
            ),
            "tags": pl.Series(
                [many(TAGS, 4, None, f"new {row}") for row in each], dtype=pl.List(pl.String)
            ),
            "day": pl.Series([some(DAYS, None, late + day * row) for row in each], dtype=pl.Datetime("us")),
            "mark": pl.Series([some(MARKS, None, 3.0 + row) for row in each], dtype=pl.Float64),
            "price": [some([0.0, 3.5, -8.0, 1e9], None, math.nan, math.inf) for _ in each],
            "age": pl.Series([some([18, 41, 90, 400], None) for _ in each], dtype=pl.Int64),
            "unused": ["?"] * rows,
        }
    )


def key_of(value: Any) -> int:
    """xxh3_64 of a value's canonical bytes."""
    if isinstance(value, str):
        content = value.encode()
    elif isinstance(value, float):
        content = np.float64(value).tobytes()
    else:
        content = microseconds(value).to_bytes(8, "little", signed=True)
    return xxhash.xxh3_64_intdigest(content)


def microseconds(value: int | datetime.datetime) -> int:
    """Whole microseconds since 1970 of a time; integers as they are."""
    if isinstance(value, datetime.datetime):
        return (value - datetime.datetime(1970, 1, 1)) // datetime.timedelta(microseconds=1)
    return value


def id_of(vocabulary: str, value: Any) -> int:
    """Id by a dictionary: 0 missing, 1 unseen, then in the order of ``VALUES``."""
    known = VALUES[vocabulary][1]
    return 0 if value is None else known.index(value) + 2 if value in known else 1


def schema() -> Schema:
    columns = {
        "label": Column(kind="numeric", type="int64", roles=("label",)),
        "user": Column(kind="categorical", type="string"),
        "item": Column(kind="categorical", type="int64"),
        "history": Column(kind="sequence", type="int64", vocabulary="item", max_length=HISTORY_LENGTH),
        "tags": Column(kind="multi", type="string", vocabulary="tag", max_length=TAGS_LENGTH),
        "day": Column(kind="categorical", type="datetime"),
        "mark": Column(kind="categorical", type="float64"),
        "price": Column(kind="numeric", type="float64", transform="log"),
        "age": Column(kind="numeric", type="int64", transform="linear"),
    }
    return Schema(columns=columns)


def cut(name: str, values: list[Any] | None) -> list[Any]:
    """A sequence's newest, a multi's first elements."""
    values = values or []
    return values[-HISTORY_LENGTH:] if name == "history" else values[:TAGS_LENGTH]


def number_of(name: str, value: float | None) -> float | None:
    """A standardised number; None where it is missing."""
    encoder = NUMERICS[name]
    if value is None or not math.isfinite(value):
        return None
    moved = math.copysign(math.log1p(abs(value)), value) if encoder.transform == "log" else value
    return max(-encoder.clip, min(encoder.clip, (moved - encoder.mean) / encoder.std))


def dataset(folder: Path, raw: pl.DataFrame) -> Dataset:
    """The prepared dataset of a log; all of its rows are in the test part."""
    encoded: dict[str, Any] = {}
    for name, vocabulary in VOCABULARY.items():
        if schema().column(name).is_ragged:
            lists = [[id_of(vocabulary, v) for v in cut(name, row)] for row in raw[name].to_list()]
            encoded[name] = pl.Series(lists, dtype=pl.List(pl.Int64))
        else:
            encoded[name] = [id_of(vocabulary, value) for value in raw[name].to_list()]
    for name in NUMERICS:
        numbers = [number_of(name, value) for value in raw[name].to_list()]
        encoded[name] = pl.Series(numbers, dtype=pl.Float32)
    encoded["__label__"] = raw["label"].cast(pl.Float32)
    (folder / "vocab").mkdir(parents=True)
    pl.DataFrame(encoded).write_parquet(folder / "test.parquet")
    for name, (_, values) in VALUES.items():
        ids = list(range(2, len(values) + 2))
        columns = {"id": ids, "value": values, "key": pl.Series(map(key_of, values), dtype=pl.UInt64)}
        pl.DataFrame(columns | {"count": ids[::-1]}).write_parquet(folder / "vocab" / f"{name}.parquet")
    features = [
        Feature(name=name, kind=column.kind, vocabulary=VOCABULARY.get(name), max_length=column.max_length)
        for name, column in schema().features.items()
    ]
    manifest = DatasetManifest(
        schema_=schema(),
        features=tuple(features),
        vocabularies={
            name: VocabularyInfo(
                size=len(values) + 2,
                type=kind,  # type: ignore[arg-type]
                columns=tuple(f for f, v in VOCABULARY.items() if v == name),
            )
            for name, (kind, values) in VALUES.items()
        },
        numerics=NUMERICS,
        rows={"train": 0, "valid": 0, "test": raw.height},
        positives={"train": 0, "valid": 0, "test": int(raw["label"].sum())},
    )
    (folder / "dataset.json").write_text(manifest.model_dump_json())
    return Dataset.load(folder)


def plan(*, hashed: bool = False) -> Plan:
    """One table per vocabulary; with ``hashed`` the items share few rows."""
    sizes = {name: len(values) + 2 for name, (_, values) in VALUES.items()}
    rows = sizes | ({"item": HASHED_ROWS} if hashed else {})
    return Plan(
        tables={n: TablePlan(rows=rows[n], dim=DIMS[n], path="dense", serve_dtype="int8") for n in sizes},
        vocabularies={
            n: VocabularyPlan(mode="hash" if hashed and n == "item" else "full", table=n, size=sizes[n])
            for n in sizes
        },
        features=VOCABULARY,
    )


def tables(made: Plan, seed: int = 1) -> dict[str, NDArray[np.float32]]:
    """Weights with exact zeros here and there."""
    draw = np.random.default_rng(seed)
    found = {}
    for name, table in made.tables.items():
        weights = draw.normal(0, 0.3, (table.rows, table.dim)).astype(np.float32)
        weights[draw.random(weights.shape) < 0.2] = 0.0
        found[name] = weights
    return found


def item_row(item: int, rows: int) -> int:
    """Row of a known item in a hashed table, with Python's own integers."""
    word = (key_of(item) ^ xxhash.xxh3_64_intdigest(b"item", seed=0)) + 0x9E3779B97F4A7C15
    mask = 2**64 - 1
    word &= mask
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & mask
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & mask
    word ^= word >> 31
    return 2 + (word * (rows - 2) >> 64)


def coefficients(seed: int = 2) -> dict[str, NDArray[np.float32]]:
    """Weights of the linear model per input."""
    draw = np.random.default_rng(seed)
    found = {n: draw.normal(0, 1, DIMS[v]).astype(np.float32) for n, v in VOCABULARY.items()}
    for name in NUMERICS:
        found[name] = draw.normal(0, 1, 1).astype(np.float32)
        found[f"{name}.missing"] = draw.normal(0, 1, 1).astype(np.float32)
    found["history.lengths"] = draw.normal(0, 0.1, 1).astype(np.float32)
    return found


def expected(
    raw: pl.DataFrame, weights: dict[str, NDArray[np.float32]], *, hashed: bool = False
) -> NDArray[np.float64]:
    """Probabilities of raw rows, one row and one value after the other."""
    linear = {name: w.astype(np.float64) for name, w in coefficients().items()}

    def vector(name: str, value: Any) -> NDArray[np.float64]:
        row = id_of(VOCABULARY[name], value)
        if hashed and VOCABULARY[name] == "item" and row >= 2:
            row = item_row(value, HASHED_ROWS)
        found: NDArray[np.float64] = weights[VOCABULARY[name]][row].astype(np.float64)
        return found

    scores = []
    for row in raw.iter_rows(named=True):
        logit = sum(
            float(vector(name, row[name]) @ linear[name]) for name in ("user", "item", "day", "mark")
        )
        history, tags = cut("history", row["history"]), cut("tags", row["tags"])
        logit += sum(float(vector("history", value) @ linear["history"]) for value in history)
        logit += len(history) * float(linear["history.lengths"][0])
        logit += sum(float(vector("tags", value) @ linear["tags"]) for value in tags) / max(len(tags), 1)
        for name in NUMERICS:
            number = number_of(name, row[name])
            logit += (
                float(linear[f"{name}.missing"][0]) if number is None else number * float(linear[name][0])
            )
        scores.append(1 / (1 + math.exp(-logit)))
    return np.array(scores)


def write_dense(path: Path) -> None:
    """The linear model as ONNX: a weighted sum of every input."""
    inputs, nodes, weights, terms = [], [], [], []
    for name, weight in coefficients().items():
        column = weight.reshape(-1, 1)
        weights.append(numpy_helper.from_array(column, f"{name}:weight"))
        kind = TensorProto.INT64 if name.endswith(".lengths") else TensorProto.FLOAT
        shape: list[Any] = ["B"] if len(weight) == 1 else ["B", len(weight)]
        source = name
        if name == "history":
            shape = ["B", "H", len(weight)]
            nodes.append(helper.make_node("ReduceSum", [name, "one"], [f"{name}:sum"], keepdims=0))
            source = f"{name}:sum"
        elif len(weight) == 1:
            nodes.append(helper.make_node("Cast", [name], [f"{name}:float"], to=TensorProto.FLOAT))
            nodes.append(helper.make_node("Unsqueeze", [f"{name}:float", "one"], [f"{name}:column"]))
            source = f"{name}:column"
        inputs.append(helper.make_tensor_value_info(name, kind, shape))
        nodes.append(helper.make_node("MatMul", [source, f"{name}:weight"], [f"{name}:term"]))
        terms.append(f"{name}:term")
    weights.append(numpy_helper.from_array(np.array([1]), "one"))
    nodes.append(helper.make_node("Sum", terms, ["total"]))
    nodes.append(helper.make_node("Squeeze", ["total", "one"], ["logit"]))
    output = helper.make_tensor_value_info("logit", TensorProto.FLOAT, ["B"])
    graph = helper.make_graph(nodes, "linear", inputs, [output], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, path)


def trained(folder: Path, raw: pl.DataFrame, *, hashed: bool = False) -> Trained:
    """Everything that a bundle is written from; the sample is the log's first rows."""
    made = plan(hashed=hashed)
    weights = tables(made)
    return Trained(
        dataset=dataset(folder, raw),
        plan=made,
        tables=weights,
        write_dense=write_dense,
        sample=raw.head(64),
        sample_scores=expected(raw.head(64), weights, hashed=hashed).astype(np.float32),
        model={"name": "linear"},
        metrics={"auc": 0.5},
    )
