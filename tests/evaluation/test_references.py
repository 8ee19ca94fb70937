"""The references of a synthetic log: known ≥ attainable ≥ what a model reaches; counts by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest
from sklearn.feature_extraction import FeatureHasher
from sklearn.linear_model import LogisticRegression

from recsys.config import RatioSplit, TimeSplit
from recsys.data.synth import LOG, TRUTH, load_synth_record, synth
from recsys.errors import DataError
from recsys.evaluation.metrics import auc, logloss
from recsys.evaluation.references import References, references, synthetic_folder

SPLIT = TimeSplit(by="time", column="day", valid_from="2026-01-08", test_from="2026-01-09")
SETTINGS: dict[str, Any] = {
    "rows": 60_000,
    "seed": 5,
    "days": 10,
    "ctr": 0.25,
    "day_effect": 0.2,
    "users": {"values": 30_000, "zipf": 1.0, "effect": 0.5},
    "items": {"values": 300, "effect": 0.3, "clusters": 6, "categories": 12, "late": 0.2},
    "history": {"max_length": 10, "strength": 2.0},
    "columns": {
        "site": {"values": 30, "effect": 0.4, "missing": 0.1, "drift": 0.2},
        "age": {"values": 6, "effect": 0.3},
        "campaign": {"values": 3000, "effect": 0.5, "type": "int64"},
    },
    "pairs": [{"columns": ["left", "right"], "values": 6, "strength": 1.0}],
    "interactions": [{"columns": ["campaign", "age"], "strength": 0.5, "rank": 2}],
    "numerics": {"price": {"shape": "bump", "effect": 0.8, "missing": 0.2}},
    "tags": {"tags": {"values": 400, "effect": 1.0, "missing": 0.1, "of": "row"}},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synth(SETTINGS, tmp_path_factory.mktemp("references") / "log", chunk_rows=10_000)


@pytest.fixture(scope="module")
def found(folder: Path) -> References:
    return references(folder, SPLIT)


def both(folder: Path) -> pl.DataFrame:
    truth = pl.read_parquet(folder / TRUTH)
    return pl.concat(
        [pl.read_parquet(folder / LOG), truth.rename({name: f"{name}!" for name in truth.columns})],
        how="horizontal",
    )


def test_known_is_the_true_logit_on_the_test_rows(folder: Path, found: References) -> None:
    test = both(folder).filter(pl.col("day") >= pl.date(2026, 1, 9))
    assert found.rows == len(test) == 12_000
    assert found.known_auc == pytest.approx(auc(test["clicked"], test["logit!"]), abs=1e-5)
    expected = logloss(test["clicked"], test["logit!"], scores_are="logits")
    assert found.known_logloss == pytest.approx(expected, abs=1e-5)


def test_attainable_by_hand(folder: Path, found: References) -> None:
    """Counts and replacements once more, from the files alone."""
    rows = both(folder).with_row_index("row")
    train = rows.filter(pl.col("day") < pl.date(2026, 1, 8))
    test = rows.filter(pl.col("day") >= pl.date(2026, 1, 9))

    def often(*names: str) -> pl.Series:
        counts = train.group_by(names).agg(seen=pl.len())
        joined = test.join(counts, on=list(names), how="left", nulls_equal=True, maintain_order="left")
        return joined["seen"].fill_null(0) >= 20

    # one tag alone tells that tag's effect
    single = rows.filter(pl.col("tags").list.len() == 1)
    effect = single.group_by(tag=pl.col("tags").list.first()).agg(effect=pl.col("tags!").first())
    seen = train.explode("tags").drop_nulls("tags").group_by(tag="tags").agg(seen=pl.len())
    tags = (
        test.select("row", tag="tags")
        .explode("tag")
        .join(effect, on="tag", how="left", maintain_order="left")
        .join(seen, on="tag", how="left", maintain_order="left")
        .with_columns(pl.when(pl.col("seen") >= 20).then("effect").otherwise(0.0).alias("effect"))
        .group_by("row", maintain_order=True)
        .agg(pl.col("effect").mean())
    )
    replaced = {name: often(name) for name in ("user_id", "item_id", "site", "age", "campaign")}
    replaced["left*right"] = often("left", "right")
    replaced["site@day"] = often("site", "day")
    replaced["day"] = often("day")
    replaced["campaign*age"] = often("campaign") & often("age")
    components = load_synth_record(folder).components
    kept = test.select(
        pl.when(replaced[name]).then(f"{name}!").otherwise(0.0).alias(name)
        if name in replaced
        else f"{name}!"
        for name in components
        if name != "tags"
    ).with_columns(tags["effect"])
    logit = kept.select(pl.sum_horizontal(pl.all())).to_series() + load_synth_record(folder).intercept
    assert not replaced["user_id"].all()
    assert not replaced["day"].any()
    assert found.attainable_auc == pytest.approx(auc(test["clicked"], logit), abs=2e-4)
    expected = logloss(test["clicked"], logit, scores_are="logits")
    assert found.attainable_logloss == pytest.approx(expected, abs=2e-4)


def linear_auc(folder: Path) -> float:
    """Test AUC of logistic regression over every visible column, one-hot; C chosen on validation."""
    log = pl.read_parquet(folder / LOG)
    label = log["clicked"].to_numpy()
    day = log["day"].to_physical().to_numpy() - log["day"].to_physical()[0]
    bags = []
    for row in log.drop("clicked", "day").iter_rows(named=True):
        bag = {f"{name}={value}": 1.0 for name, value in row.items() if not isinstance(value, list | float)}
        bag["price"] = row["price"] or 0.0
        for name in ("history", "history_category", "tags"):
            for value in row[name] or []:
                bag[f"{name}={value}"] = bag.get(f"{name}={value}", 0.0) + 1.0 / len(row[name])
        bags.append(bag)
    features = FeatureHasher(1 << 16).transform(bags).tocsr()
    train, valid, test = day < 7, day == 7, day >= 8
    best = (0.0, 0.0)
    for strength in (0.03, 0.3):
        model = LogisticRegression(C=strength, max_iter=60, tol=1e-3).fit(features[train], label[train])
        score = model.decision_function(features)
        best = max(best, (auc(label[valid], score[valid]) or 0, auc(label[test], score[test]) or 0))
    return best[1]


def test_known_is_above_attainable_is_above_linear(folder: Path, found: References) -> None:
    assert found.known_auc is not None
    assert found.attainable_auc is not None
    assert found.known_auc > found.attainable_auc + 0.005
    assert found.known_logloss < found.attainable_logloss
    assert found.attainable_auc > linear_auc(folder) + 0.03


def test_any_split_rule_serves(folder: Path) -> None:
    split = RatioSplit(by="ratio", key="user_id", valid=0.1, test=0.2)
    found = references(folder, split)
    log = pl.read_parquet(folder / LOG)
    assert 0.1 * len(log) < found.rows < 0.3 * len(log)
    assert (found.known_auc or 0) > (found.attainable_auc or 1) > 0.6


def test_metrics_for_the_report(found: References) -> None:
    assert found.by_name() == {
        "known": {"auc": found.known_auc, "logloss": found.known_logloss},
        "attainable": {"auc": found.attainable_auc, "logloss": found.attainable_logloss},
    }


def test_a_synthetic_log_is_recognised(folder: Path, tmp_path: Path) -> None:
    assert synthetic_folder([folder / LOG]) == folder
    assert synthetic_folder([folder / TRUTH]) is None
    assert synthetic_folder([]) is None
    assert synthetic_folder([tmp_path / LOG]) is None


def test_a_log_that_is_not_what_its_settings_make_is_refused(tmp_path: Path) -> None:
    folder = synth(SETTINGS, tmp_path / "log", rows=5000)
    other = synth(SETTINGS, tmp_path / "other", rows=5000, seed=6)
    (other / TRUTH).replace(folder / TRUTH)
    with pytest.raises(DataError, match="write the log anew"):
        references(folder, SPLIT)
    shorter = synth(SETTINGS, tmp_path / "shorter", rows=4000)
    (shorter / LOG).replace(folder / LOG)
    with pytest.raises(DataError, match=r"4000 rows.*5000"):
        references(folder, SPLIT)
    with pytest.raises(DataError, match="not a synthetic log"):
        references(tmp_path, SPLIT)
