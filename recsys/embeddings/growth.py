"""A plan enlarged to later data, such that what was learnt under it can be carried over.

What an earlier plan says of a vocabulary stays: its mode, its lookups, the width of its vectors, and, where
its rows are hashed, the number of rows of its table, so that no value moves. A vocabulary with a row per
value gets a row for each value that is there now. Vocabularies that the earlier plan does not know are
planned as the settings say, within a budget that bounds nothing else.
"""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import ValidationError

from recsys.data.dataset import Dataset
from recsys.embeddings.dealing import dealt
from recsys.embeddings.plan import Plan, TablePlan, VocabularyPlan
from recsys.errors import PlanError
from recsys.stage import load_record


def earlier_file(path: Path) -> Path:
    """The file that an earlier plan stands in: ``plan.json``, or a run's ``run.json``.

    Raises PlanError where there is none.
    """
    found = [path] if path.is_file() else [path / name for name in ("run.json", "plan.json")]
    for each in found:
        if each.is_file():
            return each
    raise PlanError(f"plan.grow: {path}: no run folder, plan folder or plan.json")


def earlier_plan(path: Path) -> Plan:
    """The plan of an earlier run, of its folder, or of a plan; raises PlanError that names the file."""
    file = earlier_file(path)
    if file.name != "run.json":
        return Plan.load(file)
    try:
        return Plan.model_validate(json.loads(file.read_text(encoding="utf-8"))["plan"])
    except (ValueError, KeyError, ValidationError) as error:
        raise PlanError(f"{file}: holds no valid plan: {error}") from error


def grown(earlier: Plan, dataset: Dataset, fresh: Plan) -> Plan:
    """The earlier plan with the values of a dataset.

    Args:
        earlier: the plan that a model was trained with.
        dataset: later data.
        fresh: a plan of the vocabularies that the earlier one does not know, or of all.

    Raises:
        PlanError: a vocabulary that is new here would have a table that is another's in the earlier plan;
            or unseen values are hashed, and rare ones are unseen here.
    """
    tables: dict[str, TablePlan] = {}
    vocabularies: dict[str, VocabularyPlan] = {}
    for name, info in dataset.manifest.vocabularies.items():
        planned = earlier.vocabularies.get(name)
        if planned is None:
            planned = _dealt_as_before(fresh.vocabularies[name], earlier, name)
            _add_new(planned, earlier, fresh, tables, name)
        elif planned.mode in ("adaptive", "quotient"):
            raise PlanError(
                f"plan.grow: vocabulary {name!r}: mode {planned.mode} numbers its values, which "
                "later data changes; plan afresh, or take mode full, hash or unified for plans that grow"
            )
        elif planned.mode == "full":
            tables[planned.table] = earlier.tables[planned.table].model_copy(update={"rows": info.size})
        else:
            tables[planned.table] = earlier.tables[planned.table]
        if planned.unseen == "hash":
            require_known(dataset, f"plan.grow: vocabulary {name!r}: unseen: hash", "plan afresh")
        vocabularies[name] = planned.model_copy(update={"size": info.size})
    features = {f.name: f.vocabulary for f in dataset.features if f.vocabulary is not None}
    return Plan(tables=tables, vocabularies=vocabularies, features=features)


def least_count(dataset: Dataset) -> int:
    """Train rows that a value has at least, or it counts as unseen (``prepare.min_count``)."""
    record = load_record(dataset.folder)
    settings = {} if record is None else record.settings
    return int(settings.get("min_count", settings.get("prepare.min_count", 1)))  # alone, or in a chain


def require_known(dataset: Dataset, hashing: str, instead: str) -> None:
    """Raise PlanError where ``prepare`` made rare values unseen.

    ``hashing`` names what hashes unseen values, ``instead`` what else to do.
    """
    least = least_count(dataset)
    if least > 1:
        raise PlanError(
            f"{hashing} needs every value of the train rows to be known, but {dataset.folder} was prepared "
            f"with min_count {least}; {instead}, or prepare it with min_count 1"
        )


def shared_table(earlier: Plan, name: str) -> TablePlan | None:
    """The table of that name, where vocabularies of the earlier plan share it."""
    shared = any(info.table == name and info.mode == "unified" for info in earlier.vocabularies.values())
    return earlier.tables[name] if shared else None


def _dealt_as_before(planned: VocabularyPlan, earlier: Plan, name: str) -> VocabularyPlan:
    """A new vocabulary, whose lookups go to the sub-tables that the earlier plan's shared table has."""
    if planned.mode != "unified" or planned.table not in earlier.tables:
        return planned
    readers = {other: info for other, info in earlier.vocabularies.items() if info.table == planned.table}
    alone = planned.model_copy(update={"parts": 1, "dealt": ()})
    return dealt({name: alone}, earlier.parts_of(planned.table), readers)[name]


def _add_new(
    planned: VocabularyPlan, earlier: Plan, fresh: Plan, tables: dict[str, TablePlan], name: str
) -> None:
    """Add the table of a vocabulary that the earlier plan does not know."""
    mine, theirs = fresh.tables[planned.table], earlier.tables.get(planned.table)
    if theirs is None:
        tables[planned.table] = mine
    elif planned.mode == "unified" and mine.dim == theirs.dim:
        tables[planned.table] = theirs
    else:
        raise PlanError(
            f"vocabulary {name!r} is new here, and its table {planned.table!r} ({mine.dim} wide) is "
            f"another in the earlier plan ({theirs.dim} wide); set plan.tables.{name}.mode, or name the "
            "column's vocabulary otherwise in the schema"
        )
