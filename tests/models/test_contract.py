"""What every model must do; a new one is covered by its line in ``MODELS``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from recsys.models import MODELS, build_model, table_dim
from recsys.models.inputs import Inputs, Layout
from recsys.models.onnx_graph import export_onnx, flat_inputs, input_names
from tests.models.made import doubled, layouts, make_inputs, padded, take

LINEAR = {"lr"}
"""Models that cannot see two fields together, by design."""

every_model = pytest.mark.parametrize("name", MODELS)
every_layout = pytest.mark.parametrize("kind", ["mixed", "fields", "numbers", "history", "sequences"])


def built(name: str, kind: str = "mixed", seed: int = 7) -> tuple[nn.Module, Layout]:
    layout = layouts(name)[kind]
    return build_model(name, {}, layout, seed), layout


def used(name: str, kind: str = "mixed") -> tuple[nn.Module, Layout]:
    """A model whose running statistics are no longer the initial ones, in evaluation mode."""
    model, layout = built(name, kind)
    with torch.no_grad():
        for seed in range(3):
            model(make_inputs(layout, 64, 5, seed=100 + seed))
    return model.eval(), layout


@torch.no_grad()
def logits(model: nn.Module, inputs: Inputs) -> Tensor:
    scored: Tensor = model(inputs)
    return scored


@every_model
@every_layout
def test_each_row_is_scored_by_itself(name: str, kind: str) -> None:
    model, layout = used(name, kind)
    inputs = make_inputs(layout, 9, 5)
    together = logits(model, inputs)
    assert together.shape == (9,)
    assert together.dtype == torch.float32
    assert together.std() > 0
    # In double precision: the products of one row and of nine round differently.
    model, inputs = model.double(), doubled(inputs)
    together = logits(model, inputs)
    alone = torch.cat([logits(model, take(inputs, torch.tensor([row]))) for row in range(9)])
    torch.testing.assert_close(alone, together, rtol=1e-10, atol=1e-12)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(logits(model, take(inputs, order)), together[order], rtol=1e-10, atol=1e-12)


@every_model
def test_padding_changes_nothing(name: str) -> None:
    model, layout = used(name)
    inputs = make_inputs(layout, 9, 5)
    torch.testing.assert_close(
        logits(model, padded(inputs, 4)), logits(model, inputs), rtol=1e-5, atol=1e-6
    )


@every_model
@every_layout
@pytest.mark.parametrize(("rows", "longest"), [(0, 4), (3, 0), (0, 0), (1, 1)])
def test_without_rows_or_events(name: str, kind: str, rows: int, longest: int) -> None:
    model, layout = built(name, kind)
    inputs = make_inputs(layout, rows, longest)
    trained = model(inputs)
    assert trained.shape == (rows,)
    trained.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    scored = logits(model.eval(), inputs)
    assert scored.shape == (rows,)
    assert scored.isfinite().all()


@every_model
@every_layout
def test_gradient_reaches_everything(name: str, kind: str) -> None:
    model, layout = built(name, kind)
    inputs = make_inputs(layout, 64, 5)
    leaves = [tensor.requires_grad_() for tensor in (*inputs.fields.values(), *inputs.sequences.values())]
    (model(inputs) * torch.linspace(-1, 1, 64)).sum().backward()
    for part, parameter in model.named_parameters():
        assert parameter.grad is not None, part
        assert parameter.grad.abs().sum() > 0, part
    for leaf in leaves:
        assert leaf.grad is not None
        assert leaf.grad.abs().sum() > 0


@every_model
def test_state_dict_round_trip(name: str) -> None:
    model, layout = used(name)
    other = built(name, seed=8)[0].eval()
    inputs = make_inputs(layout, 9, 5)
    assert not torch.equal(logits(other, inputs), logits(model, inputs))
    other.load_state_dict(model.state_dict())
    assert torch.equal(logits(other, inputs), logits(model, inputs))


@every_model
def test_weights_follow_from_the_seed_alone(name: str) -> None:
    before = torch.random.get_rng_state()
    first = built(name)[0].state_dict()
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.rand(5)
    again, other = built(name)[0].state_dict(), built(name, seed=8)[0].state_dict()
    assert first.keys() == again.keys()
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)
    assert all(value.isfinite().all() for value in first.values())


@every_model
def test_bf16_is_near_fp32(name: str) -> None:
    model, layout = built(name)
    narrow = build_model(name, {}, layout, 7, precision="bf16")
    assert all(parameter.dtype == torch.float32 for parameter in narrow.parameters())
    inputs = make_inputs(layout, 64, 5)
    exact, rounded = model(inputs), narrow(inputs)
    assert rounded.dtype == torch.float32
    assert 0 <= (rounded - exact).std() < 0.03 * exact.std()
    rounded.sum().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in narrow.parameters())


def learn(name: str, *, xor: bool) -> float:
    """AUC on all combinations of two fields of 4 values, after training on them."""
    dim = table_dim(name, {}, 8)
    layout = Layout({"left": dim, "right": dim})
    model = build_model(name, {}, layout, 3)
    generator = torch.Generator().manual_seed(4)
    tables = [nn.Parameter(0.1 * torch.randn(4, dim, generator=generator)) for _ in range(2)]
    ids = torch.randint(0, 4, (256, 2), generator=generator)
    left, right = ids[:, 0] % 2, ids[:, 1] % 2
    label = ((left + right) % 2 if xor else left).float()
    optimiser = torch.optim.Adam([*model.parameters(), *tables], lr=0.01)
    for _ in range(80):
        inputs = Inputs(fields={"left": tables[0][ids[:, 0]], "right": tables[1][ids[:, 1]]})
        loss = nn.functional.binary_cross_entropy_with_logits(model(inputs), label)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return float(roc_auc_score(label, logits(model.eval(), inputs)))


@every_model
def test_learns_a_main_effect(name: str) -> None:
    assert learn(name, xor=False) > 0.999


@every_model
def test_learns_two_fields_together(name: str) -> None:
    auc = learn(name, xor=True)
    assert auc < 0.7 if name in LINEAR else auc > 0.999


@every_model
def test_onnx_graph_scores_the_same(name: str, tmp_path: Path) -> None:
    model, layout = used(name)
    path = tmp_path / "dense.onnx"
    export_onnx(model.train(), layout, path)
    assert model.training
    model.eval()
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert [node.name for node in session.get_inputs()] == input_names(layout)
    assert [node.name for node in session.get_outputs()] == ["logit"]
    for rows, longest in [(9, 5), (2, 11), (1, 1), (0, 4), (3, 0), (0, 0)]:
        inputs = make_inputs(layout, rows, longest)
        tensors = zip(input_names(layout), flat_inputs(inputs, layout), strict=True)
        found = session.run(["logit"], {key: tensor.numpy() for key, tensor in tensors})[0]
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, logits(model, inputs).numpy(), rtol=0, atol=1e-5)
    assert str(Path(__file__).parents[2]).encode() not in path.read_bytes()
