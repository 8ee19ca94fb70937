"""Exact AUC and GAUC on 10 million float32 scores, beside one ``np.argsort`` of the same scores.

An AUC that sorts row numbers cannot be faster than that argsort; ours sorts the scores themselves.
Groups are a million users of about ten rows each, the unkindest to caches, as int64 and as strings.
The ratios are medians over rounds, both sides measured in the same round. A full run also checks the
AUC against scikit-learn's and takes its time.
"""

from __future__ import annotations

import math

import numpy as np
import polars as pl
from harness import Spread, finish, interleaved, parser, seconds

from recsys.evaluation import auc, gauc

NAME = "evaluation"
ROWS = 10_000_000
USERS = 1_000_000
FULL_ROUNDS, QUICK_ROUNDS = 11, 3


def made_log(rows: int) -> pl.DataFrame:
    """Calibrated scores with a click rate near 0.24, and users as numbers and as strings."""
    generator = np.random.default_rng(2024)
    score = (1 / (1 + np.exp(-generator.normal(-1.5, 1.3, rows)))).astype(np.float32)
    user = generator.integers(0, USERS, rows) * 1_000_003
    return pl.DataFrame(
        {
            "label": (generator.random(rows) < score).astype(np.float32),
            "score": score,
            "user": user,
            "user_name": pl.Series(user).cast(pl.String).str.pad_start(13, "u"),
        }
    )


def main() -> None:
    options = parser(NAME, __doc__ or "").parse_args()
    log = made_log(ROWS)
    label, score = log["label"].to_numpy(), log["score"].to_numpy()
    user, user_name = log["user"].to_numpy(), log["user_name"]
    measured = interleaved(
        {
            "argsort": lambda: np.argsort(score),
            "auc": lambda: auc(label, score),
            "gauc_int64": lambda: gauc(label, score, user),
            "gauc_string": lambda: gauc(label, score, user_name),
        },
        QUICK_ROUNDS if options.quick else FULL_ROUNDS,
    )
    by_round = {name: np.array(each) for name, each in measured.items()}
    base = by_round["argsort"]
    ratios = {
        "auc_over_argsort": by_round["auc"] / base,
        "auc_gauc_int64_over_argsort": (by_round["auc"] + by_round["gauc_int64"]) / base,
        "auc_gauc_string_over_argsort": (by_round["auc"] + by_round["gauc_string"]) / base,
    }
    spread = {name: Spread.of(list(each)) for name, each in ratios.items()}
    spread |= {f"{name}_seconds": Spread.of(each) for name, each in measured.items()}
    figures: dict[str, float | int | str | None] = {name: each.median for name, each in spread.items()}
    figures["auc_gauc_over_argsort"] = max(
        spread["auc_gauc_int64_over_argsort"].median, spread["auc_gauc_string_over_argsort"].median
    )
    figures["rows"] = ROWS
    if not options.quick:
        from sklearn.metrics import roc_auc_score

        peer: list[float] = []
        figures["scikit_learn_auc_seconds"] = seconds(lambda: peer.append(roc_auc_score(label, score)))
        ours = auc(label, score)
        if ours is None or not math.isclose(ours, peer[0], abs_tol=1e-9):
            raise SystemExit(f"AUC {ours} differs from scikit-learn's {peer[0]}")
    finish(NAME, figures, quick=options.quick, spread=spread)


if __name__ == "__main__":
    main()
