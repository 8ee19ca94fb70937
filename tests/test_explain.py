"""``recsys explain``: what it writes is what the model computes, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from typer.testing import CliRunner

from recsys import RatioSplit, TrainSettings, explain, infer, prepare
from recsys.cli import app
from recsys.data.batches import Batches
from recsys.errors import ConfigError
from recsys.explanation import Explanation
from recsys.models.autoint import AutoInt
from recsys.models.din import DIN
from recsys.training.loaded import opened_run
from recsys.training.raw_scores import encoded_aside
from recsys.training.run_folder import Run
from recsys.training.train import train

AUTOINT = {"name": "autoint_plus", "layers": 2, "heads": 2, "head_dim": 4, "hidden": [8]}
DIN_MODEL = {"name": "din", "attention_hidden": [4], "hidden": [8]}


def log(rows: int = 600) -> pl.DataFrame:
    draw = np.random.default_rng(1)
    items = [draw.integers(0, 30, length).tolist() for length in draw.integers(0, 7, rows)]
    return pl.DataFrame(
        {
            "clicked": draw.integers(0, 2, rows),
            "user": draw.integers(0, 20, rows),
            "item": draw.integers(0, 30, rows),
            "price": draw.normal(size=rows),
            "history": items,
        },
        schema_overrides={"history": pl.List(pl.Int64)},
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of three models on one log."""
    folder = tmp_path_factory.mktemp("explain")
    schema = infer(log(), label="clicked").to_dict()
    schema["columns"]["history"]["vocabulary"] = "item"
    schema["columns"]["history"]["kind"] = "sequence"
    schema["columns"]["history"]["max_length"] = 5
    from recsys.schema import Schema

    dataset = prepare(
        log(),
        Schema.from_dict(schema),
        folder / "dataset",
        split=RatioSplit(by="ratio", key="user", valid=0.2, test=0.2),
    )
    settings = TrainSettings(epochs=1, batch_size=64)
    for name, model in {"autoint": AUTOINT, "din": DIN_MODEL, "dnn": {"name": "dnn"}}.items():
        train(dataset, folder / name / "run", model=model, settings=settings)
    log().drop("clicked").write_parquet(folder / "log.parquet")
    return folder


@torch.no_grad()
def maps_at_once(run: Path) -> np.ndarray:
    opened = Run.load(run)
    with opened_run(opened) as (dataset, _, model, tables), encoded_aside(dataset, log()) as encoded:
        assert isinstance(model, AutoInt)
        (batch,) = Batches(encoded, "test", 600, shuffle=False).epoch()
        return model.attention_maps(tables(batch)).numpy()


def test_autoints_maps_per_row_and_averaged(folder: Path) -> None:
    found = explain(folder / "autoint" / "run", log(), rows=500)
    expected = maps_at_once(folder / "autoint" / "run")[:500]
    assert found.rows == 500
    assert found.fields == ("user", "item", "price", "history")
    samples = pl.read_parquet(found.folder / "samples.parquet")
    assert samples.columns == ["row", "layer", "head", "attention"]
    assert samples["row"].to_list() == [row for row in range(500) for _ in range(4)]
    assert samples["layer"].to_list()[:4] == [1, 1, 2, 2]
    assert samples["head"].to_list()[:4] == [1, 2, 1, 2]
    maps = samples["attention"].to_numpy().reshape(500, 2, 2, 4, 4)
    np.testing.assert_allclose(maps, expected, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(maps.sum(-1), 1, rtol=1e-5)
    average = pl.read_parquet(found.folder / "average.parquet")
    assert average.equals(found.average)
    np.testing.assert_allclose(found.maps(), expected.mean(0, dtype=np.float64), rtol=1e-5)
    looked = average.row(by_predicate=(pl.col("layer") == 2) & (pl.col("head") == 1)
                         & (pl.col("from") == "item") & (pl.col("to") == "price"), named=True)  # fmt: skip
    assert looked["weight"] == pytest.approx(expected[:, 1, 0, 1, 2].mean(), rel=1e-5)
    facts = json.loads((found.folder / "explain.json").read_text())
    assert facts["fields"] == list(found.fields)


def test_the_page_names_every_field_and_loads_nothing(folder: Path) -> None:
    found = explain(folder / "autoint", folder / "log.parquet", folder / "maps", rows=50)
    assert found.folder == folder / "maps"
    text = (folder / "maps" / "report.html").read_text()
    for name in (*found.fields, "Layer 2", "Head 2", "Pairs of fields"):
        assert name in text
    assert text.count("<svg") == 5
    for outside in ("http://", "https://", "src="):
        assert outside not in text
    weight = found.maps().mean((0, 1))[1, 2]
    assert f"item → price: {100 * weight:.1f} %" in text


def test_dins_weights_per_event_and_by_position(folder: Path) -> None:
    found = explain(folder / "din" / "run", log(), rows=300)
    assert found.fields == ()
    samples = pl.read_parquet(found.folder / "samples.parquet")
    assert samples["history"].unique().to_list() == ["history"]
    assert samples["row"].to_list() == list(range(300))
    lengths = log()["history"].list.len().clip(upper_bound=5).head(300)
    assert samples["weights"].list.len().to_list() == lengths.to_list()
    with (
        opened_run(Run.load(folder / "din" / "run")) as (dataset, _, model, tables),
        encoded_aside(dataset, log(), 300) as encoded,
        torch.no_grad(),
    ):
        assert isinstance(model, DIN)
        (batch,) = Batches(encoded, "test", 300, shuffle=False).epoch()
        (weights,) = model.event_weights(tables(batch))
    for row, mine in enumerate(samples["weights"].to_list()):
        np.testing.assert_allclose(mine, weights[row, : len(mine)].numpy(), rtol=1e-4, atol=1e-6)
    newest = [mine[-1] for mine in samples["weights"].to_list() if mine]
    first = found.average.row(0, named=True)
    assert (first["position"], first["events"]) == (1, len(newest))
    assert first["weight"] == pytest.approx(np.mean(newest), rel=1e-5)
    assert first["deviation"] == pytest.approx(np.std(newest), rel=1e-4)
    assert "Weight by position" in (found.folder / "report.html").read_text()
    with pytest.raises(ConfigError, match="weighs events"):
        found.maps()


def test_the_command(folder: Path) -> None:
    arguments = ["explain", str(folder / "autoint"), str(folder / "log.parquet"), "--rows", "20"]
    shown = CliRunner().invoke(app, arguments)
    assert shown.exit_code == 0, shown.output
    assert "times an even share" in shown.stdout
    assert "20 rows looked at" in shown.stdout
    assert (folder / "autoint" / "run" / "explain" / "report.html").exists()
    shown = CliRunner().invoke(app, ["explain", str(folder / "din"), str(folder / "log.parquet")])
    assert "600 rows looked at" in shown.stdout


def test_what_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'dnn' computes no attention"):
        explain(folder / "dnn", log())
    assert not (folder / "dnn" / "run" / "explain").exists()
    with pytest.raises(ConfigError, match=r"not a run folder"):
        explain(tmp_path, log())
    with pytest.raises(ConfigError, match="rows: expected at least 1"):
        explain(folder / "din", log(), rows=0)


def test_heads_that_a_layer_has_lost_are_not_averaged(tmp_path: Path) -> None:
    """Two layers of two heads, the first of which has lost one: three maps are averaged, not four."""
    places = [(layer, head) for layer in (1, 2) for head in (1, 2)]
    weights = [0.25, 0.75, 1.0, 0.0], [0.0] * 4, [0.5] * 4, [0.75, 0.25, 0.0, 1.0]
    lines = [
        {"layer": layer, "head": head, "from": looking, "to": seen, "weight": weight}
        for (layer, head), each in zip(places, weights, strict=True)
        for (looking, seen), weight in zip([(a, b) for a in "xy" for b in "xy"], each, strict=True)
    ]
    found = Explanation(tmp_path, "autoint", 3, ("x", "y"), pl.DataFrame(lines))
    np.testing.assert_allclose(found.mean_map(), np.full((2, 2), 0.5))
