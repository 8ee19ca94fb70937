"""``recsys index`` and ``recsys search``: files in, files out, taken up where they stopped."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import save_file
from typer.testing import CliRunner

from recsys.cli import app
from recsys.errors import ConfigError
from recsys.retrieval import batch
from recsys.retrieval.batch import Asked, search
from recsys.retrieval.index import Index
from tests.retrieval.made import exact_ids, made_items, made_queries, made_vectors

VECTORS, ITEMS, QUERIES = made_vectors(400), made_items(400), made_queries(30)
IDS = ITEMS["item_id"].to_numpy()


def recsys(*arguments: object, code: int = 0) -> str:
    """What a command prints; its errors where ``code`` is not 0."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result.stdout if code == 0 else result.stderr


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    ITEMS.with_columns(pl.Series("vector", VECTORS)).write_parquet(tmp_path / "items.parquet")
    queries = pl.DataFrame({"user_id": np.arange(30) + 500, "vector": QUERIES})
    seen = pl.Series("seen", [[int(IDS[row])] if row % 2 else None for row in range(30)])
    queries.with_columns(seen).write_parquet(tmp_path / "queries.parquet")
    shown = recsys(
        "index", tmp_path / "items.parquet", "--output", tmp_path / "index", "--attributes", "price,brand"
    )
    assert "400 × 16 float32, ip" in shown
    assert "exact" in shown
    return tmp_path


def test_an_index_is_built_searched_and_changed(folder: Path) -> None:
    right = exact_ids(VECTORS, IDS, QUERIES, 3)
    query = str(QUERIES[0].tolist())
    shown = recsys("search", folder / "index", "--query", query, "-k", 3)
    assert [int(line.split()[1]) for line in shown.splitlines()[1:4]] == right[0]
    near = recsys(
        "search", folder / "index", "--like", IDS[5], "--filter", "price < 0.5", "--exclude", IDS[6]
    )
    assert str(IDS[5]) not in near.split()
    pl.DataFrame({"item_id": right[0][:1]}).write_parquet(folder / "gone.parquet")
    recsys("index", folder / "gone.parquet", "--output", folder / "index", "--delete")
    pl.DataFrame({"item_id": [1], "price": [0.1], "brand": ["x"], "vector": 9 * QUERIES[:1]}).write_parquet(
        folder / "new.parquet"
    )
    shown = recsys("index", folder / "new.parquet", "--output", folder / "index", "--upsert")
    base, delta = Index.open(folder / "index").version.split("+")
    assert f"{base[:12]}+{delta[:12]}" in shown
    recsys("index", "--output", folder / "index", "--compact")
    shown = recsys("search", folder / "index", "--query", query, "-k", 3)
    assert [int(line.split()[1]) for line in shown.splitlines()[1:4]] == [1, *right[0][1:]]


def test_a_file_of_queries_gets_a_file_of_answers(folder: Path) -> None:
    output = folder / "answers.parquet"
    arguments = ("--queries", folder / "queries.parquet", "--output", output, "-k", 4)
    recsys("search", folder / "index", *arguments, "--exclude-column", "seen")
    answers = pl.read_parquet(output)
    assert answers["user_id"].to_list() == list(range(500, 530))
    found = Index.open(folder / "index").search(
        QUERIES, 4, exclude=pl.read_parquet(folder / "queries.parquet")["seen"]
    )
    assert answers["ids"].to_list() == found.ids.to_list()
    assert answers["scores"].to_list() == found.scores.to_list()
    assert not list(folder.glob(".answers*"))


@pytest.mark.parametrize("suffix", ["npy", "safetensors"])
def test_arrays_of_queries_get_a_file_of_answers(folder: Path, suffix: str) -> None:
    if suffix == "npy":
        np.save(folder / "q.npy", QUERIES)
    else:
        save_file({"queries": QUERIES}, folder / "q.safetensors")
    output = folder / "answers.parquet"
    recsys("search", folder / "index", "--queries", folder / f"q.{suffix}", "--output", output, "-k", 4)
    assert (
        pl.read_parquet(output)["ids"].to_list()
        == Index.open(folder / "index").search(QUERIES, 4).ids.to_list()
    )


def test_a_column_of_single_ids_excludes_each_from_its_query_alone(folder: Path) -> None:
    opened = Index.open(folder / "index")
    nearest = opened.search(QUERIES, 3).ids.to_list()
    queries = pl.read_parquet(folder / "queries.parquet").with_columns(
        seen=pl.Series([None, *(line[0] for line in nearest[1:])])
    )
    queries.write_parquet(folder / "single.parquet")
    output = folder / "answers.parquet"
    search(opened, folder / "single.parquet", output, asked=Asked(2, exclude_column="seen"))
    assert pl.read_parquet(output)["ids"].to_list() == [nearest[0][:2], *(line[1:] for line in nearest[1:])]


def test_several_interests_on_the_command_line(folder: Path) -> None:
    asked = json.dumps(QUERIES[:2].tolist())
    shown = recsys("search", folder / "index", "--query", asked, "-k", 3)
    right = Index.open(folder / "index").search(QUERIES[None, :2], 3).ids[0].to_list()
    assert [int(line.split()[1]) for line in shown.splitlines()[1:4]] == right


def test_a_search_that_cannot_begin_leaves_nothing(folder: Path) -> None:
    np.save(folder / "narrow.npy", QUERIES[:, :5])
    for arguments, message, code in (
        (["--queries", folder / "narrow.npy"], "vectors of 5 numbers; the index has those of", 1),
        (["--queries", folder / "queries.parquet", "-k", 100_000], "100000 answers asked of an index", 2),
    ):
        told = recsys("search", folder / "index", *arguments, "--output", folder / "out.parquet", code=code)
        assert message in told
        assert not list(folder.glob("*out.parquet*"))
    renamed = pl.read_parquet(folder / "queries.parquet").rename({"user_id": "ids"})
    renamed.write_parquet(folder / "renamed.parquet")
    with pytest.raises(ConfigError, match="'ids' is a column of the answers too"):
        search(folder / "index", folder / "renamed.parquet", folder / "out.parquet", query_column="ids")


def test_a_stopped_search_goes_on_where_it_stood(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "_PART", 10)
    asked: list[int] = []
    answer = batch._answers

    def stops_once(index: Index, chunk: object, wanted: Asked) -> pl.DataFrame:
        asked.append(1)
        if len(asked) == 3:
            raise KeyboardInterrupt
        return answer(index, chunk, wanted)  # type: ignore[arg-type]

    monkeypatch.setattr(batch, "_answers", stops_once)
    output = folder / "answers.parquet"
    with pytest.raises(KeyboardInterrupt):
        search(folder / "index", folder / "queries.parquet", output)
    assert not output.exists()
    search(folder / "index", folder / "queries.parquet", output)
    assert len(asked) == 4
    whole = pl.read_parquet(output)
    assert whole["ids"].to_list() == Index.open(folder / "index").search(QUERIES, 10).ids.to_list()
    asked.extend([1] * 10)
    with pytest.raises(ConfigError, match="file of the queries"):
        search(folder / "index", folder / "queries.parquet", folder / "queries.parquet")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["search", "INDEX"], "expected one of --query, --like and --queries"),
        (["search", "INDEX", "--query", "[1, x]"], "expected a JSON list of numbers"),
        (["search", "INDEX", "--like", "abc"], "the ids of this index are integers"),
        (["search", "INDEX", "--queries", "queries.parquet"], "--output is missing"),
        (["index", "items.parquet"], "--output is missing"),
        (["index", "items.parquet", "--output", "INDEX", "--delete", "--upsert"], "one at a time"),
        (
            ["index", "items.parquet", "--output", "INDEX", "--upsert", "--metric", "l2"],
            "--metric is for building",
        ),
        (["index", "items.parquet", "--output", "INDEX", "--compact"], "VECTORS: --compact takes none"),
        (
            ["index", "items.parquet", "--output", "INDEX", "--delete", "--ids", "items.parquet"],
            "--ids: --delete takes none",
        ),
        (["index", "items.parquet", "--output", "INDEX", "--retrain"], "--retrain is for --compact"),
        (
            ["index", "items.parquet", "--output", "new", "--bytes-per-item", "20"],
            "bytes_per_item: is for codes",
        ),
    ],
)
def test_wrong_usage_is_one_message(
    folder: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(folder)
    told = recsys(*["index" if word == "INDEX" else word for word in arguments], code=2)
    assert message in told
    assert "Traceback" not in told


def test_the_command_line_imports_no_faiss() -> None:
    code = (
        "import sys, recsys.cli\n"
        "from typer.testing import CliRunner\n"
        "assert CliRunner().invoke(recsys.cli.app, ['index', '--help']).exit_code == 0\n"
        "assert not {'faiss', 'torch', 'numba'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_index_is_searched_without_torch(folder: Path) -> None:
    code = (
        "import sys, numpy as np\n"
        "from recsys import Index\n"
        f"Index.open({str(folder / 'index')!r}).search(np.ones(16), 3)\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
