"""Names, options, layouts: what is refused, and how it is said."""

from __future__ import annotations

import pytest
import torch

from recsys.config import RETRIEVAL_MODELS
from recsys.errors import ConfigError
from recsys.models import MODELS, RETRIEVERS, build_model, model_class, parse_options, table_dim
from recsys.models.autoint import AutoIntPlusConfig
from recsys.models.fields import FieldVectors
from recsys.models.initialise import initialise
from recsys.models.inputs import Inputs, Layout
from tests.models.made import layouts, make_inputs


def test_unknown_model_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"model.name: unknown model 'autint'; did you mean 'autoint'\?"):
        model_class("autint")


def test_all_faults_of_options_are_listed() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_options("dnn", {"hiden": [4], "dropout": 1.5})
    lines = str(caught.value).splitlines()
    assert "model.hiden: unknown option of dnn; did you mean 'hidden'?" in lines
    assert any(line.startswith("model.dropout: ") and line.endswith("(found 1.5)") for line in lines)


def test_options_of_a_run_file() -> None:
    config = parse_options("autoint_plus", {"hidden": [400, 400, 400], "heads": 4})
    assert isinstance(config, AutoIntPlusConfig)
    assert config.hidden == (400, 400, 400)
    assert config.heads == 4
    with pytest.raises(ConfigError, match="unknown option of autoint"):
        parse_options("autoint", {"hidden": [4]})
    with pytest.raises(ConfigError, match=r"model.hidden.1: .*greater than or equal to 1"):
        parse_options("dnn", {"hidden": [4, 0]})


@pytest.mark.parametrize("name", MODELS)
def test_every_option_is_documented(name: str) -> None:
    for key, field in model_class(name).Config.model_fields.items():
        assert field.description, f"{name}.{key}"


def test_only_lr_asks_for_narrow_tables() -> None:
    assert {name: table_dim(name, {}, 16) for name in MODELS} == {
        name: 1 if name == "lr" else 16 for name in MODELS
    }


@pytest.mark.parametrize("name", MODELS)
def test_a_layout_without_features_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"model '{name}': .*at least one feature"):
        build_model(name, {}, Layout({}), 1)


def test_numbers_and_missing_ones_have_vectors() -> None:
    layout = Layout({"item": 3}, ("age",))
    vectors = FieldVectors(layout)
    initialise(vectors, torch.Generator().manual_seed(1))
    numbers = vectors.numerics
    assert numbers is not None
    assert vectors.widths == (3, 3)
    torch.nn.init.constant_(numbers.offset, 0.25)
    inputs = Inputs(
        fields={"item": torch.zeros(3, 3)},
        numerics={"age": torch.tensor([2.0, 0.0, 0.0])},
        missing={"age": torch.tensor([0.0, 0.0, 1.0])},
    )
    found = vectors(inputs)[:, 3:]
    torch.testing.assert_close(found[0], 2 * numbers.slope[0] + 0.25)
    torch.testing.assert_close(found[1], numbers.offset[0])
    torch.testing.assert_close(found[2], numbers.missing[0])


def test_lr_is_a_sum_of_weights() -> None:
    layout = layouts("lr")["mixed"]
    model = build_model("lr", {}, layout, 1)
    inputs = make_inputs(layout, 6, 4)
    weights = model.numerics
    expected = torch.zeros(6)
    for field in inputs.fields.values():
        expected += field[:, 0]
    for name, sequence in inputs.sequences.items():
        expected += sequence.sum((1, 2)) / inputs.lengths[name].clamp(min=1)
    for column, name in enumerate(layout.numerics):
        expected += inputs.numerics[name] * weights[0, column] + inputs.missing[name] * weights[1, column]  # type: ignore[index]
    torch.testing.assert_close(model(inputs), expected)


def test_differing_widths_are_projected_only_where_they_differ() -> None:
    model = build_model("autoint", {}, Layout({"a": 4, "b": 4, "c": 6}, ("n",)), 1)
    assert list(model.attention.projections) == ["2"]  # type: ignore[union-attr, arg-type]


def test_the_run_file_knows_which_models_retrieve() -> None:
    assert set(RETRIEVERS) == set(RETRIEVAL_MODELS)
    assert not set(RETRIEVERS) & set(MODELS)
