"""Sets of columns: noise never wins, a copy adds nothing, an interaction is found, budgets are kept."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import polars as pl
import pytest

from recsys.errors import ConfigError
from recsys.ranking.codes import Codes
from recsys.ranking.combinations import combinations
from recsys.ranking.pairs import all_pairs
from recsys.ranking.sets import given, keep_until_loss, orders, within_bytes
from tests.ranking.coded import clicks, coded, singles


def _toy(copies: Mapping[str, str] | None = None) -> Codes:
    """The toy that 3MR gets wrong in OutRank: its first two columns are noise of 5,000 values."""
    generator, rows = np.random.default_rng(0), 16_450
    sig = generator.integers(0, 8, rows)
    x1, x2 = generator.integers(0, 2, (2, rows))
    noisy = np.where(generator.random(rows) < 0.3, generator.integers(0, 8, rows), sig)
    noise = {f"noise{n}": generator.integers(0, n, rows) for n in (5_000, 4_999, 1_000, 100, 10)}
    columns = {**noise, "copy": sig, "sig": sig, "noisy": noisy, "x1": x1, "x2": x2}
    columns |= {name: columns[of] for name, of in (copies or {}).items()}
    return coded(columns, clicks(-1.5 + 0.35 * (sig - 3.5) + 2.0 * (x1 ^ x2) - 1.0, generator))


@pytest.fixture(scope="module")
def order() -> pl.DataFrame:
    codes = _toy()
    return orders(codes, all_pairs(codes), singles(codes))


def _line(order: pl.DataFrame, name: str) -> dict[str, object]:
    return order.filter(column=name).row(0, named=True)


def test_3mr_takes_what_tells_something_new(order: pl.DataFrame) -> None:
    first = order["column"].to_list()[:4]
    assert set(first[:3]) in ({"sig", "x1", "x2"}, {"copy", "x1", "x2"})
    assert first[3] == "noisy"
    assert (_line(order, "x1")["works_with"], _line(order, "x2")["works_with"]) == (["x2"], ["x1"])
    twins = order.filter(pl.col("column").is_in(["sig", "copy"]))
    assert twins["redundant_with"].to_list() == [None, twins["column"][0]]
    assert twins["redundancy"][1] == pytest.approx(1.0)
    assert twins["gain"][1] < 0 < twins["alone"][1]
    noise = order.filter(pl.col("column").str.starts_with("noise"))
    assert noise["gain"].max() <= 0
    assert noise["redundant_with"].null_count() == 5


@pytest.mark.parametrize("part", ["x1", "x2"])
def test_a_copy_of_a_part_of_an_interaction_does_not_take_its_place(part: str) -> None:
    codes = _toy({"again": part, "twice": part})
    found = orders(codes, all_pairs(codes), singles(codes))
    trio = [part, "again", "twice"]
    other = "x2" if part == "x1" else "x1"
    first = found["column"].to_list()[:3]
    assert other in first
    assert len(set(trio) & set(first)) == 1
    copies = found.filter(pl.col("column").is_in(trio)).tail(2)
    pair = found.filter(pl.col("column").is_in([*trio, other]) & (pl.col("gain") > 0))
    assert pair["gain"].sum() < 1.05 * all_pairs(codes).filter(a="x1", b="x2")["synergy"][0]
    assert copies["gain"].max() <= 1e-9
    assert copies["works_with"].null_count() == 2
    for loss in (0.0, 0.2):
        kept = keep_until_loss(found, loss)
        assert other in kept
        assert len(set(trio) & set(kept)) == 1


def test_a_strong_column_and_its_copies_share_one_interaction() -> None:
    """The strong column comes by itself, what it interacts with next: before any copy of the strong one."""
    generator, rows = np.random.default_rng(3), 20_000
    city, hour, weak = (generator.integers(0, size, rows) for size in (12, 24, 6))
    logit = city % 4 - 2 + 0.8 * ((city % 2) ^ (hour % 2)) + 0.25 * (weak - 2.5)
    columns = {"city": city, "copy": city * 7 % 12, "copy2": city * 5 % 12, "hour": hour, "weak": weak}
    codes = coded(columns, clicks(logit, generator))
    found = orders(codes, all_pairs(codes), singles(codes))
    assert set(found["column"][:3]) == {"city", "hour", "weak"}
    assert _line(found, "hour")["gain"] > 0.005
    assert found["gain"][3:].max() <= 1e-9
    assert found["redundant_with"][3:].to_list() == ["city", "city"]


@pytest.mark.parametrize("copy", [None, "x", "y", "z"])
def test_three_columns_that_tell_only_together_are_entered_together(copy: str | None) -> None:
    generator, rows = np.random.default_rng(2), 20_000
    x, y, z = generator.integers(0, 2, (3, rows))
    columns = {"noise": generator.integers(0, 5, rows), "x": x, "y": y, "z": z}
    if copy is not None:
        columns["again"] = columns[copy]
    codes = coded(columns, (x ^ y ^ z) ^ (generator.random(rows) < 0.15))
    pairs, alone = all_pairs(codes), singles(codes)
    triples = combinations(codes, 3, alone, pairs=pairs)
    found = orders(codes, pairs, alone, triples)
    assert {"again": copy}.get(found["column"][0], found["column"][0]) in ("x", "y", "z")
    first = [copy if name == "again" else name for name in found["column"][:3]]
    assert sorted(str(name) for name in first) == ["x", "y", "z"]
    assert all(len(friends) == 2 for friends in found["works_with"][:3])
    assert found["gain"][:3].min() > 0.05
    assert found["gain"][:3].sum() < triples["joint"][0]
    assert found["gain"][3:].max() <= 1e-9
    assert len(keep_until_loss(found, 0.01)) == len(keep_until_loss(found, 0.4)) == 3
    assert orders(codes, pairs, alone)["gain"].max() < 0.001


def test_jmi_and_cmim_put_noise_last(order: pl.DataFrame) -> None:
    for rank in ("rank_jmi", "rank_cmim"):
        ranked = order.sort(rank)["column"].to_list()
        assert ranked[0] in ("sig", "copy")
        assert set(ranked[-3:]) == {"noise5000", "noise4999", "noise1000"}
        assert sorted(order[rank]) == list(range(1, 11))
    assert _line(order, "copy")["rank_cmim"] > 2 or _line(order, "sig")["rank_cmim"] > 2


def test_keep_until_loss_keeps_as_few_as_may_be(order: pl.DataFrame) -> None:
    everything = keep_until_loss(order, 0.0)
    assert set(everything) >= {"x1", "x2", "noisy"}
    assert not any(name.startswith("noise") for name in everything)
    total = order.filter(pl.col("gain") > 0)["gain"].sum()
    for loss in (0.01, 0.2, 0.5, 0.8):
        kept = keep_until_loss(order, loss)
        gains = {name: _line(order, name)["gain"] for name in kept}
        assert sum(gains.values()) >= (1 - loss) * total - 1e-12
        # Less the last column, and what is of use with it only.
        last = {kept[-1], *(_line(order, kept[-1])["works_with"] or ())}
        assert sum(gain for name, gain in gains.items() if name not in last) < (1 - loss) * total
    with pytest.raises(ConfigError, match="from 0 to below 1"):
        keep_until_loss(order, 1.0)
    assert keep_until_loss(order.with_columns(gain=pl.lit(-1.0)), 0.1) == []


def test_within_bytes_never_spends_more_and_takes_partners_together(order: pl.DataFrame) -> None:
    cost = dict.fromkeys(order["column"], 100) | {"noisy": 10, "x1": 60, "x2": 60}
    for budget in (0, 9, 10, 100, 119, 120, 130, 230, 1_000):
        kept = within_bytes(order, cost, budget)
        assert sum(cost[name] for name in kept) <= budget
        assert ("x1" in kept) == ("x2" in kept)
    # A redundant column counts in full while the one it repeats is too dear.
    cost |= {"sig": 500, "copy": 500}
    assert within_bytes(order, cost, 10) == ["noisy"]
    assert set(within_bytes(order, cost, 1_000)) >= {"x1", "x2", "noisy"}
    assert not any(name.startswith("noise") for name in within_bytes(order, cost, 10_000))
    with pytest.raises(ConfigError, match="bytes of column"):
        within_bytes(order, {}, 100)


def test_given_a_column_its_copy_is_worth_nothing_and_others_keep_their_score() -> None:
    codes = _toy()
    alone, found = singles(codes), given(codes, ["sig"])
    assert "sig" not in found
    assert abs(found["copy"].score) < 0.01 * alone["copy"].score
    assert found["noisy"].score < 0.1 * alone["noisy"].score
    assert max(abs(one.z) for name, one in found.items() if name.startswith("noise")) < 3.5
    plain = given(codes, [])
    assert plain["noisy"].score == pytest.approx(alone["noisy"].score, rel=1e-9)
    assert given(codes, ["x1"])["x2"].score > 0.04
    with pytest.raises(ConfigError, match=r"unknown column 'six'; did you mean 'sig'"):
        given(codes, ["six"])


@pytest.mark.parametrize("classes", [2, 3])
def test_given_wide_columns(classes: int) -> None:
    """Columns of many values: neither does a copy pass for new, nor is an independent one lost."""
    generator, rows = np.random.default_rng(1), 60_000
    widths = {"wide": 2_000, "other": 1_500, "narrow": 20, "noise": 3_000}
    columns = {name: generator.integers(0, width, rows) for name, width in widths.items()}
    columns["copy"] = columns["wide"]
    shape = np.array([0.7, 0.7, 0.4, 0.0])
    effects = [
        size * generator.normal(size=width) for size, width in zip(shape, widths.values(), strict=True)
    ]
    logit = sum(effect[columns[name]] for effect, name in zip(effects, widths, strict=True))
    label = clicks(np.asarray(logit) - 1, generator)
    if classes == 3:
        label = np.where(label == 0, 0, 1 + clicks(np.asarray(effects[0])[columns["wide"]], generator))
    codes = coded(columns, label)
    alone, found = singles(codes), given(codes, ["wide", "narrow"])
    assert found["copy"].score < 0.1 * alone["copy"].score
    assert found["other"].score == pytest.approx(alone["other"].score, rel=0.3)
    assert abs(found["noise"].z) < 3.5
