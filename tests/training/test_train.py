"""Training: it learns, resumes to the bit, restores the best, and refuses what does not fit."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from recsys.config import DenseOptimizer, Plateau, TableOptimizer, TrainSettings
from recsys.data.dataset import Dataset
from recsys.embeddings.plan import UpdatePath
from recsys.errors import CheckpointError, ConfigError, Interrupted, TrainingError
from recsys.evaluation.metrics import auc
from recsys.training.checkpoint import Checkpoints
from recsys.training.loaded import load_trained, score_dataset
from recsys.training.run_folder import Run
from recsys.training.scoring import labels_of
from recsys.training.train import train
from tests.training.made import made_dataset, made_plan
from tests.training.saved import saved_bytes, saved_tensors

AUTOINT_PLUS = {"name": "autoint_plus", "layers": 1, "hidden": [16], "batch_norm": True, "dropout": 0.2}
DIN = {"name": "din", "attention_hidden": [8], "hidden": [16], "activation": "dice", "dropout": 0.1}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return made_dataset(tmp_path_factory.mktemp("made") / "dataset", rows=2_000)


def _settings(**changes: object) -> TrainSettings:
    values: dict[str, object] = {
        "epochs": 2,
        "batch_size": 128,
        "log_every": 1,
        "seed": 7,
        "tables": TableOptimizer(lr=0.01, fused_lr=0.1),
        "dense": DenseOptimizer(lr=0.005),
    }
    return TrainSettings.model_validate(values | changes)


@pytest.mark.parametrize("path", ["dense", "fused"])
@pytest.mark.parametrize("model", [AUTOINT_PLUS, DIN], ids=["autoint_plus", "din"])
def test_it_learns_on_both_update_paths(
    dataset: Dataset, tmp_path: Path, path: UpdatePath, model: dict[str, object]
) -> None:
    run = train(
        dataset, tmp_path / "run", model=model, plan=made_plan(dataset, path), settings=_settings(epochs=5)
    )
    label, _ = labels_of(dataset, "test")
    reached = auc(label, score_dataset(run.folder, "test"))
    assert reached is not None
    assert reached > 0.65
    losses = run.metrics["loss"].drop_nulls().to_numpy()
    assert losses[-5:].mean() < losses[:5].mean() - 0.05


@pytest.mark.parametrize("path", ["dense", "fused"])
def test_k_steps_then_resume_equals_one_run_to_the_bit(
    dataset: Dataset, tmp_path: Path, path: UpdatePath
) -> None:
    """16 batches an epoch: step 9 is inside the first epoch, step 27 inside the second."""
    plan = made_plan(dataset, path)
    whole = train(
        dataset, tmp_path / "whole", model=AUTOINT_PLUS, plan=plan, settings=_settings(max_steps=27)
    )
    for steps in (9, 20):
        train(
            dataset, tmp_path / "parts", model=AUTOINT_PLUS, plan=plan, settings=_settings(max_steps=steps),
            resume=True,
        )  # fmt: skip
    parts = train(
        dataset,
        tmp_path / "parts",
        model=AUTOINT_PLUS,
        plan=plan,
        settings=_settings(max_steps=27),
        resume=True,
    )
    assert saved_bytes(whole.folder) == saved_bytes(parts.folder)
    losses = [run.metrics["loss"].drop_nulls().to_list() for run in (whole, parts)]
    assert losses[0] == losses[1]
    assert whole.result.best_step == parts.result.best_step


def test_the_first_step_is_the_first_one_to_adam(dataset: Dataset, tmp_path: Path) -> None:
    """Adam's moments are corrected by the number of steps: one too many makes the first updates small."""
    run = train(dataset, tmp_path / "run", model=AUTOINT_PLUS, settings=_settings(max_steps=3))
    steps = {key: float(value) for key, value in saved_tensors(run.folder).items() if key.endswith(".step")}
    assert len(steps) > 10
    assert set(steps.values()) == {3.0}


def test_the_same_seed_gives_the_same_checkpoint_and_another_does_not(
    dataset: Dataset, tmp_path: Path
) -> None:
    runs = [
        train(dataset, tmp_path / str(i), model=DIN, settings=_settings(max_steps=6, seed=seed)).folder
        for i, seed in enumerate((1, 1, 2))
    ]
    assert saved_bytes(runs[0]) == saved_bytes(runs[1])
    assert saved_bytes(runs[0]) != saved_bytes(runs[2])


def test_a_signal_saves_and_stops_and_the_run_goes_on_to_the_same_end(
    dataset: Dataset, tmp_path: Path
) -> None:
    whole = train(dataset, tmp_path / "whole", model=AUTOINT_PLUS, settings=_settings(epochs=12))
    folder = tmp_path / "stopped"

    def interrupt() -> None:
        while not (folder / "metrics.jsonl").exists() or not (folder / "metrics.jsonl").read_text():
            time.sleep(0.005)
        os.kill(os.getpid(), signal.SIGTERM)

    sender = threading.Thread(target=interrupt)
    sender.start()
    with pytest.raises(Interrupted, match=r"stopped at step \d+; saved") as stopped:
        train(dataset, folder, model=AUTOINT_PLUS, settings=_settings(epochs=12))
    sender.join()
    assert stopped.value.exit_code == 130
    with pytest.raises(CheckpointError, match="training has not finished"):
        Run.load(folder)
    resumed = train(dataset, folder, model=AUTOINT_PLUS, settings=_settings(epochs=12), resume=True)
    assert saved_bytes(resumed.folder) == saved_bytes(whole.folder)


def test_plateau_cuts_the_rate_stops_and_the_best_epoch_is_restored(
    dataset: Dataset, tmp_path: Path
) -> None:
    settings = _settings(
        epochs=40, plateau=Plateau(stop_after=3), dense=DenseOptimizer(lr=0.02), log_every=50
    )
    run = train(dataset, tmp_path / "run", model=AUTOINT_PLUS, settings=settings)
    valid = run.metrics.filter(run.metrics["valid/auc"].is_not_null())
    assert "has not risen for 3 evaluations" in run.result.finished
    best = valid["valid/auc"].max()
    assert run.result.best_value == best
    assert run.result.best_step == valid.filter(valid["valid/auc"] == best)["step"][0]
    assert run.metrics["lr_scale"].min() == pytest.approx(0.01)
    label, _ = labels_of(dataset, "valid")
    assert auc(label, score_dataset(run.folder, "valid")) == pytest.approx(best, abs=1e-7)


def test_patience_that_no_cut_would_follow_is_refused() -> None:
    with pytest.raises(ValueError, match="first cut comes after 2 evaluations, and training ends after 2"):
        Plateau(stop_after=2, patience=1)
    Plateau(stop_after=3, patience=1)
    Plateau(stop_after=2, patience=9, factor=1)  # nothing is cut anyway


def test_a_run_is_not_written_over_by_accident(dataset: Dataset, tmp_path: Path) -> None:
    train(dataset, tmp_path / "run", model=DIN, settings=_settings(max_steps=2))
    with pytest.raises(CheckpointError, match="holds a run already"):
        train(dataset, tmp_path / "run", model=DIN, settings=_settings(max_steps=2))
    with pytest.raises(CheckpointError, match=r"other settings.*train\.seed: 7 → 8"):
        train(dataset, tmp_path / "run", model=DIN, settings=_settings(max_steps=4, seed=8), resume=True)
    other = made_plan(dataset, "dense", dim=4)
    with pytest.raises(CheckpointError, match="was made with plan"):
        train(
            dataset, tmp_path / "run", model=DIN, plan=other, settings=_settings(max_steps=4), resume=True
        )
    again = train(dataset, tmp_path / "run", model=DIN, settings=_settings(max_steps=3), overwrite=True)
    assert again.result.steps == 3


def test_a_damaged_checkpoint_is_named(dataset: Dataset, tmp_path: Path) -> None:
    run = train(dataset, tmp_path / "run", model=DIN, settings=_settings(max_steps=2))
    newest = Checkpoints(run.folder / "checkpoints").named("latest")
    assert newest is not None
    for file in newest.glob("*.distcp"):
        file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        train(dataset, run.folder, model=DIN, settings=_settings(max_steps=9), resume=True)
    (newest / ".metadata").unlink()
    with pytest.raises(CheckpointError, match="metadata cannot be read"):
        load_trained(run.folder)


def test_optimiser_moments_missing_from_a_checkpoint_are_an_error(dataset: Dataset, tmp_path: Path) -> None:
    """A checkpoint of SGD has no moments: resuming it with Adam must not silently start them at zero."""
    sgd = _settings(max_steps=2, dense=DenseOptimizer(name="sgd"))
    run = train(dataset, tmp_path / "run", model=DIN, settings=sgd)
    newest = Checkpoints(run.folder / "checkpoints").named("latest")
    assert newest is not None
    state = newest / "state.json"
    state.write_text(state.read_text().replace('\\"sgd\\"', '\\"adam\\"'))
    adam = _settings(max_steps=4, dense=DenseOptimizer(name="adam"))
    with pytest.raises(CheckpointError, match=r"keys differ; missing from it: .*exp_avg"):
        train(dataset, run.folder, model=DIN, settings=adam, resume=True)


def test_a_loss_that_is_not_finite_stops_the_run(dataset: Dataset, tmp_path: Path) -> None:
    settings = _settings(dense=DenseOptimizer(name="sgd", lr=1e30), clip_norm=None, epochs=3)
    with pytest.raises(TrainingError, match="the loss is"):
        train(dataset, tmp_path / "run", model=DIN, settings=settings)


def test_unknown_models_and_options_are_refused_with_the_nearest_name(
    dataset: Dataset, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="did you mean 'autoint'"):
        train(dataset, tmp_path / "run", model="autont")
    with pytest.raises(ConfigError, match="did you mean 'layers'"):
        train(dataset, tmp_path / "run", model={"name": "autoint", "layer": 2})
    assert not (tmp_path / "run").exists()


def test_a_full_disk_leaves_the_checkpoints_before_it(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = train(dataset, tmp_path / "run", model=DIN, settings=_settings(max_steps=2))
    before = saved_bytes(run.folder)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("torch.distributed.checkpoint.state_dict_saver.save", full)
    with pytest.raises(CheckpointError, match=r"No space left on device.*stand"):
        train(dataset, run.folder, model=DIN, settings=_settings(max_steps=5), resume=True)
    assert saved_bytes(run.folder) == before
    assert not list((run.folder / "checkpoints").glob(".*partial"))


def test_scores_do_not_depend_on_the_batch_size(dataset: Dataset, tmp_path: Path) -> None:
    scores = []
    for size in (128, 32):
        folder = tmp_path / str(size)
        run = train(dataset, folder, model=DIN, settings=_settings(max_steps=2, batch_size=128))
        file = run.file.model_copy(update={"train": run.file.train.model_copy(update={"batch_size": size})})
        file.save(folder)
        scores.append(score_dataset(folder, "test"))
    np.testing.assert_allclose(scores[0], scores[1], atol=1e-6)
