"""Lists that tell nothing stand as far from chance as chance does, however their elements come together."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import polars as pl
import pytest

from recsys.ranking import elements
from recsys.ranking.chance import Chance
from recsys.ranking.counting import Counter, elements_of
from recsys.ranking.elements import Elements
from recsys.ranking.information import Information, information

ROWS = 1_000
Lists = Callable[[np.random.Generator], list[list[str]]]


def always_together(generator: np.random.Generator) -> list[list[str]]:
    return [[f"t{k}" for k in range(10)] if on else ["u"] for on in generator.random(ROWS) < 0.5]


def genres(generator: np.random.Generator) -> list[list[str]]:
    return [[f"g{one}t{k}" for k in range(15)] for one in generator.integers(0, 4, ROWS)]


def apart(generator: np.random.Generator) -> list[list[str]]:
    lengths = generator.integers(0, 5, ROWS)
    return [[f"t{one}" for one in generator.integers(0, 50, length)] for length in lengths]


def rare_twins(generator: np.random.Generator) -> list[list[str]]:
    return [[f"a{one}", f"b{one}"] for one in generator.integers(0, ROWS // 2, ROWS)]


def told(lists: list[list[str]], label: np.ndarray, every: int = 1) -> Information:
    counter, series = Counter(2), pl.Series(lists)
    counter.add(series, label)
    classes = np.bincount(label, minlength=2)
    tally = counter.tally(classes)
    some = series.gather_every(every)
    values, row = elements_of(some, np.arange(len(some)))
    together = Elements.of(row, values, tally.values, len(some))
    return information(tally.counts, Chance(classes), classes, together)


@pytest.mark.parametrize("lists", [always_together, genres, apart, rare_twins])
def test_noise_has_the_deviation_that_is_told(lists: Lists) -> None:
    generator = np.random.default_rng(0)
    z = [told(lists(generator), (generator.random(ROWS) < 0.2).astype(np.int64)).z for _ in range(200)]
    assert abs(np.mean(z)) < 0.15
    assert np.std(z) == pytest.approx(1.0, abs=0.15)


def test_lists_of_one_element_are_a_column() -> None:
    generator = np.random.default_rng(1)
    label = generator.integers(0, 2, ROWS)
    values = generator.integers(0, 30, ROWS)
    names = pl.Series([[str(value)] for value in values.tolist()])
    together = Elements.of(
        np.arange(ROWS), names.explode(), pl.Series([str(value) for value in range(30)]), ROWS
    )
    counts = np.bincount(values * 2 + label, minlength=60).reshape(30, 2)
    classes = np.bincount(label)
    chance = Chance(classes)
    share = counts.sum(1) / ROWS
    _, rest, slopes = chance.moments(counts.sum(1))
    variance = together.variance(share * np.sqrt(rest), slopes * share[:, None], chance.shares, ROWS)
    assert math.sqrt(variance) == pytest.approx(information(counts, chance).sd, rel=0.02)


def test_some_of_the_rows_tell_nearly_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(2)
    label = generator.integers(0, 2, ROWS)
    for lists in (genres(generator), apart(generator)):
        whole = told(lists, label).sd
        assert told(lists, label, every=4).sd == pytest.approx(whole, rel=0.1)
        monkeypatch.setattr(elements, "MOST_PAIRS", 5_000)
        assert told(lists, label).sd == pytest.approx(whole, rel=0.2)
        monkeypatch.undo()
