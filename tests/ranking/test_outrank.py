"""The outrank score agrees with OutRank 0.97.5 on the same rows, batches and order, to 1e-6.

The numbers in ``GOLDEN`` are the program's own. To obtain them anew (a minute; ``make bench-envs`` first):

    python -m tests.ranking.test_outrank
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import mutual_info_score

from recsys.errors import ConfigError, DataError, SchemaError
from recsys.ranking.outrank import outrank_scores

BATCH = 3_000


def _skewed(generator: np.random.Generator, size: int, rows: int) -> np.ndarray:
    edges = np.cumsum(np.arange(1, size + 1) ** -1.1)
    return np.searchsorted(edges / edges[-1], generator.random(rows))


def _log(rows: int) -> pl.DataFrame:
    """Skewed columns of several widths; values of one and two digits; a label that two of them move."""
    generator = np.random.default_rng(3)
    columns = {f"n{size}": _skewed(generator, size, rows) for size in (2, 9, 30, 400, 20_000)}
    chance = 0.1 + 0.5 * (columns["n9"] % 3 == 1) + 0.2 * columns["n2"]
    frame = pl.DataFrame(columns).with_columns(
        label=pl.Series(generator.random(rows) < chance).cast(pl.Int8)
    )
    gone = pl.Series(generator.random(rows) < np.where(frame["label"], 0.3, 0.1))
    return frame.with_columns(
        holes=pl.when(gone).then(None).otherwise(pl.col("n30")),
        place=pl.col("n400").cast(pl.String) + "ø,Ж",
        empty=pl.lit(None, pl.Int64),
        constant=pl.lit("c"),
    ).select(pl.exclude("label"), "label")


def _equal_sums() -> pl.DataFrame:
    """``a`` and ``b`` have the label's multiset of values; ``c`` is ``b`` with one row changed."""
    generator = np.random.default_rng(4)
    label = generator.permutation(np.repeat([0, 1], [1_500, 700]))
    a, b = generator.permutation(label), generator.permutation(label)
    c = b.copy()
    c[0] = 1 - c[0]
    return pl.DataFrame({"a": a, "b": b, "c": c, "copy": label, "label": label})


def _classes() -> pl.DataFrame:
    """Six classes as words, one of them a single row, one missing."""
    generator = np.random.default_rng(5)
    label = pl.Series([None, "no", "yes", "later", "never"])[_skewed(generator, 5, 2_000).tolist()]
    label[77] = "once"
    number = generator.random(2_000).round(2)
    return pl.DataFrame({"word": label.shuffle(seed=1), "number": number, "label": label})


CASES: dict[str, tuple[Callable[[], pl.DataFrame], int, int]] = {  # rows, batch size, subsampling
    "tail counts": (lambda: _log(2 * BATCH + 1_025), BATCH, 1),
    "tail is dropped": (lambda: _log(2 * BATCH + 1_024), BATCH, 1),
    "every third row": (lambda: _log(3 * BATCH + 2), BATCH, 3),
    "equal sums of codes": (_equal_sums, 16_384, 1),
    "classes": (_classes, 16_384, 1),
}
PAIRS = "pairs", lambda: _log(1_500).select("n2", "n9", "n400", "n30", "holes", "label")

GOLDEN: dict[str, dict[str, float]] = {
    "tail counts": {
        "constant": 0.0,
        "empty": 0.0,
        "n20000": 0.0016031265,
        "n30": 0.0018156767,
        "place": 0.0121327639,
        "n400": 0.0121327639,
        "n2": 0.0171305537,
        "holes": 0.0332748294,
        "n9": 0.1175218225,
    },
    "tail is dropped": {
        "constant": 0.0,
        "empty": 0.0,
        "place": 0.0137698054,
        "n400": 0.0137698054,
        "n30": 0.0165922642,
        "n2": 0.0196032822,
        "n20000": 0.0238854885,
        "holes": 0.0431193113,
        "n9": 0.1123963296,
    },
    "every third row": {
        "constant": 0.0,
        "empty": 0.0,
        "place": 0.0041575432,
        "n400": 0.0041575432,
        "n30": 0.0162288547,
        "n2": 0.0197211504,
        "n20000": 0.0200028419,
        "holes": 0.0326231122,
        "n9": 0.1349160075,
    },
    "equal sums of codes": {"a": 0.0002306788, "b": 0.0005775033, "c": 0.0071159303, "copy": 0.6254913807},
    "classes": {"number": -0.020044744, "word": 0.0070211967},
    "pairs": {
        "n9 x n30": -0.0376512744,
        "n9 x n400": -0.0217491444,
        "n2 x n30": -0.0082988273,
        "n2 x holes": -0.0024387706,
        "n2 x n9": -0.0019491632,
        "n2 x n400": -0.0018708997,
        "n400 x holes": -0.000508927,
        "n9 x holes": 0.0013426874,
        "n400 x n30": 0.0541839898,
        "n2 x n2": 0.6238175035,
        "n9 x n9": 1.8152269125,
        "n30 x holes": 2.0720350742,
        "n30 x n30": 2.732468605,
        "holes x holes": 2.7457528114,
        "n400 x n400": 4.0791702271,
    },
}


@pytest.mark.parametrize("case", CASES)
def test_scores_are_those_of_the_program(case: str) -> None:
    make, batch_size, subsampling = CASES[case]
    log = make()
    columns = [column for column in log.columns if column != "label"]
    scores = outrank_scores(log.lazy(), columns, "label", batch_size=batch_size, subsampling=subsampling)
    assert list(scores) == columns
    assert scores == pytest.approx(GOLDEN[case], abs=1e-6)


def test_scores_of_two_columns_are_those_of_the_program() -> None:
    """The second column takes the label's place."""
    log = PAIRS[1]()
    golden = GOLDEN[PAIRS[0]]
    scores = {}
    for name in golden:
        a, b = name.split(" x ")
        scores[name] = outrank_scores(log, [a], b)[a]
    assert scores == pytest.approx(golden, abs=1e-6)


def _entropy(values: np.ndarray) -> float:
    shares = np.unique(values, return_counts=True)[1] / len(values)
    return float(-(shares * np.log(shares)).sum())


def _by_hand(column: np.ndarray, condition: np.ndarray) -> float:
    """The formula of the module, word by word, for one batch."""
    rows, score = len(column), 0.0
    for value in np.unique(condition):
        own = np.flatnonzero(condition == value)
        noise = column[(own + len(own)) % rows]
        score += len(own) / rows * (_entropy(noise) - _entropy(column[own]))
    return score


@pytest.mark.parametrize(
    ("sizes", "batch_size"), [((9, 4_000), 4_500), ((4_000, 900), 4_500), ((4_000, 3), 200)]
)
def test_the_formula_holds_for_wide_columns_and_small_batches(
    sizes: tuple[int, int], batch_size: int
) -> None:
    generator = np.random.default_rng(8)
    a, b = (generator.integers(0, size, 4_500) for size in sizes)
    starts = range(0, 4_500 - batch_size + 1, batch_size)
    batches = [slice(start, start + batch_size) for start in starts]
    expected = np.median([_by_hand(a[batch], b[batch]) for batch in batches])
    log = pl.DataFrame({"a": a, "b": b})
    assert outrank_scores(log, ["a"], "b", batch_size=batch_size)["a"] == pytest.approx(expected, abs=1e-12)


def test_equal_sums_switch_the_correction_off() -> None:
    log = _equal_sums()
    scores = outrank_scores(log, ["a", "copy"], "label")
    assert scores["a"] == pytest.approx(mutual_info_score(log["a"], log["label"]))
    assert scores["copy"] == pytest.approx(mutual_info_score(log["label"], log["label"]))


def test_a_list_is_one_value() -> None:
    generator = np.random.default_rng(6)
    first, second = generator.integers(0, 5, 1_100), generator.integers(0, 5, 1_100)
    log = pl.DataFrame({"first": first, "second": second, "label": generator.integers(0, 2, 1_100)})
    log = log.with_columns(
        listed=pl.concat_list("first", "second"), text=pl.format("{},{}", "first", "second")
    )
    scores = outrank_scores(log, ["listed", "text"], "label")
    assert scores["listed"] == scores["text"]


def test_what_cannot_be_scored_is_refused() -> None:
    log = _log(1_024)
    with pytest.raises(DataError, match=r"1024 rows to score .* more than 1024"):
        outrank_scores(log, ["n2"], "label")
    assert outrank_scores(log, ["n2"], "label", batch_size=1_024)
    with pytest.raises(SchemaError, match="'n3' is not in the rows; did you mean 'n30'"):
        outrank_scores(log, ["n3"], "label")
    with pytest.raises(ConfigError, match="subsampling must be 1 or more, found 0"):
        outrank_scores(log, ["n2"], "label", subsampling=0)


def _real(log: pl.DataFrame, *flags: str) -> list[tuple[str, str, float]]:
    """Scores by the program itself."""
    benchmarks = Path(__file__).resolve().parents[2] / "benchmarks"
    python = benchmarks / ".envs" / "outrank" / "bin" / "python"
    with tempfile.TemporaryDirectory() as folder:
        log.write_csv(f"{folder}/data.csv")
        command = [
            str(python),
            str(benchmarks / "peers" / "outrank_rank.py"),
            folder,
            f"{folder}/out",
            *flags,
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: list[tuple[str, str, float]] = json.loads(done.stdout.splitlines()[-1])["scores"]
    return found


def _regenerated() -> dict[str, dict[str, float]]:
    golden = {}
    for case, (make, batch_size, subsampling) in CASES.items():
        sizes = ["--minibatch_size", str(batch_size), "--subsampling", str(subsampling)]
        golden[case] = {a: score for a, b, score in _real(make(), *sizes) if b == "label" and a != "label"}
    name, make = PAIRS
    log = make()
    order = log.columns
    golden[name] = {
        f"{a} x {b}": score
        for a, b, score in _real(log, "--target_ranking_only", "False")
        if "label" not in (a, b) and order.index(a) <= order.index(b)
    }
    return golden


if __name__ == "__main__":
    sys.stdout.write(json.dumps(_regenerated(), indent=4, ensure_ascii=False) + "\n")
