"""GELU, and its gradient together with what the gradient's neighbours need."""

import torch
from torch import Tensor

_gelu = torch.ops.aten.gelu.out
_gelu_backward = torch.ops.aten.gelu_backward.grad_input


def forward(before: Tensor, out: Tensor) -> None:
    """GELU of ``before`` into ``out``, which may be ``before`` itself."""
    _gelu(before, out=out)


def backward_(before: Tensor, wide: Tensor, inner: Tensor) -> Tensor:
    """GELU again and its gradient: of ``before`` into ``wide``, and ``inner``, the
    gradient of GELU's output, becomes that of its input.

    Shapes: all three (M, C).

    Returns:
        the sum of the new ``inner`` over its rows, (C), in fp32 or wider.
    """
    forward(before, wide)
    return gradient_(before, inner)


def gradient_(before: Tensor, inner: Tensor) -> Tensor:
    """As ``backward_``, where GELU itself is there already."""
    _gelu_backward(inner, before, grad_input=inner)
    return inner.sum(0, dtype=torch.promote_types(inner.dtype, torch.float32))
