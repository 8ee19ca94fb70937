"""The page about a ranking: whole, self-contained, escaped, and with the numbers it was given."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recsys.ranking.clustering import average_linkage
from recsys.ranking.quality import Finding, findings_table
from recsys.ranking.ranking import Ranking
from recsys.ranking.report import score_format, write_report
from recsys.ranking.shown import lines_of
from tests.ranking import made_up

VOID = {"meta", "br", "hr", "img", "input", "link"}


class Reader(HTMLParser):
    """Checks that elements nest and close; keeps tags, attributes and text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.tags)


def read(ranking: Ranking, folder: Path) -> Reader:
    path = folder / "report.html"
    write_report(ranking, path)
    reader = Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    reader.close()
    assert reader.open == []
    return reader


def pairs_of(names: list[str], seed: int = 3) -> pl.DataFrame:
    random = np.random.default_rng(seed)
    rows = [
        (a, b, 0.02, gain, gain / 0.001, gain - 0.002, gain + 0.002, share)
        for (a, b), gain, share in zip(
            itertools.combinations(names, 2),
            random.gamma(0.4, 0.004, len(names) ** 2),
            random.beta(0.3, 3, len(names) ** 2),
            strict=False,
        )
    ]
    columns = ["a", "b", "joint", "gain", "gain_z", "low", "high", "redundancy"]
    return pl.DataFrame(rows, schema=columns, orient="row")


def made(columns: int, rows: int = 5000) -> Ranking:
    codes, schema = made_up.log(columns, rows)
    ranking = made_up.ranking(codes, schema)
    names = ranking.table["column"].to_list()
    transforms = pl.DataFrame(
        {
            "column": names[:2] * 2,
            "transform": ["raw", "raw", "log1p", "log1p"],
            "score": [0.031, 0.022, 0.033, 0.021],
            "z": [40.0, 31.0, 44.0, 30.0],
            "linear": [0.011, 0.012, 0.029, 0.013],
        }
    )
    return replace(ranking, pairs=pairs_of(names), transforms=transforms)


NOT_A_NUMBER = re.compile(r"(?<![a-z])(nan|NaN|inf)(?![a-z])")
"""Also right beside the letter of a path's command, as in ``M12 nanL``."""


def test_a_number_that_is_none_is_seen_wherever_it_stands():
    for text in ("M12 nanL3 4", "M1 2Lnan 3", "width:nan%", "translate(nan,3)", "nan", "−inf", "NaN"):
        assert NOT_A_NUMBER.search(text)
    for text in ("banana", "information", "finance", "nano"):
        assert not NOT_A_NUMBER.search(text)


@pytest.fixture(scope="module")
def ranking() -> Ranking:
    return made(14)


@pytest.mark.parametrize("columns", [2, 12, 48, 100])
def test_a_whole_page_with_every_section(columns, tmp_path):
    reader = read(made(columns), tmp_path)
    headings = (
        "What each column tells about the label",
        "Which columns tell the same",
        "Coverage and score",
        "From day to day",
        "Combinations that tell more than their parts",
        "Transforms of numeric columns",
        "Findings",
        "All columns",
    )
    at = [reader.text.index(heading) for heading in headings]
    assert at == sorted(at)
    for _, attributes in reader.tags:
        for value in attributes.values():
            assert not NOT_A_NUMBER.search(value or "")
    assert not NOT_A_NUMBER.search(reader.text)


def test_nothing_is_loaded_from_elsewhere(ranking, tmp_path):
    reader = read(ranking, tmp_path)
    for tag, attributes in reader.tags:
        assert tag not in ("link", "img", "iframe", "object", "base")
        assert not {"src", "href", "xlink:href", "action"} & set(attributes)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"https?:|//[a-z]|url\(|@import|fetch\(|innerHTML", page)


def test_names_are_escaped(ranking, tmp_path):
    evil = "<script>alert('x')</script>&\"quoted\""

    def renamed(frame: pl.DataFrame | None) -> pl.DataFrame | None:
        if frame is None:
            return None
        named = [column for column in ("column", "a", "b", "redundant_with") if column in frame.columns]
        return frame.with_columns(pl.col(column).replace({first: evil}) for column in named)

    first = ranking.table["column"][0]
    finding = Finding(evil, "leak", "error", 1.0, f"'{evil}' all but is the label.")
    reader = read(
        replace(
            ranking,
            table=renamed(ranking.table),
            pairs=renamed(ranking.pairs),
            transforms=renamed(ranking.transforms),
            drift=renamed(ranking.drift),
            findings=findings_table([finding]),
            label_by_day=ranking.label_by_day.with_columns(pl.col("day") + "<b>"),
            facts={**ranking.facts, "file": f"{evil}.parquet"},
        ),
        tmp_path,
    )
    assert reader.count("script") == 1
    assert reader.count("b") == 5  # the key figures'
    assert reader.text.count(evil) >= 5


def test_the_numbers_are_there(ranking, tmp_path):
    text = read(ranking, tmp_path).text
    show = score_format(ranking)
    for row in ranking.table.iter_rows(named=True):
        assert row["column"] in text
        assert f"{show(row['low'])} … {show(row['high'])}" in text
        assert show(row["mi"]) in text
        assert f"{row['distinct']:,}" in text
    beyond = int((ranking.table["z"] >= 3).sum())
    assert f"Train rows 5,000 all other rows stay unseen Columns 14 ranked Beyond chance {beyond}" in text
    assert "Kept 8 columns for the model" in text
    for sentence in ranking.findings["sentence"]:
        assert sentence in text
    best = ranking.pairs.sort("gain", descending=True).row(0, named=True)
    assert f"{best['a']} × {best['b']}" in text
    assert "label by day" in text.lower()


def test_the_most_serious_findings_stand_on_top(ranking, tmp_path):
    text = read(ranking, tmp_path).text
    top = text[: text.index("What each column tells")]
    assert "'browser' all but is the label" in top
    assert "'browser' tells so much about the label that it was probably written after it" in top
    assert "'os' tells exactly what 'ad_id' tells" in top
    assert top.index("browser") < top.index("'os'")


def test_sections_without_data_say_so_or_are_left_out(ranking, tmp_path):
    table = ranking.table.with_columns(coverage=pl.lit(1.0))
    bare = Ranking(table, facts={"file": "clicks.parquet"})
    text = read(bare, tmp_path).text
    assert "Columns were not compared with each other" in text
    assert "has no timestamp, or one day only" in text
    assert "Every column has a value in every row" in text
    assert "Nothing was found wrong" in text
    assert "Transforms" not in text
    assert "Combinations" not in text


def test_scores_without_interval_and_rankings_of_nothing(ranking, tmp_path):
    table = ranking.table.with_columns(low=pl.lit(None, pl.Float64), high=pl.lit(None, pl.Float64))
    read(replace(ranking, table=table), tmp_path)
    zeros = ranking.table.with_columns(
        score=pl.lit(0.0), z=pl.lit(0.0), low=pl.lit(-0.01), high=pl.lit(0.01)
    )
    assert "No column tells anything" in read(replace(ranking, table=zeros), tmp_path).text
    negative = ranking.table.with_columns(score=pl.lit(-0.001), z=pl.lit(-1.0))
    read(replace(ranking, table=negative), tmp_path)
    read(replace(ranking, table=ranking.table.head(1)), tmp_path)
    read(replace(ranking, table=ranking.table.head(0)), tmp_path)


def test_a_ranking_read_back_gives_the_same_page(ranking, tmp_path):
    ranking.save(tmp_path)
    assert read(Ranking.load(tmp_path), tmp_path).text == read(ranking, tmp_path).text


def test_combinations_of_three_are_named_and_do_not_enter_the_map(ranking, tmp_path):
    pairs = ranking.pairs.with_columns(c=pl.lit(None, pl.String))
    triple = pairs.head(1).with_columns(
        c=pl.lit("browser_x"), gain=pl.lit(0.9), gain_z=pl.lit(90.0), redundancy=pl.lit(None, pl.Float64)
    )
    text = read(replace(ranking, pairs=pl.concat([pairs, triple])), tmp_path).text
    assert f"{triple['a'][0]} × {triple['b'][0]} × browser_x" in text


def test_a_combination_of_a_copy_does_not_stand_beside_that_of_the_original(ranking, tmp_path):
    table = ranking.table.with_columns(
        distinct=pl.lit(4), redundancy=pl.lit(0.0), redundant_with=pl.lit(None, pl.String)
    )
    original, copy, other = table["column"][:3]
    is_copy = pl.col("column") == copy
    table = table.with_columns(
        redundancy=pl.when(is_copy).then(1.0).otherwise(0.0),
        redundant_with=pl.when(is_copy).then(pl.lit(original)),
    )
    pairs = ranking.pairs.head(2).with_columns(
        a=pl.Series([original, copy]), b=pl.lit(other), gain=pl.Series([0.5, 0.4]), gain_z=pl.lit(90.0)
    )
    text = read(replace(ranking, table=table, pairs=pairs), tmp_path).text
    assert f"{original} × {other}" in text
    assert f"{copy} × {other}" not in text


@pytest.mark.parametrize(
    ("facts", "added", "said"),
    [
        ({}, {}, "ordered by 'sure', the score less three deviations of chance"),
        ({"score": "mi"}, {}, "ordered by 'plain MI'"),
        ({}, {"given_score": 0.1}, "ordered by 'adds to given'"),
    ],
)
def test_the_number_that_orders_is_shown_and_named(ranking, tmp_path, facts, added, said):
    table = ranking.table.with_columns(sure=pl.lit(0.001234), **{k: pl.lit(v) for k, v in added.items()})
    shown = replace(ranking, table=table, facts={**ranking.facts, **facts})
    text = read(shown, tmp_path).text
    assert text.count(said) == 2
    head, *_, last = [line for line in lines_of(shown) if line][: len(table) + 2]
    assert said in last
    assert said.split("'")[1] in head


def test_average_linkage_against_a_slow_one():
    random = np.random.default_rng(4)
    points = random.random((12, 3))
    distances = np.sqrt(((points[:, None] - points[None]) ** 2).sum(2))
    clusters: dict[int, list[int]] = {at: [at] for at in range(12)}
    expected = []
    for step in range(11):
        best = min(
            itertools.combinations(clusters, 2),
            key=lambda pair: np.mean(
                [distances[i, j] for i in clusters[pair[0]] for j in clusters[pair[1]]]
            ),
        )
        a, b = clusters.pop(best[0]), clusters.pop(best[1])
        expected.append((set(best), np.mean([distances[i, j] for i in a for j in b])))
        clusters[12 + step] = a + b
    order, merges = average_linkage(distances)
    assert sorted(order) == list(range(12))
    assert [{merge.first, merge.second} for merge in merges] == [pair for pair, _ in expected]
    assert [merge.distance for merge in merges] == pytest.approx([distance for _, distance in expected])


def test_clusters_stand_together():
    block = np.arange(20) % 4
    distances = np.where(block[:, None] == block[None], 0.1, 1.0)
    order, _ = average_linkage(distances)
    assert len(list(itertools.groupby(block[order]))) == 4
    assert average_linkage(np.zeros((1, 1)))[0] == [0]


def test_only_combinations_beyond_their_parts_are_shown(ranking, tmp_path):
    rows = [
        # a, b, gain, gain_z, synergy, synergy_z, p_adjusted
        ("ad_id", "site", 0.02, 40.0, 0.010, 20.0, 1e-9),
        ("ad_id", "campaign", 0.05, 60.0, 0.0001, 0.2, 1e-9),
        ("site", "campaign", 0.03, 4.0, 0.0200, 4.0, 0.8),
        ("site", "app", 0.01, 30.0, 0.012, 3.5, 1e-9),
    ]
    columns = ["a", "b", "gain", "gain_z", "synergy", "synergy_z", "p_adjusted"]
    text = read(replace(ranking, pairs=pl.DataFrame(rows, schema=columns, orient="row")), tmp_path).text
    assert text.index("ad_id × site") < text.index("site × app")
    assert "ad_id × campaign" not in text
    assert "site × campaign" not in text


def test_only_transforms_that_gain_are_shown(ranking, tmp_path):
    transforms = pl.DataFrame(
        [
            ("price", "raw", 0.030, 50.0, 0.010),
            ("price", "log", 0.030, 50.0, 0.028),
            ("price", "square", 0.030, 50.0, 0.002),
            ("noise", "raw", 0.000, 0.4, 0.000),
            ("noise", "root", 0.000, 0.4, 0.001),
        ],
        schema=["column", "transform", "score", "z", "linear"],
        orient="row",
    )
    text = read(replace(ranking, transforms=transforms), tmp_path).text
    assert "price log 0.03" in text
    assert "square" not in text.replace("square root", "")
    assert "noise" not in text


def test_writing_a_page_loads_no_heavy_package():
    code = "import sys, recsys.ranking.report; print([m for m in sys.modules if m in sys.argv])"
    heavy = ["matplotlib", "numba", "scipy", "torch", "pandas", "pyarrow"]
    result = subprocess.run(
        [sys.executable, "-c", code, *heavy], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


def test_three_classes_show_their_mean(ranking, tmp_path):
    facts = {**ranking.facts, "classes": ["0", "1", "2"]}
    assert "Mean class with 95 % intervals" in read(replace(ranking, facts=facts), tmp_path).text
    assert "Share of positives with 95 % intervals" in read(ranking, tmp_path).text
