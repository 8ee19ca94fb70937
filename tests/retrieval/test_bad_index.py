"""Bad input and damage: what is said, and that a published version stays as it was."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import save_file

from recsys.errors import ConfigError, DataError, RecsysError, RetrievalError, SchemaError
from recsys.retrieval.build import IndexSettings, index
from recsys.retrieval.index import Index
from tests.retrieval.made import exact_ids, made_index, made_queries, made_vectors

VECTORS = made_vectors(300)


def table(**columns: object) -> pl.DataFrame:
    made = {"item_id": np.arange(300), "vector": VECTORS.tolist()} | columns
    return pl.DataFrame(made, strict=False)


def with_value(row: int, value: object) -> list[object]:
    rows: list[object] = VECTORS.tolist()
    rows[row] = value
    return rows


@pytest.mark.parametrize(
    ("frame", "arguments", "error", "message"),
    [
        (
            table(vector=with_value(7, [0.0] * 9)),
            {},
            DataError,
            r"row 7, column 'vector': a vector of 9 numbers",
        ),
        (
            table(vector=with_value(7, None)),
            {},
            DataError,
            "row 7, column 'vector': the vector is missing, expected 16",
        ),
        (
            table(vector=with_value(9, [float("nan")] * 16)),
            {},
            DataError,
            "row 9, column 'vector': number 0 of the vector is nan",
        ),
        (
            table(vector=with_value(9, [None] * 16)),
            {},
            DataError,
            "row 9, column 'vector': number 0 of the vector is nan",
        ),
        (table(vector=with_value(7, [])), {}, DataError, "row 7, column 'vector': a vector of 0 numbers"),
        (
            table(vector=with_value(9, [1e300] * 16)),
            {},
            DataError,
            "number 0 of the vector is inf, expected a finite one within float32's",
        ),
        (table(item_id=[*range(299), 5]), {}, DataError, "id 5 stands in rows 5 and 299"),
        (
            table(item_id=[*range(299), None]),
            {},
            DataError,
            "row 299: the id in column 'item_id' is missing",
        ),
        (table(item_id=np.arange(300) / 2), {}, SchemaError, "ids in column 'item_id' are Float64"),
        (table(other=VECTORS.tolist()), {}, SchemaError, "one column of vectors, found 'vector', 'other'"),
        (table(), {"vector_column": "vectr"}, SchemaError, "did you mean 'vector'"),
        (table(), {"vector_column": "item_id"}, SchemaError, "expected lists of numbers, found Int64"),
        (table(), {"attributes": ["prise"]}, SchemaError, "no column 'prise'"),
        (table().rename({"item_id": "key"}), {}, SchemaError, "which column holds the ids"),
        (table().clear(), {}, DataError, "holds no vectors"),
        (
            table(vector=with_value(4, [0.0] * 16)),
            {"settings": IndexSettings("cosine")},
            DataError,
            "row 4: a vector of zeros",
        ),
        (
            table(vector=with_value(4, [1e6] * 16)),
            {"settings": IndexSettings(dtype="float16")},
            DataError,
            "row 4: 1000000.0 is beyond",
        ),
    ],
)
def test_vectors_that_cannot_be_indexed_are_named(
    tmp_path: Path, frame: pl.DataFrame, arguments: dict[str, object], error: type[Exception], message: str
) -> None:
    frame.write_parquet(tmp_path / "vectors.parquet")
    with pytest.raises(error, match=message):
        index(tmp_path / "vectors.parquet", tmp_path / "index", **arguments)  # type: ignore[arg-type]
    assert not (tmp_path / "index").exists()


def test_npy_parquet_and_safetensors_make_the_same_index(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", VECTORS)
    save_file({"item": VECTORS}, tmp_path / "v.safetensors")
    table().select("item_id").write_parquet(tmp_path / "ids.parquet")
    table().with_columns(pl.col("vector").list.to_array(16)).write_parquet(tmp_path / "v.parquet")
    made = [
        index(tmp_path / "v.parquet", tmp_path / "a"),
        index(tmp_path / "v.npy", tmp_path / "b", ids=tmp_path / "ids.parquet"),
        index(tmp_path / "v.safetensors", tmp_path / "c", ids=tmp_path / "ids.parquet"),
    ]
    files = [{name: record.xxh3 for name, record in each.manifest.files.items()} for each in made]
    assert files[0] == files[1] == files[2]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("v.npy", b"\x93NUMPY broken", "v.npy: cannot be read, it may be truncated"),
        ("v.safetensors", b"1234", "v.safetensors: cannot be read, it may be truncated"),
        ("v.parquet", b"PAR1 no more", "v.parquet: cannot be read, it may be truncated"),
    ],
)
def test_a_damaged_file_of_vectors_is_named(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        index(tmp_path / name, tmp_path / "index")
    np.save(tmp_path / "short.npy", VECTORS)
    whole = (tmp_path / "short.npy").read_bytes()
    (tmp_path / "short.npy").write_bytes(whole[:-100])
    with pytest.raises(DataError, match=r"short.npy: cannot be read"):
        index(tmp_path / "short.npy", tmp_path / "index")


def test_ids_and_vectors_of_other_numbers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match="row 2: number 0 of the vector is inf, expected a finite one within"
    ):
        index(np.array([[0.0], [1.0], [1e300]]), tmp_path / "index")
    with pytest.raises(ConfigError, match=r"vectors: expected a path or a numpy array .* found list"):
        index(VECTORS.tolist(), tmp_path / "index")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="300 vectors and 299 ids"):
        index(VECTORS, tmp_path / "index", ids=list(range(299)))
    with pytest.raises(DataError, match=r"expected vectors \[N, D\], found an array of shape \[16\]"):
        index(VECTORS[0], tmp_path / "index")
    with pytest.raises(ConfigError, match="holds 20 vectors; codebooks need 64 at least"):
        index(VECTORS[:20], tmp_path / "index", settings=IndexSettings(codes=True))
    with pytest.raises(DataError, match="queries: vectors of 3 numbers for items of 16"):
        index(VECTORS, tmp_path / "index", queries=VECTORS[:, :3])


@pytest.mark.parametrize("values", [{"metric": "dot"}, {"dtype": "bf16"}, {"recall": 1.5}, {"k": 0}])
def test_settings_that_make_no_sense_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(values))}: expected"):
        IndexSettings(**values)  # type: ignore[arg-type]


def test_every_file_that_is_cut_or_flipped_is_noticed(tmp_path: Path) -> None:
    made = made_index(tmp_path / "index", IndexSettings(codes=True), 300)
    made.delete([1_000])
    before = made.search(made_queries(), 5)
    files = [path for path in made.folder.rglob("*") if path.is_file() and path.stat().st_size]
    assert len(files) == 13
    for path in files:
        whole = path.read_bytes()
        flipped = bytearray(whole)
        flipped[len(whole) // 2] ^= 1
        for damaged in (whole[: len(whole) // 2], bytes(flipped)):
            path.write_bytes(damaged)
            with pytest.raises(RecsysError) as refused:
                Index.open(made.folder)
            assert str(path.parent) in str(refused.value)
            path.write_bytes(whole)
        path.unlink()
        with pytest.raises(RecsysError):
            Index.open(made.folder)
        path.write_bytes(whole)
    assert Index.open(made.folder).search(made_queries(), 5).frame().equals(before.frame())


def test_what_is_no_index_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(RetrievalError, match="not an index"):
        Index.open(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match="recsys did not write it and does not replace it"):
        index(VECTORS, tmp_path)
    made = index(VECTORS, tmp_path / "index")
    path = made.folder / "version-000001" / "manifest.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps(values | {"metric": "l2"}))
    with pytest.raises(RetrievalError, match="edited by hand"):
        Index.open(made.folder)


@pytest.mark.parametrize(("command", "limit"), [("build", 20_000), ("build", 200_000), ("upsert", 150_000)])
def test_a_full_disk_leaves_the_published_version_untouched(
    tmp_path: Path, command: str, limit: int
) -> None:
    """A limit on the size of files stands in: the system refuses to write on, as on a full disk."""
    made = made_index(tmp_path / "index", rows=300)
    before = made.search(made_queries(), 5)
    np.save(tmp_path / "more.npy", made_vectors(4_000))
    pl.DataFrame(
        {"item_id": np.arange(4_000), "price": np.zeros(4_000), "brand": ["x"] * 4_000}
    ).write_parquet(tmp_path / "ids.parquet")
    code = (
        "import resource, signal, sys\n"
        "from recsys.cli import main\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))\n"
        "main(sys.argv[1:])\n"
    )
    flags = ["--upsert"] if command == "upsert" else ["--attributes", "price,brand"]
    arguments = [tmp_path / "more.npy", "--ids", tmp_path / "ids.parquet", "--output", made.folder, *flags]
    done = subprocess.run(
        [sys.executable, "-c", code, "index", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert f"error: {made.folder}" in done.stderr
    assert "cannot be written: File too large" in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(path.name for path in made.folder.iterdir()) == [".lock", "CURRENT", "version-000001"]
    assert Index.open(made.folder).search(made_queries(), 5).frame().equals(before.frame())
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


def test_what_a_killed_writer_left_is_cleared(tmp_path: Path) -> None:
    folder = tmp_path / "index"
    (folder / ".version-000001.abcd.partial").mkdir(parents=True)
    (folder / ".lock").touch()
    made = index(VECTORS, folder)
    assert sorted(path.name for path in folder.iterdir()) == [".lock", "CURRENT", "version-000001"]
    right = exact_ids(VECTORS, np.arange(300), made_queries(), 3)
    assert [ids.to_list() for ids in made.search(made_queries(), 3).ids] == right
