"""Numbers are transformed where their tail is heavy, and standardised by robust moments."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.features.numeric import NumericSample, fit, signed_log1p, standardise

RNG = np.random.default_rng(5)


@pytest.mark.parametrize(
    ("values", "transform"),
    [
        (RNG.normal(50, 3, 20_000), "linear"),
        (RNG.exponential(5, 20_000), "linear"),
        (RNG.uniform(-1, 1, 20_000), "linear"),
        ((RNG.random(20_000) < 0.1).astype(float), "linear"),
        (RNG.lognormal(0, 1.5, 20_000), "log"),
        (RNG.pareto(1.5, 20_000), "log"),
        (RNG.zipf(1.5, 20_000).astype(float) - 1, "log"),
        (np.full(100, 7.0), "linear"),
    ],
)
def test_auto_takes_the_log_of_heavy_tails(values: np.ndarray, transform: str) -> None:
    encoder = fit(values, "auto")
    assert encoder.transform == transform
    encoded = standardise(pl.Series(values), encoder).to_numpy()
    assert np.abs(encoded).max() <= 10
    if values.std() > 0:
        assert abs(encoded.mean()) < 0.1
        assert 0.9 < encoded.std() < 1.2


def test_a_stated_transform_is_obeyed() -> None:
    values = np.array([1.0, 2.0, 3.0, 10.0])
    linear, log = fit(values, "linear"), fit(values, "log")
    assert (linear.transform, linear.mean) == ("linear", 4.0)
    assert linear.std == pytest.approx(values.std())
    assert (log.transform, log.mean) == ("log", pytest.approx(np.log1p(values).mean()))
    assert log.std == pytest.approx(np.log1p(values).std())


def test_encoded_values_are_worked_out_by_hand() -> None:
    encoder = fit(np.array([0.0, 2.0, 4.0]), "linear")
    got = standardise(pl.Series("x", [2.0, None, 4.0, 1e9, -1e308]), encoder)
    assert got.dtype == pl.Float32
    assert got.name == "x"
    assert got.null_count() == 1
    assert got[1] is None
    assert got.drop_nulls().to_list() == pytest.approx([0, 2 / (8 / 3) ** 0.5, 10, -10], rel=1e-6)
    assert signed_log1p(np.array([-3.0, 0.0, 3.0])) == pytest.approx([-np.log(4), 0, np.log(4)])


def test_a_few_absurd_numbers_do_not_press_the_rest_together() -> None:
    values = np.append(RNG.normal(0, 1, 100_000), [1e12, -1e300, 1e308])
    encoder = fit(values, "auto")
    assert encoder.transform == "linear"
    assert encoder.std == pytest.approx(1.0, rel=0.02)


def test_a_constant_is_zero_and_has_standard_deviation_one() -> None:
    encoder = fit(np.full(10, 0.1), "auto")
    assert (encoder.mean, encoder.std) == (0.1, 1.0)
    assert standardise(pl.Series([0.1]), encoder).to_list() == [0.0]


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=30))
def test_any_finite_numbers_give_a_usable_encoder(values: list[float]) -> None:
    encoder = fit(np.array(values), "auto")
    assert np.isfinite(encoder.mean)
    assert encoder.std > 0
    assert np.isfinite(encoder.std)
    assert np.isfinite(standardise(pl.Series(values), encoder).to_numpy()).all()


@given(st.lists(st.integers(0, 40), max_size=12), st.integers(4, 32))
def test_the_sample_is_every_kth_value(sizes: list[int], limit: int) -> None:
    sample = NumericSample(limit)
    start = 0
    for size in sizes:
        sample.add(np.arange(start, start + size, dtype=np.float64))
        start += size
    stride = 1
    while -(-start // stride) > limit:
        stride *= 2
    assert sample.seen == start
    assert sample.values().tolist() == list(range(0, start, stride))
