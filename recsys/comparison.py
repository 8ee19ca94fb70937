"""``compare``: two runs, or two tables of scores, measured on the same rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import polars as pl

from recsys.data.check import reading, require_column
from recsys.data.source import Data, Source, open_source
from recsys.errors import ConfigError, DataError, SchemaError, did_you_mean
from recsys.evaluation.compare import RESAMPLES, Both, Comparison, compare_scores
from recsys.evaluation.metrics import ScoresAre
from recsys.evaluation.values import Origin, as_groups, as_labels, as_scores
from recsys.place import run_folder_of
from recsys.stage import StageRecord, load_record

if TYPE_CHECKING:
    from recsys.data.dataset import Dataset
    from recsys.training.run_folder import Run

_LABEL, _GROUP, _ROW, _OTHER = "__label__", "__group__", "__row__", "__other__"
_MOST_SETTINGS = 6
_WITHOUT_EFFECT = {
    f"train.{name}" for name in ("device", "log_every", "checkpoint_every", "keep_checkpoints")
}
"""Settings that change nothing of what is learned."""


def compare(
    first: Data,
    second: Data,
    *,
    label: str | None = None,
    score: str | Sequence[str] | None = None,
    group: str | None = None,
    key: str | Sequence[str] | None = None,
    scores_are: ScoresAre = "probabilities",
    resamples: int = RESAMPLES,
    seed: int = 0,
    bootstrap_auc: bool = False,
) -> Comparison:
    """Compare two trained runs on their test rows, or two tables of labels and scores.

    Args:
        first, second: two run folders (scored with torch, each on its dataset's test part); or two
            tables: paths (Parquet, folder, glob, CSV) or polars, pandas or Arrow tables.
        label: column of 0 and 1 in both tables; default ``label``.
        score: column of scores in both tables, or one name for each; default ``score``.
        group: column of GAUC's groups; runs have that of their dataset.
        key: columns that tell the rows of both tables apart; default: rows are matched by order.
        scores_are: ``logits`` where the tables hold log-odds.
        resamples, seed: of the bootstrap behind GAUC and logloss.
        bootstrap_auc: also resample groups, or rows where there are none, for AUC.

    Returns:
        AUC, GAUC and logloss of both, with the difference second - first, its 95 % interval and p value.

    Raises:
        ConfigError: a run and a table, or columns named for runs.
        CheckpointError: a run is not finished, or damaged.
        SchemaError: a column is missing, or key columns have different types.
        DataError: the two do not have the same rows; the message names the first that differs.
    """
    if scores_are not in get_args(ScoresAre):
        raise ConfigError(f"scores_are: {scores_are!r}; {did_you_mean(scores_are, get_args(ScoresAre))}")
    folders = [run_folder_of(given) for given in (first, second)]
    settings: dict[str, Any] = {"resamples": resamples, "seed": seed, "bootstrap_auc": bootstrap_auc}
    if folders[0] is None and folders[1] is None:
        sources = open_source(first), open_source(second)
        rows = _Tables(sources, label or "label", _scores(score), group, _columns(key)).rows()
        return compare_scores(rows, names=_names(sources), scores_are=scores_are, **settings)
    named = {"label": label, "score": score, "group": group, "key": key}
    runs = _two_runs((first, second), folders, named, scores_are)
    rows, notes = _run_rows(*runs)
    return compare_scores(rows, names=(str(first), str(second)), notes=notes, **settings)


# --- runs ----------------------------------------------------------------------------------------


def _two_runs(
    given: tuple[Data, Data],
    folders: Sequence[Path | None],
    named: Mapping[str, object],
    scores_are: ScoresAre,
) -> tuple[Path, Path]:
    """The folders of two runs; raises ConfigError for a table beside a run, and for columns of tables."""
    first, second = folders
    if first is None or second is None:
        run, table = given if first is not None else given[::-1]
        raise ConfigError(
            f"{run} is a run folder and {_named(table)} is none; compare two runs, or score both with "
            "'recsys predict' and compare the tables"
        )
    for name, value in named.items():
        if value is not None:
            raise ConfigError(f"{name}: runs are compared on the columns of their dataset; leave it out")
    if scores_are == "logits":
        raise ConfigError("scores_are: runs give probabilities; leave it out")
    return first, second


def _run_rows(first: Path, second: Path) -> tuple[Both, tuple[str, ...]]:
    """Test labels, both runs' scores and the groups; raises DataError unless the rows are the same."""
    from recsys.doctor import require_training

    require_training()
    from recsys.training.loaded import score_dataset
    from recsys.training.run_folder import Run
    from recsys.training.scoring import labels_of

    runs = Run.load(first), Run.load(second)
    datasets = runs[0].dataset(), runs[1].dataset()
    for run, dataset in zip(runs, datasets, strict=True):
        if dataset.manifest.rows.get("test", 0) == 0:
            raise DataError(f"{run.folder}: its dataset {dataset.folder} has no test rows to compare on")
    notes = []
    one_dataset = datasets[0].folder.resolve() == datasets[1].folder.resolve()
    if not one_dataset:
        notes += _require_same_split(*(dataset.folder for dataset in datasets))
    (label, group), (other, other_group) = (labels_of(dataset, "test") for dataset in datasets)
    if not one_dataset:
        parts = [str(dataset.part("test")) for dataset in datasets]
        _require_same(label, other, parts, "label")
        if group is not None and other_group is not None:
            _require_same(group, other_group, parts, "group")
    group = group if group is not None else other_group
    if any(dataset.has_weight for dataset in datasets):
        notes.append("every row counts the same: the weights of the dataset are left aside")
    scores = [score_dataset(folder, "test") for folder in (first, second)]
    rows = Both(as_labels(label), scores[0], scores[1], None if group is None else as_groups(group))
    return rows, (*_settings_that_differ(*runs), *notes)


def _require_same_split(first: Path, second: Path) -> list[str]:
    """Raise DataError where two datasets were split differently; notes where that cannot be told."""
    records = load_record(first), load_record(second)
    if records[0] is None or records[1] is None:
        missing = first if records[0] is None else second
        return [
            f"{missing} has no stage.json: that the test rows are the same is told by labels and groups"
        ]
    mine, theirs = (_split_of(record) for record in records if record is not None)
    for key in sorted(set(mine) | set(theirs)):
        if mine.get(key) != theirs.get(key):
            raise DataError(
                f"{first} and {second} were split differently ({key}: {mine.get(key)!r} and "
                f"{theirs.get(key)!r}), so that their test rows are not the same; prepare both with one "
                "split, or score the same rows with 'recsys predict' and compare the tables"
            )
    if _log_of(records[0]) != _log_of(records[1]):
        return [
            "the two datasets were made from different files; their test labels are the same row by row"
        ]
    return []


def _split_of(record: StageRecord) -> dict[str, Any]:
    found = {key: value for key, value in record.settings.items() if key.partition(".")[0] == "split"}
    return {"split.by": "files"} if found.get("split.by") == "files" else found


def _log_of(record: StageRecord) -> list[tuple[int, str]]:
    """Size and tail of every file of the log, wherever it lies; stages before are no log."""
    files = [found for path, found in record.inputs.items() if Path(path).is_absolute()]
    return sorted((found.size, found.tail) for found in files)


def _require_same(mine: Any, theirs: Any, names: Sequence[str], what: str) -> None:
    if len(mine) != len(theirs):
        raise DataError(
            f"{names[0]} has {len(mine):,} rows, {names[1]} {len(theirs):,}; runs are compared on the same "
            "test rows: prepare both with one split"
        )
    differ = np.flatnonzero(np.asarray(mine) != np.asarray(theirs))
    if len(differ):
        row = int(differ[0])
        raise DataError(
            f"{names[0]} and {names[1]}: the {what}s of {len(differ):,} of {len(mine):,} rows differ, the "
            f"first in row {row} ({mine[row]} and {theirs[row]}); runs are compared on the same test rows: "
            "prepare both with one split"
        )


def _settings_that_differ(first: Run, second: Run) -> list[str]:
    """One line of the settings in which two runs and their datasets differ."""
    datasets = first.dataset(), second.dataset()
    mine, theirs = (
        run.file.settings() | _roles(data) for run, data in zip((first, second), datasets, strict=True)
    )
    changed = [
        f"{key}: {mine.get(key)} → {theirs.get(key)}"
        for key in sorted({*mine, *theirs} - _WITHOUT_EFFECT)
        if mine.get(key) != theirs.get(key)
    ]
    changed += _features_that_differ(*datasets)
    if first.plan.fingerprint() != second.plan.fingerprint():
        changed.append("the plan")
    more = f" and {len(changed) - _MOST_SETTINGS} more" if len(changed) > _MOST_SETTINGS else ""
    listed = ", ".join(changed[:_MOST_SETTINGS]) + more
    return [f"A → B: {listed}" if listed else "A and B were trained with the same settings"]


def _roles(dataset: Dataset) -> dict[str, Any]:
    """Which columns have a role, by the keys of a run file."""
    schema = dataset.manifest.schema_
    return {f"data.{role}": getattr(schema, role) for role in ("label", "group", "weight", "timestamp")}


def _features_that_differ(first: Dataset, second: Dataset) -> list[str]:
    mine, theirs = ([one.name for one in each.manifest.features] for each in (first, second))
    lost = [name for name in mine if name not in theirs]
    new = [name for name in theirs if name not in mine]
    return [f"{word} {', '.join(names)}" for word, names in (("without", lost), ("with", new)) if names]


# --- tables --------------------------------------------------------------------------------------


class _Tables:
    """Two tables whose rows are to be matched."""

    def __init__(
        self,
        sources: tuple[Source, Source],
        label: str,
        scores: tuple[str, str],
        group: str | None,
        key: tuple[str, ...],
    ) -> None:
        self._sources, self._label, self._scores = sources, label, scores
        self._group, self._key = group, key

    def rows(self) -> Both:
        """Labels, both scores and groups of the first table's rows; raises DataError on a mismatch."""
        frames = [
            self._read(source, score) for source, score in zip(self._sources, self._scores, strict=True)
        ]
        labels, scores = [], []
        for frame, source, score in zip(frames, self._sources, self._scores, strict=True):
            labels.append(as_labels(frame[self._label], _origin(source, self._label)))
            scores.append(as_scores(frame[score], _origin(source, score)))
        place = self._places(*frames)
        other_label, other_score = (
            (labels[1], scores[1]) if place is None else (labels[1][place], scores[1][place])
        )
        self._require_alike(labels[0] != other_label, self._label, frames, place)
        groups = None
        if self._group is not None:
            theirs = frames[1][self._group] if place is None else frames[1][self._group].gather(place)
            self._require_alike(_differ(frames[0][self._group], theirs), self._group, frames, place)
            groups = as_groups(frames[0][self._group], _origin(self._sources[0], self._group))
        return Both(labels[0], scores[0], other_score, groups)

    def _read(self, source: Source, score: str) -> pl.DataFrame:
        named = [self._label, score, *([self._group] if self._group else []), *self._key]
        for name in named:
            require_column(name, source.columns, source.name)
        with reading(source):
            return source.lazy().select(list(dict.fromkeys(named))).collect()

    def _places(self, first: pl.DataFrame, second: pl.DataFrame) -> np.ndarray[Any, Any] | None:
        """Row of the second table for each row of the first, ``[N]``; None where it is the same row."""
        if not self._key:
            if len(first) != len(second):
                raise DataError(
                    f"{self._sources[0].name} has {len(first):,} rows, {self._sources[1].name} "
                    f"{len(second):,}; give tables of the same rows, or name the columns of a key"
                )
            return None
        keys = [frame.select(self._key) for frame in (first, second)]
        for name in self._key:
            types = [frame.schema[name] for frame in keys]
            if types[0] != types[1]:
                raise SchemaError(
                    f"key column {name!r} is {types[0]} in {self._sources[0].name} and {types[1]} in "
                    f"{self._sources[1].name}; write both with one type"
                )
        for frame, source in zip(keys, self._sources, strict=True):
            self._require_unique(frame, source)
        numbered = [frame.with_row_index(_ROW) for frame in keys]
        for mine, other in ((0, 1), (1, 0)):
            alone = numbered[mine].join(numbered[other], on=self._key, how="anti", nulls_equal=True)
            if len(alone):
                row = int(alone[_ROW].min())  # type: ignore[arg-type]
                raise DataError(
                    f"{self._sources[mine].locate(row)}: {self._shown(keys[mine], row)} is not in "
                    f"{self._sources[other].name}; so in {len(alone):,} rows: give tables of the same rows"
                )
        matched = numbered[0].join(
            numbered[1].rename({_ROW: _OTHER}), on=self._key, how="left", nulls_equal=True
        )
        return matched.sort(_ROW)[_OTHER].to_numpy()

    def _require_unique(self, keys: pl.DataFrame, source: Source) -> None:
        repeated = keys.with_row_index(_ROW).filter(~pl.struct(self._key).is_first_distinct())
        if len(repeated):
            row = int(repeated[_ROW][0])
            raise DataError(
                f"{source.locate(row)}: {self._shown(keys, row)} stands in an earlier row already; so in "
                f"{len(repeated):,} rows: name key columns that tell all rows apart"
            )

    def _require_alike(
        self,
        differ: np.ndarray[Any, Any],
        column: str,
        frames: list[pl.DataFrame],
        place: np.ndarray[Any, Any] | None,
    ) -> None:
        """Raise DataError that names the first row whose value is not the same in both tables."""
        if not differ.any():
            return
        row = int(differ.argmax())
        other = row if place is None else int(place[row])
        values = frames[0][column][row], frames[1][column][other]
        hint = "or name the columns of a key" if not self._key else "or mend one of them"
        raise DataError(
            f"{column!r} differs in {int(differ.sum()):,} of {len(differ):,} rows, first at "
            f"{self._sources[0].locate(row)} ({values[0]!r}) and {self._sources[1].locate(other)} "
            f"({values[1]!r}); give tables of the same rows, {hint}"
        )

    def _shown(self, keys: pl.DataFrame, row: int) -> str:
        return ", ".join(f"{name} {value!r}" for name, value in keys.row(row, named=True).items())


def _differ(mine: pl.Series, theirs: pl.Series) -> np.ndarray[Any, Any]:
    if mine.dtype != theirs.dtype:
        mine, theirs = mine.cast(pl.String), theirs.cast(pl.String)
    return mine.ne_missing(theirs).to_numpy()


def _origin(source: Source, column: str) -> Origin:
    return Origin(f"{source.name}: column {column!r}", source.locate)


def _scores(score: str | Sequence[str] | None) -> tuple[str, str]:
    named = _columns("score" if score is None else score)
    if len(named) not in (1, 2):
        raise ConfigError(f"score: {len(named)} columns; expected one for both tables, or one for each")
    return named[0], named[-1]


def _columns(names: str | Sequence[str] | None) -> tuple[str, ...]:
    return () if names is None else (names,) if isinstance(names, str) else tuple(names)


def _names(sources: tuple[Source, Source]) -> tuple[str, str]:
    first, second = (source.name for source in sources)
    return (first, second) if first != second else (f"{first} (first)", f"{second} (second)")


def _named(table: Data) -> str:
    return str(table) if isinstance(table, str | Path) else f"a {type(table).__name__}"
