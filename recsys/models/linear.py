"""Matrix products of the dense part, and the layer made of one.

Two things make them fast on CPU. In float32 they go through oneDNN: torch itself takes MKL, which
does not use AVX-512 on AMD (measured on one, 2 cores: 430 GFLOP/s against 195; [4096, 400] by
[400, 400]). And ``bf16`` rounds the operands, not the weights that learn (800 GFLOP/s there).
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from recsys.models.initialise import xavier_normal

Precision = Literal["fp32", "bf16"]
_SMALLEST = 1 << 15
"""Elements of the input below which oneDNN's set-up costs more than it saves."""
_NARROWEST = 8
_IMAGES = 16
"""With one thread, torch leaves convolutions to oneDNN only from this many images on."""


class Linear(nn.Module):
    """``x W^T + b``: ``[..., inputs]`` to ``[..., outputs]``; Xavier-normal weights, zero bias.

    With ``relu``, negative results become 0. A single output stays float32 whatever the precision: it
    costs nothing, and it is a logit or a score.
    """

    precision: Precision = "fp32"

    def __init__(self, inputs: int, outputs: int, *, bias: bool = True, relu: bool = False) -> None:
        super().__init__()
        self.relu = relu
        self.weight = nn.Parameter(torch.empty(outputs, inputs))
        self.bias = nn.Parameter(torch.empty(outputs)) if bias else None

    def initialise(self, generator: torch.Generator) -> None:
        """Draw the weights."""
        xavier_normal(self.weight, generator)
        if self.bias is not None:
            self.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        """float32 ``[..., inputs]`` to float32 ``[..., outputs]``."""
        precision = "fp32" if self.weight.shape[0] == 1 else self.precision
        return product(x, self.weight, self.bias, precision, relu=self.relu)

    def extra_repr(self) -> str:
        """What ``print`` shows."""
        outputs, inputs = self.weight.shape
        options = f"bias={self.bias is not None}, relu={self.relu}, precision={self.precision}"
        return f"{inputs}, {outputs}, {options}"


def set_precision(model: nn.Module, precision: Precision) -> None:
    """Compute all matrix products of a model in ``fp32`` or ``bf16``; weights stay float32."""
    for part in model.modules():
        if hasattr(part, "precision"):
            part.precision = precision  # type: ignore[assignment]


def product(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    precision: Precision = "fp32",
    *,
    relu: bool = False,
) -> Tensor:
    """``x W^T + b`` for ``x [..., inputs]``, ``weight [outputs, inputs]``; float32 out."""
    if precision == "bf16" and not torch.compiler.is_exporting():
        narrow = None if bias is None else bias.bfloat16()
        result = functional.linear(x.bfloat16(), weight.bfloat16(), narrow).float()
    elif _is_for_onednn(x, weight):
        rows = x.reshape(-1, x.shape[-1])
        made: Tensor = _OneDnn.apply(rows, weight, bias, relu)  # type: ignore[no-untyped-call]
        return made.view(*x.shape[:-1], weight.shape[0])
    else:
        result = functional.linear(x, weight, bias)
    return torch.relu(result) if relu else result


class _OneDnn(torch.autograd.Function):
    """``x W^T + b``, then perhaps ReLU, by oneDNN forward and backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, relu: bool) -> Tensor:
        result = _multiplied(x, weight, bias, relu)
        ctx.save_for_backward(x, weight, *([result] if relu else []))
        ctx.biased = bias is not None
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, *result = ctx.saved_tensors
        if result:
            gradient = torch.ops.aten.threshold_backward(gradient, result[0], 0)
        by_x = product(gradient, weight.t()) if ctx.needs_input_grad[0] else None
        by_weight = weight_gradient(gradient, x) if ctx.needs_input_grad[1] else None
        return by_x, by_weight, gradient.sum(0) if ctx.biased else None, None


def _multiplied(x: Tensor, weight: Tensor, bias: Tensor | None, relu: bool) -> Tensor:
    then = "relu" if relu else "none"
    result: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, then, [], "")
    return result


def weight_gradient(gradient: Tensor, x: Tensor, precision: Precision = "fp32") -> Tensor:
    """``G^T X`` for ``gradient [N, outputs]`` and ``x [N, inputs]``: ``[outputs, inputs]``.

    In float32 as the weight gradient of a 1 x 1 convolution: oneDNN's fastest way to this product.
    """
    if precision == "bf16":
        return (gradient.bfloat16().t() @ x.bfloat16()).float()
    kernel = gradient.new_empty(gradient.shape[1], x.shape[1])
    if not _is_for_onednn(x, kernel):
        return gradient.t() @ x
    pixels = torch.ops.aten.convolution_backward(
        _as_pixels(gradient),
        _as_pixels(x),
        _as_kernel(kernel),  # only its shape is read
        None,
        [1, 1],
        [0, 0],
        [1, 1],
        False,
        [0, 0],
        1,
        [False, True, False],
    )[1]
    return pixels.view(kernel.shape)  # type: ignore[no-any-return]


def _is_for_onednn(x: Tensor, weight: Tensor) -> bool:
    """Whether oneDNN takes the product, and takes less time for it."""
    return (
        not torch.compiler.is_exporting()
        and x.device.type == "cpu"
        and x.dtype == torch.float32
        and x.numel() >= _SMALLEST
        and min(weight.shape) >= _NARROWEST
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    )


def _as_pixels(rows: Tensor) -> Tensor:
    """View contiguous ``[N, C]`` as images whose pixels are the rows: ``[images, C, N / images, 1]``."""
    count, channels = rows.shape
    images = _IMAGES if count % _IMAGES == 0 else 1
    return rows.contiguous().view(images, count // images, 1, channels).permute(0, 3, 1, 2)


def _as_kernel(weight: Tensor) -> Tensor:
    """View ``[outputs, inputs]`` as the kernel of a 1 x 1 convolution."""
    return weight.view(*weight.shape, 1, 1)
