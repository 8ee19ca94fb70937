"""Combinations: worthless parts that tell something together come first, strong parts do not flood."""

from __future__ import annotations

import numpy as np
import pytest

import recsys.ranking.combinations as module
from recsys.errors import ConfigError
from recsys.ranking.codes import Codes
from recsys.ranking.combinations import combinations
from recsys.ranking.information import conditional_information
from recsys.ranking.pairs import all_pairs
from tests.ranking.coded import clicks, coded, singles

ROWS = 8_000


def _log(seed: int = 0, *, triple: bool = False) -> Codes:
    """Three strong columns, noise of all widths, and two or three bits that tell only together."""
    generator = np.random.default_rng(seed)
    columns = {f"strong{width}": generator.integers(0, width, ROWS) for width in (3, 12, 40)}
    columns |= {f"noise{width}": generator.integers(0, width, ROWS) for width in (2, 20, 400, 5_000)}
    bits = [generator.integers(0, 2, ROWS) for _ in range(3)]
    columns |= {f"bit{number}": bit for number, bit in enumerate(bits)}
    logit = -1 + sum(generator.normal(size=width)[columns[f"strong{width}"]] for width in (3, 12, 40))
    parity = (bits[0] ^ bits[1] ^ bits[2]) if triple else (bits[0] ^ bits[1])
    return coded(columns, clicks(logit + 1.6 * parity - 0.8, generator))


def test_an_xor_of_worthless_columns_comes_first() -> None:
    codes = _log()
    found = combinations(codes, 2, singles(codes))
    assert found.select("a", "b", "c").row(0) == ("bit0", "bit1", None)
    first = found.row(0, named=True)
    assert first["low"] > 0.01
    assert first["p_adjusted"] < 1e-10
    assert first["tried"] == 45
    assert first["synergy"] > 3 * found["synergy"][1]
    assert max(abs(singles(codes)[name].score) for name in ("bit0", "bit1")) < 0.001


def test_a_strong_column_crossed_with_noise_gains_nothing() -> None:
    found = combinations(_log(1))
    crossed = found.filter(found["a"].str.starts_with("strong") & found["b"].str.starts_with("noise"))
    assert crossed.height >= 12
    assert crossed["gain_z"].abs().max() < 3.5
    assert crossed["p_adjusted"].min() > 0.05
    worthless = found.filter(found["b"].str.starts_with("noise") | found["b"].str.starts_with("bit2"))
    assert worthless["p_adjusted"].min() > 0.01


def test_the_gain_is_the_smaller_conditional_information() -> None:
    codes = _log()
    line = combinations(codes).filter(a="strong3", b="strong12").row(0, named=True)
    a, b, y = (part.astype(np.int64) for part in (codes.codes[0], codes.codes[1], codes.label))
    both = conditional_information((b, a, y)), conditional_information((a, b, y))
    smaller = min(both, key=lambda one: one.score)
    assert line["adds"] == ("strong3" if smaller is both[0] else "strong12")
    assert (line["gain"], line["gain_z"]) == (pytest.approx(smaller.score), pytest.approx(smaller.z))
    assert (line["low"], line["high"]) == (pytest.approx(smaller.low), pytest.approx(smaller.high))


def test_three_bits_that_tell_only_together_come_first() -> None:
    found = combinations(_log(2, triple=True), 3)
    assert found.select("a", "b", "c").row(0) == ("bit0", "bit1", "bit2")
    assert found["tried"][0] == 120
    assert found["synergy"][0] > 3 * found["synergy"][1]
    assert found.filter(found["c"].is_null()).height == 45


def test_where_triples_are_too_many_the_best_pairs_are_extended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_TRIPLES", 50)
    monkeypatch.setattr(module, "EXTENDED", 3)
    generator = np.random.default_rng(3)
    columns = {f"noise{number}": generator.integers(0, 2 + number, ROWS) for number in range(8)}
    bits = generator.integers(0, 2, (3, ROWS))
    columns |= {f"bit{number}": bit for number, bit in enumerate(bits)}
    # The third bit says how much the parity of the others matters.
    logit = -1 + (bits[0] ^ bits[1]) * (0.5 + 2.0 * bits[2])
    found = combinations(coded(columns, clicks(logit, generator)), 3, None, 5)
    assert found.select("a", "b", "c").row(0) == ("bit0", "bit1", None)
    triples = found.filter(found["c"].is_not_null())
    assert triples.select("a", "b", "c").row(0) == ("bit0", "bit1", "bit2")
    # Of 165 triples, those that hold one of three pairs.
    assert triples["tried"][0] <= 27


def test_only_the_columns_asked_for_are_combined_and_pairs_are_not_counted_twice() -> None:
    codes = _log()
    chosen = {name: one for name, one in singles(codes).items() if not name.startswith("strong")}
    found = combinations(codes, 2, chosen, 7, pairs=all_pairs(codes))
    assert found.height == 7
    assert found["tried"][0] == 21
    assert not found["a"].str.starts_with("strong").any()
    assert combinations(codes, 2, {}).height == 0


def test_three_classes() -> None:
    generator = np.random.default_rng(5)
    x, y, noise = (generator.integers(0, 3, ROWS) for _ in range(3))
    label = np.where(generator.random(ROWS) < 0.3, generator.integers(0, 3, ROWS), (x + y) % 3)
    found = combinations(coded({"x": x, "noise": noise, "y": y}, label))
    assert found.select("a", "b").row(0) == ("x", "y")
    assert found["gain"][0] > 0.3
    assert found["p_adjusted"][1] > 0.05


def test_other_orders_are_refused() -> None:
    with pytest.raises(ConfigError, match="order must be 2 or 3, found 4"):
        combinations(_log(), 4)
