"""Stage records: what makes a folder stale, and folders that are never half-written."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import polars as pl
import pytest

from recsys.config import PlanSettings
from recsys.errors import DataError
from recsys.stage import (
    STAGE_FILE,
    Fingerprint,
    StageRecord,
    content,
    fingerprint,
    handed_on,
    is_edited,
    load_record,
    outputs_of,
    settings_of,
    why_redo,
    written_aside,
)


def record(**changes: object) -> StageRecord:
    values: dict[str, object] = {
        "stage": "prepare",
        "version": 1,
        "inputs": {"/log/a.parquet": Fingerprint(size=1, mtime_ns=2, tail="x")},
        "settings": {"min_count": 1},
    }
    return StageRecord.model_validate(values | changes)


def test_the_same_record_is_up_to_date(tmp_path: Path) -> None:
    record(seconds=3.0, rows=10).save(tmp_path)
    assert why_redo(tmp_path, record()) is None


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"version": 2}, "stale: stage version 1 → 2"),
        ({"settings": {"min_count": 2}}, "stale: setting min_count: 1 → 2"),
        ({"settings": {"min_count": 1, "keep": 3}}, "stale: setting keep: None → 3"),
        ({"inputs": {}}, "stale: input /log/a.parquet is gone"),
        (
            {"inputs": {"/log/a.parquet": Fingerprint(size=1, mtime_ns=3, tail="x")}},
            "stale: input /log/a.parquet changed",
        ),
        (
            {
                "inputs": {
                    "/log/a.parquet": Fingerprint(size=1, mtime_ns=2, tail="x"),
                    "/log/b.parquet": Fingerprint(size=1, mtime_ns=2, tail="x"),
                }
            },
            "stale: new input /log/b.parquet",
        ),
    ],
)
def test_what_changed_is_named(tmp_path: Path, changes: dict[str, object], reason: str) -> None:
    record().save(tmp_path)
    assert why_redo(tmp_path, record(**changes)) == reason


def test_a_folder_without_a_readable_record_is_not_made(tmp_path: Path) -> None:
    assert why_redo(tmp_path / "absent", record()) == "not made yet"
    (tmp_path / STAGE_FILE).write_text("{")
    assert why_redo(tmp_path, record()) == "not made yet"


def test_outputs_that_are_gone_or_changed_make_a_stage_stale(tmp_path: Path) -> None:
    folder = tmp_path / "plan"
    folder.mkdir()
    (folder / "plan.json").write_text("{}")
    record(outputs=outputs_of(folder, ["*.json"])).save(folder)
    assert why_redo(folder, record()) is None
    (folder / "plan.json").write_text("[]")
    assert why_redo(folder, record()) == "stale: plan/plan.json was changed since"
    (folder / "plan.json").unlink()
    assert why_redo(folder, record()) == "stale: plan/plan.json is gone"


def test_a_rewrite_of_the_same_content_is_no_edit(tmp_path: Path) -> None:
    file = tmp_path / "schema.yaml"
    file.write_text("columns: {}")
    record(outputs=outputs_of(tmp_path, ["schema.yaml"])).save(tmp_path)
    before = handed_on(tmp_path, ["schema.yaml"])
    os.utime(file, ns=(1, 1))
    assert not is_edited(tmp_path, "schema.yaml")
    assert handed_on(tmp_path, ["schema.yaml"]) == before
    file.write_text("columns: {a: 1}")
    assert is_edited(tmp_path, "schema.yaml")
    assert handed_on(tmp_path, ["schema.yaml"]) != before


def test_content_trusts_the_recorded_hash_only_for_the_same_size_and_time(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"one")
    found = content(file)
    lie = found.model_copy(update={"tail": "recorded"})
    assert content(file, lie).tail == "recorded"
    file.write_bytes(b"two")
    os.utime(file, ns=(5, 5))
    assert content(file, lie).tail not in ("recorded", found.tail)


def test_nothing_handed_on_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no plan\.json"):
        handed_on(tmp_path, ["plan.json"])


def test_fingerprint_sees_size_time_and_tail(tmp_path: Path) -> None:
    file = tmp_path / "log.parquet"
    file.write_bytes(b"a" * 100)
    first = fingerprint(file)
    os.utime(file, ns=(first.mtime_ns, first.mtime_ns + 1))
    assert fingerprint(file) != first
    file.write_bytes(b"b" * 100)
    os.utime(file, ns=(first.mtime_ns, first.mtime_ns))
    assert fingerprint(file) != first
    with pytest.raises(DataError, match="absent"):
        fingerprint(tmp_path / "absent")


def test_settings_survive_the_file(tmp_path: Path) -> None:
    settings = settings_of(
        {"plan": PlanSettings(bytes="8MB"), "by": ("a", "b"), "root": Path("x"), "none": {}}
    )
    assert settings["plan.bytes"] == "8MB"
    record(settings=settings).save(tmp_path)
    again = load_record(tmp_path)
    assert again is not None
    assert again.settings == settings == json.loads(json.dumps(settings))


def test_written_aside_replaces_the_folder_as_a_whole(tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.mkdir()
    (target / "old").write_text("old")
    with written_aside(target) as folder:
        (folder / "new").write_text("new")
        assert (target / "old").exists()
    assert [path.name for path in target.iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_failure_leaves_nothing_half_written(tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.mkdir()
    (target / "old").write_text("old")

    def fail() -> None:
        with written_aside(target) as folder:
            (folder / "new").write_text("half")
            raise ValueError

    with pytest.raises(ValueError):
        fail()
    assert [path.name for path in target.iterdir()] == ["old"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        pl.exceptions.ComputeError("could not write: No space left on device (os error 28)"),
    ],
    ids=["operating system", "polars"],
)
def test_a_full_disk_names_the_target(tmp_path: Path, error: Exception) -> None:
    def fail() -> None:
        with written_aside(tmp_path / "out"):
            raise error

    with pytest.raises(DataError, match=r"out: cannot be written: No space left on device"):
        fail()
    assert list(tmp_path.iterdir()) == []
