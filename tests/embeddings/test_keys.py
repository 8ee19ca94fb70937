"""Keys are xxh3_64 of canonical bytes, pinned; rows are the upper half of a 128-bit product."""

from __future__ import annotations

from datetime import UTC, date, datetime

import numpy as np
import polars as pl
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from recsys.embeddings import keys as keys_module
from recsys.embeddings.keys import MISSING_KEY, hash_rows, keys_of, salt, splitmix64
from recsys.errors import DataError, SchemaError
from recsys.schema import ValueType

GOLDEN: list[tuple[ValueType, object, int]] = [
    ("int64", 0, 0xC77B3ABB6F87ACD9),
    ("int64", 1, 0x2FBC593564DB792E),
    ("int64", -1, 0x5111C7E47D784413),
    ("int64", 1234567890123, 0xF184C651A63EDDA6),
    ("int64", 2**63 - 1, 0xA233CF376558DF46),
    ("int64", -(2**63), 0x828F2476789A0E5F),
    ("int64", True, 0x2FBC593564DB792E),
    ("int64", None, 0),
    ("datetime", 1, 0x2FBC593564DB792E),
    ("float64", 1.5, 0x2561A4889FF63458),
    ("float64", -0.0, 0xC77B3ABB6F87ACD9),
    ("float64", float("nan"), 0),
    ("string", "", 0x2D06800538D394C2),
    ("string", "a", 0xE6C632B61E964E1F),
    ("string", "item", 0x6CA8F7B0F03F9E41),
    ("string", "Zürich", 0x0BA44FCC12CCA74E),
    ("string", "東京", 0x469B7AB5870CF9B6),
    ("string", "x" * 300, 0xA5D1B4607DC83554),
    ("string", None, 0),
]


@pytest.mark.parametrize(("type", "value", "key"), GOLDEN)
def test_golden_keys(type: ValueType, value: object, key: int) -> None:
    assert keys_of(pl.Series([value]), type).tolist() == [key]


def test_golden_rows() -> None:
    keys = np.array([0, 1, 2**64 - 1, 0x2D06800538D394C2], dtype=np.uint64)
    assert splitmix64(keys).tolist() == [
        0xE220A8397B1DCDAF,
        0x910A2DEC89025CC1,
        0xE4D971771B652C20,
        0x59B0ED710B28ABEE,
    ]
    assert salt("item", 0) == 0x6CA8F7B0F03F9E41
    assert salt("item", 1) == 0x14C1B483A682851B
    assert hash_rows(keys, 10, "item").tolist() == [8, 3, 1, 9]
    assert hash_rows(keys, 1000003, "item").tolist() == [873266, 381253, 168902, 931727]
    assert hash_rows(keys, 1000003, "item", 1).tolist() == [582849, 198553, 862522, 4776]
    assert hash_rows(keys, 1000003, "user").tolist() == [912771, 390580, 199670, 349472]


@given(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=200))
def test_integers_match_the_reference_implementation(values: list[int]) -> None:
    expected = [xxhash.xxh3_64_intdigest(value.to_bytes(8, "little", signed=True)) for value in values]
    assert keys_of(pl.Series(values, dtype=pl.Int64), "int64").tolist() == expected


def test_many_integers_over_several_blocks() -> None:
    values = np.random.default_rng(1).integers(-(2**63), 2**63 - 1, 70_000)
    expected = [xxhash.xxh3_64_intdigest(value.tobytes()) for value in values]
    assert keys_of(pl.Series(values), "int64").tolist() == expected


def test_strings_of_every_length_match_the_reference_implementation() -> None:
    rng = np.random.default_rng(2)
    texts = ["".join(map(chr, rng.integers(1, 128, length))) for length in [*range(300), *range(300)]]
    order = rng.permutation(len(texts))
    values = [texts[i] for i in order]
    expected = [xxhash.xxh3_64_intdigest(value.encode()) for value in values]
    assert keys_of(pl.Series(values), "string").tolist() == expected
    sliced = pl.Series(values)[17:400]
    assert keys_of(sliced, "string").tolist() == expected[17:400]


@given(st.lists(st.none() | st.text(), max_size=50))
def test_strings_match_the_reference_implementation(values: list[str | None]) -> None:
    expected = [0 if value is None else xxhash.xxh3_64_intdigest(value.encode()) for value in values]
    assert keys_of(pl.Series(values, dtype=pl.String), "string").tolist() == expected
    halves = pl.concat([pl.Series(values[:3], dtype=pl.String), pl.Series(values[3:], dtype=pl.String)])
    assert keys_of(halves, "string").tolist() == expected


@pytest.mark.parametrize("dtype", [pl.Int8, pl.Int32, pl.UInt16, pl.UInt64, pl.Int64])
def test_width_of_integers_does_not_matter(dtype: type[pl.DataType]) -> None:
    assert keys_of(pl.Series([1, None, 5], dtype=dtype), "int64").tolist() == [
        GOLDEN[1][2],
        MISSING_KEY,
        int(keys_of(pl.Series([5]), "int64")[0]),
    ]


def test_datetimes_are_microseconds_utc() -> None:
    expected = keys_of(pl.Series([1_700_000_000_000_000]), "int64").tolist()
    moment = datetime.fromtimestamp(1_700_000_000, tz=UTC)
    for unit in ("ms", "us", "ns"):
        series = pl.Series([moment], dtype=pl.Datetime(unit, "UTC"))
        assert keys_of(series, "datetime").tolist() == expected
        assert keys_of(series.dt.convert_time_zone("Asia/Tokyo"), "datetime").tolist() == expected
        assert keys_of(series.dt.replace_time_zone(None), "datetime").tolist() == expected
    day = keys_of(pl.Series([date(1970, 1, 2)]), "datetime")
    assert day.tolist() == keys_of(pl.Series([86_400_000_000]), "int64").tolist()


def test_categoricals_are_their_strings() -> None:
    strings = pl.Series(["b", "a", None, "b"])
    assert keys_of(strings.cast(pl.Categorical), "string").tolist() == keys_of(strings, "string").tolist()


@pytest.mark.parametrize(
    ("values", "type"),
    [
        (pl.Series("c", [1.5]), "int64"),
        (pl.Series("c", ["1"]), "int64"),
        (pl.Series("c", [1]), "string"),
        (pl.Series("c", [2**63], dtype=pl.UInt64), "int64"),
        (pl.Series("c", [2**53 + 1]), "float64"),
        (pl.Series("c", [[1]]), "int64"),
    ],
)
def test_values_of_another_type_are_refused(values: pl.Series, type: ValueType) -> None:
    with pytest.raises(SchemaError, match="'c'"):
        keys_of(values, type)


def test_a_value_that_hashes_to_the_reserved_key_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys_module, "MISSING_KEY", GOLDEN[3][2])
    with pytest.raises(DataError, match="'c': the value 1234567890123"):
        keys_of(pl.Series("c", [7, 1234567890123]), "int64")
    monkeypatch.setattr(keys_module, "MISSING_KEY", GOLDEN[14][2])
    with pytest.raises(DataError, match="'c': the value 'item'"):
        keys_of(pl.Series("c", ["user", "item"]), "string")


@given(
    st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=20),
    st.integers(1, 2**63 - 1),
    st.integers(0, 3),
)
def test_rows_are_the_upper_half_of_the_product(values: list[int], rows: int, lookup: int) -> None:
    keys = np.array(values, dtype=np.uint64)
    hashed = splitmix64(keys ^ np.uint64(salt("v", lookup)))
    expected = [(int(word) * rows) >> 64 for word in hashed]
    assert hash_rows(keys, rows, "v", lookup).tolist() == expected


def test_rows_are_spread_evenly() -> None:
    keys = keys_of(pl.Series(np.arange(100_000)), "int64")
    counts = np.bincount(hash_rows(keys, 100, "v"), minlength=100)
    chi_square = float(((counts - 1000) ** 2 / 1000).sum())
    assert 50 < chi_square < 170, "99 degrees of freedom"


def test_no_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        hash_rows(np.zeros(1, dtype=np.uint64), 0, "v")
