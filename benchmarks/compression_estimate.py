"""How well ``recsys.embeddings.estimate`` foretells what the kept cells of the ladder measured.

For each cell of MovieLens-1M's ladder that is there: the validation AUC that it lost beside the full
tables, and what its plan was expected to lose; then the constants that fit best. Test rows are not looked
at.

    python benchmarks/compression_estimate.py [--kept DIR]
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from cells import CELLS
from harness import parser

from recsys.data.dataset import Dataset
from recsys.embeddings import estimate as model
from recsys.embeddings.plan import Plan

LADDER = "ml1m_ctr-without-position"
WIDTH = 16
"""Of the ladder; vectors that are narrower everywhere are no matter of the estimate."""
BENDS = (0.5, 0.6, 0.7, 0.8, 1.0, 1.3)


def main() -> None:
    arguments = parser("compression_estimate", str(__doc__))
    arguments.add_argument(
        "--kept", type=Path, default=CELLS.parent, help="where cells and datasets are kept"
    )
    folder = arguments.parse_args().kept
    dataset = Dataset.load(folder / "datasets" / LADDER)
    values = model.values_of(dataset)
    cells = [
        json.loads(path.read_text()) for path in sorted((folder / "cells" / "compression").glob("*.json"))
    ]
    cells = [cell for cell in cells if cell["settings"]["data"] == LADDER]
    plans = [Plan.model_validate(cell["settings"]["plan"]) for cell in cells]
    aucs = np.array([cell["figures"]["valid_auc"] for cell in cells])
    modes = [plan.vocabularies["user_id"].mode for plan in plans]
    full = np.mean([auc for auc, mode in zip(aucs, modes, strict=True) if mode == "full"])
    found = [model.estimate(plan, values) for plan in plans]
    for plan, auc, one in sorted(zip(plans, aucs, found, strict=True), key=lambda line: -line[1]):
        info = plan.vocabularies["user_id"]
        rows, width = plan.tables[info.table].rows, plan.width_of("user_id")
        what = f"{info.mode} of {info.lookups}, {rows:,} rows, width {width}"
        loss = one.loss - one.precision
        print(
            f"{what}: alike {one.alike:.4f}, crowded {one.crowded:.4f}: expected {loss:.4f}, "
            f"measured {full - auc:.4f}"
        )
    narrow = [plan.width_of("genres") < WIDTH for plan in plans]
    used = np.array([mode != "quotient" and not thin for mode, thin in zip(modes, narrow, strict=True)])
    lost = (full - aucs)[used]
    parts = np.array([[one.alike, one.crowded] for one in found])[used]
    fitted = []
    for bend in BENDS:
        constants = np.linalg.lstsq(parts**bend, lost, rcond=None)[0]
        error = float(np.sqrt(np.mean((parts**bend @ constants - lost) ** 2)))
        fitted.append({"alike": constants[0], "crowded": constants[1], "bend": bend, "error": error})
        print(f"bend {bend}: {constants.round(4).tolist()}, root mean square error {error:.5f}")
    print(json.dumps(min(fitted, key=lambda each: each["error"])))


if __name__ == "__main__":
    main()
