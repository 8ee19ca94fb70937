"""Joint counts of pairs: a crossed column goes through the one kernel like any other."""

from __future__ import annotations

from collections import Counter

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.config import RankSettings
from recsys.data.crosses import add_crosses, with_crosses
from recsys.data.source import open_source
from recsys.ranking.counting import count
from recsys.ranking.label import Label
from recsys.ranking.rank import rank
from recsys.ranking.tally import Tally
from recsys.schema import Column, Schema

TYPES = {"city": pl.String(), "hour": pl.Int64(), "label": pl.Int64()}
PLAIN = Schema(
    columns={
        "city": Column(kind="categorical", type="string"),
        "hour": Column(kind="categorical", type="int64"),
        "label": Column(kind="numeric", type="int64", roles=("label",)),
    }
)
CROSSED = add_crosses(PLAIN, [("city", "hour")])
CITIES = st.one_of(st.none(), st.sampled_from(["berlin", "a|b", "a", "", "\\N"]))
HOURS = st.one_of(st.none(), st.integers(-2, 3))
ROWS = st.lists(st.tuples(CITIES, HOURS, st.integers(0, 1)), min_size=1, max_size=40)


def pair_counts(frame: pl.DataFrame) -> Tally:
    """Rows per city, hour and class, as ranking counts them."""
    label = Label("label", "binary", ("0", "1"), pl.Series([0, 1]))
    return count(with_crosses(open_source(frame), CROSSED), CROSSED, label).tallies["city_x_hour"]


@given(ROWS, ROWS)
def test_pair_counts_are_right_and_those_of_two_files_merge_to_those_of_both(
    one: list[tuple[str | None, int | None, int]], two: list[tuple[str | None, int | None, int]]
) -> None:
    first, second = (pl.DataFrame(rows, schema=TYPES, orient="row") for rows in (one, two))
    both, merged = pair_counts(pl.concat([first, second])), pair_counts(first).merge(pair_counts(second))
    assert merged.values.to_list() == both.values.to_list()
    assert np.array_equal(merged.counts, both.counts)
    clicks = Counter((city, hour) for city, hour, label in one + two if label)
    rows = Counter((city, hour) for city, hour, _ in one + two)
    expected = sorted((rows[pair] - clicks[pair], clicks[pair]) for pair in rows)
    assert sorted(map(tuple, both.counts.tolist())) == expected


def test_a_pair_scores_the_same_as_a_crossed_column_and_as_a_pair() -> None:
    generator = np.random.default_rng(5)
    city, hour = generator.integers(0, 40, 5_000), generator.integers(0, 24, 5_000)
    label = (generator.random(5_000) < 0.2 + 0.3 * ((city + hour) % 2)).astype(np.int64)
    frame = pl.DataFrame({"city": city.astype(str), "hour": hour, "label": label})
    single = rank(frame, CROSSED, settings=RankSettings(order=1, report=False)).table
    (score,) = single.filter(column="city_x_hour")["score"]
    pairs = rank(frame, PLAIN, settings=RankSettings(order=2, report=False)).pairs
    assert pairs is not None
    assert pairs["joint"].to_list() == pytest.approx([score], rel=1e-5)
    entropies = [-p * np.log(p) - (1 - p) * np.log(1 - p) for p in (0.2, 0.35, 0.5)]
    assert score == pytest.approx(entropies[1] - (entropies[0] + entropies[2]) / 2, abs=0.01)
