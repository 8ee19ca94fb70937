"""The schema file: what it accepts, refuses, and gives back."""

from __future__ import annotations

from pathlib import Path

import pytest

from recsys.errors import SchemaError
from recsys.schema import Column, ColumnFacts, Schema


def full_schema() -> Schema:
    return Schema(
        columns={
            "clicked": Column(kind="numeric", type="int64", roles=("label",)),
            "user_id": Column(kind="categorical", type="int64", roles=("feature", "group"), side="user"),
            "item": Column(kind="categorical", type="string", side="item"),
            "history": Column(kind="sequence", type="string", vocabulary="item", max_length=50),
            "seconds": Column(kind="sequence", type="int64", aligned_with="history"),
            "price": Column(
                kind="numeric",
                type="float64",
                transform="log",
                facts=ColumnFacts(distinct=3, missing=0.25, minimum=0.5, maximum=9.0),
            ),
            "at": Column(kind="numeric", type="datetime", roles=("timestamp",)),
            "note": Column(kind="categorical", type="string", roles=()),
        },
        rows=4,
    )


def test_a_schema_survives_its_file(tmp_path: Path) -> None:
    schema = full_schema()
    schema.save(tmp_path / "schema.yaml")
    again = Schema.load(tmp_path / "schema.yaml")
    assert again == schema
    assert list(again.columns) == list(schema.columns)


def test_roles_and_features() -> None:
    schema = full_schema()
    assert (schema.label, schema.group, schema.timestamp, schema.weight) == (
        "clicked",
        "user_id",
        "at",
        None,
    )
    assert list(schema.features) == ["user_id", "item", "history", "seconds", "price"]
    assert schema.vocabulary_of("history") == "item"
    assert schema.vocabulary_of("item") == "item"


def test_keep_takes_the_feature_role_from_the_others_only() -> None:
    kept = full_schema().keep(["price"])
    assert list(kept.features) == ["price"]
    assert kept.group == "user_id"
    assert kept.label == "clicked"


def test_unknown_columns_name_the_nearest() -> None:
    with pytest.raises(SchemaError, match="did you mean 'history'"):
        full_schema().column("histroy")
    with pytest.raises(SchemaError, match="did you mean 'price'"):
        full_schema().keep(["prize"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("columns: {a: {kind: categorical}}", r"columns\.a\.type: Field required"),
        ("columns: {a: {kind: cat, type: int64}}", r"columns\.a\.kind"),
        ("columns: {a: {kind: numeric, type: string}}", "cannot be of type string"),
        ("columns: {a: {kind: numeric, type: int64, vocabulary: b}}", "has no vocabulary"),
        ("columns: {a: {kind: categorical, type: int64, max_length: 3}}", "max_length is for multi"),
        ("columns: {a: {kind: multi, type: int64, aligned_with: a}}", "aligned_with is for sequence"),
        ("columns: {a: {kind: sequence, type: int64, aligned_with: b}}", "'b' is not a sequence here"),
        (
            "columns: {a: {kind: numeric, type: int64, roles: [label]}, b: {kind: numeric, type: int64, "
            "roles: [label]}}",
            "one column at most has the role 'label'",
        ),
        ("columns: {a: {kind: numeric, type: int64, size: 3}}", r"columns\.a\.size"),
        ("[1, 2]", "expected a mapping"),
        ("columns: {a: [", "not valid YAML"),
    ],
)
def test_faults_name_the_file_and_the_key(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "schema.yaml"
    path.write_text(text)
    with pytest.raises(SchemaError, match=message) as caught:
        Schema.load(path)
    assert str(path) in str(caught.value)


def test_a_missing_file_says_which_verb_writes_it(tmp_path: Path) -> None:
    with pytest.raises(
        SchemaError, match=r"absent\.yaml: no such schema file; write one with 'recsys infer'"
    ):
        Schema.load(tmp_path / "absent.yaml")
