"""The synthetic log: reproducible to the byte, and made of what its settings say."""

from __future__ import annotations

import hashlib
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from recsys.data.synth import LOG, RECORD, TRUTH, load_synth_record, synth
from recsys.data.synth_draws import Draws
from recsys.data.synth_random import Scramble, normal, stream, uniform, zipf
from recsys.data.synth_settings import SynthSettings, load_synth_settings
from recsys.errors import ConfigError, DataError
from recsys.evaluation.metrics import auc

DATA = Path(__file__).parents[2] / "data"
ROWS = 40_000
SETTINGS: dict[str, Any] = {
    "rows": ROWS,
    "seed": 3,
    "days": 10,
    "ctr": 0.2,
    "day_effect": 0.1,
    "users": {"values": 2000, "zipf": 1.2, "effect": 0.3, "interests": [1, 3]},
    "items": {
        "values": 400,
        "zipf": 1.1,
        "effect": 0.3,
        "clusters": 8,
        "categories": 16,
        "category_effect": 0.2,
        "late": 0.3,
    },
    "history": {"max_length": 12, "stray": 0.1, "strength": 2.0},
    "columns": {
        "site": {"values": 50, "effect": 0.8, "missing": 0.1, "drift": 0.2},
        "age": {"values": 6, "of": "user", "effect": 0.3},
        "brand": {"values": 20, "of": "item", "effect": 0.3, "type": "int64"},
        "campaign": {"values": 3000, "effect": 0.5, "shift": 0.5, "type": "int64"},
        "noise": {"values": 50},
    },
    "copies": {"site_copy": {"of": "site"}, "site_noisy": {"of": "site", "noise": 0.25}},
    "pairs": [{"columns": ["left", "right"], "values": 6, "strength": 1.0}],
    "interactions": [{"columns": ["site", "age"], "strength": 0.5, "rank": 2}],
    "numerics": {
        "price": {"distribution": "lognormal", "shape": "bump", "effect": 0.8, "missing": 0.2},
        "position": {"shape": "vee", "effect": 0.5, "outliers": 0.01, "outlier_factor": 1000},
        "score": {},
    },
    "tags": {"tags": {"values": 40, "effect": 1.5, "missing": 0.1, "max_length": 4}},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synth(SETTINGS, tmp_path_factory.mktemp("synth") / "log", chunk_rows=7001)


@pytest.fixture(scope="module")
def log(folder: Path) -> pl.DataFrame:
    return pl.read_parquet(folder / LOG)


@pytest.fixture(scope="module")
def truth(folder: Path) -> pl.DataFrame:
    return pl.read_parquet(folder / TRUTH)


def bytes_of(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_same_seed_same_bytes_and_another_seed_another_log(tmp_path: Path) -> None:
    first, second, third = (tmp_path / name for name in ("first", "second", "third"))
    synth(SETTINGS, first, rows=3000, chunk_rows=1000)
    synth(load_synth_settings(SETTINGS), second, rows=3000, chunk_rows=1000)
    synth(SETTINGS, third, rows=3000, seed=4, chunk_rows=1000)
    assert sorted(bytes_of(first)) == [LOG, RECORD, TRUTH]
    assert bytes_of(first) == bytes_of(second)
    assert not set(bytes_of(first).values()) & set(bytes_of(third).values())


def test_rows_do_not_depend_on_the_chunks(folder: Path, log: pl.DataFrame, tmp_path: Path) -> None:
    synth(SETTINGS, tmp_path / "whole")
    assert pl.read_parquet(tmp_path / "whole" / LOG).equals(log)
    assert pl.read_parquet(tmp_path / "whole" / TRUTH).equals(pl.read_parquet(folder / TRUTH))


def test_any_range_of_rows_can_be_drawn_alone(log: pl.DataFrame) -> None:
    draws = Draws(load_synth_settings(SETTINGS))
    rows = draws.rows(20_000, 20_100)
    assert draws.scrambles["item_id"].apply(rows.ranks["item_id"]).tolist() == (
        log["item_id"][20_000:20_100].to_list()
    )
    assert rows.history.lengths.tolist() == log["history"][20_000:20_100].list.len().to_list()


def test_truth_is_beside_the_log_and_adds_up(folder: Path, log: pl.DataFrame, truth: pl.DataFrame) -> None:
    record = load_synth_record(folder)
    assert record.rows == len(log) == len(truth)
    assert record.clicks == log["clicked"].sum()
    assert truth.columns == ["logit", *record.components]
    total = record.intercept + truth.select(pl.sum_horizontal(record.components)).to_series()
    np.testing.assert_allclose(total, truth["logit"], atol=1e-4)
    columns = set(SETTINGS["columns"]) | {"clicked", "day", "user_id", "item_id", "category", "history"}
    columns |= {"history_category", "site_copy", "site_noisy", "left", "right", "tags"}
    assert set(log.columns) == columns | set(SETTINGS["numerics"])


def test_clicks_follow_the_known_logit(log: pl.DataFrame, truth: pl.DataFrame) -> None:
    chance = 1 / (1 + np.exp(-truth["logit"].to_numpy().astype(np.float64)))
    clicked = log["clicked"].to_numpy()
    assert abs(chance.mean() - 0.2) < 0.01
    for low in np.arange(0, 1, 0.1):
        chosen = (chance >= low) & (chance < low + 0.1)
        spread = np.sqrt((chance[chosen] * (1 - chance[chosen])).sum())
        assert abs(clicked[chosen].sum() - chance[chosen].sum()) < 4 * spread


def test_types_and_missing_shares(log: pl.DataFrame) -> None:
    schema = log.schema
    assert schema["day"] == pl.Date
    assert schema["site"] == pl.String
    assert schema["campaign"] == pl.Int64
    assert schema["history"] == pl.List(pl.Int64)
    assert schema["history_category"] == pl.List(pl.String)
    assert schema["tags"] == pl.List(pl.String)
    share = {name: log[name].null_count() / ROWS for name in log.columns}
    expected = {"site": 0.1, "site_copy": 0.1, "price": 0.2, "tags": 0.1}
    expected["site_noisy"] = 0.1 * 0.75
    for name in log.columns:
        assert abs(share[name] - expected.get(name, 0.0)) < 0.01, name
    assert log["price"].is_nan().sum() == 0


def test_frequent_values_follow_zipf_and_their_names_do_not() -> None:
    counts = np.bincount(zipf(uniform(9, np.arange(400_000)), 1000, 1.0), minlength=1000)
    # P(rank) ∝ log((rank + 2) / (rank + 1)) under the continuous distribution
    share = np.log((np.arange(1000) + 2) / (np.arange(1000) + 1)) / np.log(1001)
    assert np.abs(counts - 400_000 * share).max() < 5 * np.sqrt(400_000 * share.max())
    flat = np.bincount(zipf(uniform(9, np.arange(100_000)), 10, 0.0), minlength=10)
    assert np.abs(flat - 10_000).max() < 500
    names = Scramble(1000, 17).apply(np.arange(1000))
    assert sorted(names) == list(range(1000))
    assert abs(np.corrcoef(names, np.arange(1000))[0, 1]) < 0.1


@pytest.mark.parametrize(("values", "start"), [(2, 0), (2, 1), (7, 3), (1000, 5), (1 << 20, 2**63)])
def test_scrambles_can_be_undone(values: int, start: int) -> None:
    ranks = np.arange(0, values, max(1, values // 1000))
    scramble = Scramble(values, start)
    assert scramble.invert(scramble.apply(ranks)).tolist() == ranks.tolist()


def test_effects_do_not_shrink_with_frequency() -> None:
    effect = normal(stream(3, "campaign", "effect"), np.arange(200_000))
    for part in np.split(effect, 10):
        assert abs(part.mean()) < 0.03
        assert abs(part.std() - 1) < 0.03
    assert abs((effect**4).mean() - 3) < 0.1


def test_copies(log: pl.DataFrame) -> None:
    assert log["site_copy"].equals(log["site"].alias("site_copy"))
    assert log["site_noisy"].drop_nulls().is_in(log["site"].unique().to_list()).all()
    same = (log["site_noisy"].eq_missing(log["site"])).mean()
    assert isinstance(same, float)
    # a value drawn anew may be the same by chance
    chance = float(((log["site"].value_counts()["count"] / ROWS) ** 2).sum())
    assert abs(same - (0.75 + 0.25 * chance)) < 0.02


def value_auc(log: pl.DataFrame, *names: str) -> float:
    """AUC on odd rows of the click rate that even rows show per value."""
    numbered = log.select(*names, "clicked").with_row_index("row")
    rates = numbered.filter(pl.col("row") % 2 == 0).group_by(names).agg(rate=pl.col("clicked").mean())
    held = numbered.filter(pl.col("row") % 2 == 1).join(rates, on=list(names), how="left", nulls_equal=True)
    found = auc(held["clicked"], held["rate"].fill_null(0.2))
    assert found is not None
    return found


def test_a_pair_matters_only_together(log: pl.DataFrame) -> None:
    assert abs(value_auc(log, "left") - 0.5) < 0.015
    assert abs(value_auc(log, "right") - 0.5) < 0.015
    assert value_auc(log, "left", "right") > 0.6


def test_columns_with_an_effect_matter_and_noise_does_not(log: pl.DataFrame) -> None:
    assert value_auc(log, "site") > 0.57
    assert value_auc(log, "site_copy") > 0.57
    assert 0.54 < value_auc(log, "site_noisy") < value_auc(log, "site")
    assert abs(value_auc(log, "noise") - 0.5) < 0.015


def test_values_of_users_and_items_are_fixed(log: pl.DataFrame) -> None:
    assert log.group_by("user_id").agg(pl.col("age").n_unique())["age"].max() == 1
    items = log.group_by("item_id").agg(pl.col("brand", "category").n_unique())
    assert items["brand"].max() == 1
    assert items["category"].max() == 1
    lists = log.filter(pl.col("tags").is_not_null()).group_by("item_id").agg(pl.col("tags").n_unique())
    assert lists["tags"].max() == 1
    assert log["tags"].list.len().drop_nulls().unique().sort().to_list() == [1, 2, 3, 4]


def test_numbers_act_by_their_shape(log: pl.DataFrame, truth: pl.DataFrame) -> None:
    both = pl.concat(
        [log.select("price", "position"), truth.select(p="price", q="position")], how="horizontal"
    )
    lost = both.filter(pl.col("price").is_null())["p"]
    assert lost.n_unique() == 1
    seen = both.filter(pl.col("price").is_not_null())
    bump = np.exp(-2 * (np.log(seen["price"].to_numpy()) - 2.0) ** 2)
    assert abs(np.corrcoef(bump, seen["p"])[0, 1] - 1) < 1e-3
    plain = both.filter(pl.col("q") != 0)
    assert abs(np.corrcoef(plain["position"].abs(), plain["q"])[0, 1] - 1) < 1e-3
    wild = both.filter(pl.col("q") == 0)
    assert abs(len(wild) / ROWS - 0.01) < 0.003
    assert wild["position"].abs().median() > 100  # type: ignore[operator]


def test_days_are_in_order_and_even(log: pl.DataFrame) -> None:
    assert log["day"].is_sorted()
    assert log["day"].value_counts()["count"].to_list() == [ROWS // 10] * 10
    assert str(log["day"][0]) == "2026-01-01"


def test_the_level_and_some_effects_and_shares_drift(log: pl.DataFrame, truth: pl.DataFrame) -> None:
    days = pl.concat(
        [log.select("day", "site", "campaign"), truth.select(level="day", moved="site@day")],
        how="horizontal",
    )
    assert days.group_by("day").agg(pl.col("level").n_unique())["level"].max() == 1
    assert days["level"].n_unique() == 10
    moved = days.group_by("site", "day").agg(pl.col("moved").n_unique(), value=pl.col("moved").first())
    assert moved["moved"].max() == 1
    assert moved.group_by("site").agg(pl.col("value").std())["value"].mean() > 0.05  # type: ignore[operator]
    top = log["campaign"].value_counts(sort=True)["campaign"][0]
    share = days.group_by("day", maintain_order=True).agg((pl.col("campaign") == top).mean())["campaign"]
    assert share[9] < 0.7 * share[0]


def test_some_items_first_appear_late(log: pl.DataFrame) -> None:
    draws = Draws(load_synth_settings(SETTINGS))
    items = np.arange(400)
    born = draws.born(items)
    assert abs((born > 0).mean() - 0.3) < 0.1
    first = log.with_row_index("row").group_by("item_id").agg(pl.col("row").min())
    rank = draws.scrambles["item_id"].invert(first["item_id"].to_numpy())
    day = first["row"].to_numpy() * (10 / ROWS)
    assert (day >= born[rank]).all()
    train = log.filter(pl.col("day") < pl.date(2026, 1, 9))
    test = log.filter(pl.col("day") >= pl.date(2026, 1, 9))
    new = test["item_id"].is_in(train["item_id"].unique().to_list()).not_().mean()
    assert isinstance(new, float)
    assert 0.01 < new < 0.2
    shown = log.select("history").with_row_index("row").explode("history").drop_nulls()
    rank = draws.scrambles["item_id"].invert(shown["history"].to_numpy())
    assert (shown["row"].to_numpy() * (10 / ROWS) >= born[rank]).all()


def test_history_shows_the_interests_and_moves_on(log: pl.DataFrame) -> None:
    draws = Draws(load_synth_settings(SETTINGS))
    row = log.with_row_index("row").filter(pl.col("history").list.len() > 0)
    each = row.select("row", "user_id", "history").explode("history")
    clusters = draws.cluster(draws.scrambles["item_id"].invert(each["history"].to_numpy()))
    interests = draws.interests(draws.scrambles["user_id"].invert(each["user_id"].to_numpy()))
    inside = (interests == clusters[:, None]).any(axis=1).mean()
    assert 0.87 < inside < 0.97  # a tenth strays, some of it back into an interest
    assert sorted(np.unique((interests >= 0).sum(axis=1))) == [1, 2, 3]
    assert log["history"].list.len().max() == 12
    assert log["history"].list.len().min() == 0
    # the newest items of an earlier row open the window of a later one
    user = log["user_id"].value_counts(sort=True)["user_id"][0]
    lists = log.filter(pl.col("user_id") == user)["history"].to_list()
    for earlier, later in itertools.pairwise(lists):
        assert any(earlier[skip:] == later[: len(earlier) - skip] for skip in range(len(earlier) + 1))
    assert lists[0] != lists[-1]


def test_only_the_history_near_the_candidate_matters(log: pl.DataFrame, truth: pl.DataFrame) -> None:
    draws = Draws(load_synth_settings(SETTINGS))
    scramble = draws.scrambles["item_id"]
    frame = log.select("item_id", "history").with_columns(added=truth["interest"])[:3000]
    for item, history, added in frame.iter_rows():
        cluster = draws.cluster(scramble.invert(np.array([item])))[0]
        near = (draws.cluster(scramble.invert(np.array(history, dtype=np.int64))) == cluster).sum()
        assert added == pytest.approx(2.0 * (1 - np.exp(-near / 2.0)), abs=1e-5)


def test_category_tells_the_cluster(log: pl.DataFrame) -> None:
    draws = Draws(load_synth_settings(SETTINGS))
    cluster = draws.cluster(draws.scrambles["item_id"].invert(log["item_id"].to_numpy()))
    each = log.select("category").with_columns(cluster=pl.Series(cluster)).unique()
    assert len(each) == each["category"].n_unique() == 16
    named = dict(log.select("item_id", "category").unique().iter_rows())
    for items, categories in log.select("history", "history_category")[:500].iter_rows():
        assert [named.get(item, category) for item, category in zip(items, categories, strict=True)] == (
            categories
        )


@pytest.mark.parametrize("name", ["demo", "small", "large"])
def test_shipped_settings(name: str, tmp_path: Path) -> None:
    settings = load_synth_settings(DATA / f"synth_{name}.yaml")
    folder = synth(settings, tmp_path / name, rows=20_000)
    rate = load_synth_record(folder).clicks / 20_000
    assert 0.05 < rate < 0.25
    assert abs(rate - settings.ctr) < 0.02


def changed(**values: Any) -> dict[str, Any]:
    return {**SETTINGS, **values}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (changed(itms={}), "itms: unknown key; did you mean 'items'"),
        (
            changed(columns={"site": {"values": 5, "efect": 1.0}}),
            "columns.site.efect.*did you mean 'effect'",
        ),
        (
            changed(pairs=[{"columns": ["a", "b"], "strenght": 1.0}]),
            "pairs.0.strenght.*did you mean 'strength'",
        ),
        (changed(pairs=[{"columns": ["a", "b"], "values": 5, "strength": 1.0}]), "values must be even"),
        (changed(copies={"x": {"of": "sit"}}), "did you mean 'site'"),
        (changed(interactions=[{"columns": ["site", "agee"], "strength": 1.0}]), "did you mean 'age'"),
        (changed(copies={"noise": {"of": "site"}}), "used twice: noise"),
        (changed(ctr=1.5), "ctr"),
        (changed(users={"values": 10, "interests": [3, 2]}), "interests"),
    ],
)
def test_wrong_settings_are_named(settings: dict[str, Any], expected: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"(?s)synth settings.*{expected}"):
        synth(settings, tmp_path / "log")
    assert list(tmp_path.iterdir()) == []


def test_missing_and_broken_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: no such file"):
        load_synth_settings(tmp_path / "nowhere.yaml")
    broken = tmp_path / "broken.yaml"
    broken.write_text("rows: [1,")
    with pytest.raises(ConfigError, match=r"broken\.yaml: not valid YAML"):
        load_synth_settings(broken)
    broken.write_text("- 1")
    with pytest.raises(ConfigError, match="expected a mapping"):
        load_synth_settings(broken)
    with pytest.raises(DataError, match="not a synthetic log"):
        load_synth_record(tmp_path)


def test_a_foreign_folder_is_not_replaced_and_an_earlier_log_is(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigError, match="something else"):
        synth(SETTINGS, tmp_path, rows=10)
    assert (tmp_path / "thesis.txt").exists()
    synth(SETTINGS, tmp_path / "log", rows=10)
    synth(SETTINGS, tmp_path / "log", rows=20)
    assert load_synth_record(tmp_path / "log").rows == 20


def test_settings_survive_the_record(folder: Path) -> None:
    assert load_synth_record(folder).settings == SynthSettings.model_validate(SETTINGS)
