"""Stored tables: error bounds, exact zeros, the layout of codes, and what cannot be stored."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from recsys.embeddings.plan import ServeDtype
from recsys.errors import BundleError
from recsys.serving.quantise import BITS, Table, quantise, row_bytes, worthwhile

QUANTISED: list[ServeDtype] = ["int8", "int4"]


def weights(scale: float, rows: int = 400, dim: int = 15) -> NDArray[np.float32]:
    """Rows of both signs, of one sign, with one weight, all zeros, and constant; a third are zeros."""
    draw = np.random.default_rng(3)
    found = (draw.normal(size=(rows, dim)) * scale).astype(np.float32)
    found[draw.random(found.shape) < 1 / 3] = 0.0
    found[:50] = np.abs(found[:50])
    found[50:100] = -np.abs(found[50:100])
    found[100], found[101], found[102] = 0.0, scale, -scale
    found[103, 1:] = 0.0
    return found


def restored(table: Table) -> NDArray[np.float32]:
    return table.lookup(np.arange(table.rows))


@pytest.mark.parametrize("scale", [1e-7, 1e-5, 1e-3, 0.1, 1.0, 300.0])
@pytest.mark.parametrize("dtype", QUANTISED)
def test_each_weight_comes_back_within_half_a_scale_and_zeros_exactly(
    scale: float, dtype: ServeDtype
) -> None:
    given = weights(scale)
    table = Table.from_weights("t", given, dtype)
    found = restored(table)
    step = table.arrays["scale"].astype(np.float64)
    assert (np.abs(found.astype(np.float64) - given).max(axis=1) <= 0.5000001 * step).all()
    assert (found[given == 0.0] == 0.0).all()
    assert not np.signbit(found[given == 0.0]).any()
    assert table.max_error(given) == np.abs(found - given).max()


@pytest.mark.parametrize("dtype", QUANTISED)
def test_a_scale_is_little_larger_than_the_least_that_spans_the_row(dtype: ServeDtype) -> None:
    given = weights(0.1)
    span = np.maximum(given.max(axis=1), 0) - np.minimum(given.min(axis=1), 0)
    table = Table.from_weights("t", given, dtype)
    ratio = (table.arrays["scale"].astype(np.float64) * (2 ** BITS[dtype] - 1))[span > 0] / span[span > 0]
    assert ratio.min() >= 1.0
    assert ratio.max() < 1.1
    assert ratio.mean() < 1.05


@pytest.mark.parametrize("dtype", QUANTISED)
def test_the_offset_is_exactly_minus_scale_times_a_code(dtype: ServeDtype) -> None:
    arrays = quantise(weights(0.1), BITS[dtype])
    scale, offset = (arrays[name].astype(np.float64) for name in ("scale", "offset"))
    zero = -offset / scale
    assert (zero == np.rint(zero)).all()
    assert ((zero >= 0) & (zero < 2 ** BITS[dtype])).all()


@pytest.mark.parametrize("dtype", QUANTISED)
def test_no_rounding_in_float32_so_that_every_reader_gets_the_same_bits(dtype: ServeDtype) -> None:
    table = Table.from_weights("t", weights(0.1, dim=16), dtype)
    codes = table.arrays["codes"]
    if dtype == "int4":
        codes = np.stack([codes & 15, codes >> 4], axis=-1).reshape(len(codes), -1)
    scale, offset = (table.arrays[name].astype(np.float64)[:, None] for name in ("scale", "offset"))
    assert (restored(table) == scale * codes + offset).all()


def test_int4_golden_bytes_low_nibble_first() -> None:
    # Scale 1, zero code 3: codes are weight + 3; an odd width pads the last byte with a zero.
    given = np.array([[-3.0, 12.0, 0.0, 1.0, 5.0]], np.float32)
    table = Table.from_weights("t", given, "int4")
    assert table.arrays["codes"].tolist() == [[0xF0, 0x43, 0x08]]
    assert table.arrays["scale"].tolist() == [1.0]
    assert table.arrays["offset"].tolist() == [-3.0]
    assert restored(table).tolist() == given.tolist()


def test_int8_golden_bytes() -> None:
    given = np.array([[-128.0, 127.0, 0.0, 1.0], [0.0, 255.0, 2.0, 1.0]], np.float32)
    table = Table.from_weights("t", given, "int8")
    assert table.arrays["codes"].tolist() == [[0, 255, 128, 129], [0, 255, 2, 1]]
    assert table.arrays["scale"].tolist() == [1.0, 1.0]
    assert table.arrays["offset"].tolist() == [-128.0, 0.0]
    assert restored(table).tolist() == given.tolist()


def test_many_rows_are_quantised_in_pieces_as_one_by_one() -> None:
    given = np.random.default_rng(0).normal(size=(70_000, 4)).astype(np.float32)
    table = Table.from_weights("t", given, "int4")
    for row in (0, 32_767, 32_768, 69_999):
        alone = Table.from_weights("t", given[row : row + 1], "int4")
        assert (alone.lookup(np.array([0])) == table.lookup(np.array([row]))).all()


def test_float32_is_exact_and_float16_rounds() -> None:
    given = weights(0.1)
    assert (restored(Table.from_weights("t", given, "float32")) == given).all()
    half = Table.from_weights("t", given, "float16")
    assert (restored(half) == given.astype(np.float16).astype(np.float32)).all()
    assert half.nbytes == given.nbytes // 2


@pytest.mark.parametrize("dtype", ["float16", "int8", "int4"])
def test_a_weight_beyond_float16_is_refused_by_row_and_column(dtype: ServeDtype) -> None:
    given = weights(0.1)
    given[7, 2] = -7e4
    with pytest.raises(BundleError, match=r"table 'item', row 7, column 2: the weight -70000.*float32"):
        Table.from_weights("item", given, dtype)


def test_the_largest_weights_that_are_not_refused_fit() -> None:
    assert restored(Table.from_weights("t", np.array([[65519.0]], np.float32), "float16")) == 65504.0
    for dtype in QUANTISED:
        table = Table.from_weights("t", np.array([[32700.0, -32700.0]], np.float32), dtype)
        assert np.isfinite(restored(table)).all()
        assert np.isfinite(table.arrays["offset"]).all()


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8", "int4"])
@pytest.mark.parametrize("odd", [np.nan, np.inf])
def test_a_weight_that_is_not_finite_is_refused(dtype: ServeDtype, odd: float) -> None:
    given = weights(0.1)
    given[9, 1] = odd
    with pytest.raises(BundleError, match="row 9, column 1"):
        Table.from_weights("t", given, dtype)


def test_bytes_of_a_row_and_where_quantisation_gains_nothing() -> None:
    assert [row_bytes(dtype, 15) for dtype in ("float32", "float16", "int8", "int4")] == [60, 30, 19, 12]
    assert worthwhile("int8", 16) == "int8"
    assert worthwhile("int8", 4) == "float16"
    assert worthwhile("int4", 3) == "float16"
    assert worthwhile("int4", 4) == "int4"
    assert worthwhile("float32", 1) == "float32"


def test_stored_arrays_of_another_shape_are_refused() -> None:
    arrays = dict(Table.from_weights("t", weights(0.1), "int4").arrays)
    assert Table.from_arrays("t", "int4", 400, 15, arrays).rows == 400
    with pytest.raises(BundleError, match="table 't'"):
        Table.from_arrays("t", "int8", 400, 15, arrays)
    with pytest.raises(BundleError, match="table 't'"):
        Table.from_arrays("t", "int4", 399, 15, arrays)


def test_lookup_keeps_the_shape_of_the_rows() -> None:
    for dtype in ("float32", "int8", "int4"):
        table = Table.from_weights("t", weights(0.1), dtype)
        assert table.lookup(np.zeros((2, 3), np.int64)).shape == (2, 3, 15)
        assert table.lookup(np.zeros(0, np.int64)).shape == (0, 15)
